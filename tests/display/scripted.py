"""What a display meets: a place on the bus, a clock, a view, a terminal. They do as they are told."""

from __future__ import annotations

import asyncio
import heapq
import io
from collections.abc import Callable, Coroutine, Iterable

from grym_fetch.core.events import Event
from grym_fetch.display.lines import Chronicle
from grym_fetch.display.loop import Drawing
from grym_fetch.display.model import DisplayModel
from grym_fetch.runtime.bus import EventBus, Subscription


class Bus(Subscription):
    """A real place on a bus, filled by the test."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        super().__init__(EventBus(lambda: 0.0))
        for event in events:
            self.put(event)


class Clock:
    """Time that passes only when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self._count += 1
        wake = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, self._count, wake))
        await wake

    async def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass; everything due meanwhile happens at its time."""
        end = self.now + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, wake = heapq.heappop(self._sleepers)
            if not wake.done():
                self.now = due
                wake.set_result(None)
                await settle()
        self.now = end
        await settle()

    async def finish(self, work: asyncio.Task[None]) -> None:
        """Let time pass until ``work`` is done."""
        for _ in range(1000):
            if work.done():
                break
            await self.advance(0.01)
        await work


async def settle() -> None:
    """Let every task go as far as it can without time passing."""
    for _ in range(20):
        await asyncio.sleep(0)


async def draw_at_once(drawing: Drawing) -> None:
    drawing()


class Recorder:
    """A view that notes the calls it gets. ``on_draw`` is what a drawing does."""

    def __init__(self, clock: Clock, on_draw: Callable[[], None] = lambda: None) -> None:
        self.applied: list[Event] = []
        self.drawn_at: list[float] = []
        self.drawn_events: list[int] = []
        self.closed = 0
        self._clock = clock
        self._on_draw = on_draw
        self.model = DisplayModel()
        self.chronicle = Chronicle(self.model)

    def apply(self, event: Event, now: float) -> None:
        self.applied.append(event)

    def prepare(self, now: float) -> Drawing | None:
        return self._draw

    def _draw(self) -> None:
        self.drawn_at.append(self._clock())
        self.drawn_events.append(len(self.applied))
        self._on_draw()

    def close(self) -> None:
        self.closed += 1

    def say(self, text: str) -> None:
        raise NotImplementedError

    def came_back(self) -> None:
        raise NotImplementedError

    def try_beside(self, write: Callable[[], object]) -> bool:
        raise NotImplementedError


class FakeTerminal(io.StringIO):
    """A text stream that reports what it is told to report."""

    def __init__(self, *, is_terminal: bool = True, encoding: str = "utf-8") -> None:
        super().__init__()
        self._is_terminal = is_terminal
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return self._is_terminal


def start(work: Coroutine[object, object, None]) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(work)
