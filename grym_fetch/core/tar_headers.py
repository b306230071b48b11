"""What the header blocks of a tar say: ustar, GNU and pax (POSIX.1-2008), read from bytes.

Rules: a number is read only after its digits were counted, so no header costs more than its own length. Ambiguous input
is refused with `ValueError`: sparse members, and a global header that names or sizes members.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

BLOCK_BYTES: Final = 512
MAX_EXTENDED_BYTES: Final = 1024 * 1024
"""The longest extended header."""
MAX_NAME_BYTES: Final = 8192
"""The longest name or link target; twice what Linux opens."""
MAX_RECORDS: Final = 4096
"""The most records in one extended header."""

_MAX_DIGITS = 20
_EMPTY = bytes(BLOCK_BYTES)
_SPARSE = (b"GNU.sparse.", b"SCHILY.realsize", b"SUN.holesdata")
_OF_ONE_MEMBER = frozenset({b"path", b"linkpath", b"size"})


@dataclass(frozen=True, slots=True)
class TarHeader:
    """One header block. ``type`` is its typeflag; ``size`` is the content's, in bytes, if the type has content."""

    name: bytes
    type: bytes
    size: int
    mode: int
    target: bytes


def read_header(block: bytes) -> TarHeader | None:
    """Return what a block of 512 bytes says; None for the block of zeros that ends an archive.

    Raises:
        ValueError: it is not a header; the message continues "the archive …".
    """
    if block == _EMPTY:
        return None
    # POSIX sums bytes; some old programs summed signed characters.
    total = sum(block[:148]) + sum(block[156:]) + 8 * ord(" ")
    signed = total - 256 * sum(byte > 127 for byte in (*block[:148], *block[156:]))
    try:
        if _number(block[148:156]) not in (total, signed):
            raise ValueError
        header = TarHeader(
            name=_text(block[:100]),
            type=block[156:157],
            size=_number(block[124:136]),
            mode=_number(block[100:108]),
            target=_text(block[157:257]),
        )
    except ValueError:
        raise ValueError("is damaged: it has an invalid header") from None
    if header.size < 0 or header.size >= 2**63:
        raise ValueError("is damaged: it has a member of a length that cannot be")
    if block[257:263] == b"ustar\0" and (prefix := _text(block[345:500])):
        # GNU tar ("ustar  ") stores other things there.
        return TarHeader(prefix + b"/" + header.name, header.type, header.size, header.mode, header.target)
    return header


def read_records(data: bytes, *, is_global: bool) -> dict[bytes, bytes]:
    """Return the records of a pax header that matter here: ``path``, ``linkpath`` and ``size``, as bytes.

    Raises:
        ValueError: it is malformed, has sparse members, or is global and names a member.
    """
    found: dict[bytes, bytes] = {}
    for count, (keyword, value) in enumerate(_records(data)):
        if count >= MAX_RECORDS:
            raise ValueError(f"has a header with more than {MAX_RECORDS:,} records")
        if keyword.startswith(_SPARSE):
            raise ValueError("has sparse members, which are not unpacked; make it without --sparse")
        if keyword in _OF_ONE_MEMBER:
            if is_global:
                raise ValueError("has a global header that names or sizes its members")
            if len(value) > MAX_NAME_BYTES:
                raise ValueError("has a name that is longer than any real one")
            found[keyword] = value
    return found


def record_size(value: bytes) -> int:
    """Return the number in a ``size`` record. Raises `ValueError` if it is not a number."""
    if not value.isdigit() or len(value) > _MAX_DIGITS or int(value) >= 2**63:
        raise ValueError("is damaged: it has a member of a length that cannot be")
    return int(value)


def _records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keyword and value of each ``"%d %s=%s\\n"``; the number is the length of the whole record."""
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + _MAX_DIGITS)
        digits = data[at:space] if space > at else b""
        stop = at + int(digits) if digits.isdigit() else 0
        equals = data.find(b"=", space, stop)
        if equals < 0 or stop > len(data) or data[stop - 1 : stop] != b"\n":
            raise ValueError("is damaged: it has an invalid extended header")
        yield data[space + 1 : equals], data[equals + 1 : stop - 1]
        at = stop


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int:
    """Read a number: octal digits, or (GNU) big-endian in base 256 after a first byte of 0x80 or 0xff."""
    if field[0] in (0x80, 0xFF):
        value = int.from_bytes(field[1:], "big")
        return value - 256 ** (len(field) - 1) if field[0] == 0xFF else value
    digits = _text(field).strip(b" ")
    if digits.strip(b"01234567"):
        raise ValueError
    return int(digits or b"0", 8)
