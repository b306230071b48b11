"""Moved files come back: the right bytes, to the right place, and over nothing else."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import socket
import threading
from pathlib import Path

import pytest

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import AssetMissing, DigestMismatch, NotWritable, RepositoryError, UnsafePath
from grym_fetch.core.manifest import Asset
from grym_fetch.disk.folders import open_regular as real
from grym_fetch.repo import restore
from grym_fetch.repo.moving import Draft
from grym_fetch.repo.placeholder import SUFFIX
from grym_fetch.repo.places import read_placeholder
from grym_fetch.repo.restore import Restored, Restorer, Wanted, fetch_from
from grym_fetch.repo.target import unnamed_folders
from grym_fetch.repo.telling import Told, unheard
from grym_fetch.testing import seeded_bytes
from tests.repo.death import dying
from tests.repo.story import clean, commit, git, repository, write
from tests.support.sweeps import typical

A, B = seeded_bytes(5000, seed=1), seeded_bytes(3000, seed=2)
FILES = {"models/a.bin": A, "b.bin": B}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder whose two large files were moved to ``out``."""
    for name, content in FILES.items():
        write(tmp_path / "root", name, content)
    (tmp_path / "root/b.bin").chmod(0o751)
    clean(tmp_path / "root", tmp_path / "out")
    return tmp_path / "root"


@pytest.fixture
def restorer(root: Path, tmp_path: Path) -> Restorer:
    return Restorer(root, [tmp_path / "out"])


async def bring(restorer: Restorer, name: str, cwd: Path, *, force: bool = False) -> list[Restored]:
    """Restore what this name refers to."""
    return [await restorer.restore(wanted, force=force) for wanted in restorer.find(name, cwd)]


@pytest.mark.parametrize("name", ["models/a.bin", "models/a.bin.asset-ref", "a", "models", "./models/../models/a.bin"])
async def test_every_way_to_name_it(root: Path, restorer: Restorer, name: str) -> None:
    """A file comes back by its path, its placeholder, its id, or its folder; from another folder by its path there."""
    assert [each.source for each in await bring(restorer, name, root)] == ["external"]
    assert (root / "models/a.bin").read_bytes() == A
    assert not (root / "models/a.bin.asset-ref").exists()
    assert not (root / "b.bin").exists()


async def test_paths_may_be_those_of_where_one_is(root: Path, restorer: Restorer) -> None:
    """In a folder of the repository a file may be named from there, or from the root."""
    assert restorer.find("a.bin", root / "models") == restorer.find("models/a.bin", root / "models")
    assert restorer.find("../b.bin", root / "models")[0].path == "b.bin"


async def test_all_of_them(root: Path, restorer: Restorer) -> None:
    """All means every placeholder; bytes and modes are as before, and a second run has nothing left to do."""
    for wanted in restorer.all():
        await restorer.restore(wanted)
    assert {name: (root / name).read_bytes() for name in FILES} == FILES
    assert (root / "b.bin").stat().st_mode & 0o777 == 0o751
    assert restorer.all() == []


async def test_again_and_again(root: Path, restorer: Restorer) -> None:
    """Right files are left alone; files deleted since come back, even if their placeholders are gone."""
    await bring(restorer, "b.bin", root)
    inode = (root / "b.bin").stat().st_ino
    assert [each.source for each in await bring(restorer, "b.bin", root)] == ["there"]
    assert (root / "b.bin").stat().st_ino == inode
    (root / "b.bin").unlink()
    assert [each.source for each in await bring(restorer, "b.bin", root)] == ["external"]
    assert (root / "b.bin").read_bytes() == B


@pytest.mark.parametrize("is_done", typical([False, True], False), ids=["before", "after"])
async def test_death_at_any_point_loses_nothing(tmp_path: Path, is_done: bool) -> None:
    """Whichever call is the last, no wrong bytes have the name, the placeholder goes last, and a repeat succeeds."""
    at, ended = 0, False
    while not ended:
        at += 1
        root, target = tmp_path / f"{at}" / "root", tmp_path / f"{at}" / "out"
        write(root, "models/a.bin", A)
        clean(root, target)
        restorer = Restorer(root, [target])
        wanted = restorer.find("models/a.bin", root)[0]
        told = Told(unheard, wanted.path)
        with dying(at, is_done=is_done) as fate:
            if not restorer._is_done(wanted, force=False, told=told):
                restorer._take(wanted, target, "models/a.bin", force=False, told=told)
        ended = not fate.is_dead
        file = root / "models/a.bin"
        assert (target / "models/a.bin").read_bytes() == A
        assert not file.exists() or file.read_bytes() == A
        assert file.exists() or file.with_name("a.bin" + SUFFIX).exists()
        await bring(restorer, "models/a.bin", root)
        assert file.read_bytes() == A
        assert [path.name for path in root.rglob("*") if path.is_file()] == ["a.bin"]
    assert at > 8


