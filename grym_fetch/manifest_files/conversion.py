"""Writes a manifest as another kind: ``.json``, ``.jsonl`` or ``.parquet``.

Rules: what is read is judged like any manifest, and what is written is as good: whole or not at all. Entries are passed
on as they are in the file, part by part; only a ``.json`` is held, which may be longer here than as a manifest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from grym_fetch.core.errors import EditRefused, ManifestError, Problem
from grym_fetch.core.manifest_parser import MAX_ASSETS, MAX_MANIFEST_BYTES, WAY_OUT
from grym_fetch.core.schema import Location
from grym_fetch.core.strict_json import NotJson, read_json
from grym_fetch.core.text import safe_text
from grym_fetch.disk.atomic import NewFile
from grym_fetch.disk.folders import opened_folder, storage_errors
from grym_fetch.manifest_files.index import ManifestIndex, build_index
from grym_fetch.manifest_files.lines import PART_ENTRIES, Part, encode_entry_line
from grym_fetch.manifest_files.project import open_long

MAX_JSON_BYTES = 1024 * 1024 * 1024
"""The longest ``.json`` that is converted."""

Entries = list[dict[str, Any]]


class _WholeFile:
    """An ``assets.json`` as if it were long: without the bounds that it has as a manifest."""

    unit = "entry"

    def __init__(self, path: Path, source: str) -> None:
        with storage_errors(path), open(path, "rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
        try:
            read = read_json(data, max_bytes=MAX_JSON_BYTES)
        except NotJson as error:
            raise ManifestError(source, [Problem(error.place or "top level", "", str(error))]) from None
        if not isinstance(read.value, dict) or not isinstance(read.value.get("assets"), list):
            raise ManifestError(source, [Problem("top level", "", "is not an object with the list assets")])
        self._entries = read.value.pop("assets")
        self._head: dict[str, object] = read.value
        self._problems = list(read.problems)

    def head(self) -> Mapping[str, object]:
        """Return the keys of the whole list."""
        return self._head

    def parts(self) -> Iterator[Part]:
        """Yield all entries, counted from 0."""
        for first in range(0, len(self._entries), PART_ENTRIES):
            entries = self._entries[first : first + PART_ENTRIES]
            problems: list[tuple[Location, str]] = []
            for (top, *rest), message in (item for item in self._problems if len(item[0]) > 1):
                if top == "assets" and isinstance(rest[0], int) and first <= rest[0] < first + len(entries):
                    problems.append((("assets", rest[0] - first, *rest[1:]), message))
            yield Part(entries, list(range(first, first + len(entries))), problems)


def convert(source: Path, target: Path) -> int:
    """Read one manifest and write the other; return how many assets they have. Blocking.

    Raises `ManifestError` if the source cannot be used, `EditRefused` if it is too long for a ``.json``, or
    `StorageError`.
    """
    name = safe_text(str(source))
    file = _WholeFile(source, name) if source.suffix.lower() == ".json" else open_long(source, name)
    index, _ = build_index(file, name)
    try:
        head, kind = file.head(), target.suffix.lower()
        del file
        with (
            storage_errors(target),
            opened_folder(target.absolute().parent) as folder,
            NewFile(folder, target.name) as new,
        ):
            if kind == ".parquet":
                _write_parquet(new, head, index, safe_text(str(target)))
            else:
                write = _json_text if kind == ".json" else _lines
                for block in write(head, index, name):
                    new.write(block)
            new.replace()
    finally:
        index.database.close()
    return index.count


def _parts(index: ManifestIndex) -> Iterator[Entries]:
    for _, entries in index.parts():
        yield [entry for entry in entries if isinstance(entry, dict)]


def _lines(head: Mapping[str, object], index: ManifestIndex, _: str) -> Iterator[bytes]:
    yield encode_entry_line(head)
    for entries in _parts(index):
        yield b"".join(map(encode_entry_line, entries))


def _json_text(head: Mapping[str, object], index: ManifestIndex, source: str) -> Iterator[bytes]:
    if index.count > MAX_ASSETS:
        message = f"{index.count} assets are too many for a .json, which may have {MAX_ASSETS}; {WAY_OUT}"
        raise EditRefused(source, [Problem("top level", "", message)])
    entries = [entry for part in _parts(index) for entry in part]
    text = json.dumps({**head, "assets": entries}, ensure_ascii=False, indent=2).encode() + b"\n"
    if len(text) > MAX_MANIFEST_BYTES:
        message = f"this would be a .json of {len(text)} bytes, which may have {MAX_MANIFEST_BYTES}; {WAY_OUT}"
        raise EditRefused(source, [Problem("top level", "", message)])
    yield text


def _write_parquet(new: NewFile, head: Mapping[str, object], index: ManifestIndex, target: str) -> None:
    from grym_fetch.manifest_files.parquet import write_parquet

    with open(os.dup(new.descriptor), "wb") as file:
        write_parquet(file, head, _parts(index), target)
