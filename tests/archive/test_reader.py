"""Reading an archive: who waits is told how far it is, and what the libraries raise becomes an error of ours."""

from __future__ import annotations

import errno
import io
import os
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from grym_fetch.archive import reader
from grym_fetch.archive.reader import MAX_DIRECTORY_BYTES, MAX_TARGET_BYTES, Stopped, members, opened, reading
from grym_fetch.core.archives import ArchiveKind, Census, Limits
from grym_fetch.core.errors import StorageError, UnsafeArchive
from grym_fetch.testing import seeded_bytes
from tests.support.archives import zip_of
from tests.support.system_calls import flags_of_open

CONTENT = seeded_bytes(200_000, seed=1)


def tar_of_content() -> bytes:
    """A tar of one file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        made = tarfile.TarInfo("a")
        made.size = len(CONTENT)
        archive.addfile(made, io.BytesIO(CONTENT))
    return out.getvalue()


def read_all(archive: Path, kind: ArchiveKind, told: list[tuple[int, int]], limits: Limits | None = None) -> None:
    """Read each member to its end."""
    with (
        opened(archive, limits or Limits(), lambda: False, lambda *at: told.append(at)) as (file, census),
        reading(archive, census),
    ):
        for _, read in members(file, kind, census):
            while read(512):
                pass


def test_who_waits_is_told_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First that nothing was read of how much, and then once for every so many bytes of the archive."""
    monkeypatch.setattr(reader, "TOLD_EVERY_BYTES", 64 * 1024)
    archive = tmp_path / "a.tar"
    archive.write_bytes(tar_of_content())
    size, told = archive.stat().st_size, list[tuple[int, int]]()
    read_all(archive, "tar", told)
    assert told == [(at, size) for at in range(0, size, 64 * 1024)]


@pytest.mark.posix
def test_an_archive_is_opened_with_care(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something else may be there by now: nothing is waited for, and no terminal becomes this process's."""
    archive, flags = tmp_path / "a.tar", flags_of_open(monkeypatch)
    archive.write_bytes(tar_of_content())
    read_all(archive, "tar", [])
    care = os.O_NONBLOCK | os.O_NOCTTY
    assert [each & care for each in flags] == [care]


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


def test_a_central_directory_of_the_greatest_length_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to there it is as good as any other."""
    archive, data = tmp_path / "a.zip", zip_of({f"{n}": b"" for n in range(100)})
    archive.write_bytes(data)
    monkeypatch.setattr(reader, "MAX_DIRECTORY_BYTES", data.index(b"PK\x05\x06") - data.index(b"PK\x01\x02"))
    read_all(archive, "zip", [])


@pytest.mark.parametrize("limits", [Limits(members=99), Limits(memory=50_000, memory_ratio=1)])
@pytest.mark.shows("S4")
def test_of_a_directory_with_too_many_entries_none_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: Limits
) -> None:
    """An entry takes ten times as much memory as its bytes in the directory, so they are counted there."""
    archive, made = tmp_path / "a.zip", list[str]()
    archive.write_bytes(zip_of({f"{n}": b"" for n in range(100)}))

    class Noted(zipfile.ZipInfo):
        def __init__(self, filename: str) -> None:
            made.append(filename)
            super().__init__(filename)

    monkeypatch.setattr(zipfile, "ZipInfo", Noted)
    read_all(archive, "zip", [])
    assert len(made) == 100
    with pytest.raises(UnsafeArchive, match=r"more members|more than 99 members"):
        read_all(archive, "zip", [], limits)
    assert len(made) == 100


def zip_with_twins() -> bytes:
    """A zip of two members that are the same bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("a", CONTENT)
        made.filelist *= 2
    return out.getvalue()


def encrypted_zip() -> bytes:
    """A zip that says in its directory that its member is encrypted."""
    data = bytearray(zip_of({"a": b"secret"}))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


REFUSED: dict[str, tuple[bytes, str]] = {
    "shared bytes": (zip_with_twins(), "members that share their bytes"),
    "encrypted": (encrypted_zip(), "it is encrypted"),
    "a NUL": (zip_of({"name!.exe": b"1"}).replace(b"name!", b"name\0"), "a NUL in its name"),
    "lzma": (zip_of({"a": b"1"}, method=zipfile.ZIP_LZMA), r"unsupported method of compression \(number 14\)"),
}


@pytest.mark.parametrize(("data", "reason"), REFUSED.values(), ids=REFUSED)
@pytest.mark.shows("S4", "S5")
def test_what_no_honest_zip_has_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    """The directory is enough to tell: no member is read, and what ``zipfile`` makes of such a zip does not matter."""
    archive = tmp_path / "a.zip"
    archive.write_bytes(data)
    with (
        opened(archive, Limits(), lambda: False, lambda *_: None) as (file, census),
        reading(archive, census),
        pytest.raises(UnsafeArchive, match=reason),
    ):
        next(iter(members(file, "zip", census)))


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
