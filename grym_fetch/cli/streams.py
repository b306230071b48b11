"""The standard streams, however a shell, a supervisor or a reader that went away has left them.

Rules: descriptors 0 to 2 are never left free for a file of ours, because printed text would end up in it. If the reader
of stdout goes away, the work and the exit code stay the same. If data cannot be written for another reason, that is an
error, `OutputLost`. A message that stderr does not take is dropped. At exit, nothing waits for a reader that has
stopped. While a live display is on the terminal, nothing else is written into it: see `sharing`.
"""

from __future__ import annotations

import _thread
import io
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol, TextIO, cast

import click

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from grym_fetch.display.sheet import Sheet


class OutputLost(OSError):
    """Stdout cannot be written to; for example, its disk is full."""


class Screen(Protocol):
    """The live region on the terminal: `Display`."""

    def try_beside(self, write: Callable[[], object]) -> bool:
        """Call ``write`` unless that would break the region; return whether it was called."""

    def say(self, text: str) -> None:
        """Show a line above the region."""

    def came_back(self) -> None:
        """The process was stopped, and goes on."""


class _Output(io.FileIO):
    """After the first failure, everything else written to it is dropped."""

    screen: Screen | None = None
    """The live region on the same terminal, if any."""
    _held: list[Callable[[], object]] | None = None
    """What to write later, in order."""

    def write(self, data: ReadableBuffer) -> int:
        settle()
        if self.screen is None:
            return self._write(data)
        block = bytes(data)
        if not self.follows(lambda: self._write_all(block)) and not self.screen.try_beside(lambda: self._write(block)):
            self._held = [lambda: self._write_all(block)]
        return len(block)

    def follows(self, write: Callable[[], object]) -> bool:
        """If something is held back, call ``write`` after it; say whether that is so."""
        if self._held is None:
            return False
        self._held.append(write)
        return True

    def release(self) -> None:
        """The live region is gone: write what was held back."""
        self.screen = None
        held, self._held = self._held, None
        for write in held or ():
            write()

    def _write_all(self, block: bytes) -> None:
        remaining = memoryview(block)
        while remaining:
            remaining = remaining[self._write(remaining) :]

    def _write(self, data: ReadableBuffer) -> int:
        try:
            return super().write(data)
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            if not isinstance(error, BrokenPipeError):
                raise OutputLost(error.errno, os.strerror(error.errno or 0)) from None
            return super().write(data)


class _Messages:
    """Stderr while a live display is on it: whole lines appear above the display.

    On a terminal, what is said after results that are held back comes after them: it may be about them.
    """

    def __init__(self, stream: TextIO, screen: Screen, results: _Output | None) -> None:
        self._stream = stream
        self._screen = screen
        self._results = results
        self._text = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._text += text
        if self._results is not None and self._text.endswith("\n"):
            whole = self._text
            if self._results.follows(lambda: self._write_if_possible(whole)):
                self._text = ""
                return len(text)
        if self._screen.try_beside(self._pass_on):
            return len(text)
        *lines, self._text = self._text.split("\n")
        for line in lines:
            self._screen.say(click.unstyle(line))
        return len(text)

    def flush(self) -> None:
        self._screen.try_beside(self._pass_on)

    def _pass_on(self) -> None:
        text, self._text = self._text, ""
        if text:
            self._stream.write(text)
            self._stream.flush()

    def _write_if_possible(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()


_output: _Output | None = None
"""Stdout, once `prepare` has made it."""

_is_announced = False
"""Whether a line is on the terminal that must go before anything else is written."""

LAST_WORD_S = 0.2
"""How long a last line to stderr may take."""


def prepare() -> None:
    """Open closed streams on ``/dev/null``, and escape characters that a stream cannot take."""
    global _output
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # This takes the lowest free number, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    # Python sets a stream to None if its descriptor was closed at the start.
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for the whole run
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    if sys.stdout is None or sys.stdout is sys.__stdout__:
        before, _output = sys.stdout, _Output(1, "w", closefd=False)
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_output),
            encoding=getattr(before, "encoding", None),
            errors="backslashreplace",
            line_buffering=getattr(before, "line_buffering", False),
        )


