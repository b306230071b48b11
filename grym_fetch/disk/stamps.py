"""The lines of the verified cache by their paths: in memory while they are few, then in a temporary database.

Rule: the last line for a path counts. Where there is no room for a database, lines are forgotten, which costs a hash.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from grym_fetch.core.errors import StorageError

if TYPE_CHECKING:
    from grym_fetch.disk.database import Database

log = logging.getLogger(__name__)

MAX_HELD_BYTES = 32 * 1024 * 1024
"""The most bytes of lines that are held in memory: those of about 100,000 files."""


class Stamps:
    """A line for each path."""

    def __init__(self, *, max_held_bytes: int = MAX_HELD_BYTES) -> None:
        self._max_held_bytes = max_held_bytes
        self._held: dict[str, bytes] = {}
        self._held_bytes = 0
        self._database: Database | None = None

    @property
    def is_spilled(self) -> bool:
        """Whether they are in a database by now."""
        return self._database is not None

    def get(self, path: str) -> bytes | None:
        """Return the line for a path, without its end; None if there is none."""
        line = self._held.get(path)
        if line is None and self._database is not None:
            try:
                for (found,) in self._database.rows("SELECT line FROM stamps WHERE path = ?", (os.fsencode(path),)):
                    assert isinstance(found, bytes)
                    return found
            except StorageError as error:
                self._forget(error)
        return line

    def put(self, path: str, line: bytes) -> None:
        """Keep a line for a path, instead of an earlier one."""
        self.put_all({path: line})

    def put_all(self, lines: Mapping[str, bytes]) -> None:
        """Keep these lines for their paths, instead of earlier ones."""
        self._held.update(lines)
        self._held_bytes += sum(map(len, lines.values()))
        if self._held_bytes > self._max_held_bytes:
            self._spill()

    def add(self, others: Stamps) -> None:
        """Keep all lines of ``others``, which is then done with, instead of earlier ones for the same paths."""
        if not len(self):
            self._database, self._held, self._held_bytes = others._database, others._held, others._held_bytes
            return
        for path, line in others._items():
            self.put(path, line)

    def _items(self) -> Iterator[tuple[str, bytes]]:
        if self._database is not None:
            self._spill()
        if self._database is not None:  # there was room
            for path, line in self._database.each("SELECT path, line FROM stamps"):
                assert isinstance(path, bytes)
                assert isinstance(line, bytes)
                yield os.fsdecode(path), line
        yield from self._held.items()

    def lines(self) -> Iterator[bytes]:
        """Yield the line for each path. Raises `StorageError`."""
        return (line for _, line in self._items())

    def __len__(self) -> int:
        """How many paths there are."""
        if self._database is not None:
            self._spill()
        if self._database is None:
            return len(self._held)
        [(count,)] = self._database.rows("SELECT COUNT(*) FROM stamps")
        assert isinstance(count, int)
        return count

    def _spill(self) -> None:
        try:
            if self._database is None:
                from grym_fetch.disk.database import Database  # most caches are small

                self._database = Database()
                self._database.script("CREATE TABLE stamps (path BLOB PRIMARY KEY, line BLOB) WITHOUT ROWID")
            rows = ((os.fsencode(path), line) for path, line in sorted(self._held.items()))
            self._database.run_all("INSERT OR REPLACE INTO stamps VALUES (?, ?)", rows)
        except StorageError as error:
            self._forget(error)
        self._held, self._held_bytes = {}, 0

    def _forget(self, error: StorageError) -> None:
        log.warning("what was verified earlier is not known in this run: %s", error)
        if self._database is not None:
            self._database.close()
        self._database, self._held, self._held_bytes = None, {}, 0
