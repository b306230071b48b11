"""Folders in which several users work: a team shares one, a stranger gains nothing, and nobody is held up."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from grym_fetch.archive.tree import TreeStore
from grym_fetch.core.checked_lines import encode_line
from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import GrymFetchError, NotWritable, StorageError, UnsafePath
from grym_fetch.disk import state as state_module
from grym_fetch.disk.assets_folder import AssetsFolder
from grym_fetch.disk.folders import close_each, open_folder, opened_folder
from grym_fetch.disk.local_files import hash_file
from grym_fetch.disk.moved_files import read_document
from grym_fetch.disk.prune import prune
from grym_fetch.disk.rollback import RollbackGuard
from grym_fetch.disk.sharing import OpenFile
from grym_fetch.disk.stage import StageKey
from grym_fetch.disk.state import StateFolder, is_of_gone_project, open_state, read_state, state_home, state_lines
from grym_fetch.disk.verified import FileSignature, VerifiedCache, VerifiedFile, replace_log
from tests.support.other_user import ANNA, BERT, TEAM, as_user, needs_root
from tests.support.system import descriptors, folder_descriptor
from tests.support.system_calls import failing, flags_of_open

CONTENT = b"weights" * 1000
CHECKSUM = Checksum.of(CONTENT)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder set up for a team to write to: its own group, setgid, group-writable."""
    above = Path(tempfile.mkdtemp(dir="/tmp", prefix="shared-"))
    above.chmod(0o755)
    assets = above / "assets"
    assets.mkdir()
    os.chown(assets, ANNA, TEAM)
    assets.chmod(0o2775)
    yield assets
    shutil.rmtree(above)


def put(assets: Path, local_path: str, content: bytes = CONTENT) -> FileSignature | None:
    """Put a file in place as a download does."""

    async def work() -> FileSignature | None:
        assets_folder = AssetsFolder(assets, threads=1)
        try:
            await assets_folder.prepare()
            key = StageKey(local_path, str(Checksum.of(content)))
            lock = assets_folder.lock(key)
            assert lock.try_acquire()
            stage = await assets_folder.open_stage(key, exclusive=lock.is_trustworthy)
            await stage.write(0, content, 0)
            await stage.publish(len(content))
            lock.release()
            return stage.published
        finally:
            assets_folder.close()

    return asyncio.run(work())


def caught(act: Callable[[], object]) -> str:
    """The class and the text of the error that this raises."""
    try:
        act()
    except GrymFetchError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


# -- the team ---------------------------------------------------------------------------------------------------------


@pytest.mark.posix
@needs_root
@pytest.mark.shows("S20")
@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_two_users_share_one_folder(shared: Path, umask: int) -> None:
    """Both fetch into it, whatever their umask; each has a private folder for stages, and only the locks are shared."""
    for user, name in ((ANNA, "a.bin"), (BERT, "b.bin")):
        assert as_user(user, lambda name=name: put(shared, name) is not None, umask=umask)  # type: ignore[misc]
    state = shared / ".grym-fetch"
    assert stat.S_IMODE(state.stat().st_mode) == 0o3775
    assert stat.S_IMODE((state / "locks").stat().st_mode) == 0o3775
    for user in (ANNA, BERT):
        own = (state / f"user-{user}").stat()
        assert (own.st_uid, stat.S_IMODE(own.st_mode) & 0o777) == (user, 0o700)


@pytest.mark.posix
@needs_root
def test_a_lock_excludes_another_user_and_outlives_nobody(shared: Path) -> None:
    """A lock file that one user left behind, written under a narrow umask, can be taken by the other."""
    key = StageKey("a.bin", "x")

    def hold() -> bool:
        assets_folder = AssetsFolder(shared)
        assets_folder._prepare()
        return assets_folder.lock(key).try_acquire()  # and die with it

    assert as_user(ANNA, hold, umask=0o077)
    assert list((shared / ".grym-fetch" / "locks").iterdir())
    assert as_user(BERT, hold)
    (shared / ".grym-fetch" / "locks" / f"{key.path_key}.lock").chmod(0o644)
    assert as_user(BERT, hold), "a file that may only be read can be locked all the same"


