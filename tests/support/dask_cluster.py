"""A real Dask scheduler and real workers, as processes on loopback, for tests.

They are forked from one process that has imported everything, which takes a fraction of starting each. It ends them
when its input ends: with the test, however that ends. Run as a module, it is that process.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self


class DaskProcesses:
    """A scheduler and workers of one thread each; a context manager."""

    def __init__(self, workers: int = 2) -> None:
        self._first = workers
        self.address = ""
        """Dask's address of the scheduler, without its scheme."""
        self.pids: dict[str, int] = {}
        """The process of each worker, by the name of its node."""

    def __enter__(self) -> Self:
        self._scratch = tempfile.TemporaryDirectory()
        self._mother = subprocess.Popen(
            [sys.executable, "-m", __name__, self._scratch.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address = str(self._said()["address"])
        try:
            for _ in range(self._first):
                self._ask()
            for _ in range(self._first):
                self._note()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._mother.stdin is not None
        assert self._mother.stdout is not None
        self._mother.stdin.close()
        self._mother.wait(60)
        self._mother.stdout.close()
        self._scratch.cleanup()

    def add_worker(self, host: str = "127.0.0.1", **environ: str) -> str:
        """Start one more worker, with these variables; return the name of its node."""
        self._ask(host, environ)
        return self._note()

    def kill(self, node: str) -> None:
        """Kill a worker."""
        os.kill(self.pids.pop(node), signal.SIGKILL)

    def _ask(self, host: str = "127.0.0.1", environ: dict[str, str] | None = None) -> None:
        assert self._mother.stdin is not None
        self._mother.stdin.write(json.dumps({"host": host, "environ": environ or {}}) + "\n")
        self._mother.stdin.flush()

    def _note(self) -> str:
        said = self._said()
        self.pids[str(said["node"])] = int(str(said["pid"]))
        return str(said["node"])

    def _said(self) -> dict[str, object]:
        assert self._mother.stdout is not None
        line = self._mother.stdout.readline()
        assert line, "the process that starts Dask has ended"
        said: dict[str, object] = json.loads(line)
        return said


def _say(**words: object) -> None:
    os.write(1, (json.dumps(words) + "\n").encode())


async def _schedule(address: Callable[[str], object]) -> None:
    from distributed import Scheduler

    async with Scheduler(host="127.0.0.1", port=0, dashboard=False, dashboard_address=":0") as scheduler:
        address(scheduler.address)
        await scheduler.finished()


async def _work(scheduler: str, host: str, scratch: str) -> None:
    from distributed import Worker

    async with Worker(scheduler, nthreads=1, host=host, dashboard_address=":0", local_directory=scratch) as worker:
        _say(node=worker.address.partition("://")[2], pid=os.getpid())
        await worker.finished()


def _fork(main: Callable[[], Coroutine[Any, Any, None]], environ: dict[str, str]) -> int:
    if child := os.fork():
        return child
    try:
        # Nothing of the one that it was forked from: the end of its input is not for this one.
        os.close(0)
        os.setsid()
        os.environ.update(environ)
        asyncio.run(main())
    finally:
        os._exit(0)


def _mother(scratch: str) -> None:
    import logging

    import distributed  # noqa: F401

    import grym_fetch.cluster.node
    import grym_fetch.net.client
    import grym_fetch.transfer.fetcher  # noqa: F401

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    reading, writing = os.pipe()
    children = [_fork(lambda: _schedule(lambda address: os.write(writing, f"{address}\n".encode())), {})]
    scheduler = os.read(reading, 1000).decode().strip()
    _say(address=scheduler.partition("://")[2])
    for line in sys.stdin:
        order = json.loads(line)
        children.append(_fork(lambda host=order["host"]: _work(scheduler, host, scratch), order["environ"]))  # type: ignore[misc]
    for child in children:
        os.kill(child, signal.SIGKILL)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    _mother(sys.argv[1])
