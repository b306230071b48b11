"""Pruning: what nobody needs goes; what somebody uses or may use stays."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from grym_fetch.core.checked_lines import encode_line
from grym_fetch.core.digest import Checksum
from grym_fetch.core.piece_digests import PieceSums
from grym_fetch.disk.locks import FileLock
from grym_fetch.disk.owner import Owner
from grym_fetch.disk.piece_sums import PieceSumsStore, sums_name
from grym_fetch.disk.prune import prune, remove_leftovers
from grym_fetch.disk.rollback import RollbackGuard
from grym_fetch.disk.stage import StageKey
from grym_fetch.disk.state import StateFolder
from grym_fetch.disk.verified import FileSignature, VerifiedCache
from tests.support.mounts import overlaid
from tests.support.project import OWN
from tests.support.system import dead_owner

KEY = StageKey("models/a.bin", "sha256:a")
WANTED = {(KEY.path_key, KEY.content_key): "a"}
CHECKSUM = Checksum.of(b"content")
OTHER = Checksum.of(b"other content")


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    (tmp_path / OWN / "stage").mkdir(parents=True)
    (tmp_path / ".grym-fetch" / "locks").mkdir()
    return tmp_path


@pytest.fixture
def living() -> Iterator[Owner]:
    """Another process that is running."""
    program = (
        "import sys; from grym_fetch.disk.owner import Owner; print(Owner.this().encode(), flush=True); "
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        owner = Owner.parse(process.stdout.readline().strip())
        assert owner is not None
        yield owner
        process.kill()


def stage(assets: Path, owner: Owner, key: StageKey = KEY, nonce: str = "00000000") -> Path:
    """A stage with some bytes in it."""
    folder = assets / OWN / "stage" / f"{key.path_key}.{key.content_key}.{owner.encode()}.{nonce}"
    folder.mkdir()
    (folder / "part").write_bytes(b"x" * 100_000)
    (folder / "journal").write_bytes(b"j")
    return folder


def lock_path(assets: Path) -> Path:
    return assets / ".grym-fetch" / "locks" / f"{KEY.path_key}.lock"


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.shows("X8")
def test_a_dead_owners_stage_goes(assets: Path, dry_run: bool) -> None:
    """What an ended process left is removed and counted; a dry run only counts, and creates no file."""
    wanted = stage(assets, dead_owner())
    other = stage(assets, dead_owner(), StageKey("models/a.bin", "sha256:older"))
    before = sorted(assets.rglob("*"))
    report = prune(assets, WANTED, dry_run=dry_run)
    assert {(item.asset, item.reason) for item in report.removed} == {
        ("a", "an interrupted download"),
        (None, "no longer in the manifest"),
    }
    assert report.bytes >= 200_000
    assert wanted.exists() is other.exists() is dry_run
    assert (sorted(assets.rglob("*")) == before) is dry_run
    assert not lock_path(assets).exists()


@pytest.mark.parametrize("dry_run", [True, False])
def test_the_lock_of_a_removed_stage_is_told(assets: Path, dry_run: bool) -> None:
    """What goes together with something else is told, too, so a dry run says what the real one does."""
    stage(assets, dead_owner())
    lock_path(assets).write_text("a dead holder's")
    assert [item.kind for item in prune(assets, WANTED, dry_run=dry_run).removed] == ["download", "lock"]
    assert lock_path(assets).exists() is dry_run


@pytest.mark.root
@pytest.mark.shows("D23")
def test_a_stage_in_a_lower_layer_goes(tmp_path: Path) -> None:
    """A folder of a container's image cannot be renamed, but its contents can be removed."""
    lower = tmp_path / "lower"
    (lower / OWN / "stage").mkdir(parents=True)
    name = stage(lower, dead_owner()).name
    with overlaid(lower, tmp_path / "merged") as assets:
        report = prune(assets, WANTED, dry_run=False)
        assert [item.name for item in report.removed if item.kind == "download"] == [name]
        assert list((assets / OWN / "stage").iterdir()) == []


