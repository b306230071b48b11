"""What several tests of the disk need."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from grym_fetch.disk.assets_folder import AssetsFolder


@pytest.fixture
async def assets_folder(tmp_path: Path) -> AsyncIterator[AssetsFolder]:
    """The assets_folder of an empty assets folder."""
    assets_folder = AssetsFolder(tmp_path / "assets")
    await assets_folder.prepare()
    yield assets_folder
    assets_folder.close()