def may_be_seen() -> bool:
    """Whether what is written to stdout may come onto a terminal: it is one, or a program reads it through a pipe."""
    try:
        mode = os.fstat(sys.stdout.fileno()).st_mode
        return sys.stdout.isatty() or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
    except (OSError, ValueError):
        return False


def progress_beside(progress: str, *, json: bool) -> str:
    """Return how to show progress: no bar by itself while events as JSON may come onto the same terminal."""
    return "plain" if json and progress == "auto" and may_be_seen() else progress


@contextmanager
def sharing(screen: Screen, *, json: bool) -> Iterator[None]:
    """While a live display is on the terminal, keep everything else from being written into it.

    Messages to stderr become lines above it. Output to stdout that may come onto a terminal is held back while the
    display is there, and written at the end; but a program that reads ``json`` gets it at once.
    """
    from grym_fetch.runtime import system

    messages, is_terminal = sys.stderr, sys.stdout.isatty()
    output = _output if _output is not None and (is_terminal or (may_be_seen() and not json)) else None
    sys.stderr = cast(TextIO, _Messages(messages, screen, output if is_terminal else None))
    if output is not None:
        output.screen = screen
    try:
        with system.when_continued(screen.came_back):
            yield
    finally:
        sys.stderr.flush()
        sys.stderr = messages
        if output is not None:
            sys.stdout.flush()
            output.release()


def announce(text: str) -> None:
    """Show a line on the terminal until `settle`, or until something else is written."""
    global _is_announced
    from grym_fetch.display.stream import can_move, is_unicode, to_ascii

    if can_move(sys.stderr, os.environ):
        _is_announced = True
        _write_over(text if is_unicode(sys.stderr) else to_ascii(text))


def settle() -> None:
    """Remove what was announced."""
    global _is_announced
    if _is_announced:
        _is_announced = False
        _write_over("")


@contextmanager
def passing(text: str) -> Iterator[None]:
    """Show a line on the terminal for as long as the block takes."""
    announce(text)
    try:
        yield
    finally:
        settle()


def _write_over(text: str) -> None:
    with suppress(OSError, ValueError):
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def tell(text: str) -> None:
    """Write a line to stderr, if possible. Its `Sheet` decides about colours."""
    settle()
    with suppress(OSError, ValueError):
        click.echo(text, err=True, color=True)


def say(text: str) -> None:
    """Write sentences to stderr, if possible, broken between words on a terminal."""
    tell(sheet().prose(text))


def complain(text: str, *, kind: str = "error", hint: str = "") -> None:
    """Write a message to stderr that begins with its kind, and what to do about it."""
    formatted = sheet()
    tell(formatted.message(kind, text))
    if hint:
        tell(formatted.message("hint", hint))


def interrupted(progress: str, *, at_once: bool = False) -> str:
    """Return the last line of a run ended by a signal. ``progress``: how far it was; ``at_once``: it came twice."""
    where = f" at {progress}" if progress else ""
    return f"interrupted{where}{', ended at once' if at_once else ''}; run the same command to go on"


def say_result(text: str) -> None:
    """Write sentences to stdout, broken between words on a terminal: what a command answers to a person."""
    click.echo(sheet(sys.stdout).prose(text))


def sheet(stream: TextIO | None = None) -> Sheet:
    """Return the sheet that formats text for a person, on stderr unless another stream is given."""
    from grym_fetch.display.sheet import Sheet

    return Sheet(stream or sys.stderr, os.environ)


def tell_and_go(text: str) -> None:
    """Write a line to stderr from a thread, and wait only a moment: its reader may have stopped, and we are leaving.

    Bypasses Python's stream and the locks of `threading`: signal handlers call this, in the middle of anything.
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
