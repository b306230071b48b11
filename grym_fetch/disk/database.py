"""A temporary database: for what is too much to be held in memory and need not outlive the process.

Rules: it is SQLite's, which removes the file as soon as it is open or at the latest when it is closed, whatever
happens. It lies in ``SQLITE_TMPDIR``, ``TMPDIR``, ``/var/tmp`` or ``/tmp``. Its memory is bounded.
"""

from __future__ import annotations

import sqlite3
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from grym_fetch.core.errors import DiskFull, StorageError

CACHE_BYTES = 16 * 1024 * 1024
"""The memory that a database may take."""


class Database:
    """A temporary database that several threads use in turn. Raises `DiskFull` or `StorageError`."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._is_closed = False
        with self._errors():
            # An empty name: a file that SQLite removes at once or at the latest when it is closed.
            self._connection = sqlite3.connect("", check_same_thread=False, isolation_level=None)
            for pragma in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{CACHE_BYTES // 1024}"):
                self._connection.execute(f"PRAGMA {pragma}").close()
        # Reports of long runs keep one, and nobody closes a report.
        self._close = weakref.finalize(self, self._connection.close)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            place = "the folder for temporary files"
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise DiskFull(place, "is full: set SQLITE_TMPDIR to a folder with more space") from error
            raise StorageError(place, f"cannot be used: {error}; set SQLITE_TMPDIR to another folder") from error

    def run(self, sql: str, values: Sequence[object] = ()) -> None:
        """Do what a statement says."""
        with self._lock, self._errors():
            self._connection.execute(sql, values).close()

    def run_all(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        """Do what a statement says for each row, in one transaction."""
        with self._lock, self._errors():
            self._connection.execute("BEGIN").close()
            self._connection.executemany(sql, rows).close()
            self._connection.execute("COMMIT").close()

    def script(self, sql: str) -> None:
        """Do what several statements say."""
        with self._lock, self._errors():
            self._connection.executescript(sql).close()

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """Return all rows that a statement finds: for a bounded number."""
        with self._lock, self._errors():
            return self._connection.execute(sql, values).fetchall()

    def each(self, sql: str, values: Sequence[object] = ()) -> Iterator[tuple[object, ...]]:
        """Yield the rows that a statement finds, of which few are held. The table must not change meanwhile."""
        with self._lock, self._errors():
            cursor = self._connection.execute(sql, values)
        try:
            while True:
                with self._lock, self._errors():
                    rows = cursor.fetchmany(1000)
                if not rows:
                    return
                yield from rows
        finally:
            cursor.close()

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""
        return self._is_closed

    def close(self) -> None:
        """End it; the file is gone."""
        with self._lock:
            self._is_closed = True
            self._close()


def key_of(text: str) -> bytes:
    """How a text is kept: with what is not a character, too, since what is wrong is compared with what is right."""
    return text.encode("utf-8", "surrogatepass")


def text_of(key: object) -> str:
    """Return the text of a key."""
    assert isinstance(key, bytes)
    return key.decode("utf-8", "surrogatepass")
