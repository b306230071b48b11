"""All of grym-fetch on one thread: the real manager, engine and disk, an origin in memory, simulated time.

Rules: what happens depends only on what a test does, so a run can be counted, broken at its n-th step, and
repeated. Every step that leaves our own code passes one `Gate`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from grym_fetch import AssetManager, Settings
from grym_fetch.core.addresses import host_of
from grym_fetch.core.http import ResponseHead
from grym_fetch.core.segments import SegmentSizes
from grym_fetch.core.world import Clock, Response
from tests.support.fakes import VirtualClock
from tests.support.project import Project

T = TypeVar("T")
Gate = Callable[[str], Awaitable[None]]
"""Awaited before each step with the step's name; it lets others run, and may raise or cancel."""

CHUNK = 3000
"""Bytes that come with one read."""
TINY = SegmentSizes(piece=8192, first=24_576, smallest=8192, largest=24_576, window=65_536)


async def turn(_: str) -> None:
    """Let others run."""
    await asyncio.sleep(0)


async def at_once(_: OneConnection, _url: str, _count: int) -> None:
    """Bytes take no time."""


@dataclass
class SmallWorld:
    """The world of one project: what its origins serve, by address. ``sent`` counts the bytes of all bodies."""

    contents: Mapping[str, bytes]
    gate: Gate = turn
    pace: Callable[[OneConnection, str, int], Awaitable[None]] = at_once
    """Awaited before this many bytes arrive over a connection; 0: before a head does."""
    chunk: int = CHUNK
    clock: Callable[[SmallWorld], Clock] = field(default=lambda world: GatedClock(world))
    sent: int = 0
    last_modified: str = "Wed, 21 Oct 2015 07:28:00 GMT"
    takes_ahead: bool = False
    """Whether connections can be sent requests ahead of their turn."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Every request: its address and its Range."""
    open: set[OneConnection | OnThisThread] = field(default_factory=set)
    """Everything that was created and not yet closed."""

    def connection(self) -> OneConnection:
        """Return a place for a connection."""
        made = OneConnection(self)
        self.open.add(made)
        return made

    def threads(self, *_: object) -> OnThisThread:
        """Return what replaces worker threads."""
        made = OnThisThread(self)
        self.open.add(made)
        return made

    async def aclose(self) -> None:
        """Nothing is shared."""

    def manager(self, project: Project, *, assets_dir: Path | None = None, **settings: object) -> AssetManager:
        """A manager that lives in this world."""
        chosen: dict[str, object] = {"sizes": TINY, "parallel": 2, "retries": 2, **settings}
        return _ManagerOnThisThread(
            self,
            project.manifest,
            assets_dir=assets_dir,
            settings=Settings(**chosen),  # type: ignore[arg-type]  # checked where a test names a setting wrongly
            environ={"HOME": str(project.root)},
            clock=self.clock(self),
        )

    async def sync(self, project: Project, *, force: bool = False, **settings: Any) -> dict[str, Path]:
        """Run once over the required assets; return their places."""
        async with self.manager(project, **settings) as manager:
            return dict((await manager.sync(force=force)).paths)


class _ManagerOnThisThread(AssetManager):
    """A manager whose network and threads are those of a small world."""

    def __init__(self, world: SmallWorld, config: Path, **arguments: Any) -> None:
        super().__init__(config, transport=world, **arguments)
        self._threads = world.threads


class OnThisThread:
    """The work of worker threads, done on the loop. A cancellation comes before the work or after it, never within."""

    def __init__(self, world: SmallWorld) -> None:
        self._world = world

    async def compute(self, function: Callable[..., T], *args: object) -> T:
        """Call ``function(*args)``."""
        await self._world.gate("thread")
        result = function(*args)
        await self._world.gate("thread done")
        return result

    def close(self) -> None:
        """There is nothing to close."""
        self._world.open.discard(self)


