"""``assets.jsonl``: the list's own keys on the first line, then an entry on each.

Rules: each line is read alone and as strictly as a whole ``assets.json``. Nothing is kept of a line once it is handed
on, so memory does not grow with the file. Empty lines are skipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from grym_fetch.core.errors import ManifestError, Problem
from grym_fetch.core.schema import Location
from grym_fetch.core.strict_json import NotJson, read_json
from grym_fetch.disk.folders import storage_errors

MAX_LINE_BYTES = 16 * 1024 * 1024
"""The longest line: as long as a whole ``assets.json``, since one entry may have the digests of many pieces."""
PART_ENTRIES = 1000
PART_BYTES = 4 * 1024 * 1024
"""The most of a file that is held at once, but for a single longer line."""


class Part(NamedTuple):
    """Some entries in a row, the line or row of each, and what is wrong with them, by their index here."""

    entries: list[object]
    places: list[int]
    problems: list[tuple[Location, str]]


class LongFile(Protocol):
    """A manifest that is read part by part. Each iteration begins anew."""

    @property
    def unit(self) -> str:
        """What an entry is on: a line or a row."""

    def head(self) -> Mapping[str, object]:
        """Return the keys of the whole list. Raises `ManifestError`."""

    def parts(self) -> Iterator[Part]:
        """Yield all entries. Raises `ManifestError` where the file cannot be read on, or `StorageError`."""


class LinesFile:
    """An ``assets.jsonl``. ``source`` names it in errors."""

    unit = "line"

    def __init__(self, path: Path, source: str) -> None:
        self._path = path
        self._source = source

    def head(self) -> Mapping[str, object]:
        """Return the keys on the first line. Raises `ManifestError` or `StorageError`."""
        with storage_errors(self._path), open(self._path, "rb") as file:
            line = self._line(file, 1)
        try:
            read = read_json(line, max_bytes=MAX_LINE_BYTES)
        except NotJson as error:
            raise self._refused(1, _told(error)) from None
        if read.problems:
            location, message = read.problems[0]
            raise ManifestError(self._source, [Problem("line 1", ".".join(map(str, location)), message)])
        head = read.value
        if not isinstance(head, dict):
            raise self._refused(1, "is not an object; the first line is for the whole list, such as " + _EXAMPLE)
        if "url" in head or "localPath" in head:
            raise self._refused(1, "is an entry; the first line is for the whole list, such as " + _EXAMPLE)
        if "assets" in head:
            raise self._refused(1, "has the key assets; here, each entry has a line of its own, after the first one")
        return head

    def parts(self) -> Iterator[Part]:
        """Yield the entries on all lines but the first. Raises `ManifestError` or `StorageError`."""
        with storage_errors(self._path), open(self._path, "rb") as file:
            self._line(file, 1)
            number, size = 1, 0
            lines: list[bytes] = []
            places: list[int] = []
            while line := self._line(file, number := number + 1):
                if line.isspace():
                    continue
                lines.append(line)
                places.append(number)
                size += len(line)
                if len(lines) >= PART_ENTRIES or size >= PART_BYTES:
                    yield _read_lines(lines, places)
                    size, lines, places = 0, [], []
            if lines:
                yield _read_lines(lines, places)

    def _line(self, file: BinaryIO, number: int) -> bytes:
        line = file.readline(MAX_LINE_BYTES + 1)
        if len(line) > MAX_LINE_BYTES:
            raise self._refused(number, f"is longer than {MAX_LINE_BYTES} bytes")
        return line

    def _refused(self, number: int, message: str) -> ManifestError:
        return ManifestError(self._source, [Problem(f"line {number}", "", message)])


def _read_lines(lines: list[bytes], places: list[int]) -> Part:
    # Lines that are values each alone are read together, strictly, in half the time.
    try:
        for line in lines:
            _is_json(line.decode("utf-8"))
        read = read_json(b"[%b]" % b",".join(lines), max_bytes=PART_BYTES + MAX_LINE_BYTES + len(lines) + 2)
    except (ValueError, RecursionError):
        return _read_each(lines, places)
    if read.problems or not isinstance(read.value, list):
        return _read_each(lines, places)
    return Part(read.value, places, [])


def _read_each(lines: list[bytes], places: list[int]) -> Part:
    part = Part([], places, [])
    for index, line in enumerate(lines):
        try:
            read = read_json(line, max_bytes=MAX_LINE_BYTES)
        except NotJson as error:
            part.entries.append(None)
            part.problems.append((("assets", index), _told(error)))
        else:
            part.entries.append(read.value)
            part.problems.extend((("assets", index, *location), message) for location, message in read.problems)
    return part


_is_json = json.JSONDecoder().decode
_EXAMPLE = '{"version": "1.0", "updated": "2026-01-31T12:00:00Z"}'


def _told(error: NotJson) -> str:
    place = error.place.removeprefix("line 1, ")
    return f"{error} ({place})" if place else str(error)


def encode_entry_line(value: object) -> bytes:
    """Return the line for the head or an entry."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8") + b"\n"
