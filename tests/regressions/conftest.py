"""One world for each story."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from grym_fetch.testing import AssetServer
from tests.regressions.world import World
from tests.support.project import Project


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A truthful server, and an empty project."""
    async with AssetServer() as server:
        yield World(server, Project(tmp_path / "project"))
