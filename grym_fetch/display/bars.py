"""Progress bars of other libraries, in a notebook or a script: of tqdm, or else of Rich.

Rules: each asset under way has a bar, which goes away when it ends; a sync has one more, which stays, for its files.
What is shown never goes back. Nothing is imported before a bar is asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from grym_fetch.core import events
from grym_fetch.core.events import Event
from grym_fetch.core.text import safe_text

_ENDS = (events.AssetVerified, events.AssetReused, events.AssetFailed)


class Bar(Protocol):
    """What we need of a bar: the interface of tqdm."""

    n: Any
    total: Any

    def update(self, n: int, /) -> object: ...
    def close(self) -> object: ...


NewBar = Callable[..., Bar]


@contextmanager
def bars_for(
    listen: Callable[[Callable[[Event], object]], Callable[[], None]], new_bar: NewBar | None
) -> Iterator[None]:
    """Show bars while the block runs. ``listen`` registers a listener and returns what unregisters it."""
    bars = Bars(new_bar or default_bar())
    stop = listen(bars.show)
    try:
        yield
    finally:
        stop()
        bars.close()


def default_bar() -> NewBar:
    """Return tqdm's bar that suits the place, a widget in a notebook; Rich's where there is no tqdm."""
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return _RichBars()
    new_bar: NewBar = tqdm
    return new_bar


class Bars:
    """Makes, moves and closes bars as events come. Its methods may be called from any thread."""

    def __init__(self, new_bar: NewBar) -> None:
        self._new_bar = new_bar
        self._turn = threading.Lock()
        self._is_closed = False
        self._files: Bar | None = None
        self._bars: dict[str, Bar] = {}

    def show(self, event: Event) -> None:
        """Process an event."""
        with self._turn:
            if not self._is_closed:
                self._show(event)

    def close(self) -> None:
        """Close all bars. What comes later is not shown."""
        with self._turn:
            self._is_closed = True
            self._close()

    def _show(self, event: Event) -> None:
        if isinstance(event, events.RunStarted):
            self._close()
            self._files = self._new_bar(total=event.assets, desc="files", unit="file")
        elif isinstance(event, events.ProgressMade | events.AssetVerifying) and event.asset is not None:
            self._move(event.asset, event.bytes, event.total)
        elif isinstance(event, _ENDS) and event.asset is not None:
            if (bar := self._bars.pop(event.asset, None)) is not None:
                bar.close()
            if self._files is not None:
                self._files.update(1)
        elif isinstance(event, events.RunFinished):
            self._close()

    def _move(self, asset: str, done: int, total: int | None) -> None:
        bar = self._bars.get(asset)
        if bar is None:
            bar = self._bars[asset] = self._new_bar(
                total=total, desc=safe_text(asset), unit="B", unit_scale=True, unit_divisor=1024, leave=False
            )
        bar.total = total
        if done > bar.n:
            bar.update(done - bar.n)

    def _close(self) -> None:
        for bar in self._bars.values():
            bar.close()
        self._bars.clear()
        if self._files is not None:
            self._files.close()
            self._files = None


class _RichBars:
    """Makes bars in one `rich.progress.Progress`, which is on the screen while there are any."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f} %")
        self.progress = Progress(*columns, TimeRemainingColumn())
        self._open = 0

    def __call__(self, *, total: int | None, desc: str, leave: bool = True, **_: object) -> _RichBar:
        if not self._open:
            self.progress.start()
        self._open += 1
        return _RichBar(self, desc, total, stays=leave)

    def closed(self) -> None:
        """One of them is closed."""
        self._open -= 1
        if not self._open:
            self.progress.stop()


class _RichBar:
    def __init__(self, bars: _RichBars, desc: str, total: int | None, *, stays: bool) -> None:
        self._bars = bars
        self._task = bars.progress.add_task(desc, total=total)
        self._stays = stays
        self.n = 0
        self.total = total

    def update(self, n: int) -> None:
        self.n += n
        self._bars.progress.update(self._task, completed=self.n, total=self.total)

    def close(self) -> None:
        if self._stays:
            self._bars.progress.refresh()
        else:
            self._bars.progress.remove_task(self._task)
        self._bars.closed()
