"""How one file gets the bytes of another, and what must not change on the way."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from unittest import mock

import pytest

from grym_fetch.core.errors import DiskFull
from grym_fetch.disk import sharing
from grym_fetch.disk.sharing import OpenFile, Shared, modes_from, share
from grym_fetch.disk.verified import ReplacedMeanwhile
from grym_fetch.events import LinkMode
from grym_fetch.testing import seeded_bytes
from tests.support.other_user import needs_root
from tests.support.system import descriptors, folder_descriptor

CONTENT = seeded_bytes(70_001, seed=5)


def shared(source: Path, folder: Path, *modes: LinkMode, name: str = "made") -> LinkMode:
    """Share a file into a folder; return how."""
    opened, here = OpenFile.opened(source), folder_descriptor(folder)
    try:
        made = share(opened, opened.signature, here, name, modes or modes_from("auto"), room=folder)
        os.close(made.descriptor)
        return made.link
    finally:
        opened.close()
        os.close(here)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file of this user's."""
    made = tmp_path / "source"
    made.write_bytes(CONTENT)
    made.chmod(0o644)
    return made


@pytest.mark.posix
def test_a_copy_is_a_file_of_its_own(source: Path, tmp_path: Path) -> None:
    """Writing to it changes nothing else."""
    assert shared(source, tmp_path, LinkMode.COPY) is LinkMode.COPY
    assert (tmp_path / "made").read_bytes() == CONTENT
    (tmp_path / "made").write_bytes(b"other")
    assert source.read_bytes() == CONTENT
    assert source.stat().st_mode & 0o777 == 0o644


def test_where_no_way_is_open_nothing_is_made(source: Path, tmp_path: Path) -> None:
    """The error names the file that could not be shared."""
    opened, here = OpenFile.opened(source), folder_descriptor(tmp_path)
    try:
        with pytest.raises(OSError, match="cannot be shared") as caught:
            share(opened, opened.signature, here, "made", [], room=tmp_path)
    finally:
        opened.close()
        os.close(here)
    assert (caught.value.errno, caught.value.filename) == (errno.EOPNOTSUPP, str(source))
    assert not (tmp_path / "made").exists()


@pytest.mark.shows("X11")
def test_a_hard_link_is_read_only(source: Path, tmp_path: Path) -> None:
    """Both names are of one file, to which nobody may write by accident."""
    assert shared(source, tmp_path, LinkMode.HARDLINK) is LinkMode.HARDLINK
    assert (tmp_path / "made").samefile(source)
    assert source.stat().st_mode & 0o777 == 0o444


@pytest.mark.posix
@pytest.mark.shows("X11")
def test_a_file_that_stays_writable_is_copied(source: Path, tmp_path: Path) -> None:
    """Where the mode cannot be changed there is no link: through either name, the other would change."""
    with mock.patch("os.fchmod", side_effect=PermissionError(errno.EPERM, "not yours")):
        assert shared(source, tmp_path, LinkMode.HARDLINK, LinkMode.COPY) is LinkMode.COPY
    assert not (tmp_path / "made").samefile(source)


@pytest.mark.posix
@needs_root
def test_another_users_file_is_copied(source: Path, tmp_path: Path) -> None:
    """Its owner could make it writable again, and change it unseen."""
    source.chmod(0o444)
    os.chown(source, 4243, -1)
    assert shared(source, tmp_path, LinkMode.HARDLINK, LinkMode.COPY) is LinkMode.COPY
    assert (tmp_path / "made").stat().st_nlink == 1


