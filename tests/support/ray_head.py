"""A real Ray head with workers, as processes on loopback, for tests; all of them end with it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from types import TracebackType
from typing import Self


class RayHead:
    """A context manager. ``workers``: for how many there is a CPU."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self.address = ""

    def __enter__(self) -> Self:
        # Ray's sockets lie far below it, and a socket's path is short.
        self._scratch = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
        ports = [_free_port() for _ in range(2)]
        command = "import sys; from ray.scripts.scripts import main; sys.exit(main())"
        options = {
            "node-ip-address": "127.0.0.1",
            "port": ports[0],
            "ray-client-server-port": ports[1],
            "num-cpus": self._workers,
            "object-store-memory": 80 * 1024 * 1024,
            "include-dashboard": "false",
            "temp-dir": self._scratch,
        }
        arguments = [f"--{name}={value}" for name, value in options.items()]
        environ = {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",
            "RAY_agent_register_timeout_ms": "120000",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", command, "start", "--head", "--block", *arguments],
            env=os.environ | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )
        assert self._process.stdout is not None
        said = ""
        while "Ray runtime started" not in said:
            line = self._process.stdout.readline()
            if not line:
                self.__exit__(None, None, None)
                raise AssertionError(f"Ray does not start: {said}")
            said += line
        # The server for clients starts after the rest.
        while not _answers(ports[1]):
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.05)
                raise AssertionError("Ray has ended")
        self.address = f"ray://127.0.0.1:{ports[1]}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        assert self._process.stdout is not None
        self._process.stdout.close()
        shutil.rmtree(self._scratch, ignore_errors=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
