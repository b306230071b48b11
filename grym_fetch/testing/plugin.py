"""The pytest plugin: fixtures ``mock_asset_manager`` and ``asset_server``, a marker and an option.

Rule: pytest imports this also where no test uses it. So this module imports nothing of ours; a
fixture imports what it needs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from grym_fetch.testing.mock import MockAssetManager
    from grym_fetch.testing.server import AssetServer

MINIMAL = "GRYM_FETCH_MINIMAL"
_MARKER = (
    "assets(paths, *, fail=None, sizes=None, missing=()): what the fixture mock_asset_manager plays, "
    "as in grym_fetch.create_mock_asset_manager"
)

_before = pytest.StashKey[str | None]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("grym-fetch").addoption(
        "--minimal-assets",
        action="store_true",
        help=f"use the small stand-ins of assets that have one ({MINIMAL}=1 for this run)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Describe the marker, and set the variable before any test module is imported."""
    config.addinivalue_line("markers", _MARKER)
    if config.getoption("--minimal-assets"):
        config.stash[_before] = os.environ.get(MINIMAL)
        os.environ[MINIMAL] = "1"


def pytest_unconfigure(config: pytest.Config) -> None:
    """Restore the variable."""
    if _before not in config.stash:
        return
    before = config.stash[_before]
    if before is None:
        os.environ.pop(MINIMAL, None)
    else:
        os.environ[MINIMAL] = before


@pytest.fixture
def mock_asset_manager(request: pytest.FixtureRequest) -> MockAssetManager:
    """A mock of `grym_fetch.AssetManager`: no network, and no disk but for what `open_asset` reads.

    Set its assets with ``@pytest.mark.assets({"id": "/path"})``, where a test's own mark wins over that of its class or
    module, or put them into its ``paths`` and ``fail``.
    """
    from grym_fetch.testing.mock import create_mock_asset_manager

    paths: dict[str, str] = {}
    options: dict[str, object] = {}
    for marker in reversed(list(request.node.iter_markers("assets"))):
        for given in marker.args:
            paths |= given
        options |= marker.kwargs
    return create_mock_asset_manager(paths, **options)  # type: ignore[arg-type]  # what a marker holds is not typed


@pytest.fixture
def asset_server() -> Iterator[AssetServer]:
    """A real HTTP server on loopback, with ranges and with faults to order, for tests with and without asyncio.

    It runs in its own thread: ``asset_server.add("/model.bin", content, faults=[...])``, ``asset_server.stats``.
    """
    from grym_fetch.testing.server import serve_in_thread

    with serve_in_thread() as server:
        yield server
