"""Reads the members of a zip or tar archive in order, without ever holding one in memory.

Rules: the libraries that read the formats are kept from reading much at once (a header may claim any length), and
whatever they raise becomes `UnsafeArchive` here. Every read of the archive's own bytes checks the stop flag, so that
reading can be stopped even in an archive that yields nothing.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast

import zstandard

from grym_fetch.archive.tar import Read, tar_members
from grym_fetch.core.archives import MIB, ArchiveKind, Census, Limits, Member, MemberKind, archive_kind, member_path
from grym_fetch.core.errors import GrymFetchError, UnsafePath
from grym_fetch.core.text import safe_text
from grym_fetch.disk.folders import storage_error
from grym_fetch.runtime import system

MAX_DIRECTORY_BYTES = 128 * MIB
"""The longest central directory of a zip, which is read in one piece."""
BLOCK_BYTES = MIB
"""Bytes of a member read at a time."""
MAX_TARGET_BYTES = 1024
TOLD_EVERY_BYTES = 8 * MIB
"""After this many bytes of an archive, whoever waits is told how far it is."""
ZSTD_WINDOW_BYTES = 128 * MIB
"""The longest window of a Zstandard frame, which takes that much memory (RFC 8878 section 3.1.1.1.2)."""
_PACKED_BYTES = 16 * 1024
_WBITS_GZIP = 16 + zlib.MAX_WBITS
_ENTRY_MARK = b"PK\x01\x02"
# LZMA may ask for a dictionary of up to 4 GiB; nobody makes such zips.
_ZIP_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2})

_FOREIGN = (
    zipfile.BadZipFile,
    zlib.error,
    zstandard.ZstdError,
    EOFError,
    NotImplementedError,  # zipfile does not know the compression method
    RuntimeError,  # zipfile needs a password
    ValueError,
    OverflowError,
    IndexError,
    struct.error,
)


class Stopped(Exception):
    """The caller no longer wants the tree."""


def kind_of(local_path: str) -> ArchiveKind:
    """The kind of an archive that is to be unpacked."""
    kind = archive_kind(local_path)
    assert kind is not None, "the manifest's parser refuses anything else"
    return kind


@contextmanager
def opened(
    archive: Path, limits: Limits, is_stopped: Callable[[], bool], on_read: Callable[[int, int], None]
) -> Iterator[tuple[BinaryIO, Census]]:
    """The archive, open, and a census of it. Raises ``OSError``, and `UnsafePath` for what is not a file.

    `Stopped` is raised from its reads once ``is_stopped`` says so. ``on_read`` is told how many of how many bytes of
    the archive were read: at first none, and then every `TOLD_EVERY_BYTES`.
    """
    told = 0

    def check_stopped() -> None:
        nonlocal told
        if is_stopped():
            raise Stopped
        at = file.tell()
        if at - told >= TOLD_EVERY_BYTES:
            told = at
            on_read(at, packed)

    # It was a file when it was verified; do not wait for a pipe that may be there now.
    descriptor = system.open_descriptor(archive, os.O_RDONLY | system.O_NONBLOCK | system.O_NOCTTY)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UnsafePath(safe_text(str(archive)), "this is not a file")
        packed = os.fstat(file.fileno()).st_size
        on_read(0, packed)
        yield file, Census(safe_text(str(archive), limit=1000), packed, limits, check_stopped)


@contextmanager
def reading(archive: Path, census: Census) -> Iterator[None]:
    """Turn what the libraries raise for a bad archive into `UnsafeArchive`."""
    try:
        yield
    except GrymFetchError:
        raise
    except _FOREIGN as error:
        raise census.refusal(f"is damaged or of an unsupported kind ({type(error).__name__})") from error
    except OSError as error:
        # gzip and bz2 raise it without a number for bad data; an error with a number is the disk's.
        if error.errno is None:
            raise census.refusal("is damaged: its compressed data cannot be read") from error
        raise storage_error(error, archive) from error


def members(file: IO[bytes], kind: ArchiveKind, census: Census) -> Iterator[tuple[Member, Read]]:
    """Yield each member with the function that reads it. Read a member before asking for the next one."""
    match kind:
        case "zip":
            yield from _zip_members(file, census)
        case "tar":
            yield from tar_members(_Packed(file, census), census)
        case "tar.gz":
            yield from tar_members(_Gzip(_Packed(file, census)), census)
        case "tar.zst":
            reader = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
            source = cast("IO[bytes]", _Packed(file, census))
            with reader.stream_reader(source, read_across_frames=True, closefd=False) as unpacked:
                yield from tar_members(unpacked, census)


# --- compressed streams -------------------------------------------------------------------------------------


class _Packed:
    """The archive's own bytes, read forward only. The caller may stop at each read."""

    def __init__(self, file: IO[bytes], census: Census) -> None:
        self._file = file
        self._census = census

    def read(self, size: int, /) -> bytes:
        self._census.check_stopped()
        return self._file.read(min(size, _PACKED_BYTES))


