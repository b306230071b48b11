"""Starts the command as a process of its own, from one that has already imported everything: a tenth of a start's work.

`start` forks a waiting process, which was itself forked before anything of the program ran: the result
has its own arguments, environment, folder, streams and signals, and ends as any other Python does. Settings that a
process reads from its environment before it imports anything (``PYTHON…``, ``LC_…``) come too late: if those differ
from the usual ones, a new interpreter is started.

The waiting process runs the end of this module. It imports nothing of the tests.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import math
import os
import pkgutil
import re
import runpy
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

_MESSAGE = 1 << 17
"""Bytes that arguments and an environment may have: more than any test's."""
_PID = 10
"""Characters in a process number as it is sent."""
_BEFORE_ALL = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_", "GLIBC_", "COVERAGE_")
"""Variables with these prefixes count before the first import."""


class Started:
    """A running command, with the interface of `subprocess.Popen`."""

    def __init__(self, pid: int, stdin: int, stdout: IO[str], stderr: IO[str], status: int) -> None:
        self.pid = pid
        self._stdin = stdin
        self.stdout: IO[str] | None = stdout
        self.stderr = stderr
        self.returncode: int | None = None
        self._status = status

    def release(self) -> None:
        """Let one that was ``held`` begin."""
        os.close(self._stdin)

    def poll(self) -> int | None:
        """Its exit code, or None while it runs; negative: the signal that ended it."""
        return self._ended_within(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for it to end. Raises `subprocess.TimeoutExpired`."""
        code = self._ended_within(timeout)
        if code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired("grym-fetch", timeout)
        return code

    def _ended_within(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            self.returncode = int(os.read(self._status, 16) or b"-9")
            os.close(self._status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it has not ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(9)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """The rest of its output. Raises `subprocess.TimeoutExpired`."""
        streams = [stream for stream in (self.stdout, self.stderr) if stream is not None and not stream.closed]
        read: dict[IO[str], str] = {}
        threads = [
            threading.Thread(target=lambda stream=stream: read.update({stream: stream.read()}), daemon=True)
            for stream in streams
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout)
            if thread.is_alive():
                raise subprocess.TimeoutExpired("grym-fetch", timeout or 0)
        self.wait(timeout)
        for stream in streams:
            stream.close()
        return (read.get(self.stdout, "") if self.stdout is not None else ""), read.get(self.stderr, "")


def start(arguments: Sequence[str], folder: Path, environ: Mapping[str, str]) -> Started | subprocess.Popen[str]:
    """Start ``grym-fetch`` with these arguments; its output is read as text, and its input is empty."""
    if _early(environ) != _early(_usual(os.environ)):
        return subprocess.Popen(
            [sys.executable, "-m", "grym_fetch", *arguments], cwd=folder, env=environ, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    return start_program(None, folder, environ, arguments)


def start_program(
    program: str | None,
    folder: Path,
    environ: Mapping[str, str],
    arguments: Sequence[str] = (),
    *,
    is_held: bool = False,
) -> Started:
    """Start this text as Python's ``-c`` does, None: the command. A held one begins when it is released."""
    request = {
        "program": program,
        "arguments": list(arguments),
        "folder": os.fspath(folder),
        "environ": dict(environ),
        "is_held": is_held,
    }
    stdin, hold = os.pipe()
    out, stdout = os.pipe()
    err, stderr = os.pipe()
    status, told = os.pipe()
    given = [stdin, stdout, stderr, told]
    try:
        socket.send_fds(_waiting(), [json.dumps(request).encode()], given)
    finally:
        for descriptor in given:
            os.close(descriptor)
    pid = int(os.read(status, _PID))  # no more than that: it may have ended already
    started = Started(pid, hold, os.fdopen(out, encoding="utf-8"), os.fdopen(err, encoding="utf-8"), status)
    if not is_held:
        started.release()
    return started


def _usual(environ: Mapping[str, str]) -> dict[str, str]:
    return {**environ, "PYTHONUNBUFFERED": "1"}


def _early(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name.startswith(_BEFORE_ALL)}


@cache
def _waiting() -> socket.socket:
    """The connection to the waiting process, which ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen(
        [sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()], env=_usual(os.environ),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


# --- The process that waits ---------------------------------------------------------------------------------


_FEW_NEED = re.compile(r"\.(testing|demo|session|transport$|.*windows)")
"""Modules that import aiohttp: a process that has it takes longer to fork and to end. And those for Windows."""
_MOST_NEED = (
    "anyio._backends._asyncio",
    "click._textwrap",
    "encodings.ascii",
    "encodings.idna",
    "encodings.utf_8_sig",
    "netrc",
    "uvloop",
)
"""What most commands import only as they run; together that takes longer than anything else they do."""


def _import_everything() -> None:
    program = importlib.import_module("grym_fetch")
    for each in pkgutil.walk_packages(program.__path__, "grym_fetch."):
        if not each.name.endswith("__main__") and not _FEW_NEED.search(each.name):
            importlib.import_module(each.name)
    for name in _MOST_NEED:
        with suppress(ImportError):  # not everyone has uvloop
            importlib.import_module(name)
    # As in the process of the tests, see tests/conftest.py.
    setattr(importlib.import_module("grym_fetch.core.speeds"), "FAR_S", math.inf)  # noqa: B010 - mypy knows no such name


def _wait_for_work(requests: socket.socket) -> dict[str, Any] | None:
    """Fork for each request, and report how each fork ended. Returns the request in the fork, and None at the end."""
    running: dict[int, tuple[int, int]] = {}
    poll = select.poll()
    poll.register(requests, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            if ready != requests.fileno():
                pid, told = running.pop(ready)
                poll.unregister(ready)
                os.close(ready)
                os.write(told, b"%d" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                os.close(told)
                continue
            message, descriptors, _, _ = socket.recv_fds(requests, _MESSAGE, 4)
            if not message:
                return None
            *streams, told = descriptors
            if not (pid := os.fork()):
                for number, stream in enumerate(streams):
                    os.dup2(stream, number)
                os.closerange(3, os.sysconf("SC_OPEN_MAX"))
                found: dict[str, Any] = json.loads(message)
                return found
            os.write(told, b"%*d" % (_PID, pid))
            for stream in streams:
                os.close(stream)
            watched = os.pidfd_open(pid)
            poll.register(watched, select.POLLIN)
            running[watched] = pid, told


if __name__ == "__main__":
    del sys.path[0]  # this folder, whose modules must not be taken for others
    _import_everything()
    gc.collect()
    gc.freeze()
    channel = socket.socket(fileno=int(sys.argv[1]))
    if (work := _wait_for_work(channel)) is not None:
        channel.detach()
        if work["is_held"]:
            os.read(0, 1)
        os.chdir(work["folder"])
        os.environ.clear()
        os.environ.update(work["environ"])
        sys.path.insert(0, work["folder"])
        sys.argv[1:] = work["arguments"]
        if work["program"] is None:
            runpy.run_module("grym_fetch", run_name="__main__", alter_sys=True)
        else:
            sys.argv[0] = "-c"
            exec(compile(work["program"], "<string>", "exec"), {"__name__": "__main__"})
