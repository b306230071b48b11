"""``asset-manifest.json`` in the external folder: which files were moved there, and from where.

Rules: it is replaced as a whole, by a rename, so it is always the old or the new one. Unknown keys and entries are
kept. Others may have written it: an entry with an unsafe path is not used.
"""

from __future__ import annotations

import json
import logging
from datetime import datetime
from pathlib import Path

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import RepositoryError
from grym_fetch.core.paths import MOVED_FILES
from grym_fetch.core.text import safe_text
from grym_fetch.disk.folders import opened_folder, storage_errors
from grym_fetch.disk.moved_files import MovedFile, read_document
from grym_fetch.repo.moving import write_file

log = logging.getLogger(__name__)


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
        try:
            with storage_errors(self.path):
                document = read_document(self.path)
        except ValueError as error:
            reason = f"{shown} cannot be read: {error}. Repair or remove it; it was left as it is."
            raise RepositoryError(reason) from error
        if document is None:
            return
        self._raw, self._entries = document
        for number, entry in enumerate(self._entries):
            try:
                self.files.append(MovedFile.parse(entry))
            except ValueError as error:
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
        with storage_errors(self.path), opened_folder(self._folder) as folder:
            write_file(folder, MOVED_FILES, text.encode("utf-8", "backslashreplace"))


def iso(time: datetime) -> str:
    """Return a time in UTC as ``2025-03-09T12:00:00.000Z``."""
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