@pytest.mark.shows("X8")
def test_a_living_owners_stage_stays(assets: Path, living: Owner) -> None:
    """The stage of a running process stays, whether or not the manifest still names its content."""
    left = [stage(assets, living), stage(assets, living, StageKey("b", "gone")), stage(assets, Owner.this())]
    report = prune(assets, WANTED, dry_run=False)
    assert all(folder.exists() for folder in left)
    assert report.in_use == 3
    assert not report.removed


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.shows("X8")
def test_a_held_lock_keeps_everything(assets: Path, dry_run: bool) -> None:
    """While somebody holds the asset's lock, neither the lock file nor any stage is touched."""
    folder = stage(assets, dead_owner())
    lock = FileLock(StateFolder(assets).open_locks, lock_path(assets).name)
    assert lock.try_acquire()
    report = prune(assets, WANTED, dry_run=dry_run)
    assert folder.exists()
    assert lock_path(assets).exists()
    assert report.in_use == 1
    assert not report.removed
    lock.release()


def test_a_stage_from_before_the_last_boot_goes_if_locks_work(assets: Path) -> None:
    """An owner that cannot be asked is believed to be gone only because we hold the lock."""
    folder = stage(assets, Owner(1, "1", "0123456789abcdef", Owner.this().host))
    assert prune(assets, WANTED, dry_run=False).removed
    assert not folder.exists()


def test_another_machines_stage_stays_while_it_is_written_to(assets: Path) -> None:
    """Our lock may not be visible on the other machine."""
    folder = stage(assets, Owner(1, "1", "0123456789abcdef", "0123abcd"))
    assert not prune(assets, WANTED, dry_run=False).removed
    for path in (folder, *folder.iterdir()):
        os.utime(path, (1, 1))
    assert prune(assets, WANTED, dry_run=False).removed
    assert not folder.exists()


