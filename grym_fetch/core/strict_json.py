"""JSON that strangers may have written, read strictly and within bounds.

Rules: input that would overwhelm the JSON parser is refused before it runs. Misleading input that the parser would
accept (a key given twice, half of a surrogate pair, ``NaN``, a number of a million digits) is noted with its place in
the file, so that it can be reported together with everything else. No input raises anything but `NotJson`.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from grym_fetch.core.schema import Location
from grym_fetch.core.text import safe_text

MAX_DEPTH = 32
"""How deep lists and objects may be nested."""
MAX_INTEGER_DIGITS = 20

_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NOT_STRUCTURE = bytes(byte for byte in range(256) if byte not in b'[]{}:"')
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # as signed bytes: one down, one up


class NotJson(ValueError):
    """Bytes that cannot be read at all. ``place``: the line and column; empty if they would not help."""

    def __init__(self, message: str, place: str = "") -> None:
        super().__init__(message)
        self.place = place


@dataclass(frozen=True, slots=True)
class JsonFile:
    """What the bytes say, and each problem with its place. A number that is refused is replaced by an `_Unread`."""

    value: object
    problems: list[tuple[Location, str]]


@dataclass(frozen=True, slots=True)
class _Unread:
    why: str


@dataclass(slots=True)
class _Marks:
    """The problems that the JSON parser came across, whose places in the file are found later."""

    unread: bool = False
    twice: list[tuple[dict[str, object], list[str]]] = field(default_factory=list)

    def refuse(self, why: str) -> _Unread:
        self.unread = True
        return _Unread(why)


def read_json(data: bytes, *, max_bytes: int) -> JsonFile:
    """Read a file of UTF-8 JSON, with or without a byte order mark.

    Raises:
        NotJson: it is not JSON, or too long or too deeply nested to be read.
    """
    text = _decode(data, max_bytes)
    structure = _structure(data)
    if _depth(structure) > MAX_DEPTH:
        raise NotJson(f"has lists or objects nested more than {MAX_DEPTH} deep")
    marks = _Marks()
    keys = 0

    def count_keys(read: dict[str, object]) -> dict[str, object]:
        nonlocal keys
        keys += len(read)
        return read

    def read_object(pairs: list[tuple[str, object]]) -> dict[str, object]:
        result = dict(pairs)
        if len(result) != len(pairs):
            marks.twice.append((result, [key for key, n in Counter(key for key, _ in pairs).items() if n > 1]))
        return result

    def read_integer(digits: str) -> int | _Unread:
        count = len(digits.removeprefix("-"))
        if count <= MAX_INTEGER_DIGITS:
            return int(digits)
        return marks.refuse(f"is a number of {count} digits; at most {MAX_INTEGER_DIGITS} are allowed")

    def read_float(digits: str) -> float | _Unread:
        number = float(digits)
        return number if math.isfinite(number) else marks.refuse("is a number too large to be read")

    def read(**hooks: Any) -> object:
        return json.loads(
            text,
            **hooks,
            parse_int=read_integer,
            parse_float=read_float,
            parse_constant=lambda name: marks.refuse(f"is {name}, which is not a JSON value"),
        )

    try:
        value = read(object_hook=count_keys)
        # Each key has a colon: if there are more colons than keys, a key was given twice. Looking at each pair takes
        # twice as long, so it is done only then.
        if keys != structure.count(b":"):
            value = read(object_pairs_hook=read_object)
    except json.JSONDecodeError as error:
        found = f"is not valid JSON: {error.msg}" if text.strip() else "is empty; allowed: a JSON object"
        raise NotJson(found, f"line {error.lineno}, column {error.colno}") from None
    # Walking through all of it takes time, so do it only if there is something to find.
    is_suspect = marks.unread or marks.twice or _SURROGATE_ESCAPE.search(text)
    twice = {id(node): keys for node, keys in marks.twice}
    return JsonFile(value, list(_problems(value, (), twice)) if is_suspect else [])


def _decode(data: bytes, max_bytes: int) -> str:
    if len(data) > max_bytes:
        raise NotJson(f"is {len(data)} bytes long; at most {max_bytes} are allowed")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:4]:
        raise NotJson("is not UTF-8 but looks like UTF-16 or UTF-32; save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotJson(f"is not UTF-8 (at byte {error.start}); save it as UTF-8") from None
    return text


def _structure(data: bytes) -> bytes:
    """Return the brackets and colons outside strings, exact up to the first fault in ``data``."""
    # A run of backslashes is read in pairs from the left, so a remaining one escapes the next character.
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Most strings have none of these in them. Two quotes with nothing between them say nothing about what is outside.
    marks = data.translate(None, _NOT_STRUCTURE).replace(b'""', b"")
    return b"".join(marks.split(b'"')[::2])


def _depth(structure: bytes) -> int:
    """Return how deeply lists and objects are nested."""
    return max(accumulate(memoryview(structure.translate(_STEPS, b":")).cast("b")), default=0)


def _problems(value: object, location: Location, twice: dict[int, list[str]]) -> Iterator[tuple[Location, str]]:
    if isinstance(value, _Unread):
        yield location, value.why
    elif isinstance(value, str):
        yield from _surrogates(value, location)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _problems(item, (*location, index), twice)
    elif isinstance(value, dict):
        for key in twice.get(id(value), ()):
            yield (*location, key), "is given more than once; each key is allowed once"
        for key, item in value.items():
            yield from _surrogates(key, (*location, key))
            yield from _problems(item, (*location, key), twice)


def _surrogates(text: str, location: Location) -> Iterator[tuple[Location, str]]:
    if found := _SURROGATE.search(text):
        yield location, f"has half of a surrogate pair ({safe_text(found[0])}), which is not a character"
