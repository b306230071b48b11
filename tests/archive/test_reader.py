"""Reading an archive: who waits is told how far it is, and what the libraries raise becomes an error of ours."""

from __future__ import annotations

import errno
import io
import struct
import tarfile
import zipfile
from itertools import pairwise
from pathlib import Path

import pytest

from grym_fetch.archive import reader
from grym_fetch.archive.reader import MAX_DIRECTORY_BYTES, MAX_TARGET_BYTES, Stopped, members, opened, reading
from grym_fetch.core.archives import ArchiveKind, Census, Limits
from grym_fetch.core.errors import StorageError, UnsafeArchive
from grym_fetch.testing import seeded_bytes
from tests.support.archives import zip_of

CONTENT = seeded_bytes(200_000, seed=1)


def tar_of_content() -> bytes:
    """A tar of one file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        made = tarfile.TarInfo("a")
        made.size = len(CONTENT)
        archive.addfile(made, io.BytesIO(CONTENT))
    return out.getvalue()


def read_all(archive: Path, kind: ArchiveKind, told: list[tuple[int, int]]) -> None:
    """Read each member to its end."""
    with (
        opened(archive, Limits(), lambda: False, lambda *at: told.append(at)) as (file, census),
        reading(archive, census),
    ):
        for _, read in members(file, kind, census):
            while read(1000):
                pass


def test_who_waits_is_told_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First that nothing was read of how much, and then once for every so many bytes of the archive."""
    monkeypatch.setattr(reader, "TOLD_EVERY_BYTES", 64 * 1024)
    monkeypatch.setattr(reader, "_PACKED_BYTES", 16 * 1024)
    archive = tmp_path / "a.tar"
    archive.write_bytes(tar_of_content())
    size, told = archive.stat().st_size, list[tuple[int, int]]()
    read_all(archive, "tar", told)
    assert told[0] == (0, size)
    steps = [at for at, of in told if of == size]
    assert len(steps) == len(told) == 1 + size // (64 * 1024)
    assert all(64 * 1024 <= after - before < 80 * 1024 for before, after in pairwise(steps))


@pytest.mark.shows("S4")
def test_a_central_directory_longer_than_any_is_not_read(tmp_path: Path) -> None:
    """It would be read in one piece, so its claimed length is judged first; a file of holes may have it."""
    archive, length = tmp_path / "a.zip", MAX_DIRECTORY_BYTES + 1
    with archive.open("wb") as file:
        file.truncate(length)
        file.seek(length)
        file.write(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, length, 0, 0))
    with pytest.raises(UnsafeArchive, match="an absurdly long central directory"):
        read_all(archive, "zip", [])


@pytest.mark.shows("S4")
def test_of_a_symlink_no_more_is_read_than_a_target_may_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a zip a link's target is its content, which may be a gigabyte of zeros."""
    archive, asked = tmp_path / "a.zip", list[int]()
    archive.write_bytes(zip_of({"a": b"x" * 100_000}, mode=0o120777))
    read = zipfile.ZipExtFile.read

    def noting(body: zipfile.ZipExtFile, size: int | None = -1) -> bytes:
        data = read(body, size)
        asked.append(len(data))
        return data

    monkeypatch.setattr(zipfile.ZipExtFile, "read", noting)
    with (
        opened(archive, Limits(), lambda: False, lambda *_: None) as (file, census),
        reading(archive, census),
    ):
        member, _ = next(iter(members(file, "zip", census)))
        assert member.kind == "symlink"
        with pytest.raises(UnsafeArchive, match="unusable target"):
            census.admit(member)
    assert asked == [MAX_TARGET_BYTES + 1]


def test_damaged_bzip2_is_a_damaged_archive(tmp_path: Path) -> None:
    """Its library raises an error of the system without a number; the disk is not to blame."""
    whole = zip_of({"a": CONTENT}, method=zipfile.ZIP_BZIP2)
    at = whole.index(b"BZh")
    archive = tmp_path / "a.zip"
    archive.write_bytes(whole[: at + 4] + bytes(100) + whole[at + 104 :])
    with pytest.raises(UnsafeArchive, match="its compressed data cannot be read"):
        read_all(archive, "zip", [])


def test_a_disk_that_cannot_be_read_is_not_a_damaged_archive(tmp_path: Path) -> None:
    """An error of the system with a number is one of the disk, and names the archive."""
    census = Census("a.zip", 1, Limits())
    with pytest.raises(StorageError, match=r"a\.zip") as caught, reading(tmp_path / "a.zip", census):
        raise OSError(errno.EIO, "Input/output error")
    assert not isinstance(caught.value, UnsafeArchive)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_reading_stops_when_nobody_waits_any_more(tmp_path: Path, kind: ArchiveKind) -> None:
    """Every read of the archive's own bytes looks whether it is still wanted."""
    archive = tmp_path / "a"
    archive.write_bytes(zip_of({"a": CONTENT}) if kind == "zip" else tar_of_content())
    with (
        opened(archive, Limits(), lambda: True, lambda *_: None) as (file, census),
        pytest.raises(Stopped),
        reading(archive, census),
    ):
        next(iter(members(file, kind, census)))