@pytest.mark.posix
@needs_root
@pytest.mark.shows("S20")
@pytest.mark.parametrize("mode", [0o700, 0o777], ids=oct)
def test_nobody_believes_what_another_has_verified(shared: Path, mode: int) -> None:
    """A log that another user put in place of one's own proves nothing, and is not written to."""
    (shared / "a.bin").write_bytes(b"evil")

    def forge() -> None:
        cache = VerifiedCache(StateFolder(shared))
        cache.record(shared / "a.bin", CHECKSUM, FileSignature.of((shared / "a.bin").stat()))
        (shared / ".grym-fetch" / f"user-{ANNA}").chmod(mode)
        (shared / ".grym-fetch" / f"user-{ANNA}").rename(shared / ".grym-fetch" / f"user-{BERT}")

    def believe() -> tuple[bool, str]:
        cache = VerifiedCache(StateFolder(shared))
        return cache.is_verified(shared / "a.bin", CHECKSUM), caught(lambda: put(shared, "b.bin"))

    as_user(ANNA, forge)
    is_believed, error = as_user(BERT, believe)
    assert not is_believed
    assert error.startswith("UnsafePath: ")
    assert f"belongs to user {ANNA}" in error
    assert f"user-{BERT}" in error


@pytest.mark.posix
@pytest.mark.shows("S20")
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o720], ids=oct)
def test_a_state_folder_that_others_may_write_to_is_set_aside(tmp_path: Path, mode: int) -> None:
    """It may be any folder of this user's that others filled and moved there: it proves nothing, and is left untouched.

    Reading changes nothing; the next writer makes another one.
    """
    (tmp_path / "a.bin").write_bytes(b"evil")
    state = StateFolder(tmp_path)
    VerifiedCache(state).record(tmp_path / "a.bin", CHECKSUM, FileSignature.of((tmp_path / "a.bin").stat()))
    assert VerifiedCache(state).is_verified(tmp_path / "a.bin", CHECKSUM)
    state.own.chmod(mode)
    assert not VerifiedCache(state).is_verified(tmp_path / "a.bin", CHECKSUM)
    with pytest.raises(UnsafePath, match="others may write to this user's state folder"):
        state.open()
    assert stat.S_IMODE(state.own.stat().st_mode) == mode
    assert put(tmp_path, "b.bin") is not None
    assert not VerifiedCache(state).is_verified(tmp_path / "a.bin", CHECKSUM)
    (aside,) = state.top.glob(f"{state.own.name}.shared-*")
    assert (aside / "verified.log").is_file()


@pytest.mark.posix
@pytest.mark.shows("S20")
@pytest.mark.parametrize("where", ["assets", "elsewhere"])
def test_a_file_system_without_modes_vouches_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """FAT shows one mode for all: its folders are used, but a log there may be anybody's, even in a home folder."""
    (tmp_path / "a.bin").write_bytes(b"evil")
    state = StateFolder(tmp_path)
    with state.opened(create=True) if where == "assets" else opened_elsewhere(state) as folder:
        replace_log(folder, [file_there(tmp_path / "a.bin")])
        assert VerifiedCache(state).is_verified(tmp_path / "a.bin", CHECKSUM)
        real = os.fstat
        monkeypatch.setattr(
            os, "fstat", lambda descriptor: os.stat_result((real(descriptor).st_mode | 0o777, *real(descriptor)[1:]))
        )
        assert not VerifiedCache(state).is_verified(tmp_path / "a.bin", CHECKSUM)
    if where == "assets":
        os.close(state.open(create=True))
        assert {path.name for path in state.top.iterdir()} - {".gitignore"} == {state.own.name}


@pytest.mark.posix
@pytest.mark.shows("S20")
def test_a_state_file_where_others_may_write_is_not_read(tmp_path: Path) -> None:
    """Whatever stands in it may be theirs."""
    tmp_path.chmod(0o700)
    (tmp_path / "list").write_bytes(b"ours\n")
    folder = folder_descriptor(tmp_path)
    try:
        assert read_state(folder, "list", 100) == b"ours\n"
        assert [*state_lines(folder, "list", 100)] == [b"ours"]
        tmp_path.chmod(0o777)
        assert read_state(folder, "list", 100) is None
        assert [*state_lines(folder, "list", 100)] == []
    finally:
        os.close(folder)


