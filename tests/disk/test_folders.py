"""Folders through descriptors: no symlink below the assets folder, and every system error becomes one of ours."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from grym_fetch.core.errors import DiskFull, Locked, NotWritable, StorageError, UnsafePath
from grym_fetch.disk import folders
from grym_fetch.disk.folders import (
    FILE,
    check_deletable,
    check_destination,
    close_each,
    closed_folders,
    delete_file,
    file_path,
    free_bytes,
    make_root,
    open_below,
    open_folder,
    open_regular,
    opened_folder,
    path_from,
    read_regular,
    regular_lines,
    require_space,
    storage_error,
    storage_errors,
    sync,
    usable_bytes,
)
from tests.support.other_user import BERT, as_user, needs_root
from tests.support.system import descriptors, folder_descriptor, named
from tests.support.system_calls import flags_of_open


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "assets"
    folder.mkdir()
    return folder


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    return folder


def denied(*_: object, **__: object) -> int:
    """A system call that this user may not make."""
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


# -- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EFBIG, DiskFull),
        (errno.ELOOP, UnsafePath),
        (errno.ENOTDIR, UnsafePath),
        (errno.EISDIR, UnsafePath),
        (errno.ENAMETOOLONG, UnsafePath),
        (errno.EROFS, NotWritable),
        (errno.EACCES, NotWritable),
        (errno.EIO, NotWritable),
        (errno.EMFILE, NotWritable),
        (errno.ESTALE, NotWritable),
    ],
    ids=named,
)
def test_each_error_has_its_family(number: int, expected: type[StorageError]) -> None:
    """The error number decides the family; the path goes along, on one line, and the cause is kept."""
    with pytest.raises(StorageError) as caught, storage_errors("models/a\nb"):
        raise OSError(number, os.strerror(number))
    assert type(caught.value) is expected
    assert caught.value.path == "models/a\\nb"
    assert isinstance(caught.value.__cause__, OSError)


def test_a_full_disk_comes_with_advice() -> None:
    """A user who runs out of space is told what to do and that nothing is lost."""
    assert "nothing is lost, and it goes on" in str(storage_error(OSError(errno.ENOSPC, ""), "x"))


def test_an_error_without_a_number_is_an_error_still() -> None:
    """An ``OSError`` without a number is not mistaken for a different error."""
    assert type(storage_error(OSError("odd"), "x")) is NotWritable


def test_our_own_errors_pass_unchanged() -> None:
    """An error that is already one of ours is not wrapped."""
    ours = Locked("x", "held")
    with pytest.raises(Locked) as caught, storage_errors("y"):
        raise ours
    assert caught.value is ours


# -- sync -----------------------------------------------------------------------------------------------------------


@pytest.mark.shows("D6")
@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOTTY], ids=errno.errorcode.get)
@pytest.mark.shows("B59")
@pytest.mark.linux
def test_a_file_system_without_fsync_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    """Where there is no fsync, work goes on, and the log says so once, however much is flushed."""

    def fsync(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(folders, "_CANNOT_FLUSH", set())
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "fdatasync", fsync)
    sync(0)
    sync(0)
    sync(0, data_only=True)
    assert caplog.text.count(f"cannot flush to the disk on demand ({os.strerror(number)})") == 1


@pytest.mark.posix
@pytest.mark.shows("D5")
def test_a_failed_fsync_is_never_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed fsync the kernel may report lost data as clean, so the first failure counts."""
    calls = []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output"):
        sync(5)
    assert calls == [5]


# -- folders --------------------------------------------------------------------------------------------------------