@pytest.mark.shows("P15")
@pytest.mark.parametrize("mode", [LinkMode.HARDLINK, LinkMode.COPY])
def test_what_changes_meanwhile_is_not_taken(source: Path, tmp_path: Path, mode: LinkMode) -> None:
    """Whether before or during it: nothing is left behind."""
    real = sharing._MAKERS[mode]

    def change_and_make(source: OpenFile, folder: int, name: str, room: Path) -> int | None:
        made = real(source, folder, name, room)
        with source.path.open("r+b") as file:
            file.write(b"changed")
        return made

    before = descriptors()
    with mock.patch.dict(sharing._MAKERS, {mode: change_and_make}), pytest.raises(ReplacedMeanwhile):
        shared(source, tmp_path, mode)
    assert not (tmp_path / "made").exists()
    assert descriptors() == before


@pytest.mark.posix
def test_a_link_is_followed_only_if_that_is_asked_for(source: Path, tmp_path: Path) -> None:
    """Then the name and the folder are those of the file that it leads to."""
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "link"
    link.symlink_to(source)
    before = descriptors()
    opened = OpenFile.opened(link, follow=True)
    assert (opened.path, opened.name) == (source.resolve(), "source")
    assert os.path.samestat(os.fstat(opened.folder), tmp_path.stat())
    opened.close()
    with pytest.raises(OSError, match="symbolic links"):
        OpenFile.opened(link)
    assert descriptors() == before


def test_a_name_that_leads_elsewhere_is_not_linked(source: Path, tmp_path: Path) -> None:
    """The file that was opened is copied instead."""
    opened, here = OpenFile.opened(source), folder_descriptor(tmp_path)
    try:
        expected = opened.signature
        source.rename(tmp_path / "moved")
        source.write_bytes(b"another file")
        expected = opened.signature
        made = share(opened, expected, here, "made", (LinkMode.HARDLINK, LinkMode.COPY), room=tmp_path)
        os.close(made.descriptor)
    finally:
        opened.close()
        os.close(here)
    assert made == Shared(made.descriptor, LinkMode.COPY)
    assert (tmp_path / "made").read_bytes() == CONTENT


def test_a_copy_that_does_not_fit_is_not_begun(source: Path, tmp_path: Path) -> None:
    """The error is that of a full disk."""
    full = mock.patch.object(sharing, "require_space", side_effect=DiskFull("x", "not enough space"))
    with full, pytest.raises(DiskFull):
        shared(source, tmp_path, LinkMode.COPY)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("choice", "modes"),
    [
        ("auto", "reflink hardlink copy"),
        ("reflink", "reflink copy"),
        ("hardlink", "hardlink copy"),
        ("copy", "copy"),
    ],
)
def test_the_copy_comes_last(choice: str, modes: str) -> None:
    """Each choice ends with what works everywhere."""
    assert " ".join(modes_from(choice)) == modes


@contextmanager
def on_loop(place: Path, kind: str) -> Iterator[Path]:
    """A file system in a file. Skipped where it cannot be made, but in CI."""
    if shutil.which(f"mkfs.{kind}") is None:
        assert "CI" not in os.environ, f"there is no mkfs.{kind}, and this is CI"
        pytest.skip(f"there is no mkfs.{kind}")
    image = place / "image"
    with image.open("wb") as file:
        file.truncate(320 * 1024 * 1024)
    mounted = place / kind
    mounted.mkdir()
    subprocess.run([f"mkfs.{kind}", "-q", str(image)], check=True, capture_output=True)
    if subprocess.run(["mount", "-o", "loop", str(image), str(mounted)], capture_output=True, check=False).returncode:
        assert "CI" not in os.environ, f"{kind} cannot be mounted, and this is CI"
        pytest.skip(f"{kind} cannot be mounted here")
    try:
        yield mounted
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


@pytest.mark.root
@pytest.mark.sweep
@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_a_reflink_shares_the_blocks(tmp_path: Path, kind: str) -> None:
    """Where the file system can, a file takes no space of its own, and stays as it is whatever happens to the other."""
    content = seeded_bytes(32 * 1024 * 1024, seed=6)
    with on_loop(tmp_path, kind) as place:
        (place / "source").write_bytes(content)
        os.sync()
        free = shutil.disk_usage(place).free
        assert shared(place / "source", place) is LinkMode.REFLINK
        os.sync()
        assert free - shutil.disk_usage(place).free < len(content) // 4
        (place / "source").write_bytes(b"other")
        assert (place / "made").read_bytes() == content