@pytest.mark.posix
def test_without_locks_only_the_dead_are_cleared_away(assets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where locks exclude nobody, a stage whose owner cannot be asked stays."""
    monkeypatch.setattr(fcntl, "flock", lambda descriptor, operation: None)
    gone = stage(assets, dead_owner())
    left = stage(assets, Owner(1, "1", "0123456789abcdef", Owner.this().host))
    report = prune(assets, WANTED, dry_run=False)
    assert not gone.exists()
    assert left.exists()
    assert report.in_use == 1


@pytest.mark.parametrize("dry_run", [True, False])
def test_unused_locks_go(assets: Path, dry_run: bool) -> None:
    """A lock file that nobody holds is removed; files that are not ours stay."""
    unused = lock_path(assets)
    unused.write_bytes(b"{}")
    foreign = unused.with_name("notes.txt")
    foreign.write_bytes(b"mine")
    report = prune(assets, {}, dry_run=dry_run)
    assert [item.kind for item in report.removed] == ["lock"]
    assert unused.exists() is dry_run
    assert foreign.exists()


@pytest.mark.posix
def test_foreign_names_and_symlinks_stay(assets: Path, tmp_path: Path) -> None:
    """Anything that does not look like ours, or leads elsewhere, stays untouched."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"mine")
    root = assets / OWN / "stage"
    (root / "mine").mkdir()
    (root / f"{KEY.path_key}.{KEY.content_key}.{dead_owner().encode()}.00000001").symlink_to(outside)
    assert not prune(assets, WANTED, dry_run=False).removed
    assert (outside / "file").exists()
    assert len(os.listdir(root)) == 2


@pytest.mark.parametrize("dry_run", [True, False])
def test_stale_entries_go(assets: Path, dry_run: bool) -> None:
    """Entries for files that have changed or gone are dropped; valid ones are kept and still work."""
    log = assets / OWN / "verified.log"
    files = {name: assets / name for name in ("good", "changed", "gone")}
    cache = VerifiedCache(StateFolder(assets))
    for file in files.values():
        file.write_bytes(b"content")
        cache.record(file, CHECKSUM, FileSignature.of(file.stat()))
    files["changed"].write_bytes(b"other content")
    files["gone"].unlink()
    before = log.read_bytes()
    report = prune(assets, {}, dry_run=dry_run)
    assert [(item.kind, item.reason[:6]) for item in report.removed] == [("verified", "2 of 3")]
    assert (log.read_bytes() == before) is dry_run
    assert len(log.read_bytes()) == len(before) - (0 if dry_run else report.bytes)
    assert VerifiedCache(StateFolder(assets)).is_verified(files["good"], CHECKSUM)
    if not dry_run:
        assert not prune(assets, {}, dry_run=False).removed


@pytest.mark.parametrize("dry_run", [True, False])
def test_sums_of_contents_that_nobody_wants_go(assets: Path, dry_run: bool) -> None:
    """The sums of an asset's content stay, those of an earlier content go, and every other file stays."""
    sums = PieceSumsStore(StateFolder(assets))
    for checksum in (CHECKSUM, OTHER):
        sums.record(checksum, 2, PieceSums(1, ("a", "b")))
    (assets / OWN / "pieces" / "mine").write_bytes(b"mine")
    removed = prune(assets, {(KEY.path_key, sums_name(CHECKSUM)): "a"}, dry_run=dry_run).removed
    assert [(item.kind, item.name) for item in removed] == [("pieces", sums_name(OTHER))]
    assert sums.find(CHECKSUM) is not None
    assert (sums.find(OTHER) is None) is not dry_run
    assert (assets / OWN / "pieces" / "mine").exists()


@pytest.mark.parametrize("others", [{sums_name(OTHER)}, None])
def test_sums_of_what_another_manifest_lists_stay(assets: Path, others: set[str] | None) -> None:
    """And all of them, while nobody can tell what another one lists."""
    sums = PieceSumsStore(StateFolder(assets))
    sums.record(OTHER, 2, PieceSums(1, ("a", "b")))
    assert not prune(assets, {}, dry_run=False, also_listed=lambda: others).removed
    assert sums.find(OTHER) is not None


def test_an_assets_folder_that_is_not_there(tmp_path: Path) -> None:
    """Where nothing was ever fetched, there is nothing to prune, and nothing is created."""
    assert not prune(tmp_path / "assets", {}, dry_run=False).removed
    assert not (tmp_path / "assets").exists()


def test_leftovers_of_what_is_in_place(assets: Path, living: Owner) -> None:
    """What dead processes left of these places goes, whatever its content; nothing else does."""
    other_key = StageKey("models/b.bin", "sha256:b")
    gone = [
        stage(assets, dead_owner()),
        stage(assets, dead_owner(), StageKey(KEY.local_path, "sha256:older"), "00000001"),
    ]
    kept = [stage(assets, living, nonce="00000002"), stage(assets, dead_owner(), other_key)]
    remove_leftovers(assets, [KEY.local_path, "models/c.bin"])
    assert not any(folder.exists() for folder in gone)
    assert all(folder.exists() for folder in kept)
    remove_leftovers(assets / "nowhere", [KEY.local_path])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own state folder."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def project_of(home: Path, name: str) -> tuple[Path, StateFolder]:
    """A project with files in the user's state folder."""
    tmp_path = home.parent
    root = tmp_path / name
    root.mkdir()
    RollbackGuard(root / "assets", root / "assets.json").write("7")
    state = StateFolder(root / "assets")
    assert state.elsewhere.is_dir()
    return root, state


def test_a_project_that_is_gone_goes(home: Path, assets: Path) -> None:
    """Of two projects, the one whose folder was removed is forgotten; a dry run names it and changes nothing."""
    gone, state = project_of(home, "gone")
    _, kept = project_of(home, "kept")
    shutil.rmtree(gone)
    for dry_run in (True, False):
        (removed,) = prune(assets, {}, dry_run=dry_run).removed
        assert (removed.kind, removed.name) == ("project", state.elsewhere.name)
        assert removed.bytes > 0
        assert state.elsewhere.exists() == dry_run
    assert RollbackGuard(kept.assets_dir, kept.assets_dir.parent / "assets.json").read() == "7"


@pytest.mark.shows("S16")
def test_a_project_without_an_assets_folder_stays(home: Path, assets: Path) -> None:
    """All its files may be elsewhere."""
    project_of(home, "kept")
    assert prune(assets, {}, dry_run=False).removed == ()


@pytest.mark.parametrize("place", [None, b"damaged"], ids=["not named", "damaged"])
def test_what_nobody_can_place_stays(home: Path, assets: Path, place: bytes | None) -> None:
    """An earlier version did not record whose it is."""
    gone, state = project_of(home, "gone")
    shutil.rmtree(gone)
    note = state.elsewhere / "assets-folder"
    note.unlink() if place is None else note.write_bytes(place)
    assert prune(assets, {}, dry_run=False).removed == ()


@pytest.mark.shows("S16")
def test_a_disk_that_is_not_mounted_is_not_gone(home: Path, assets: Path) -> None:
    """What remains of the path is on a different device from the project's."""
    gone, state = project_of(home, "gone")
    place = gone / "assets"
    (state.elsewhere / "assets-folder").write_bytes(encode_line([str(place), os.stat(gone).st_dev + 1]))
    shutil.rmtree(gone)
    assert prune(assets, {}, dry_run=False).removed == ()
