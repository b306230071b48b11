"""A server that serves one connection at a time, as a simple one of Python's standard library does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from grym_fetch.testing import seeded_bytes
from grym_fetch.transfer import scheduler
from tests.support.invariants import Recorder
from tests.support.project import KIB, Project
from tests.support.sweeps import typical

FILES = {name: seeded_bytes(1500 * KIB, seed=number) for number, name in enumerate("abcde")}


class Handler(SimpleHTTPRequestHandler):
    """It keeps connections, and says nothing about them."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        """Not here."""


class KeepingHandler(Handler):
    """It waits for the next request over the same connection, and for nothing else meanwhile."""

    protocol_version = "HTTP/1.1"


@contextmanager
def served(folder: Path, handler: type[Handler]) -> Iterator[str]:
    """Serve a folder; yield its address. Every client must be gone at the end."""
    with HTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("handler", typical([Handler, KeepingHandler], KeepingHandler))
@pytest.mark.parametrize("parallel", typical([2, 4, 8], 4))
@pytest.mark.shows("N25")
async def test_one_connection_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parallel: int, handler: type[Handler]
) -> None:
    """No idle connection of ours keeps it from serving the others: nothing fails, and no stall is waited for."""
    monkeypatch.setattr(scheduler, "SILENT_S", 0.2)
    project, folder = Project(tmp_path / "project"), tmp_path / "served"
    folder.mkdir()
    with served(folder, handler) as address:
        for name, content in FILES.items():
            (folder / name).write_bytes(content)
            project.add(name, [f"{address}/{name}"], content)
        async with project.manager(parallel=parallel, stall_timeout=600.0) as manager:
            heard = Recorder(manager)
            await manager.sync()
    heard.check()
    assert heard.of("retry_scheduled") == []
    assert {name: path.read_bytes() for name, path in project.finals().items()} == FILES
