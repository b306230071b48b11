"""``asset-manifest.json`` in the external folder: which files were moved there, and from where.

Rules: it is replaced as a whole, by a rename, so it is always an old or a new one. Keys and entries that mean nothing
here are kept. What it says is foreign text: an entry with an unsafe path is not used.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import RepositoryError
from grym_fetch.core.paths import MOVED_FILES, check_local_path
from grym_fetch.core.text import safe_text
from grym_fetch.disk.folders import storage_errors
from grym_fetch.repo.moving import open_regular, write_file

log = logging.getLogger(__name__)

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

    def as_json(self) -> dict[str, object]:
        """The entry as it stands in the file."""
        return {
            "originalPath": self.original_path,
            "storagePath": self.storage_path,
            "size": self.size,
            "checksum": self.checksum.bare,
            "movedOn": self.moved_on,
            "required": self.required,
        }


class MovedFiles:
    """The record of one external folder, in memory. `save` makes it durable."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / MOVED_FILES
        self._folder = folder
        self._raw: dict[str, object] = {}
        self._entries: list[object] = []
        self.files: list[MovedFile] = []
        self._read()

    def _read(self) -> None:
        shown = safe_text(str(self.path))
        with storage_errors(self.path):
            try:
                with open(open_regular(os.fspath(self.path)), "rb") as file:
                    data = file.read(MAX_RECORD_BYTES + 1)
            except FileNotFoundError:
                return
        try:
            if len(data) > MAX_RECORD_BYTES:
                raise ValueError(f"it is longer than {MAX_RECORD_BYTES} bytes")
            raw = json.loads(data)
            if not isinstance(raw, dict) or not isinstance(entries := raw.get("assets"), list):
                raise ValueError("it is not an object with a list assets")  # noqa: TRY004 - a fault of the file
        except (ValueError, RecursionError) as error:
            reason = f"{shown} cannot be read: {error}. Repair or remove it; it was left as it is."
            raise RepositoryError(reason) from error
        self._raw, self._entries = raw, entries
        for number, entry in enumerate(entries):
            try:
                self.files.append(_parse(entry))
            except (ValueError, KeyError, TypeError) as error:
                log.warning("%s: entry %d is not used: %s", shown, number, error)

    def find(self, original_path: str, checksum: Checksum) -> MovedFile | None:
        """The newest entry for this file with this content."""
        matching = (f for f in reversed(self.files) if f.original_path == original_path and f.checksum == checksum)
        return next(matching, None)

    def add(self, moved: MovedFile) -> None:
        """Add an entry, in memory."""
        self.files.append(moved)
        self._entries.append(moved.as_json())

    def save(self, now: datetime) -> None:
        """Replace the file and flush it to the disk."""
        time = iso(now)
        known = {"version": "1.0", "created": time} | self._raw
        document = known | {"updated": time, "assets": self._entries}
        self._raw = document
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        with storage_errors(self.path):
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                write_file(folder, MOVED_FILES, text.encode("utf-8", "backslashreplace"))
            finally:
                os.close(folder)


def iso(time: datetime) -> str:
    """Return a time in UTC as ``2025-03-09T12:00:00.000Z``."""
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _parse(entry: object) -> MovedFile:
    if not isinstance(entry, dict):
        raise TypeError("it is not an object")
    size = entry["size"]
    if not isinstance(size, int) or size < 0:
        raise ValueError("size is not a number of bytes")
    return MovedFile(
        original_path=check_local_path(str(entry["originalPath"])),
        storage_path=check_local_path(str(entry["storagePath"])),
        size=size,
        checksum=Checksum.parse(str(entry["checksum"])),
        moved_on=str(entry.get("movedOn", "")),
        required=entry.get("required") is True,
    )
