"""The live display on a terminal: a region that is redrawn, and lines that scroll up out of it.

Rules: only this module and `render` import Rich. All drawing runs in the display loop's thread. The cursor is never
hidden: a process that is stopped (Ctrl-Z), in the background or killed could not show it again. In the background
nothing is drawn, since another process has the terminal; back in the foreground, or after a stop, a new region begins
below what is there by then, and the lines follow. After closing, the region is cleared. A broken stream raises OSError
here, and never ends the process.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import IO, NoReturn, cast

from rich.console import Console
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.text import Text

from grym_fetch.core.events import Event
from grym_fetch.core.text import safe_text
from grym_fetch.display.lines import Chronicle, Line, Mark, Telling, said
from grym_fetch.display.model import DisplayModel, Snapshot
from grym_fetch.display.plain import PendingLines
from grym_fetch.display.render import MAX_NAME_CELLS, render, render_line
from grym_fetch.display.stream import DirectStream, Stream, can_move, is_unicode
from grym_fetch.runtime import system

_FRAME_BEGINS, _FRAME_ENDS = "\x1b[?2026h", "\x1b[?2026l"
"""Between these a terminal that knows them shows nothing, and then all at once; others ignore them (mode 2026)."""
ECHO_CELLS = 2
"""Left free at the end of each row: the terminal shows ``^C`` at the cursor, and must not begin a new row for it."""


class LiveView:
    """Draws on a terminal. ``size`` overrides the terminal's own (columns, lines).

    ``is_in_foreground`` says whether the terminal is ours to draw on.
    """

    def __init__(
        self,
        stream: Stream,
        names: Mapping[str, str] | None = None,
        *,
        environ: Mapping[str, str] = os.environ,
        telling: Telling | None = None,
        size: Callable[[], tuple[int, int]] | None = None,
        is_in_foreground: Callable[[], bool] | None = None,
    ) -> None:
        self._stream = _Frames(stream) if can_move(stream, environ) else DirectStream(stream)
        self._ascii = not is_unicode(stream)
        self._size = size or partial(_terminal_size, self._stream)
        self._telling = telling or Telling()
        self.model = DisplayModel(names)
        self.chronicle = Chronicle(self.model, self._telling)
        self._turn = threading.Lock()
        """Held while the terminal is written to."""
        self._pending = PendingLines()
        self._environ = environ
        self._is_in_foreground = is_in_foreground or partial(_is_in_foreground, self._stream)
        self._begin()

    def _begin(self) -> None:
        """Begin a region at the cursor, and leave alone what was drawn before."""
        self._was_away = False
        self._drawn: list[int] = []
        self._console = _Console(
            file=cast(IO[str], self._stream),
            force_terminal=True,
            force_interactive=True,
            highlight=False,
            markup=False,
            emoji=False,
            legacy_windows=False,
            _environ=self._environ,
        )
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )

    def apply(self, event: Event, now: float) -> None:
        self.model.apply(event, now)
        for line in self.chronicle.lines(event):
            if line.mark is not Mark.NEWS or self._telling.verbose:
                self._pending.add(line)

    def prepare(self, now: float) -> Callable[[], None] | None:
        if not self._is_in_foreground():
            self._was_away = True
            return None
        snapshot, lines = self.model.snapshot(now), self._pending.take()
        if not (snapshot.under_way or lines or self._live.is_started):
            return None
        return partial(self._draw, snapshot, lines, now)

    def close(self) -> None:
        with self._turn:
            self._close()

    def _close(self) -> None:
        if self._was_away:  # a job in the background may say how it ended
            self._begin()
            self._console.size = self._size()
            self._print(self._pending.take(), self._console.width)
        if self._live.is_started:
            self._live.update(Text())
            self._live.stop()
        self._drawn = []

    def say(self, text: str) -> None:
        self._pending.add(said(safe_text(text, limit=2000)))

    def came_back(self) -> None:
        self._was_away = True

    def try_beside(self, write: Callable[[], object]) -> bool:
        """Call ``write``, which writes to the same terminal, unless the region is there; say whether it was called."""
        if not self._turn.acquire(blocking=False):
            return False
        try:
            if self._drawn:
                return False
            write()
            return True
        finally:
            self._turn.release()

    def _draw(self, snapshot: Snapshot, lines: list[Line], now: float) -> None:
        with self._turn:
            self._draw_region(snapshot, lines, now)

    def _draw_region(self, snapshot: Snapshot, lines: list[Line], now: float) -> None:
        if self._was_away:
            self._begin()
        width, height = self._size()
        with self._console:  # one write, so nothing flickers
            self._make_up_for_reflow(width)
            self._console.size = (width, height)
            region = []
            if snapshot.under_way:
                region = render(
                    snapshot,
                    now,
                    width - ECHO_CELLS,
                    height,
                    ascii_only=self._ascii,
                    retries=self._telling.retries,
                )
            self._live.start()
            self._live.update(Text("\n", no_wrap=True).join(region))
            if self._drawn or not lines:
                self._live.refresh()
            if lines:  # printing repeats the last region, which must no longer have the rows that just ended
                self._print(lines, width)
            self._drawn = [line.cell_len for line in region]

    def _print(self, lines: list[Line], width: int) -> None:
        cells = min(self.model.longest_name, MAX_NAME_CELLS)
        texts = [text for line in lines for text in render_line(line, width, ascii_only=self._ascii, name_cells=cells)]
        if texts:
            self._console.print(Text("\n", no_wrap=True).join(texts), no_wrap=True, crop=True)

    def _make_up_for_reflow(self, width: int) -> None:
        """Erase the extra rows that appear when a narrower terminal wraps our lines; Rich does not count them."""
        rows = sum(-(-cells // width) for cells in self._drawn if width > 0)
        extra = rows - sum(1 for cells in self._drawn if cells)
        if extra > 0:
            up = ((ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2))
            self._console.control(Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2), *(up * extra)))


class _Frames(DirectStream):
    """Each write is a frame, which appears as a whole."""

    def write(self, text: str) -> int:
        return super().write(f"{_FRAME_BEGINS}{text}{_FRAME_ENDS}") if text else 0


class _Console(Console):
    def show_cursor(self, show: bool = True) -> bool:  # noqa: ARG002 - as Rich calls it
        """Leave it visible."""
        return False

    def on_broken_pipe(self) -> NoReturn:
        """Leave the decision to the loop. Rich itself would redirect stdout and exit."""
        raise


def _terminal_size(stream: DirectStream) -> tuple[int, int]:
    try:
        columns, lines = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        columns, lines = 0, 0
    return columns or 80, lines or 24


def _is_in_foreground(stream: DirectStream) -> bool:
    """Whether this process may draw: a terminal belongs to one group of processes at a time (tcgetpgrp(3))."""
    try:
        return system.is_in_foreground(stream.fileno())
    except (OSError, ValueError):  # not a terminal that controls us: nobody else draws there
        return True