@contextmanager
def opened_elsewhere(state: StateFolder) -> Iterator[int]:
    """The user's own folder for an assets folder, for the duration of a block."""
    descriptor = state.open_elsewhere(create=True)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def file_there(path: Path) -> VerifiedFile:
    """A log entry for a file that claims to have our checksum."""
    return VerifiedFile(str(path), str(CHECKSUM), FileSignature.of(path.stat()))


@pytest.mark.posix
@needs_root
def test_the_folder_in_the_way_is_named(shared: Path) -> None:
    """If another user's private state folder is in the way, the error names it, its owner, and what to do."""
    state = shared / ".grym-fetch"
    state.mkdir(mode=0o700)
    os.chown(state, ANNA, ANNA)
    error = as_user(BERT, lambda: caught(lambda: put(shared, "b.bin")))
    assert error.startswith("NotWritable: ")
    assert f"({state})" in error
    assert f"belongs to user {ANNA} (mode 700)" in error
    assert "chmod g+ws" in error
    as_user(ANNA, lambda: put(shared, "a.bin"))  # as the error advises
    assert as_user(BERT, lambda: put(shared, "b.bin") is not None)


@pytest.mark.posix
@needs_root
def test_a_folder_that_cannot_be_written_costs_one_hash(shared: Path, tmp_path: Path) -> None:
    """In a baked image, verified files are remembered in the user's own state folder, which is reported once."""
    put(shared, "a.bin")
    shared.chmod(0o755)
    (shared / ".grym-fetch").chmod(0o755)
    home = shared.parent / "home"
    home.mkdir()
    os.chown(home, BERT, BERT)

    def use() -> tuple[bool, bool, int]:
        os.environ["XDG_STATE_HOME"] = str(home)
        said: list[object] = []
        module_log = __import__("grym_fetch.disk.verified", fromlist=["log"]).log
        module_log.warning = lambda *arguments: said.append(arguments)
        cache = VerifiedCache(StateFolder(shared))
        was_known = cache.is_verified(shared / "a.bin", CHECKSUM)
        cache.record(shared / "a.bin", CHECKSUM, FileSignature.of((shared / "a.bin").stat()))
        later = VerifiedCache(StateFolder(shared))
        return was_known, later.is_verified(shared / "a.bin", CHECKSUM), len(said)

    assert as_user(BERT, use) == (False, True, 1)
    assert as_user(BERT, use) == (True, True, 0)


@pytest.mark.posix
def test_where_a_users_own_state_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The place follows the XDG specification, however the assets folder is reached; never in somebody else's home."""
    (tmp_path / "link").symlink_to("assets")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    named = StateFolder(tmp_path / "assets").elsewhere
    assert named.parent == Path("/state/grym-fetch")
    assert StateFolder(tmp_path / "link").elsewhere == named != StateFolder(tmp_path / "other").elsewhere
    for ignored in ("relative", ""):
        monkeypatch.setenv("XDG_STATE_HOME", ignored)
        assert StateFolder(tmp_path / "assets").elsewhere.parent == tmp_path / ".local/state/grym-fetch"
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(PermissionError, match="another user"):
        StateFolder(tmp_path / "assets").open_elsewhere(create=True)
    assert not (tmp_path / ".local").exists()


