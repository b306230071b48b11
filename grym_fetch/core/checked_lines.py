"""Lines of text that prove themselves undamaged: ``<crc32 in 8 hex digits> <JSON>\\n``, in ASCII.

A checksum may be chained: started from the checksum of the line before, it covers that line and all earlier ones too.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence

_PREFIX = 9
"""Length of the checksum and the space after it."""
_to_json = json.JSONEncoder(separators=(",", ":")).encode
_from_json = json.JSONDecoder().decode


def encode_line(value: object, chain: int = 0) -> bytes:
    """Return the line for a JSON value. ``chain``: the checksum of the line before, see `chain_of`."""
    text = _to_json(value).encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(text, chain), text)


def chain_of(line: bytes) -> int:
    """The checksum at the beginning of a line, to chain the next line to it."""
    return int(line[: _PREFIX - 1], 16)


def text_of(line: bytes, chain: int = 0) -> bytes:
    """Return a line's JSON, not parsed. Raises `ValueError` unless it is exactly as it was written."""
    text = line[_PREFIX:].removesuffix(b"\n")
    if line[:_PREFIX] != b"%08x " % zlib.crc32(text, chain):
        raise ValueError("the line is damaged")
    return text


def are_undamaged(lines: Sequence[bytes]) -> bool:
    """Whether each of these lines, without the newlines, is exactly as it was written."""
    beginnings = [b"%08x " % zlib.crc32(line[_PREFIX:]) for line in lines]
    return beginnings == [line[:_PREFIX] for line in lines]


def decode_line(line: bytes, chain: int = 0) -> object:
    """Read a line, with or without the newline. Raises `ValueError` unless it is exactly as it was written."""
    text = text_of(line, chain)
    try:
        return _from_json(text.decode("ascii"))
    except RecursionError:
        raise ValueError("the line is nested too deeply") from None
