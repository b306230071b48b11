"""What tests of commands share: a server that runs beside them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from grym_fetch.testing import AssetServer, serve_in_thread


@pytest.fixture(scope="module")
def server() -> Iterator[AssetServer]:
    """A truthful server on loopback until told otherwise; in its own thread, for one module."""
    with serve_in_thread() as running:
        yield running