@pytest.mark.posix
def test_only_what_was_asked_for_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a folder on the way, nor anything after an error."""
    state = StateFolder(tmp_path)
    before = descriptors()
    for _ in range(2):
        opened = [
            state.open(create=True),
            state.open("a", "b", create=True),
            state.open_locks(create=True),
            state.open_elsewhere(create=True),
        ]
        assert descriptors() == before + len(opened)
        close_each(*opened)
    with state.opened("a"):
        assert descriptors() == before + 1
    assert descriptors() == before
    (state.own / "a" / "file").touch()
    with pytest.raises(UnsafePath, match="not a folder"):
        state.open("a", "file")
    with pytest.raises(FileNotFoundError):
        state.open("none")
    state.elsewhere.chmod(0o777)
    with pytest.raises(PermissionError, match="others may write there"):
        state.open_elsewhere()
    state.own.chmod(0o777)
    with pytest.raises(UnsafePath, match="others may write"):
        state.open()
    state.own.chmod(0o700)
    with monkeypatch.context() as patch:
        patch.setattr(StateFolder, "share", failing(errno.EIO))
        for act in (state.open, state.open_locks):
            with pytest.raises(StorageError, match="input/output error"):
                act()
    assert descriptors() == before


def test_git_is_told_to_leave_our_folder_alone(tmp_path: Path) -> None:
    """Once, and by whoever writes there: what somebody has made of it stays."""
    state = StateFolder(tmp_path)
    marker = state.top / ".gitignore"
    os.close(state.open(create=True))
    assert marker.read_bytes() == b"*\n"
    marker.write_bytes(b"mine\n")
    os.close(state.open(create=True))
    assert marker.read_bytes() == b"mine\n"
    marker.unlink()
    os.close(state.open())
    assert not marker.exists()


@pytest.mark.posix
def test_a_folder_that_is_set_aside_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever looks for what was in it finds out where it is."""
    state = StateFolder(tmp_path)
    os.close(state.open(create=True))
    state.own.chmod(0o777)
    os.close(state.open(create=True))
    (aside,) = state.top.glob(f"{state.own.name}.shared-*")
    assert f"others may write to {state.own}, so nothing in it is used; it was renamed to {aside.name}" in caplog.text


def test_what_is_too_long_names_no_project(tmp_path: Path) -> None:
    """No path is as long, and no memory is filled with it: nothing is said to be gone."""
    tmp_path.chmod(0o700)
    device = tmp_path.stat().st_dev
    with opened_folder(tmp_path) as folder:
        for length, is_gone in ((100, True), (70_000, False)):
            (tmp_path / "assets-folder").write_bytes(encode_line([f"{tmp_path}/none/{'x' * length}", device]))
            assert is_of_gone_project(folder) is is_gone


def test_a_folder_elsewhere_says_what_it_is_for(tmp_path: Path) -> None:
    """Once it is written to: then it is known when its project is gone, and not only on another disk."""
    state = StateFolder(tmp_path / "project" / "assets")
    state.assets_dir.mkdir(parents=True)
    state.elsewhere.mkdir(mode=0o700, parents=True)
    os.close(state.open_elsewhere())
    assert list(state.elsewhere.iterdir()) == []
    with opened_elsewhere(state) as folder:
        assert not is_of_gone_project(folder)
        shutil.rmtree(tmp_path / "project")
        assert is_of_gone_project(folder)
        place = [str(state.assets_dir), tmp_path.stat().st_dev + 1]
        (state.elsewhere / "assets-folder").write_bytes(encode_line(place))
        assert not is_of_gone_project(folder)


@pytest.mark.posix
def test_a_user_without_a_home_has_no_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless `XDG_STATE_HOME` says where it is."""

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(FileNotFoundError, match="this user has no home folder"):
        state_home()


@pytest.mark.posix
def test_a_state_file_is_opened_with_care(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No link is followed, nothing is waited for, and no terminal becomes this process's."""
    (tmp_path / "link").symlink_to("target")
    with opened_folder(tmp_path) as folder:
        flags = flags_of_open(monkeypatch)
        os.close(open_state(folder, "log", os.O_APPEND))
        with pytest.raises(OSError, match="symbolic links"):
            open_state(folder, "link", os.O_APPEND)
    care = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    assert [each & care for each in flags] == [care, care]
    assert not (tmp_path / "target").exists()


# -- what an earlier version left -------------------------------------------------------------------------------------


@pytest.mark.posix
@pytest.mark.parametrize("create", [True, False])
def test_what_an_earlier_version_left_is_taken_over(tmp_path: Path, create: bool) -> None:
    """Stages, stamps and records used to be in the state folder itself: they are moved, and nothing else is."""
    top = tmp_path / ".grym-fetch"
    for name in ("stage/x", "unpacked", "unpack", "locks", "mine"):
        (top / name).mkdir(parents=True)
    top.chmod(0o700)
    (top / "verified.log").write_bytes(b"1")
    (top / f"manifest-version-{'0' * 24}").write_bytes(b"2")
    state = StateFolder(tmp_path)
    os.close(state.open(create=create))
    assert sorted(path.name for path in state.own.iterdir()) == [
        f"manifest-version-{'0' * 24}", "stage", "unpack", "unpacked", "verified.log",
    ]  # fmt: skip
    assert (state.own / "stage" / "x").is_dir()
    assert {path.name for path in top.iterdir()} - {".gitignore"} == {"locks", "mine", state.own.name}