@pytest.mark.posix
@pytest.mark.shows("X11")
def test_a_writable_file_with_another_name_is_copied(source: Path, tmp_path: Path) -> None:
    """The other name is of a program that writes there: its file stays as it is. A read-only one is linked."""
    os.link(source, tmp_path / "another")
    assert shared(source, tmp_path) is LinkMode.COPY
    assert (source.stat().st_mode & 0o777, source.stat().st_nlink) == (0o644, 2)
    source.chmod(0o444)
    assert shared(source, tmp_path, LinkMode.HARDLINK, LinkMode.COPY, name="second") is LinkMode.HARDLINK


def test_in_which_order_the_ways_are_tried() -> None:
    """A copy is always the last; a file of somebody who goes on using it gets no second name."""
    reflink, link, copy = LinkMode.REFLINK, LinkMode.HARDLINK, LinkMode.COPY
    assert modes_from("auto") == (reflink, link, copy)
    assert modes_from("auto", may_link=False) == (reflink, copy)
    assert (modes_from("hardlink"), modes_from("copy")) == ((link, copy), (copy,))
    assert modes_from("hardlink", may_link=False) == (copy,)


def _link_that_fails(number: int) -> AbstractContextManager[object]:
    return mock.patch("os.link", side_effect=OSError(number, os.strerror(number)))


@pytest.mark.linux
@pytest.mark.parametrize("mode", [LinkMode.HARDLINK, LinkMode.COPY])
def test_a_taken_name_stays_what_it_is(source: Path, tmp_path: Path, mode: LinkMode) -> None:
    """Nothing is written to a file that is there, and nothing stays open."""
    (tmp_path / "made").write_bytes(b"theirs")
    before = descriptors()
    with pytest.raises(FileExistsError):
        shared(source, tmp_path, mode)
    assert (tmp_path / "made").read_bytes() == b"theirs"
    assert descriptors() == before


@pytest.mark.posix
def test_where_links_are_not_possible(source: Path, tmp_path: Path) -> None:
    """Some errors say so, and the next way is tried; any other one is an error."""
    with _link_that_fails(errno.EMLINK):
        assert shared(source, tmp_path, LinkMode.HARDLINK, LinkMode.COPY) is LinkMode.COPY
    with _link_that_fails(errno.EIO), pytest.raises(OSError, match="Input/output error"):
        shared(source, tmp_path, LinkMode.HARDLINK, LinkMode.COPY, name="other")


@pytest.mark.linux
@pytest.mark.parametrize(
    ("mode", "broken"), [(LinkMode.HARDLINK, "is_at"), (LinkMode.COPY, "copy_range")], ids=["link", "copy"]
)
def test_what_fails_leaves_nothing(source: Path, tmp_path: Path, mode: LinkMode, broken: str) -> None:
    """Neither a name nor an open file."""
    before = descriptors()
    with (
        mock.patch.object(sharing, broken, side_effect=OSError(errno.EIO, "Input/output error")),
        pytest.raises(OSError, match="Input/output error"),
    ):
        shared(source, tmp_path, mode)
    assert not (tmp_path / "made").exists()
    assert descriptors() == before
    with pytest.raises(OSError, match="not a file"):
        OpenFile.opened(tmp_path)
    assert descriptors() == before


def test_a_source_that_ends_early_is_not_taken(source: Path, tmp_path: Path) -> None:
    """What was copied until then is removed."""
    with mock.patch.object(sharing, "copy_range", return_value=False), pytest.raises(OSError, match="to its end"):
        shared(source, tmp_path, LinkMode.COPY)
    assert not (tmp_path / "made").exists()
