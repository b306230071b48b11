"""A temporary database: bounded, and gone with the process."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from grym_fetch.core.errors import DiskFull, StorageError
from grym_fetch.disk.database import Database


def test_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file has a name, however much is in it."""
    monkeypatch.setenv("SQLITE_TMPDIR", str(tmp_path))
    database = Database()
    database.script("CREATE TABLE t (data BLOB)")
    database.run_all("INSERT INTO t VALUES (?)", ((os.urandom(1 << 20),) for _ in range(20)))
    assert len(list(database.each("SELECT data FROM t"))) == 20
    assert list(tmp_path.iterdir()) == []
    database.close()
    assert database.is_closed


def test_no_space_is_an_error_that_says_where(tmp_path: Path) -> None:
    """It is not the disk of the assets that is full."""
    database = Database()
    database.run("PRAGMA max_page_count = 20")
    database.script("CREATE TABLE t (data BLOB)")
    with pytest.raises(DiskFull, match="SQLITE_TMPDIR"):
        database.run("INSERT INTO t VALUES (?)", (bytes(1 << 20),))
    with pytest.raises(StorageError, match="temporary"):
        database.run("nonsense")
    database.close()


def test_one_that_nobody_has_closed_is_closed_with_its_owner() -> None:
    """Python 3.13 and later warn of a connection that is left to the collector."""
    database = Database()
    closing = database._close
    del database
    gc.collect()
    assert not closing.alive
