"""Reads the members of a tar stream in order, forward only.

Rules: ``tarfile`` is not used. It takes an archive that is cut off at the end of a member for complete, and a damaged
header for the end; a header full of digits freezes it (CVE-2024-6232). Here an archive ends with a block of zeros or is
refused, on every version of Python, and memory is bounded by the longest extended header.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from grym_fetch.core.archives import MIB, Census, Member, MemberKind, member_path
from grym_fetch.core.tar_headers import (
    BLOCK_BYTES,
    MAX_EXTENDED_BYTES,
    MAX_NAME_BYTES,
    TarHeader,
    read_header,
    read_records,
    record_size,
)

Read = Callable[[int], bytes]
"""Returns the next bytes of a member, no more than asked for; none at its end."""

_SKIP_BYTES = MIB
_KINDS: dict[bytes, MemberKind] = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",  # contiguous, which is only a hint
    b"1": "hardlink",
    b"2": "symlink",
    b"5": "folder",
}


class ByteSource(Protocol):
    """Bytes read forward only. Fewer than asked for do not mean the end; none at all does."""

    def read(self, size: int, /) -> bytes: ...


class _Stream:
    """The unpacked stream; the census bounds its length."""

    def __init__(self, source: ByteSource, census: Census) -> None:
        self._source = source
        self._census = census
        self._position = 0
        self.left = 0
        """Bytes of the member's content and its padding that have not been read yet."""

    def read(self, size: int) -> bytes:
        """Read at most ``size`` bytes; none at the end."""
        data = self._source.read(size)
        self._position += len(data)
        self._census.check_stream(self._position)
        return data

    def exactly(self, size: int) -> bytes:
        """Read ``size`` bytes, refusing an archive that ends before that."""
        found: list[bytes] = []
        left = size
        while left:
            data = self.read(left)
            if not data:
                raise self._census.refusal("is cut off: it has no end mark")
            found.append(data)
            left -= len(data)
        return b"".join(found)

    def skip(self) -> None:
        """Skip the rest of a member."""
        while self.left:
            self.left -= len(self.exactly(min(self.left, _SKIP_BYTES)))


def tar_members(source: ByteSource, census: Census) -> Iterator[tuple[Member, Read]]:
    """Yield each member with the function that reads it. Read a member before asking for the next one."""
    stream = _Stream(source, census)
    while (member := _next(stream, census)) is not None:
        size = member.size
        stream.left = _padded(size)
        yield member, _reader(stream, size)
        stream.skip()
    while stream.read(_SKIP_BYTES):
        pass  # read to the end, so that the checksums there are compared


def _next(stream: _Stream, census: Census) -> Member | None:
    """Read the headers of one member; None at the end of the archive."""
    name = target = None
    size: int | None = None
    is_begun = False
    while True:
        block = stream.exactly(BLOCK_BYTES)
        try:
            header = read_header(block)
            if header is None:
                if is_begun:
                    raise ValueError("is damaged: it ends after an extended header")
                return None
            match header.type:
                case b"L":
                    name = _long_name(stream, header)
                case b"K":
                    target = _long_name(stream, header)
                case b"x" | b"X":
                    records = read_records(_content(stream, header, MAX_EXTENDED_BYTES), is_global=False)
                    name = records.get(b"path", name)
                    target = records.get(b"linkpath", target)
                    size = record_size(records[b"size"]) if b"size" in records else size
                case b"g":
                    read_records(_content(stream, header, MAX_EXTENDED_BYTES), is_global=True)
                    continue
                case b"S":
                    raise ValueError("has sparse members, which are not unpacked; make it without --sparse")
                case _:
                    return _member(header, name, target, size)
        except ValueError as error:
            raise census.refusal(str(error)) from None
        is_begun = True


def _member(header: TarHeader, name: bytes | None, target: bytes | None, size: int | None) -> Member:
    path = _text(header.name if name is None else name)
    leads_to = _text(header.target if target is None else target)
    kind = _KINDS.get(header.type, "device")
    if header.type == b"\0" and path.endswith("/"):
        kind = "folder"  # as it was marked before ustar
    return Member(
        path=member_path(path),
        kind=kind,
        size=(header.size if size is None else size) if kind == "file" else 0,
        target=member_path(leads_to) if kind == "hardlink" else leads_to,
        is_executable=bool(header.mode & 0o100),
    )


def _long_name(stream: _Stream, header: TarHeader) -> bytes:
    return _content(stream, header, MAX_NAME_BYTES).partition(b"\0")[0]


def _content(stream: _Stream, header: TarHeader, most: int) -> bytes:
    if header.size > most:
        raise ValueError("has an absurdly long header")
    return stream.exactly(_padded(header.size))[: header.size]


def _reader(stream: _Stream, size: int) -> Read:
    left = size

    def read(most: int) -> bytes:
        nonlocal left
        if not (wanted := min(most, left)):
            return b""
        data = stream.exactly(wanted)
        left -= len(data)
        stream.left -= len(data)
        return data

    return read


def _padded(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
