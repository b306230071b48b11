"""Names in open folders on Windows: what ``dir_fd`` promises elsewhere."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from grym_fetch.runtime import system

NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | system.O_NOFOLLOW


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    """An open folder."""
    descriptor = system.open_descriptor(tmp_path, os.O_RDONLY | system.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def write(folder: int, name: str, data: bytes = b"content") -> None:
    """Make a file."""
    with open(system.open_descriptor(name, NEW, dir_fd=folder), "wb") as file:
        file.write(data)


def read(folder: int, name: str) -> bytes:
    """Read a file."""
    with open(system.open_descriptor(name, os.O_RDONLY | system.O_NOFOLLOW, dir_fd=folder), "rb") as file:
        return file.read()


def test_files_and_folders_are_made_found_and_removed(folder: int) -> None:
    """Each by its name in the open folder, or in one that is below."""
    system.mkdir("below", 0o700, dir_fd=folder)
    write(folder, "file")
    write(folder, "below/line", b"a\r\nb\n")
    assert sorted(system.listdir(folder)) == ["below", "file"]
    assert read(folder, "below/line") == b"a\r\nb\n"
    figures = system.stat("file", dir_fd=folder, follow_symlinks=False)
    assert stat.S_ISREG(figures.st_mode)
    assert figures.st_size == len(b"content")
    assert stat.S_ISDIR(system.stat("below", dir_fd=folder).st_mode)
    with open(system.open_descriptor("file", os.O_RDONLY, dir_fd=folder), "rb") as file:
        assert os.path.samestat(os.fstat(file.fileno()), figures)
    system.unlink("file", dir_fd=folder)
    system.unlink("below/line", dir_fd=folder)
    system.rmdir("below", dir_fd=folder)
    assert system.listdir(folder) == []


def test_an_open_folder_is_the_same_wherever_its_path_leads_by_then(folder: int, tmp_path: Path) -> None:
    """Somebody puts another folder in its place: what is made goes into the one that was opened."""
    system.mkdir("ours", dir_fd=folder)
    ours = system.open_descriptor("ours", os.O_RDONLY | system.O_DIRECTORY | system.O_NOFOLLOW, dir_fd=folder)
    try:
        os.rename(tmp_path / "ours", tmp_path / "moved")
        (tmp_path / "ours").mkdir()
        write(ours, "file")
    finally:
        os.close(ours)
    assert os.listdir(tmp_path / "moved") == ["file"]
    assert os.listdir(tmp_path / "ours") == []


@pytest.mark.parametrize(
    ("name", "flags", "code"),
    [
        ("missing", os.O_RDONLY, errno.ENOENT),
        ("missing/file", os.O_RDONLY, errno.ENOENT),
        ("file", NEW, errno.EEXIST),
        ("file", os.O_RDONLY | system.O_DIRECTORY, errno.ENOTDIR),
        ("below", os.O_WRONLY, errno.EISDIR),
        ("..", os.O_RDONLY | system.O_DIRECTORY, errno.EINVAL),
    ],
)
def test_what_cannot_be_opened(folder: int, name: str, flags: int, code: int) -> None:
    """The same errors as elsewhere; nothing leads out of the folder."""
    write(folder, "file")
    system.mkdir("below", dir_fd=folder)
    with pytest.raises(OSError) as caught:  # noqa: PT011 - by its number
        os.close(system.open_descriptor(name, flags, dir_fd=folder))
    assert caught.value.errno == code


def test_what_cannot_be_removed(folder: int) -> None:
    """A folder as a file, a file as a folder, a folder that is not empty."""
    write(folder, "file")
    system.mkdir("below", dir_fd=folder)
    with pytest.raises(IsADirectoryError):
        system.unlink("below", dir_fd=folder)
    with pytest.raises(NotADirectoryError):
        system.rmdir("file", dir_fd=folder)
    write(folder, "below/file")
    with pytest.raises(OSError) as caught:  # noqa: PT011 - by its number
        system.rmdir("below", dir_fd=folder)
    assert caught.value.errno == errno.ENOTEMPTY
    with pytest.raises(FileExistsError):
        system.mkdir("below", dir_fd=folder)


def test_an_open_file_is_renamed_and_gets_a_second_name(folder: int) -> None:
    """Over what was there, and never over what is there for a link."""
    system.mkdir("below", dir_fd=folder)
    write(folder, "old", b"old")
    descriptor = system.open_descriptor("new", NEW, dir_fd=folder)
    try:
        os.write(descriptor, b"new")
        system.rename("new", "old", folder=folder, into=folder)
        assert os.path.samestat(os.fstat(descriptor), system.stat("old", dir_fd=folder, follow_symlinks=False))
        system.link("old", "second", src_dir_fd=folder, dst_dir_fd=folder)
        assert os.fstat(descriptor).st_nlink == 2
        with pytest.raises(FileExistsError):
            system.link("old", "second", src_dir_fd=folder, dst_dir_fd=folder)
        system.rename("second", "third", folder=folder, into=folder)
    finally:
        os.close(descriptor)
    assert (read(folder, "old"), read(folder, "third")) == (b"new", b"new")
    system.mkdir("below/deep", dir_fd=folder)
    below = system.open_descriptor("below", os.O_RDONLY | system.O_DIRECTORY, dir_fd=folder)
    try:
        system.rename("third", "deep/file", folder=folder, into=below)
    finally:
        os.close(below)
    assert read(folder, "below/deep/file") == b"new"


def test_paths_without_a_folder(tmp_path: Path) -> None:
    """They may be longer than the 260 characters that the Windows API takes."""
    deep = tmp_path.joinpath(*["f" * 100] * 3)
    os.makedirs(f"\\\\?\\{deep}")
    with open(system.open_descriptor(deep / "file", NEW), "wb") as file:
        file.write(b"far")
    system.rename(deep / "file", deep / "name")
    with open(system.open_descriptor(deep / "name", os.O_RDONLY), "rb") as file:
        assert file.read() == b"far"
    system.unlink(str(deep / "name"), dir_fd=None)


def test_trees_are_walked_and_removed(folder: int) -> None:
    """From below, as on other systems."""
    for name in ("tree", "tree/a", "tree/a/b", "tree/c"):
        system.mkdir(name, dir_fd=folder)
    for name in ("tree/file", "tree/a/b/file"):
        write(folder, name)
    seen = [(path, sorted(folders), files) for path, folders, files, _ in system.fwalk("tree", folder)]
    assert seen[-1] == ("tree", ["a", "c"], ["file"])
    assert seen.index(("tree/a/b", [], ["file"])) < seen.index(("tree/a", ["b"], []))
    system.rmtree("tree", dir_fd=folder)
    assert system.listdir(folder) == []
    with pytest.raises(FileNotFoundError):
        system.rmtree("tree", dir_fd=folder)
    system.rmtree("tree", ignore_errors=True, dir_fd=folder)


def test_what_is_appended_goes_to_the_end_whoever_writes(folder: int) -> None:
    """Two processes write to one log."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    one, other = (system.open_descriptor("log", flags, dir_fd=folder) for _ in range(2))
    for descriptor, text in [(one, b"a"), (other, b"b"), (one, b"c")]:
        os.write(descriptor, text)
    os.close(one)
    os.close(other)
    assert read(folder, "log") == b"abc"


def test_a_truncated_file_is_the_same_file(folder: int) -> None:
    """And may be made by the same call."""
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | system.O_NOFOLLOW
    for data in (b"much", b"x"):
        with open(system.open_descriptor("file", flags, dir_fd=folder), "wb") as file:
            file.write(data)
    assert read(folder, "file") == b"x"
    assert system.may_write(folder)