def test_what_others_could_have_put_there_is_not_taken_over(tmp_path: Path) -> None:
    """A log in a state folder that others can write to may be anybody's."""
    top = tmp_path / ".grym-fetch"
    top.mkdir()
    top.chmod(0o777)
    (top / "verified.log").write_bytes(b"1")
    state = StateFolder(tmp_path)
    os.close(state.open(create=True))
    assert list(state.own.iterdir()) == []


# -- what lies in the way ---------------------------------------------------------------------------------------------


def swapped(assets: Path, name: str) -> Path:
    """Put a symlink to another folder in the place of one of our own; return that other folder."""
    state = StateFolder(assets)
    os.close(state.open("unpack", create=True))
    elsewhere = assets.parent / "elsewhere"
    elsewhere.mkdir()
    place = state.own / name if name else state.own
    place.rename(assets.parent / "aside")
    place.symlink_to(elsewhere)
    return elsewhere


@pytest.mark.posix
@pytest.mark.parametrize("name", ["", "unpack"])
@pytest.mark.shows("S5")
def test_a_swapped_folder_is_not_written_through(tmp_path: Path, name: str) -> None:
    """A symlink in the place of one of our folders is refused; nothing is created behind it."""
    assets = tmp_path / "assets"
    assets.mkdir()
    elsewhere = swapped(assets, name)
    with pytest.raises((OSError, StorageError)):
        TreeStore(assets, "voices").make_stage()
    assert list(elsewhere.iterdir()) == []


@pytest.mark.posix
@pytest.mark.shows("S5")
def test_a_folder_that_is_swapped_while_unpacking_stays_the_one_that_was_opened(tmp_path: Path) -> None:
    """Writes go where the descriptor leads, wherever the name leads by now."""
    assets = tmp_path / "assets"
    assets.mkdir()
    with TreeStore(assets, "voices").make_stage() as stage:
        elsewhere = swapped(assets, "unpack")
        os.mkdir("tree", dir_fd=stage.folder)
        assert list(elsewhere.iterdir()) == []
        assert (tmp_path / "aside" / stage.name / "tree").is_dir()


@pytest.mark.posix
@pytest.mark.parametrize("swap", [True, False], ids=["swapped", "written to"])
@pytest.mark.shows("S20")
def test_a_file_that_is_changed_right_after_its_rename_is_not_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swap: bool
) -> None:
    """If somebody replaces the file or writes to it between the rename and the stamp, that is an error."""
    assets = tmp_path / "assets"
    assets.mkdir()
    rename = os.rename

    def and_then(source: str, target: str, **more: int) -> None:
        rename(source, target, **more)
        if target == "a.bin":
            if swap:
                (assets / "a.bin").unlink()
            with open(assets / "a.bin", "r+b" if not swap else "wb") as file:
                file.write(CONTENT[::-1])

    monkeypatch.setattr(os, "rename", and_then)
    with pytest.raises(StorageError, match="somebody else changed or replaced"):
        put(assets, "a.bin")


def test_a_write_within_the_same_tick_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stamp does not depend on the kernel's clock moving on: the time was set, and a write sets another."""
    assets = tmp_path / "assets"
    assets.mkdir()
    exact = 1_700_000_000_123_456_700
    monkeypatch.setattr(time, "time_ns", lambda: exact)
    signature = put(assets, "a.bin")
    assert signature is not None
    assert signature == FileSignature.of((assets / "a.bin").stat())
    assert signature.mtime_ns == exact, "no clock that ticks gives this time"


READERS: dict[str, Callable[[Path], object]] = {
    "verified.log": lambda assets: VerifiedCache(StateFolder(assets)).is_verified(assets / "a", CHECKSUM),
    "manifest-version": lambda assets: RollbackGuard(assets, assets / "m.json").read(),
    "unpacked": lambda assets: TreeStore(assets, "voices").read_record(),
    "prune": lambda assets: prune(assets, {}, dry_run=False),
}