class _Gzip:
    """The content of a gzip file, members joined. Unlike ``gzip``, it can be stopped while nothing comes out."""

    def __init__(self, packed: _Packed) -> None:
        self._packed = packed
        self._member = zlib.decompressobj(wbits=_WBITS_GZIP)
        self._input = b""

    def read(self, size: int, /) -> bytes:
        """Return from 1 to ``size`` bytes; none at the end."""
        while True:
            if self._member.eof:
                self._input = self._member.unused_data
                while not self._input.strip(b"\0"):  # RFC 1952 does not mention padding; gzip(1) accepts zeros
                    if not (more := self._packed.read(_PACKED_BYTES)):
                        return b""
                    self._input = more
                self._input = self._input.lstrip(b"\0")
                self._member = zlib.decompressobj(wbits=_WBITS_GZIP)
            if not self._input and not (more := self._packed.read(_PACKED_BYTES)):
                raise EOFError("a gzip member without its end")
            data = self._member.decompress(self._input or more, size)
            self._input = self._member.unconsumed_tail
            if data:
                return data


# --- zip ----------------------------------------------------------------------------------------------------


class _Careful:
    """A file for ``zipfile`` to read, which checks the central directory before any entry is made from it.

    ``zipfile`` reads the directory in one piece and makes an object for each entry.
    """

    def __init__(self, file: IO[bytes], census: Census) -> None:
        self._file = file
        self._census = census
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1, /) -> bytes:
        self._census.check_stopped()
        if size > MAX_DIRECTORY_BYTES:
            raise self._census.refusal("has an absurdly long central directory")
        data = self._file.read(size)
        if data.startswith(_ENTRY_MARK):
            self._census.check_directory(data.count(_ENTRY_MARK), len(data))
        return data


def _zip_members(file: IO[bytes], census: Census) -> Iterator[tuple[Member, Read]]:
    with zipfile.ZipFile(cast("IO[bytes]", _Careful(file, census))) as archive:
        entries = archive.infolist()
        if sum(entry.compress_size for entry in entries) > census.packed:
            raise census.refusal("has members that share their bytes, which no honest archive does")
        for entry in entries:
            if entry.flag_bits & 0x1:
                raise census.refusal("is encrypted")
            if "\0" in entry.orig_filename:
                raise census.refusal("has a member with a NUL in its name")
            if entry.compress_type not in _ZIP_METHODS:
                raise census.refusal(f"uses an unsupported method of compression (number {entry.compress_type})")
            with archive.open(entry) as body:
                yield _from_zip(entry, body), body.read


def _from_zip(entry: zipfile.ZipInfo, body: IO[bytes]) -> Member:
    mode = entry.external_attr >> 16 if entry.create_system == 3 else 0
    kind: MemberKind = "device"
    if entry.is_dir() or stat.S_ISDIR(mode):
        kind = "folder"
    elif stat.S_ISLNK(mode):
        kind = "symlink"
    elif stat.S_IFMT(mode) in (0, stat.S_IFREG):
        kind = "file"
    target = body.read(MAX_TARGET_BYTES + 1).decode("utf-8") if kind == "symlink" else ""
    return Member(
        path=member_path(entry.filename),
        kind=kind,
        size=entry.file_size if kind == "file" else 0,
        target=target,
        is_executable=bool(mode & 0o100),
    )
