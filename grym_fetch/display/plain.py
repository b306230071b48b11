"""The display if stderr is not a terminal: plain lines without escape codes. And the stream of both displays.

Rules: one line per change of state, none for progress. What cannot be written is dropped; the run never waits for it.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from grym_fetch.core.events import Event
from grym_fetch.core.text import safe_text
from grym_fetch.display.lines import Chronicle, Line, Mark
from grym_fetch.display.model import DisplayModel

MAX_PENDING_LINES = 5_000
"""Kept for a stream that does not accept them; the oldest are dropped first."""
_TYPOGRAPHIC = str.maketrans({"·": "-", "…": "..."})


class Stream(Protocol):
    """What the displays need from a text stream; `sys.stderr` has it."""

    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...
    def isatty(self) -> bool: ...
    def fileno(self) -> int: ...
    @property
    def encoding(self) -> str | None: ...


def is_unicode(stream: Stream) -> bool:
    """Whether the stream accepts every character."""
    return (getattr(stream, "encoding", None) or "").lower().replace("-", "").replace("_", "") in {
        "utf8",
        "utf16",
    }


def to_ascii(text: str) -> str:
    """Return ``text`` in ASCII, with other characters escaped."""
    return text.translate(_TYPOGRAPHIC).encode("ascii", "backslashreplace").decode("ascii")


class DirectStream:
    """Writes to a stream's file descriptor without a buffer.

    A thread stuck writing to a buffered `sys.stderr` holds its lock, and the interpreter then aborts when it flushes at
    exit. Here there is no lock to hold. A stream without a descriptor is written to directly.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"
        try:
            self._descriptor: int | None = stream.fileno()
            stream.flush()
        except (OSError, ValueError, AttributeError):
            self._descriptor = None

    def write(self, text: str) -> int:
        if self._descriptor is None:
            self._stream.write(text)
        else:
            remaining = memoryview(text.encode(self.encoding, "backslashreplace"))
            while remaining:
                remaining = remaining[os.write(self._descriptor, remaining) :]
        return len(text)

    def flush(self) -> None:
        if self._descriptor is None:
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno() if self._descriptor is None else self._descriptor


class PendingLines:
    """Lines waiting to be drawn, from any thread. Bounded: the oldest are dropped and counted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: deque[Line] = deque()
        self._dropped = 0

    def add(self, line: Line) -> None:
        with self._lock:
            self._lines.append(line)
            if len(self._lines) > MAX_PENDING_LINES:
                self._lines.popleft()
                self._dropped += 1

    def take(self) -> list[Line]:
        with self._lock:
            lines, dropped = list(self._lines), self._dropped
            self._lines.clear()
            self._dropped = 0
        if dropped:
            text = f"({dropped:,} lines left out: they could not be written in time)"
            lines.insert(0, Line(Mark.SUMMARY, "", text, text))
        return lines


class PlainView:
    """Writes the lines of the chronicle."""

    def __init__(self, stream: Stream, names: Mapping[str, str] | None = None, *, verbose: int = 0) -> None:
        self._stream = DirectStream(stream)
        self._as_written: Callable[[str], str] = str if is_unicode(stream) else to_ascii
        self._model = DisplayModel(names)
        self._chronicle = Chronicle(self._model, verbose=verbose)
        self._pending = PendingLines()

    def apply(self, event: Event, now: float) -> None:
        self._model.apply(event, now)
        for line in self._chronicle.lines(event):
            self._pending.add(line)

    def prepare(self, now: float) -> Callable[[], None] | None:  # noqa: ARG002 - lines do not depend on time
        lines = self._pending.take()
        return partial(self._write, lines) if lines else None

    def close(self) -> None:
        self._stream.flush()

    def say(self, text: str) -> None:
        said = safe_text(text, limit=2000)
        self._pending.add(Line(Mark.SUMMARY, "", said, said))

    def _write(self, lines: list[Line]) -> None:
        self._stream.write("".join(f"{self._as_written(line.plain)}\n" for line in lines))
        self._stream.flush()
