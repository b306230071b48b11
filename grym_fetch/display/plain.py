"""The display if stderr is not a terminal: plain lines without escape codes.

Rules: one line per change of state, and a line of progress now and then, so that a log shows that the run is alive.
Lines that cannot be written are dropped; the run never waits for them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial

from grym_fetch.core.events import Event
from grym_fetch.core.figures import count_files, format_left, format_part, format_rate, format_size
from grym_fetch.core.text import safe_text
from grym_fetch.display.lines import Chronicle, Line, Telling, said
from grym_fetch.display.model import DisplayModel, Totals
from grym_fetch.display.stream import DirectStream, Stream, is_unicode, to_ascii

MAX_PENDING_LINES = 5_000
"""The most lines kept for a stream that does not accept them; the oldest are dropped first."""


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
            lines.insert(0, said(f"({dropped:,} lines left out: they could not be written in time)"))
        return lines


class PlainView:
    """Writes the lines of the chronicle, and a line of progress every ``interval`` seconds; None: no progress."""

    def __init__(
        self,
        stream: Stream,
        names: Mapping[str, str] | None = None,
        *,
        telling: Telling | None = None,
        interval: float | None = None,
    ) -> None:
        self._stream = DirectStream(stream)
        self._as_written: Callable[[str], str] = str if is_unicode(stream) else to_ascii
        self._interval = interval
        self._told_at: float | None = None
        self.model = DisplayModel(names)
        self.chronicle = Chronicle(self.model, telling)
        self._pending = PendingLines()

    def apply(self, event: Event, now: float) -> None:
        self.model.apply(event, now)
        for line in self.chronicle.lines(event):
            self._pending.add(line)
        if self._told_at is None:
            self._told_at = now

    def prepare(self, now: float) -> Callable[[], None] | None:
        if self._interval is not None and self._told_at is not None and now - self._told_at >= self._interval:
            self._told_at = now
            snapshot = self.model.snapshot(now, 0)
            if snapshot.under_way:
                self._pending.add(said(progress_line(snapshot.totals)))
        lines = self._pending.take()
        return partial(self._write, lines) if lines else None

    def close(self) -> None:
        self._stream.flush()

    def say(self, text: str) -> None:
        self._pending.add(said(safe_text(text, limit=2000)))

    def came_back(self) -> None:
        pass  # nothing is written over

    def try_beside(self, write: Callable[[], object]) -> bool:
        write()
        return True

    def _write(self, lines: list[Line]) -> None:
        self._stream.write("".join(f"{self._as_written(self._as_told(line))}\n" for line in lines))
        self._stream.flush()

    def _as_told(self, line: Line) -> str:
        return line.plain


def progress_line(totals: Totals) -> str:
    """Return how far a run is: ``12 of 60 files, 4.1 of 17.0 GiB, 61 MiB/s, 3 min left``."""
    parts = [f"{totals.finished:,} of {count_files(totals.assets)}"]
    if totals.failed:
        parts.append(f"{totals.failed:,} failed")
    if totals.known_total and not totals.open_ended:
        parts.append(format_part(totals.bytes, totals.total))
    elif totals.known_total:
        parts.append(f"{format_size(totals.bytes)} of more than {format_size(totals.known_total)}")
    else:
        parts.append(format_size(totals.bytes))
    parts.append(format_rate(totals.rate))
    if totals.eta is not None:
        parts.append(f"{'at least ' if totals.open_ended else ''}{format_left(totals.eta)} left")
    return ", ".join(parts)