@pytest.mark.shows("S21")
async def test_a_restore_that_is_cancelled_stops(
    root: Path, restorer: Restorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy ends in the middle, and its draft is gone before the caller goes on; the placeholder stays."""
    loop, begun, stopped = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    real_write, real_stop = Draft.write, Told.stop

    def write_some(draft: Draft, data: bytes) -> None:
        real_write(draft, data)
        loop.call_soon_threadsafe(begun.set)
        assert stopped.wait(60)

    def stop(told: Told) -> None:
        real_stop(told)
        stopped.set()

    monkeypatch.setattr(Draft, "write", write_some)
    monkeypatch.setattr(Told, "stop", stop)
    restoring = asyncio.create_task(restorer.restore(restorer.find("b.bin", root)[0]))
    await begun.wait()
    restoring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await restoring
    assert sorted(os.listdir(root)) == ["b.bin.asset-ref", "models"]


async def test_another_file_is_in_the_way(root: Path, restorer: Restorer) -> None:
    """A file with other content is replaced only on request; so is a symlink, but not its target."""
    write(root, "b.bin", b"mine")
    with pytest.raises(NotWritable, match="a file with other content is there"):
        await bring(restorer, "b.bin", root)
    assert (root / "b.bin").read_bytes() == b"mine"
    await bring(restorer, "b.bin", root, force=True)
    assert (root / "b.bin").read_bytes() == B
    write(root, "secret", b"secret")
    (root / "models/a.bin").symlink_to(root / "secret")
    with pytest.raises(UnsafePath, match="symlink"):
        await bring(restorer, "models/a.bin", root)
    await bring(restorer, "models/a.bin", root, force=True)
    assert (root / "secret").read_bytes() == b"secret"
    assert not (root / "models/a.bin").is_symlink()


@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a socket"])
async def test_what_is_no_file_is_in_the_way(root: Path, tmp_path: Path, restorer: Restorer, kind: str) -> None:
    """It is called what it is. A folder is never replaced, even on request, and nothing is copied for it."""
    place = root / "b.bin"
    if kind == "a folder":
        write(place, "mine", b"mine")
    elif kind == "a pipe":
        os.mkfifo(place)
    else:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(place))
    said = "a folder is in the way" if kind == "a folder" else "neither a file nor a folder is in the way"
    with pytest.raises(UnsafePath, match=said):
        await bring(restorer, "b.bin", root)
    if kind == "a folder":
        shutil.rmtree(tmp_path / "out")
        with pytest.raises(UnsafePath, match=said):
            await bring(restorer, "b.bin", root, force=True)
        assert (place / "mine").exists()
    else:
        await bring(restorer, "b.bin", root, force=True)
        assert place.read_bytes() == B


async def test_a_file_in_the_way_that_cannot_be_read(
    root: Path, restorer: Restorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has is not known, so this is said, and not that it has other content; it can still be replaced."""
    write(root, "b.bin", b"mine")

    def open_regular(name: str, folder: int) -> int:
        if os.stat(name, dir_fd=folder).st_size == len(b"mine"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(name, folder)

    monkeypatch.setattr(restore, "open_regular", open_regular)
    with pytest.raises(NotWritable, match="permission denied"):
        await bring(restorer, "b.bin", root)
    await bring(restorer, "b.bin", root, force=True)
    assert (root / "b.bin").read_bytes() == B


@pytest.mark.parametrize("kind", ["a folder", "a symlink", "a pipe"])
async def test_what_is_no_file_in_the_external_folder(root: Path, tmp_path: Path, kind: str) -> None:
    """It ends the search no more than a damaged file: the next folder is tried, and in the end the reason is given."""
    stored = tmp_path / "out/b.bin"
    stored.rename(tmp_path / "kept")
    if kind == "a folder":
        stored.mkdir()
    elif kind == "a symlink":
        stored.symlink_to(tmp_path / "kept")
    else:
        os.mkfifo(stored)
    said = {"a folder": "a folder is", "a symlink": "a symlink is", "a pipe": "neither a file nor a folder is"}[kind]
    with pytest.raises(UnsafePath, match=f"{said} in the way"):
        await bring(Restorer(root, [tmp_path / "out"]), "b.bin", root)
    write(tmp_path, "other/b.bin", B)
    await bring(Restorer(root, [tmp_path / "out", tmp_path / "other"]), "b.bin", root)
    assert (root / "b.bin").read_bytes() == B


@pytest.mark.parametrize("damage", ["marks of a merge", "cut off", "empty", "a wrong size"])
def test_a_damaged_placeholder_is_not_passed_over(root: Path, restorer: Restorer, damage: str) -> None:
    """It is remembered with what is wrong; a file of that name that never was one is nobody's business."""
    place = root / "models/a.bin.asset-ref"
    text = place.read_bytes()
    damaged = {
        "marks of a merge": b"<<<<<<< HEAD\n" + text,
        "cut off": text[:90],
        "empty": b"",
        "a wrong size": text.replace(b"5000", b"-5"),
    }
    place.write_bytes(damaged[damage])
    write(root, "notes.asset-ref", b"my notes")
    assert [wanted.path for wanted in restorer.all()] == ["b.bin"]
    assert restorer.damaged.keys() == {"models/a.bin.asset-ref"}
    assert restorer.find("models", root) == [], "it is told as damaged, not as unknown"
    with pytest.raises(RepositoryError, match="asset-ref is damaged: it"):
        restorer.find_one("models", root)


async def test_a_damaged_copy_is_not_restored(
    root: Path, tmp_path: Path, restorer: Restorer, caplog: pytest.LogCaptureFixture
) -> None:
    """A stored file with other bytes never replaces the placeholder, and is left for its owner to see. Told once."""
    write(tmp_path / "out", "b.bin", B[::-1])
    with pytest.raises(DigestMismatch):
        await bring(restorer, "b.bin", root)
    assert sorted(os.listdir(root)) == ["b.bin.asset-ref", "models"]
    assert (tmp_path / "out/b.bin").read_bytes() == B[::-1]
    assert not caplog.messages, "the error says it"
    for folders, said in (
        ([tmp_path / "out"], "asset-manifest.json does not list"),
        ([tmp_path / "out"] * 2, " do not list"),
    ):
        with pytest.raises(RepositoryError, match=said):
            Restorer(root, folders).find("nothing", root)


async def test_from_somewhere_else(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is missing or wrong in the external folder is looked up elsewhere by checksum, and verified as well."""
    fetched = write(tmp_path, "fetched/x", B)
    asset = Asset(id="b", url="https://example.org/b", local_path="b", checksum=Checksum.of(B))

    async def get(wanted: Asset) -> Path:
        assert wanted is asset
        return fetched

    restorer = Restorer(root, [tmp_path / "nowhere"], fetch_from([asset], get))
    assert [each.source for each in await bring(restorer, "b.bin", root)] == ["download"]
    assert (root / "b.bin").read_bytes() == B
    with pytest.raises(AssetMissing, match="--external-assets-dir"):
        await bring(restorer, "models/a.bin", root)
    (root / "b.bin").unlink()
    write(tmp_path / "out", "b.bin", b"damaged")
    restorer = Restorer(root, [tmp_path / "out"], fetch_from([asset], get))
    assert [each.source for each in await bring(restorer, "b.bin", root)] == ["download"]
    [warning] = caplog.messages
    assert "is not the file that was moved" in warning
    assert "\n" not in warning  # a line of the log
    (root / "b.bin").unlink()
    fetched.write_bytes(b"wrong")
    with pytest.raises(DigestMismatch):
        await bring(restorer, "b.bin", root)


async def test_a_placeholder_may_move(root: Path, restorer: Restorer) -> None:
    """A renamed placeholder brings its file back beside itself."""
    (root / "b.bin.asset-ref").rename(root / "models/renamed.bin.asset-ref")
    await bring(restorer, "models/renamed.bin", root)
    assert (root / "models/renamed.bin").read_bytes() == B


@pytest.mark.parametrize("original", ["../x", "/tmp/x", ".git/hooks/pre-commit", "a/.GIT/config", "a/../../x", "c:x"])
@pytest.mark.shows("S5")
async def test_no_record_leads_out_of_the_repository(
    root: Path, tmp_path: Path, original: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An entry with a dangerous path is not used, whatever name asks for it."""
    path = tmp_path / "out/asset-manifest.json"
    document = json.loads(path.read_text())
    document["assets"][0] |= {"originalPath": original}
    path.write_text(json.dumps(document))
    (root / "models/a.bin.asset-ref").unlink()
    restorer = Restorer(root, [tmp_path / "out"])
    with pytest.raises(RepositoryError):
        restorer.find(original, root)
    assert "entry 0 is not used" in caplog.text


@pytest.mark.parametrize("stored", ["../root/secret", "/etc/passwd", "link/secret"])
@pytest.mark.shows("S5")
async def test_no_placeholder_reads_outside_of_the_external_folder(root: Path, tmp_path: Path, stored: str) -> None:
    """A path that leads out of the external folder, or through a symlink in it, is not read."""
    write(root, "secret", b"secret")
    (tmp_path / "out/link").symlink_to(root)
    (tmp_path / "out/asset-manifest.json").unlink()
    path = root / "b.bin.asset-ref"
    text = path.read_text().replace("stored: b.bin", f"stored: {stored}")
    path.write_text(text.replace(Checksum.of(B).hexdigest, Checksum.of(b"secret").hexdigest))
    with pytest.raises((AssetMissing, UnsafePath)):
        await bring(Restorer(root, [tmp_path / "out"]), "b.bin", root)
    assert not (root / "b.bin").exists()


@pytest.mark.shows("S17")
@pytest.mark.parametrize("folder", [".git/hooks", "mirror/hooks"])
async def test_nothing_is_written_among_what_is_git_s(root: Path, tmp_path: Path, folder: str) -> None:
    """A placeholder in a repository's own folder restores nothing there, even if named."""
    repository(root / "made")
    git(root / "made", "init", "-q", "--bare", str(root / "mirror"))
    (root / "made/.git").rename(root / ".git")
    (root / folder).mkdir(exist_ok=True)
    (root / "b.bin.asset-ref").rename(root / folder / "update.asset-ref")
    with pytest.raises(UnsafePath, match="is git's own folder; nothing is written there"):
        await bring(Restorer(root, [tmp_path / "out"]), f"{folder}/update", root)
    assert not (root / folder / "update").exists()


@pytest.mark.shows("S5")
async def test_no_symlink_in_the_repository_is_followed(root: Path, tmp_path: Path, restorer: Restorer) -> None:
    """If a folder on the way has become a symlink, the restore stops."""
    wanted = restorer.find("models/a.bin", root)[0]
    (root / "models").rename(tmp_path / "models")
    (root / "models").symlink_to(tmp_path / "models")
    with pytest.raises(UnsafePath, match="symlink"):
        await restorer.restore(wanted)
    assert not (tmp_path / "models/a.bin").exists()


def test_what_was_never_moved(root: Path, restorer: Restorer) -> None:
    """An unknown name is refused with the nearest ones; a name outside the repository is refused, too."""
    with pytest.raises(RepositoryError, match=r"Did you mean models/a\.bin"):
        restorer.find("models/aa.bin", root)
    with pytest.raises(RepositoryError):
        restorer.find("../out/b.bin", root)


def test_an_id_of_several_files(root: Path, tmp_path: Path) -> None:
    """If an id means two files, both are named and none is chosen."""
    for name in ("x/twin.bin", "y/twin.bin"):
        path = root / (name + SUFFIX)
        path.parent.mkdir()
        path.write_bytes((root / "b.bin.asset-ref").read_bytes())
    with pytest.raises(RepositoryError, match=r"x/twin\.bin, y/twin\.bin"):
        Restorer(root, [tmp_path / "out"]).find("b", root)


async def test_a_repository_that_shares_the_folder(tmp_path: Path) -> None:
    """An id means a file of this repository, even where another one has moved a file of that id to the same folder."""
    for name, file in (("one", "x/model.bin"), ("two", "y/model.bin")):
        write(tmp_path / name, file, seeded_bytes(2000, seed=len(name) + len(file)) + name.encode())
        clean(tmp_path / name, tmp_path / "out")
    for name, file in (("one", "x/model.bin"), ("two", "y/model.bin")):
        restorer = Restorer(tmp_path / name, [tmp_path / "out"])
        assert [
            each.path.relative_to(tmp_path / name).as_posix() for each in await bring(restorer, "model", tmp_path)
        ] == [file]


def test_a_name_from_outside(root: Path, restorer: Restorer, tmp_path: Path) -> None:
    """The way to the repository may lead over a symlink; a file of another repository is restored there."""
    (tmp_path / "alias").symlink_to(root)
    assert restorer.find(f"{tmp_path}/alias/models/a.bin", root)[0].path == "models/a.bin"
    write(tmp_path, "elsewhere/small", b"")
    for name in ("../root/models/a.bin", f"{root}/models/a.bin"):
        with pytest.raises(RepositoryError, match="change to its repository"):
            Restorer(tmp_path / "elsewhere", [tmp_path / "out"]).find(name, tmp_path / "elsewhere")


def test_what_is_wanted_knows_every_place(root: Path, restorer: Restorer) -> None:
    """The places in the record and in the placeholder are both tried, neither of them twice."""
    assert restorer.find("b.bin", root) == [
        Wanted(path="b.bin", id="b", checksum=Checksum.of(B), stored=("b.bin",), size=len(B)),
    ]


@pytest.mark.parametrize("trap", ["a link", "a pipe"])
@pytest.mark.shows("S5", "S11")
def test_a_placeholder_is_a_file(root: Path, tmp_path: Path, trap: str) -> None:
    """A placeholder behind a link does not count, and a pipe in its place blocks nothing."""
    place = root / f"b.bin{SUFFIX}"
    assert read_placeholder(place) is not None
    place.rename(tmp_path / "elsewhere")
    if trap == "a link":
        place.symlink_to(tmp_path / "elsewhere")
    else:
        os.mkfifo(place)
    assert read_placeholder(place) is None


@pytest.mark.parametrize("umask", [0o022, 0o077])
@pytest.mark.shows("S5", "D20")
async def test_the_umask_decides_about_a_file_that_comes_back(
    root: Path, restorer: Restorer, tmp_path: Path, umask: int
) -> None:
    """Writing to the external folder grants nobody more rights here: no setuid bit, and only what the umask allows."""
    (stored,) = (path for path in (tmp_path / "out").rglob("*b.bin*") if path.is_file())
    stored.chmod(0o6777)
    before = os.umask(umask)
    try:
        await bring(restorer, "b.bin", root)
    finally:
        os.umask(before)
    assert (root / "b.bin").stat().st_mode & 0o7777 == 0o777 & ~umask


async def test_from_a_linked_work_tree(tmp_path: Path) -> None:
    """A work tree elsewhere gets its files from beside the main one, and the other way round."""
    main, linked = repository(tmp_path / "home/repo"), tmp_path / "far/away/tree"
    write(main, "a.bin", A)
    commit(main)
    clean(main, tmp_path / "home/assets")
    commit(main)
    git(main, "worktree", "add", "-q", str(linked))
    await bring(Restorer(linked, unnamed_folders(linked, None)), "a.bin", linked)
    assert (linked / "a.bin").read_bytes() == A
    write(linked, "b.bin", B)
    clean(linked, tmp_path / "far/away/assets")
    commit(linked)
    (tmp_path / "far/away/assets/b.bin").rename(tmp_path / "b.bin")
    with pytest.raises(AssetMissing, match=r"home/assets or .*far/away/assets"):
        await bring(Restorer(linked, unnamed_folders(linked, None)), "b.bin", linked)
    (tmp_path / "b.bin").rename(tmp_path / "far/away/assets/b.bin")
    await bring(Restorer(linked, unnamed_folders(linked, None)), "b.bin", linked)
    assert (linked / "b.bin").read_bytes() == B


@pytest.mark.shows("S22")
def test_a_sparse_checkout_names_what_it_leaves_out(tmp_path: Path) -> None:
    """If a placeholder is not checked out, its file is not called unknown: the message says how to get it."""
    root = repository(tmp_path / "repo")
    for name in ("in/a.bin", "out of/b.bin"):
        write(root, name, A)
    clean(root, tmp_path / "assets")
    commit(root)
    (tmp_path / "assets/asset-manifest.json").unlink()
    git(root, "sparse-checkout", "set", "in")
    restorer = Restorer(root, [tmp_path / "assets"])
    assert restorer.left_out() == ["out of/b.bin.asset-ref"]
    with pytest.raises(RepositoryError, match="`git sparse-checkout add 'out of'`"):
        restorer.find("out of/b.bin", root)
    assert [wanted.path for wanted in restorer.all()] == ["in/a.bin"]


@pytest.mark.shows("S21")
async def test_what_git_makes_of_restored_files_is_known(tmp_path: Path) -> None:
    """Which placeholders git misses, and which files it would take in again; nothing of either before a commit."""
    root = repository(tmp_path / "repo")
    for name, content in FILES.items():
        write(root, name, content)
    commit(root)
    clean(root, tmp_path / "out")
    restorer = Restorer(root, [tmp_path / "out"])
    paths = list(FILES)
    assert restorer.left_to_git(paths) == ([], [])
    write(root, ".gitignore", b"/b.bin\n")
    commit(root)
    assert restorer.left_to_git(paths) == (paths, ["models/a.bin"])
    (root / ".git/HEAD").unlink()
    assert restorer.left_to_git(paths) == ([], [])
    assert Restorer(tmp_path, []).left_to_git(paths) == ([], [])
