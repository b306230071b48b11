"""Reads the members of a zip or tar archive in order, without ever holding one in memory.

Rules: the libraries that read the formats are kept from reading much at once (a header may claim any length), and
whatever they raise becomes `UnsafeArchive` here. An archive that ends early is an error, although ``tarfile`` alone
would take it for complete.
"""

from __future__ import annotations

import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self, cast

import zstandard

from grym_fetch.core.archives import MIB, ArchiveKind, Census, Member, MemberKind, member_path
from grym_fetch.core.errors import GrymFetchError
from grym_fetch.disk.folders import storage_error

Read = Callable[[int], bytes]
"""Returns the next bytes of a member, at most as many as asked for; none at its end."""

MAX_DIRECTORY_BYTES = 128 * MIB
"""The longest central directory of a zip: it is read at once."""
MAX_HEADER_BYTES = MIB
"""The longest extended header of a tar: likewise."""
MAX_TARGET_BYTES = 1024
_ZSTD_WINDOW_BYTES = 128 * MIB
_DRAIN_BYTES = MIB

_FOREIGN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    zstandard.ZstdError,
    EOFError,
    NotImplementedError,  # zipfile does not know the method of compression
    RuntimeError,  # zipfile misses a password
    ValueError,
    OverflowError,
    IndexError,
    struct.error,
)


@contextmanager
def reading(archive: Path, census: Census) -> Iterator[None]:
    """Turn what the libraries raise for a bad archive into `UnsafeArchive`."""
    try:
        yield
    except GrymFetchError:
        raise
    except _FOREIGN as error:
        raise census.refusal(f"is damaged or of a kind that cannot be read ({type(error).__name__})") from error
    except OSError as error:
        # gzip and bz2 raise it for bad data, without a number; with one it is the disk's.
        if error.errno is None:
            raise census.refusal("is damaged: its compressed data cannot be read") from error
        raise storage_error(error, archive) from error


def members(file: IO[bytes], kind: ArchiveKind, census: Census) -> Iterator[tuple[Member, Read]]:
    """Yield each member with the function that reads it. Read a member before asking for the next one."""
    match kind:
        case "zip":
            yield from _zip_members(file, census)
        case "tar":
            yield from _tar_members(file, census)
        case "tar.gz":
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield from _tar_members(cast("IO[bytes]", unpacked), census)
        case "tar.zst":
            reader = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
            with reader.stream_reader(file, read_across_frames=True, closefd=False) as unpacked_zst:
                yield from _tar_members(cast("IO[bytes]", unpacked_zst), census)


# --- tar ----------------------------------------------------------------------------------------------------


class _Stream:
    """A decompressed stream, read forward only, whose length the census bounds."""

    def __init__(self, file: IO[bytes], census: Census) -> None:
        self._file = file
        self._census = census
        self._position = 0

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._position += len(data)
        self._census.check_stream(self._position)
        return data


def _tar_members(file: IO[bytes], census: Census) -> Iterator[tuple[Member, Read]]:
    class Header(tarfile.TarInfo):
        """A header that is refused if ``tarfile`` would silently stop at it, or read it without a bound."""

        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
            if len(buf) < tarfile.BLOCKSIZE:
                raise census.refusal("is cut off: it has no end mark")
            try:
                header = super().frombuf(buf, encoding, errors)
            except tarfile.HeaderError:
                if any(buf):
                    raise census.refusal("is damaged: it has an invalid header") from None
                raise
            if header.size < 0 or (header.type in _LONG_HEADERS and header.size > MAX_HEADER_BYTES):
                raise census.refusal("has a header that is longer than any real one")
            return header

    stream = _Stream(file, census)
    # A stream ("r|"), not a file ("r:"): nothing is read twice, and there is no seeking.
    with tarfile.open(fileobj=cast("Any", stream), mode="r|", tarinfo=Header, errors="surrogateescape") as tar:
        while (header := tar.next()) is not None:
            # tarfile keeps every header, for lookups that are not made here.
            tar.members.clear()  # type: ignore[attr-defined]  # the stubs lack it
            yield _from_tar(header), _tar_reader(tar, header)
    while stream.read(_DRAIN_BYTES):
        pass  # to the end, so that the checksums there are compared


_LONG_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


def _from_tar(header: tarfile.TarInfo) -> Member:
    kind: MemberKind = "device"
    if header.isreg():
        kind = "file"
    elif header.isdir():
        kind = "folder"
    elif header.issym():
        kind = "symlink"
    elif header.islnk():
        kind = "hardlink"
    return Member(
        path=member_path(header.name),
        kind=kind,
        size=header.size if kind == "file" else 0,
        target=member_path(header.linkname) if kind == "hardlink" else header.linkname,
        is_executable=bool(header.mode & 0o100),
    )


def _tar_reader(tar: tarfile.TarFile, header: tarfile.TarInfo) -> Read:
    body: list[IO[bytes]] = []

    def read(size: int) -> bytes:
        if not body:
            opened = tar.extractfile(header)
            assert opened is not None, "only files are read"
            body.append(opened)
        return body[0].read(size)

    return read


# --- zip ----------------------------------------------------------------------------------------------------


class _Careful(io.BufferedReader):
    """A file of which no single read is longer than a central directory may be."""

    census: Census

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_DIRECTORY_BYTES:
            raise self.census.refusal("has a central directory that is longer than any real one")
        return super().read(size)


def _zip_members(file: IO[bytes], census: Census) -> Iterator[tuple[Member, Read]]:
    # The descriptor stays the caller's, who closes it.
    careful = _Careful(io.FileIO(file.fileno(), closefd=False))
    careful.census = census
    with zipfile.ZipFile(careful) as archive:
        for entry in archive.infolist():
            if entry.flag_bits & 0x1:
                raise census.refusal("is encrypted")
            if "\0" in entry.orig_filename:
                raise census.refusal("has a member with a NUL in its name")
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