class GatedClock(VirtualClock):
    """Time that passes at once, through the gate."""

    def __init__(self, world: SmallWorld) -> None:
        super().__init__()
        self._world = world

    async def sleep(self, seconds: float) -> None:
        """Let the time pass."""
        await self._world.gate("sleep")
        await super().sleep(seconds)


class OneConnection:
    """Implements `grym_fetch.core.world.Connection`: an origin that serves ranges under a strong ETag."""

    def __init__(self, world: SmallWorld) -> None:
        self.world = world
        self.host = ""
        self.sockets = 1
        """How many there have been: a response not read to its end costs one."""
        self.is_ahead = False
        self.sent_at = 0.0
        """When the last answered request was sent, by the loop's time."""
        self._ahead: list[tuple[str, Mapping[str, str], float]] = []

    def ask_ahead(self, url: str, fields: Mapping[str, str]) -> bool:
        """Implements `grym_fetch.core.world.AheadConnection`, if the world does."""
        if not self.world.takes_ahead or self.host != host_of(url):
            return False
        self._ahead.append((url, dict(fields), asyncio.get_running_loop().time()))
        return True

    @property
    def ahead(self) -> int:
        """How many requests sent ahead may still be answered."""
        return len(self._ahead)

    def lost_ahead(self) -> bool:
        """Here, everything sent ahead is answered."""
        return False

    def drop_ahead(self) -> None:
        """Nobody will ask for it."""
        self.lose_ahead()

    def lose_ahead(self) -> None:
        """The socket is gone, and with it everything sent ahead."""
        self._ahead.clear()
        self.host = ""

    async def get(self, url: str, fields: Mapping[str, str]) -> Response:
        """Answer as RFC 9110 section 14 requires."""
        await self.world.gate("get")
        self.is_ahead = bool(self._ahead) and self._ahead[0][:2] == (url, dict(fields))
        self.sent_at = self._ahead.pop(0)[2] if self.is_ahead else asyncio.get_running_loop().time()
        if not self.is_ahead:
            self._ahead.clear()
        asked = fields.get("Range", "")
        self.world.requests.append((url, asked))
        self.host = host_of(url)
        await self.world.pace(self, url, 0)
        content = self.world.contents[url]
        etag = f'"{len(content)}-{content[:8].hex()}"'
        head = {"etag": [etag], "last-modified": [self.world.last_modified], "accept-ranges": ["bytes"]}
        if not asked or fields.get("If-Range", etag) != etag:
            return OneBody(self, url, ResponseHead(200, head | {"content-length": [str(len(content))]}), content)
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last) + 1, len(content))
        if start >= stop:
            return OneBody(self, url, ResponseHead(416, head | {"content-range": [f"bytes */{len(content)}"]}), b"")
        head |= {
            "content-range": [f"bytes {start}-{stop - 1}/{len(content)}"],
            "content-length": [str(stop - start)],
        }
        return OneBody(self, url, ResponseHead(206, head), content[start:stop])

    async def aclose(self) -> None:
        """There is no socket to close."""
        self.lose_ahead()
        self.world.open.discard(self)
        await self.world.gate("close connection")


class OneBody:
    """Implements `grym_fetch.core.world.Response`."""

    def __init__(self, connection: OneConnection, url: str, head: ResponseHead, body: bytes) -> None:
        self.head = head
        self._connection = connection
        self._world = connection.world
        self._url = url
        self._body = memoryview(body)
        self._at = 0

    async def readinto(self, buffer: memoryview) -> int:
        """The next bytes."""
        await self._world.gate("read")
        chunk = self._body[self._at : self._at + min(self._world.chunk, len(buffer))]
        await self._world.pace(self._connection, self._url, len(chunk))
        buffer[: len(chunk)] = chunk
        self._at += len(chunk)
        self._world.sent += len(chunk)
        return len(chunk)

    def close(self) -> None:
        """Finish with it."""
        if self._at < len(self._body):
            self._connection.sockets += 1
            self._connection.lose_ahead()