@pytest.mark.posix
def test_missing_folders_are_made_and_flushed_into_their_parents(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each new folder is made durable in its parent, and nothing that was already there is flushed."""
    flushed: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: flushed.append(os.readlink(f"/proc/self/fd/{fd}")))
    (root / "a").mkdir()
    os.close(open_folder(root, ("a", "b", "c"), create=True))
    assert (root / "a/b/c").is_dir()
    assert flushed == [str(root / "a"), str(root / "a/b")]


@pytest.mark.posix
@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.shows("P3")
def test_the_root_is_made_and_flushed_into_its_parents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: int
) -> None:
    """However much of the path to it is missing, and even if it exists, since its maker may not have flushed it."""
    flushed: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: flushed.append(os.readlink(f"/proc/self/fd/{fd}")))
    ways = [tmp_path, *(tmp_path.joinpath(*"xyz"[: length + 1]) for length in range(3))]
    root = ways[3]
    ways[3 - depth].mkdir(exist_ok=True, parents=True)
    before = descriptors()
    make_root(root)
    assert root.is_dir()
    assert flushed == [str(folder) for folder in ways[3 - max(depth, 1) : 3]]
    assert descriptors() == before


def test_a_root_above_which_nothing_can_be_read_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that may be passed through but not opened is not flushed: that is not a failure."""
    monkeypatch.setattr(os, "open", denied)
    make_root(tmp_path / "x/y")
    assert (tmp_path / "x/y").is_dir()


@pytest.mark.posix
def test_folders_that_others_have_made_are_flushed_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a memory of what was flushed: each parent the first time, and only those of new folders after that."""
    flushed: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: flushed.append(os.readlink(f"/proc/self/fd/{fd}")))
    (root / "a/b").mkdir(parents=True)
    known: set[tuple[str, ...]] = set()
    for expected in ([root, root / "a"], []):
        os.close(open_folder(root, ("a", "b"), create=True, flushed=known))
        assert flushed == [str(each) for each in expected]
        flushed.clear()
    os.close(open_folder(root, ("a", "c"), create=True, flushed=known))
    assert flushed == [str(root / "a")]


def test_a_file_in_the_place_of_the_root_is_no_folder(root: Path) -> None:
    """Not even if nothing below it is wanted."""
    (root / "file").touch()
    with pytest.raises(NotADirectoryError):
        open_folder(root / "file", (), create=False)
    with pytest.raises(NotADirectoryError), opened_folder(root / "file"):
        pass


@pytest.mark.posix
def test_a_folder_below_an_open_one(root: Path, outside: Path) -> None:
    """It leads there, through no symlink, and only what was asked for is open afterwards."""
    (root / "a/b").mkdir(parents=True)
    (root / "a/link").symlink_to(outside)
    before = descriptors()
    with opened_folder(root) as above:
        for parts in ((), ("a",), ("a", "b")):
            below = open_below(above, parts)
            assert os.path.samestat(os.fstat(below), root.joinpath(*parts).stat())
            os.close(below)
        with pytest.raises(OSError, match="symlink"):
            open_below(above, ("a", "link"))
        assert descriptors() == before + 1
    assert descriptors() == before


def test_one_that_cannot_be_closed_does_not_keep_others_open(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What the system says about it is logged."""
    before = descriptors()
    close_each(folder_descriptor(root), -1, folder_descriptor(root))
    assert descriptors() == before
    assert f"closing a file failed: {os.strerror(errno.EBADF)}" in caplog.text


def test_a_missing_root_is_made_with_what_is_below(tmp_path: Path) -> None:
    """The root is made only if something is to be made below it."""
    root = tmp_path / "not/yet"
    with pytest.raises(FileNotFoundError):
        open_folder(root, ("a",), create=False)
    assert not root.parent.exists()
    os.close(open_folder(root, ("a",), create=True))
    assert (root / "a").is_dir()


def test_a_missing_folder_is_not_made_unasked(root: Path) -> None:
    """Looking creates nothing."""
    with pytest.raises(FileNotFoundError):
        open_folder(root, ("a",), create=False)
    assert list(root.iterdir()) == []


@pytest.mark.posix
def test_the_root_itself_may_be_a_symlink(root: Path, tmp_path: Path) -> None:
    """The user chooses where the assets folder is."""
    link = tmp_path / "link"
    link.symlink_to(root)
    os.close(open_folder(link, ("a",), create=True))
    assert (root / "a").is_dir()


@pytest.mark.posix
@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("create", [True, False])
@pytest.mark.shows("D12", "M6", "S5")
def test_no_component_may_be_a_symlink(root: Path, outside: Path, depth: int, create: bool) -> None:
    """A symlink at any depth is refused, wherever it leads, and nothing is created behind it."""
    parts = ("a", "b", "c")
    root.joinpath(*parts[:depth]).mkdir(parents=True, exist_ok=True)
    root.joinpath(*parts[: depth + 1]).symlink_to(outside)
    with pytest.raises(UnsafePath, match="symlink"), storage_errors(root):
        open_folder(root, parts, create=create)
    assert list(outside.iterdir()) == []


def test_a_file_on_the_way_is_not_called_a_symlink(root: Path) -> None:
    """A file where a folder should be is refused, and the error calls it a file."""
    (root / "a").write_bytes(b"")
    with pytest.raises(UnsafePath, match="not a folder"), storage_errors(root):
        open_folder(root, ("a", "b"), create=True)


def test_a_folder_made_by_another_process_meanwhile_is_used(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losing the race to create a folder is not a failure."""
    real = os.mkdir

    def mkdir(path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        real(path, mode, dir_fd=dir_fd)
        raise FileExistsError(errno.EEXIST, "exists")

    monkeypatch.setattr(os, "mkdir", mkdir)
    os.close(open_folder(root, ("a",), create=True))


@pytest.mark.posix
def test_a_refusal_leaves_no_descriptor_open(root: Path, outside: Path) -> None:
    """A walk that ends in an error closes every folder it opened."""
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/c").symlink_to(outside)
    before = descriptors()
    for _ in range(5):
        with pytest.raises(OSError, match="symlink"):
            open_folder(root, ("a", "b", "c"), create=True)
    assert descriptors() == before


# -- destinations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [None, lambda p: p.write_bytes(b"old"), lambda p: p.symlink_to("/etc/passwd")])
def test_a_good_destination(root: Path, make: Callable[[Path], object] | None) -> None:
    """The place may be empty, or hold a file or a symlink (which a rename replaces)."""
    (root / "models").mkdir()
    if make is not None:
        make(root / "models/a.bin")
    before = descriptors()
    check_destination(root, "models/a.bin")
    assert descriptors() == before


def test_a_destination_whose_folders_are_missing_is_good(tmp_path: Path) -> None:
    """Not even the assets folder needs to exist."""
    check_destination(tmp_path / "none", "models/a.bin")


@pytest.mark.posix
@pytest.mark.parametrize(
    ("make", "reason"),
    [(lambda p: p.mkdir(), "a folder is in the way"), (os.mkfifo, "not a file")],
    ids=["folder", "fifo"],
)
@pytest.mark.shows("D11", "S5")
def test_a_destination_that_is_no_file_is_refused(root: Path, make: Callable[[Path], object], reason: str) -> None:
    """A folder or a device is never replaced."""
    make(root / "a.bin")
    with pytest.raises(UnsafePath, match=reason):
        check_destination(root, "a.bin")


@pytest.mark.posix
@pytest.mark.shows("D12", "M6", "S5")
def test_a_destination_behind_a_symlink_is_refused(root: Path, outside: Path) -> None:
    """A symlink on the way to the destination is found before anything is fetched."""
    (root / "models").symlink_to(outside)
    with pytest.raises(UnsafePath, match="symlink"):
        check_destination(root, "models/a.bin")


def test_a_file_is_deleted_once(root: Path) -> None:
    """Whoever deletes it is told that it was there; nothing stays open."""
    (root / "a").mkdir()
    (root / "a/file").touch()
    before = descriptors()
    assert [delete_file(root, path) for path in ("a/file", "a/file", "b/file")] == [True, False, False]
    assert descriptors() == before
    assert os.listdir(root / "a") == []


@pytest.mark.posix
def test_a_read_only_file_system_is_called_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner and mode would explain nothing."""
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    monkeypatch.setattr("grym_fetch.runtime.system.is_read_only", lambda _: True)
    with pytest.raises(NotWritable, match="read-only file system"):
        check_destination(root, "a.bin")


@pytest.mark.posix
def test_free_bytes_of_a_folder_that_is_not_made_yet(root: Path) -> None:
    """Free space is measured at the nearest existing folder, without what only root may use."""
    figures = os.statvfs(root)
    assert abs(free_bytes(root / "x/y/z") - figures.f_bavail * figures.f_frsize) < 1 << 30


@pytest.mark.shows("D1")
def test_a_disk_within_the_reserve_has_no_room_and_needs_none(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The free space within the reserve is for journals and folders; a run that has nothing to write is not refused."""
    monkeypatch.setattr(folders, "free_bytes", lambda _: folders.RESERVE_BYTES - 1)
    assert usable_bytes(root) == 0
    require_space(root, 0)
    with pytest.raises(DiskFull, match="1 B needed, 0 B free"):
        require_space(root, 1)


@pytest.mark.posix
def test_a_root_that_is_a_dangling_symlink(tmp_path: Path) -> None:
    """The error names a dangling symlink, not an existing file."""
    (tmp_path / "assets").symlink_to("nowhere")
    with pytest.raises(UnsafePath, match="a symlink that leads nowhere"):
        make_root(tmp_path / "assets")


@pytest.mark.root
@pytest.mark.shows("D2")
def test_a_file_system_without_inodes_is_not_called_full(tmp_path: Path) -> None:
    """There is space, but no file can be created: the error says what is missing. The same holds below, where nothing
    exists yet.
    """
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=3", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        for number in range(2):
            (tmp_path / str(number)).touch()
        with pytest.raises(DiskFull, match="no inodes left"), storage_errors(tmp_path / "new" / "deep"):
            (tmp_path / "2").touch()
        (tmp_path / "0").unlink()
        with pytest.raises(DiskFull, match="no space left"), storage_errors(tmp_path):
            (tmp_path / "1").write_bytes(bytes(2 << 20))
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.posix
@needs_root
@pytest.mark.parametrize("local_path", ["closed/a.bin", "closed/new/deep/a.bin"])
def test_a_folder_that_may_not_be_written_to_is_known_before(local_path: str) -> None:
    """This is found before the first byte is requested, not after the last one has arrived."""
    root = Path(tempfile.mkdtemp(dir="/tmp", prefix="closed-"))
    try:
        (root / "closed").mkdir()
        for path in (root, root / "closed"):
            path.chmod(0o755)

        def checked() -> str:
            try:
                check_destination(root, local_path)
            except NotWritable as error:
                return str(error)
            return ""

        assert as_user(BERT, checked) == (
            "permission denied: this folder belongs to 'root' (mode 755), and this user may not write there "
            f"({root}/closed)"
        )
        (root / "closed").chmod(0o777)
        assert as_user(BERT, checked) == ""
    finally:
        shutil.rmtree(root)


@needs_root
@pytest.mark.linux
def test_which_of_many_folders_are_closed() -> None:
    """Each is judged by itself, the root too; one that is not there yet, by the nearest one above; none stays open."""
    root = Path(tempfile.mkdtemp(dir="/tmp", prefix="closed-"))
    try:
        root.chmod(0o755)
        for name, mode in (("open", 0o777), ("shut", 0o755)):
            (root / name).mkdir()
            (root / name).chmod(mode)
        asked = ["", "open", "open/new/deep", "shut", "shut/new", "new"]

        def judged() -> tuple[set[str], int]:
            before = descriptors()
            return closed_folders(root, asked), descriptors() - before

        assert as_user(BERT, judged) == ({"", "shut", "shut/new", "new"}, 0)
        root.chmod(0o777)
        assert as_user(BERT, judged) == ({"shut", "shut/new"}, 0)
    finally:
        shutil.rmtree(root)


@pytest.mark.linux
@pytest.mark.shows("S11", "S20")
def test_what_is_no_file_of_ours_is_not_read(tmp_path: Path) -> None:
    """A folder, a pipe, a link, and a file of another user: an error each, and nothing stays open."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    above, me = os.open(tmp_path, os.O_RDONLY), os.geteuid()
    try:
        before = descriptors()
        for name in ("folder", "pipe", "link"):
            with pytest.raises(OSError, match=name):
                read_regular(name, above, limit=100, owner=me)
        with pytest.raises(PermissionError, match="belongs to another user"):
            read_regular("file", above, limit=100, owner=me + 1)
        with pytest.raises(PermissionError, match="belongs to another user"):
            list(regular_lines("file", above, limit=100, owner=me + 1))
        assert read_regular("file", above, limit=100, owner=me) == b"content"
        assert read_regular("file", above, limit=4) == b"cont"
        assert descriptors() == before
    finally:
        os.close(above)


@pytest.mark.posix
@pytest.mark.parametrize("trouble", ["", "nothing there", "a folder", "a symlink above"])
def test_what_can_be_seen_not_to_be_deletable(tmp_path: Path, trouble: str) -> None:
    """The error comes before anything is deleted; what is not there is no error, as for `delete_file`."""
    (tmp_path / "deep").mkdir()
    if trouble == "a folder":
        (tmp_path / "deep/a").mkdir()
    elif trouble == "a symlink above":
        (tmp_path / "deep").rename(tmp_path / "real")
        (tmp_path / "deep").symlink_to("real")
    elif not trouble:
        (tmp_path / "deep/a").touch()
    if trouble.startswith("a "):
        with pytest.raises(UnsafePath):
            check_deletable(tmp_path, "deep/a")
    else:
        check_deletable(tmp_path, "deep/a")
        check_deletable(tmp_path, "nowhere/a")
        assert (tmp_path / "deep/a").exists() == (not trouble)


@pytest.mark.posix
def test_what_others_may_have_put_there_is_opened_with_care(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for, no terminal becomes this process's, and a link is followed only if the user named it."""
    (root / "file").touch()
    flags = flags_of_open(monkeypatch)
    for follow in (False, True):
        os.close(open_regular(str(root / "file"), follow=follow))
    care = os.O_NONBLOCK | os.O_NOCTTY
    assert [each & (care | os.O_NOFOLLOW) for each in (*flags, FILE)] == [
        care | os.O_NOFOLLOW,
        care,
        care | os.O_NOFOLLOW,
    ]


@pytest.mark.parametrize(
    ("content", "limit", "expected"),
    [
        (b"one\ntwo\nthree", 100, [b"one", b"two", b"three"]),
        (b"one\ntwo\n", 100, [b"one", b"two"]),
        (b"one\n\ntwo\n", 100, [b"one", b"", b"two"]),
        (b"one\ntwo\nthree", 10, [b"one", b"two"]),
        (b"one\ntwo\nthree", 8, [b"one", b"two"]),
        (b"eight888\n" + b"x" * 12 + b"\nlast", 100, [b"eight888", b"\0x", b"last"]),
        (b"", 100, []),
    ],
)
def test_lines_are_read_a_block_at_a_time(
    root: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, limit: int, expected: list[bytes]
) -> None:
    """Wherever a block ends; up to the limit, without a line that it cuts; and a line that is too long is no line."""
    monkeypatch.setattr(folders, "_READ_BYTES", 4)
    monkeypatch.setattr(folders, "_MAX_LINE_BYTES", 8)
    (root / "file").write_bytes(content)
    with opened_folder(root) as above:
        before = descriptors()
        assert list(regular_lines("file", above, limit=limit, owner=os.geteuid())) == expected
        assert descriptors() == before


def test_a_file_without_line_ends_fills_no_memory(root: Path) -> None:
    """What is kept of a line without end is some kilobytes."""
    (root / "file").write_bytes(b"x" * (2 << 20) + b"\nok")
    with opened_folder(root) as above:
        assert list(regular_lines("file", above, limit=4 << 20, owner=os.geteuid())) == [b"\0", b"ok"]


def test_paths_are_spelled_as_the_system_does(tmp_path: Path) -> None:
    """What was recorded for a path is found by that text."""
    assert file_path(str(tmp_path), "models/a.bin") == str(tmp_path / "models" / "a.bin")


def test_a_path_on_another_drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows, no relative path leads there."""
    assert path_from(tmp_path / "assets", tmp_path / "a.json") == os.path.join("..", "a.json")

    def relpath(path: object, start: object) -> str:
        raise ValueError(f"path is on mount {path}, start on mount {start}")

    monkeypatch.setattr(os.path, "relpath", relpath)
    assert path_from("X:", tmp_path / "a.json") == str(tmp_path / "a.json")
