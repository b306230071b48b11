"""What several tests of the disk need."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from grym_fetch.disk.store import DiskStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DiskStore]:
    """The store of an empty assets folder."""
    store = DiskStore(tmp_path / "assets")
    await store.prepare()
    yield store
    store.close()
