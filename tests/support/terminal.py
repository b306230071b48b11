"""The command on a terminal, stdout and stderr together as a person sees them: a pseudo-terminal and an emulator."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pyte

DEADLINE_S = 60.0


class Terminal:
    """A process on a terminal of its own. It is ended, whatever happens, when the block ends.

    It runs the command with these arguments, or a ``script`` of the shell.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        script: str = "",
        columns: int = 100,
        lines: int = 24,
        environ: dict[str, str] | None = None,
    ) -> None:
        self._screen = pyte.HistoryScreen(columns, lines, history=1000)
        self._stream = pyte.ByteStream(self._screen)
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._process = subprocess.Popen(
            ["sh", "-c", script] if script else [sys.executable, "-m", "grym_fetch", *arguments],
            cwd=folder,
            # Its size is the terminal's own, whatever is exported where the tests run.
            env={
                name: value
                for name, value in (os.environ if environ is None else environ).items()
                if name not in ("COLUMNS", "LINES")
            }
            | {"TERM": "xterm-256color"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(theirs)
        self._ours = ours
        self.written = b""
        """Every byte that came."""

    def text(self) -> list[str]:
        """What has been shown: what has scrolled away, then the screen, without the empty rows at its end."""
        rows = ["".join(row[x].data for x in range(self._screen.columns)) for row in self._screen.history.top]
        rows += self._screen.display
        shown = [row.rstrip() for row in rows]
        while shown and not shown[-1]:
            shown.pop()
        return shown

    def until(self, condition: Callable[[list[str]], bool]) -> list[str]:
        """Read until the screen is as expected."""
        while not condition(self.text()):
            assert self._read(), f"it ended first: {self.text()}"
        return self.text()

    def type(self, keys: bytes) -> None:
        """Type on the keyboard: ``b"\\x03"`` is Ctrl-C."""
        os.write(self._ours, keys)

    def finish(self) -> list[str]:
        """Wait for it to end; return what was shown."""
        while self._read():
            pass
        self._process.wait(DEADLINE_S)
        return self.text()

    @property
    def code(self) -> int:
        """Its exit code, once it has ended."""
        return self._process.wait(DEADLINE_S)

    def _read(self) -> bool:
        deadline = time.monotonic() + DEADLINE_S
        assert select.select([self._ours], [], [], deadline - time.monotonic())[0], f"it is silent: {self.text()}"
        try:
            data = os.read(self._ours, 65_536)
        except OSError:  # the other end is closed (EIO)
            return False
        self.written += data
        self._stream.feed(data)
        return bool(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._ours)


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
