"""What a run was like, for a page that is looked at afterwards: made of events alone.

Rules: `Report.apply` takes constant time. Bytes count for the server that was asked when they came; where several are
asked at once, for the one that was named last. Times are those of the events, in seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from grym_fetch.core import events
from grym_fetch.core.events import Event
from grym_fetch.core.figures import format_delay

LEAST_S, LEAST_BYTES = 0.2, 1024 * 1024
"""Of less no speed is told."""
MAX_MARKS = 100
"""Kept of one asset; those that come later are only counted."""
Stretch = Literal["waits", "comes", "verifies"]
"""What an asset does for a while."""
End = Literal["verified", "unverified", "reused", "failed", "unfinished"]


@dataclass(slots=True)
class Share:
    """What came from one server: bytes, and for how many seconds they came."""

    bytes: int = 0
    seconds: float = 0.0
    assets: int = 0
    retries: int = 0
    left: int = 0
    """How often it was left for another one."""


@dataclass(slots=True)
class Life:
    """One asset. ``stretches`` are (what, from, until), ``marks`` are (time, what went wrong)."""

    asset: str
    began: float
    origin: str
    """Where bytes of it last came from; before any have come, the address that is asked first."""
    asked: str = ""
    """The address that is asked now."""
    end: End = "unfinished"
    ended: float = 0.0
    size: int | None = None
    resumed: int = 0
    downloaded: int = 0
    bytes: int = 0
    checksum: str = ""
    path: str = ""
    trouble: str = ""
    error: str = ""
    """The class of the error."""
    is_planned: bool = False
    """Whether it was to be fetched: an asset that is refused before that asks nobody."""
    stretches: list[tuple[Stretch, float, float]] = field(default_factory=list)
    marks: list[tuple[float, str]] = field(default_factory=list)
    holders: list[tuple[float, str]] = field(default_factory=list)
    """What it waited for, though nothing about it had failed, and since when."""
    retries: int = 0
    switches: int = 0
    restarts: int = 0
    node: str = ""
    """The worker of a cluster that told of it last."""

    def enter(self, what: Stretch, time: float) -> None:
        """From now on it does this."""
        self.last(time)
        if not self.stretches or self.stretches[-1][0] != what:
            self.stretches.append((what, time, time))

    def last(self, time: float) -> None:
        """It still does what it did."""
        if self.stretches:
            what, since, _ = self.stretches[-1]
            self.stretches[-1] = what, since, max(since, time)

    def note(self, time: float, text: str) -> None:
        """Something went wrong with it."""
        if len(self.marks) < MAX_MARKS:
            self.marks.append((time, text))

    @property
    def speed(self) -> float:
        """Bytes per second while they came; 0 if they were too few or too quick for that to say anything."""
        seconds = sum(until - since for what, since, until in self.stretches if what == "comes")
        return self.downloaded / seconds if seconds >= LEAST_S and self.downloaded >= LEAST_BYTES else 0.0


class Report:
    """Follows a run. ``first_origins``: the address that each asset is asked for first, already without secrets.

    ``each_node``: each worker of a cluster has its own copy of an asset, which has a life of its own. ``on_end`` takes
    each life that has ended, which is not kept then: for a run over any number of assets.
    """

    def __init__(
        self,
        first_origins: Mapping[str, str],
        *,
        each_node: bool = False,
        on_end: Callable[[Life], None] | None = None,
    ) -> None:
        self._first_origins = first_origins
        self._each_node = each_node
        self._on_end = on_end
        self._lives: dict[str, Life] = {}
        self.servers: dict[str, Share] = {}
        """By scheme, host and port; empty where that is unknown."""
        self.began = self.ended = 0.0
        self.assets = 0
        """How many the run is about; 0 before it has said so."""
        self.finished: events.RunFinished | None = None
        """None if the run was interrupted."""

    @property
    def lives(self) -> Iterable[Life]:
        """All assets that are kept, in the order in which they began."""
        return self._lives.values()

    def apply(self, event: Event) -> None:
        """Take an event."""
        self.began = self.began or event.time
        self.ended = max(self.ended, event.time)
        if isinstance(event, events.RunFinished):
            is_whole = event.verified + event.unverified + event.reused + event.failed >= self.assets
            self.finished = event if is_whole else None
        elif isinstance(event, events.RunStarted):
            self.assets = event.assets
        if event.asset is None:
            return
        key = f"{event.asset}\0{event.node}" if self._each_node else event.asset
        life = self._lives.get(key)
        if life is None:
            origin = self._first_origins.get(event.asset, "")
            life = self._lives[key] = Life(event.asset, event.time, origin, asked=origin, ended=event.time)
        life.ended, life.node = event.time, event.node or life.node
        match event:
            case events.AssetPlanned():
                life.size, life.resumed, life.is_planned = event.size, event.resumed_bytes, True
                life.bytes = event.resumed_bytes
                life.enter("waits", event.time)
                self._share(life.asked).assets += 1
            case events.ProgressMade():
                self._came(life, event)
            case events.AssetWaiting():
                life.enter("waits", event.time)
                if len(life.holders) < MAX_MARKS:
                    life.holders.append((event.time, event.holder))
            case events.RetryScheduled():
                life.retries += 1
                self._share(event.url).retries += 1
                life.enter("waits", event.time)
                number = f"retry {event.attempt}" if event.attempt else "next try"
                life.note(event.time, f"{number} {format_delay(event.delay)}: {event.reason}")
            case events.MirrorSwitched():
                life.switches += 1
                self._share(event.from_).left += 1
                life.asked = event.to
                self._share(life.asked).assets += 1
                life.note(event.time, f"from {event.from_} to {event.to}: {event.reason}")
            case events.AssetRestarted():
                life.restarts += 1
                life.bytes = 0
                lost = f", {event.discarded:,} bytes discarded" if event.discarded else ""
                life.note(event.time, f"started over{lost}: {event.reason}")
            case events.AssetVerifying():
                life.size = event.total if life.size is None else life.size
                life.enter("verifies", event.time)
            case events.AssetVerified():
                self._end(life, "unverified" if event.unverified else "verified", event.time)
                life.size, life.path, life.checksum = event.size, event.path, event.checksum
                life.downloaded = event.downloaded_bytes
            case events.AssetReused():
                self._end(life, "reused", event.time)
                life.path = event.path
            case events.AssetFailed():
                self._end(life, "failed", event.time)
                life.trouble, life.error = event.message, event.error
            case _:
                pass
        if self._on_end is not None and life.end != "unfinished":
            del self._lives[key]
            self._on_end(life)

    def _came(self, life: Life, event: events.ProgressMade) -> None:
        more = max(0, event.bytes - life.bytes)
        life.size = event.total if life.size is None else life.size
        life.bytes = max(life.bytes, event.bytes)
        life.downloaded += more
        if not more:
            life.last(event.time)
            return
        life.origin = life.asked
        share = self._share(life.asked)
        share.bytes += more
        if life.stretches and life.stretches[-1][0] == "comes":
            share.seconds += max(0.0, event.time - life.stretches[-1][2])
        life.enter("comes", event.time)

    def _share(self, url: str) -> Share:
        scheme, _, rest = url.partition("://")
        return self.servers.setdefault(f"{scheme}://{rest.partition('/')[0]}" if rest else "", Share())

    @staticmethod
    def _end(life: Life, end: End, time: float) -> None:
        life.last(time)
        life.end, life.ended = end, time
