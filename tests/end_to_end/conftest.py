"""What the tests of commands share: a command is another process, so the server has a thread of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from grym_fetch.testing import AssetServer, serve_in_thread


@pytest.fixture
def server() -> Iterator[AssetServer]:
    """A truthful server on loopback until told otherwise."""
    with serve_in_thread() as running:
        yield running
