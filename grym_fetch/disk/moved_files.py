"""Reads ``asset-manifest.json``: which files were moved to the external folder, and from where.

Rules: others may have written it, so an entry is used only if its paths are safe. Each reader takes the part of an
entry that it needs: looking for content needs less than bringing a file back to its place.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from grym_fetch.core.digest import Checksum
from grym_fetch.core.paths import check_local_path
from grym_fetch.disk.folders import read_regular

MAX_RECORD_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class MovedFile:
    """One entry. ``original_path`` is relative to the repository, ``storage_path`` to the external folder."""

    original_path: str
    storage_path: str
    size: int
    checksum: Checksum
    moved_on: str
    required: bool = True

    @classmethod
    def parse(cls, entry: object) -> MovedFile:
        """Read an entry. Raises `ValueError`, whose message says what is wrong with it."""
        fields = _fields(entry)
        size = fields.get("size")
        if not isinstance(size, int) or size < 0:
            raise ValueError("size is not a number of bytes")
        storage_path, checksum = parse_storage(fields)
        return cls(
            original_path=check_local_path(_text(fields, "originalPath")),
            storage_path=storage_path,
            size=size,
            checksum=checksum,
            moved_on=str(fields.get("movedOn", "")),
            required=fields.get("required") is True,
        )

    def as_json(self) -> dict[str, object]:
        """The entry as it is written in the file."""
        return {
            "originalPath": self.original_path,
            "storagePath": self.storage_path,
            "size": self.size,
            "checksum": self.checksum.bare,
            "movedOn": self.moved_on,
            "required": self.required,
        }


def parse_storage(entry: object) -> tuple[str, Checksum]:
    """Read an entry's path in the external folder and its checksum. Raises `ValueError`."""
    fields = _fields(entry)
    return check_local_path(_text(fields, "storagePath")), Checksum.parse(_text(fields, "checksum"))


def read_document(path: Path) -> tuple[dict[str, object], list[object]] | None:
    """Read the file: all of it, and its list of entries. None if there is no file.

    Raises ``OSError``, and `ValueError` for any other content; its message says what is wrong.
    """
    try:
        data = read_regular(os.fspath(path), limit=MAX_RECORD_BYTES + 1)
    except FileNotFoundError:
        return None
    if len(data) > MAX_RECORD_BYTES:
        raise ValueError(f"it is longer than {MAX_RECORD_BYTES} bytes")
    try:
        document = json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(document, dict) or not isinstance(entries := document.get("assets"), list):
        raise ValueError("it is not an object with a list assets")  # noqa: TRY004 - a fault of the file
    return document, entries


def _fields(entry: object) -> Mapping[str, object]:
    if not isinstance(entry, dict):
        raise ValueError("it is not an object")  # noqa: TRY004 - a fault of the file
    return entry


def _text(fields: Mapping[str, object], key: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{key} is not text")  # noqa: TRY004 - a fault of the file
    return value