@pytest.mark.posix
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.shows("S20")
def test_a_pipe_holds_nobody_up(tmp_path: Path, reader: str) -> None:
    """With FIFOs in the place of all our files and folders, each reader ends at once and believes nothing."""
    state = StateFolder(tmp_path)
    os.close(state.open("unpacked", create=True))
    os.close(state.open("stage", create=True))
    os.close(state.open_locks(create=True))
    guard, tree = RollbackGuard(tmp_path, tmp_path / "m.json"), TreeStore(tmp_path, "voices")
    for path in (
        state.own / "verified.log",
        state.own / guard._name,
        state.own / "unpacked" / tree._record,
        state.own / "stage" / f"{'0' * 24}.{'0' * 16}.1-2-3-4.00000000",
        state.top / "locks" / f"{'0' * 24}.lock",
    ):
        os.mkfifo(path)
    assert not getattr(READERS[reader](tmp_path), "removed", None)


@pytest.mark.posix
def test_a_pipe_in_the_place_of_an_asset_is_not_waited_for(tmp_path: Path) -> None:
    """A path that was a file when it was looked at may be a pipe when it is opened."""
    os.mkfifo(tmp_path / "a")
    with pytest.raises(UnsafePath, match="not a file"):
        hash_file(tmp_path / "a", CHECKSUM.new_hasher(), lambda _: True)


@pytest.mark.posix
def test_a_pipe_in_the_place_of_the_record_of_moved_files_is_not_waited_for(tmp_path: Path) -> None:
    """The external folder may be anybody's: its record is read only if it is a file."""
    os.mkfifo(tmp_path / "asset-manifest.json")
    with pytest.raises(OSError, match="not a file"):
        read_document(tmp_path / "asset-manifest.json")


@pytest.mark.posix
@pytest.mark.timeout(60)  # without its guard, it would wait for ever
@pytest.mark.shows("S20")
def test_a_pipe_in_the_place_of_a_named_folder_is_not_waited_for(tmp_path: Path) -> None:
    """The assets folder, the store, the external folder and the place of a report may be anything by now."""
    pipe = tmp_path / "assets"
    os.mkfifo(pipe)
    with pytest.raises(GrymFetchError):
        StateFolder(pipe).open("stage")
    with pytest.raises(OSError, match="Not a directory"):
        open_folder(pipe, ("a",), create=False)
    with pytest.raises(OSError, match="Not a directory"), opened_folder(pipe):
        pass
    with pytest.raises(OSError, match="Not a directory"):
        OpenFile.opened(pipe / "a")


@pytest.mark.posix
@pytest.mark.shows("S20")
def test_a_folder_of_this_user_that_others_may_enter_is_closed_to_them(tmp_path: Path) -> None:
    """They could not have written there, so it is used; from now on they cannot read there either."""
    state = StateFolder(tmp_path)
    os.close(state.open("stage", create=True))
    state.own.chmod(0o755)
    os.close(state.open("stage"))
    assert stat.S_IMODE(state.own.stat().st_mode) == 0o700


def test_a_state_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    """A state file is read only up to its limit, however long somebody has made it."""
    (tmp_path / "a").write_bytes(b"x" * 100)
    folder = folder_descriptor(tmp_path)
    try:
        assert read_state(folder, "a", 10) == b"x" * 10
        assert read_state(folder, "a", 1000) == b"x" * 100
        assert read_state(folder, "b", 10) is None
    finally:
        os.close(folder)


@pytest.mark.posix
def test_a_file_system_that_maps_all_users_to_one_is_worked_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If nothing we make is ours by user number (root on NFS, FAT), the folder is used but its stamps are not."""
    user = os.geteuid() + 1
    state = StateFolder(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    signature = put(tmp_path, "a.bin")
    assert signature is not None
    VerifiedCache(state).record(tmp_path / "a.bin", CHECKSUM, signature)
    assert not (state.own / "verified.log").exists()
    assert not list(state.own.glob(".*")), "what was made to find out the owner"
    monkeypatch.setattr(state_module, "owner_of_new_files", lambda _: None)
    with pytest.raises(UnsafePath, match="belongs to"):
        put(tmp_path, "b.bin")


def test_no_write_permission_is_not_called_another_users_fault() -> None:
    """Both errors of an unusable folder are storage errors, so a run ends with code 4."""
    assert issubclass(NotWritable, StorageError)
    assert issubclass(UnsafePath, StorageError)
