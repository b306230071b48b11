"""The standard streams, however a shell, a supervisor or a reader that went away has left them.

Rules: descriptors 0 to 2 are never free for a file of ours, because printed text would end up in it. If the reader of
stdout goes away, the work and the exit code stay the same. Data that cannot be written for another reason is an error,
`OutputLost`. A message that stderr does not take is dropped. At the exit, nothing waits for a reader that has stopped.
"""

from __future__ import annotations

import _thread
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class OutputLost(OSError):
    """Stdout does not take what is written: its disk is full, for example."""


class _Output(io.FileIO):
    """Once it has failed, everything else written to it is dropped."""

    def write(self, data: ReadableBuffer) -> int:
        try:
            return super().write(data)
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            if not isinstance(error, BrokenPipeError):
                raise OutputLost(error.errno, os.strerror(error.errno or 0)) from None
            return super().write(data)


LAST_WORD_S = 0.2
"""How long a last line to stderr may take."""


def prepare() -> None:
    """Open closed streams on ``/dev/null``, and escape characters that a stream cannot take."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is taken, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    # Python has None for a stream whose descriptor was closed when it began.
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for the whole run
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    if sys.stdout is None or sys.stdout is sys.__stdout__:
        before = sys.stdout
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_Output(1, "w", closefd=False)),
            encoding=getattr(before, "encoding", None),
            errors="backslashreplace",
            line_buffering=getattr(before, "line_buffering", False),
        )


def tell(text: str) -> None:
    """Write a line to stderr, if it can be written."""
    with suppress(OSError, ValueError):
        click.echo(text, err=True)


def tell_and_go(text: str) -> None:
    """Write a line to stderr from a thread, and wait only a moment: its reader may have stopped, and we are leaving.

    Past Python's stream and the locks of `threading`: this is called by signal handlers, in the middle of anything.
    """
    written = _thread.allocate_lock()
    written.acquire()

    def write() -> None:
        with suppress(OSError):
            os.write(2, f"{text}\n".encode(errors="backslashreplace"))
        written.release()

    with suppress(RuntimeError):  # no more threads
        _thread.start_new_thread(write, ())
        written.acquire(timeout=LAST_WORD_S)
