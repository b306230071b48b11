"""How each asset of a long run has ended, kept in a temporary database and not in memory."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import overload

from grym_fetch.core.errors import GrymFetchError
from grym_fetch.disk.database import Database, key_of, text_of

MAX_ERRORS = 1000
"""Keep so many errors of a run; more are counted."""
KINDS = ("verified", "unverified", "reused")


class Ledger:
    """The ends of a run's assets. ``failed`` has the first `MAX_ERRORS` errors, ``failures`` counts all."""

    def __init__(self) -> None:
        self._database = Database()
        self._database.script(
            "CREATE TABLE ends (kind INTEGER, number INTEGER, id BLOB, path BLOB, PRIMARY KEY (kind, number));"
            "CREATE INDEX ends_by_id ON ends (id);"
        )
        self.failed: dict[str, GrymFetchError] = {}
        self.failures = 0
        self._counts = dict.fromkeys(KINDS, 0)

    def add(self, kind: str, ids: Collection[str], paths: Mapping[str, Path | str]) -> None:
        """Note assets that are there, and where."""
        begin, code = self._counts[kind], KINDS.index(kind)
        rows = [(code, begin + n, key_of(each), os.fsencode(paths[each])) for n, each in enumerate(ids)]
        self._database.run_all("INSERT INTO ends VALUES (?, ?, ?, ?)", rows)
        self._counts[kind] += len(ids)

    def add_failures(self, failed: Mapping[str, GrymFetchError]) -> None:
        """Note assets that failed."""
        self.failures += len(failed)
        for asset_id, error in failed.items():
            if len(self.failed) < MAX_ERRORS:
                self.failed[asset_id] = error

    def ids(self, kind: str) -> Sequence[str]:
        """The ids of the assets that ended so, in that order."""
        return _Ids(self._database, KINDS.index(kind), self._counts[kind])

    def paths(self) -> Mapping[str, str]:
        """The path of each asset that is there."""
        return _Paths(self._database, sum(self._counts.values()))


class _Ids(Sequence[str]):
    def __init__(self, database: Database, kind: int, count: int) -> None:
        self._database = database
        self._kind = kind
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        rows = self._database.each("SELECT id FROM ends WHERE kind = ? ORDER BY number", (self._kind,))
        return (text_of(key) for (key,) in rows)

    def __contains__(self, value: object) -> bool:
        query = "SELECT 1 FROM ends WHERE id = ? AND kind = ? LIMIT 1"
        return isinstance(value, str) and bool(self._database.rows(query, (key_of(value), self._kind)))

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[str]: ...
    def __getitem__(self, at: int | slice) -> str | Sequence[str]:
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(self._count))]
        number = range(self._count)[at]  # an `IndexError` where there is none
        query = "SELECT id FROM ends WHERE kind = ? AND number = ?"
        [(key,)] = self._database.rows(query, (self._kind, number))
        return text_of(key)


class _Paths(Mapping[str, str]):
    def __init__(self, database: Database, count: int) -> None:
        self._database = database
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        return (text_of(key) for (key,) in self._database.each("SELECT id FROM ends"))

    def __getitem__(self, asset_id: str) -> str:
        for (path,) in self._database.rows("SELECT path FROM ends WHERE id = ? LIMIT 1", (key_of(asset_id),)):
            assert isinstance(path, bytes)
            return os.fsdecode(path)
        raise KeyError(asset_id)
