"""Files that appear whole: whichever call fails, there is the old one, the new one or nothing."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from grym_fetch.disk.atomic import PRIVATE, NewFile, create_file, rename_new, replace_file
from tests.support.system import descriptors, folder_descriptor
from tests.support.system_calls import fail_at

OLD, NEW = b"the old file", b"the new one, which is longer"
STEPS = ["open", "write", "fsync", "close", "rename", "link", "unlink"]
NO_LINKS = [errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    """An empty, open folder."""
    descriptor = folder_descriptor(tmp_path)
    yield descriptor
    os.close(descriptor)


def without_links(patch: pytest.MonkeyPatch, number: int = errno.EPERM) -> None:
    """A file system without hard links."""

    def link(*arguments: object, **more: object) -> None:
        raise OSError(number, os.strerror(number))

    patch.setattr(os, "link", link)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), KeyboardInterrupt()], ids=["error", "interrupt"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    ("write", "before", "has_links"),
    [
        pytest.param(replace_file, OLD, True, id="replace"),
        pytest.param(replace_file, None, True, id="replace nothing"),
        pytest.param(create_file, None, True, id="create"),
        pytest.param(create_file, None, False, id="create without links"),
        pytest.param(create_file, OLD, True, id="create where there is one"),
        pytest.param(create_file, OLD, False, id="create where there is one, without links"),
    ],
)
def test_whichever_call_fails(
    tmp_path: Path,
    folder: int,
    write: Callable[[int, str, bytes], None],
    before: bytes | None,
    has_links: bool,
    step: str,
    error: BaseException,
) -> None:
    """The name stands for the old content or the whole new file, and nothing is in the way of the next try."""
    path = tmp_path / "it"
    allowed = {before} if write is create_file and before is not None else {before, NEW}
    for number in range(1, 10):
        path.unlink(missing_ok=True)
        if before is not None:
            path.write_bytes(before)
        with pytest.MonkeyPatch.context() as patch:
            if not has_links:
                without_links(patch)
            calls = fail_at(patch, step, number, error)
            with suppress(OSError, KeyboardInterrupt):
                write(folder, "it", NEW)
        assert (path.read_bytes() if path.exists() else None) in allowed
        left = [name for name in os.listdir(tmp_path) if name != "it"]
        assert left == [] or step == "unlink"
        for name in left:
            (tmp_path / name).unlink()
        if calls[0] < number:
            return
    raise AssertionError("it never came to its end")


@pytest.mark.posix
def test_flushed_before_it_gets_its_name(folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes are on disk, and the file is closed, before the name changes; that is on disk on return.

    Some network file systems report only at the close that they could not write.
    """
    steps: list[str] = []

    def noted(name: str) -> Callable[..., Any]:
        real: Callable[..., Any] = getattr(os, name)

        def call(*arguments: Any, **more: Any) -> Any:
            where = os.path.basename(os.readlink(f"/proc/self/fd/{arguments[0]}")) if name in ("fsync", "close") else ""
            steps.append(f"{name} file" if where.endswith(".tmp") else f"{name} folder" if where else name)
            return real(*arguments, **more)

        return call

    for name in ("write", "fsync", "close", "rename", "link"):
        monkeypatch.setattr(os, name, noted(name))
    replace_file(folder, "it", NEW)
    assert steps == ["write", "fsync file", "close file", "rename", "fsync folder"]
    steps.clear()
    create_file(folder, "other", NEW)
    assert steps == ["write", "fsync file", "close file", "link", "fsync folder"]


def test_a_write_in_parts(tmp_path: Path, folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes a few bytes at a time gets all of them."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:7]))
    replace_file(folder, "it", NEW)
    assert (tmp_path / "it").read_bytes() == NEW


@pytest.mark.posix
@pytest.mark.parametrize("number", [None, *NO_LINKS])
def test_a_taken_name_is_never_replaced(
    tmp_path: Path, folder: int, number: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`create_file` never takes the name of a file, a folder or a dangling symlink, with hard links or without."""
    if number is not None:
        without_links(monkeypatch, number)
    (tmp_path / "file").write_bytes(OLD)
    (tmp_path / "folder").mkdir()
    (tmp_path / "symlink").symlink_to("nowhere")
    for name in ("file", "folder", "symlink"):
        with pytest.raises(FileExistsError):
            create_file(folder, name, NEW)
    assert (tmp_path / "file").read_bytes() == OLD
    assert os.readlink(tmp_path / "symlink") == "nowhere"
    create_file(folder, "new", NEW)
    assert (tmp_path / "new").read_bytes() == NEW
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "new", "symlink"]


@pytest.mark.posix
def test_another_error_of_a_link_is_told(folder: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a file system without links falls back to a rename: any other error is passed to the caller."""
    (tmp_path / "draft").write_bytes(NEW)
    without_links(monkeypatch, errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"):
        rename_new(folder, "draft", "it")
    assert os.listdir(tmp_path) == ["draft"]


def test_no_symlink_is_followed(tmp_path: Path, folder: int) -> None:
    """A symlink with that name is replaced; the file it leads to stays unchanged."""
    (tmp_path / "precious").write_bytes(OLD)
    (tmp_path / "it").symlink_to("precious")
    replace_file(folder, "it", NEW)
    assert (tmp_path / "precious").read_bytes() == OLD
    assert not (tmp_path / "it").is_symlink()
    assert (tmp_path / "it").read_bytes() == NEW


@pytest.mark.posix
@pytest.mark.parametrize(("mask", "wanted"), [(0o022, 0o644), (0o077, 0o600)])
def test_permissions(tmp_path: Path, folder: int, mask: int, wanted: int) -> None:
    """A new file has the permissions the umask leaves, a private one is private, a changed one keeps its own."""
    before = os.umask(mask)
    try:
        create_file(folder, "new", NEW)
        create_file(folder, "private", NEW, mode=PRIVATE)
        (tmp_path / "shared").write_bytes(OLD)
        (tmp_path / "shared").chmod(0o664)
        with NewFile(folder, "shared", mode=PRIVATE) as file:
            file.take_after((tmp_path / "shared").stat())
            file.replace()
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"new": wanted, "private": 0o600, "shared": 0o664}


@pytest.mark.posix
def test_a_changed_file_keeps_its_owner(tmp_path: Path, folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root, who changes another user's file, does not become its owner."""
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fchown", lambda _, user, group: given.append((user, group)))
    (tmp_path / "it").write_bytes(OLD)
    figures = (tmp_path / "it").stat()
    with NewFile(folder, "it") as file:
        file.take_after(figures)
    assert given == [(figures.st_uid, figures.st_gid)]


def test_what_gets_no_name_is_removed(tmp_path: Path, folder: int) -> None:
    """An abandoned file leaves nothing behind, and nothing of it appears under its name before."""
    with NewFile(folder, "it") as file:
        file.write(NEW)
        file.flush()
        assert not (tmp_path / "it").exists()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127, "\N{SNOWMAN}" * 85])
def test_the_longest_names(tmp_path: Path, folder: int, name: str) -> None:
    """Even the longest name the file system allows leaves room for the temporary one."""
    create_file(folder, name, OLD)
    replace_file(folder, name, NEW)
    assert (tmp_path / name).read_bytes() == NEW


def test_nothing_stays_open(folder: int) -> None:
    """Neither after success, nor where the file gets no name."""
    before = descriptors()
    replace_file(folder, "a", NEW)
    with NewFile(folder, "b") as file:
        file.write(NEW)
    with pytest.raises(FileExistsError):
        create_file(folder, "a", NEW)
    assert descriptors() == before
