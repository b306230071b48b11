"""The setting of the demo: made-up assets, the two servers that offer them, and the servers' counts.

Rules: mirror 1 breaks off in the middle of the largest asset, for good, and both are slow enough to watch. Only the
servers count.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from grym_fetch.cli.demo_report import Served
from grym_fetch.core.figures import format_size
from grym_fetch.testing import (
    Answer,
    AssetServer,
    BodyFault,
    Cut,
    Ending,
    Fault,
    RecordedRequest,
    SeededContent,
    Throttle,
)

KIB, MIB = 1 << 10, 1 << 20
CONNECTIONS = 4
MIN_FREE_BYTES = 64 * MIB


class DemoFailed(Exception):
    """The demo did not go as planned; the text is a sentence for the user."""


@dataclass(frozen=True)
class BreaksOff(BodyFault):
    """Resets every connection at byte ``at`` of the file; this server never sends what comes after it."""

    at: int

    def applies(self, request: RecordedRequest, answer: Answer) -> bool:
        """Whether bytes beyond the break are requested."""
        return super().applies(request, answer) and answer.body.stop > self.at

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        """Cut the answer at the break."""
        return replace(answer, cut=Cut(max(0, self.at - answer.body.start), Ending.RESET))


@dataclass(frozen=True)
class Scenario:
    """What is fetched: ``sizes`` in bytes by id, and the ``seconds`` that all of it takes over all connections.

    ``faults`` are those of both mirrors by id; the usual story has none.
    """

    sizes: Mapping[str, int]
    seconds: float
    faults: Mapping[str, Sequence[Fault]] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """The size of all assets."""
        return sum(self.sizes.values())

    @property
    def largest(self) -> str:
        """The id of the largest asset."""
        return max(self.sizes, key=lambda name: self.sizes[name])

    @property
    def rate(self) -> float:
        """The speed of one connection, in bytes per second."""
        return self.bytes / self.seconds / CONNECTIONS

    def fitted(self, free: int) -> Scenario:
        """Return the scenario scaled down to fit comfortably into ``free`` bytes. Raises `DemoFailed`."""
        if free < MIN_FREE_BYTES:
            too_little = (
                f"{format_size(free)} free in {tempfile.gettempdir()}, the demo needs {format_size(MIN_FREE_BYTES)}"
            )
            raise DemoFailed(f"{too_little}; point TMPDIR to another folder")
        share = min(1.0, free / 2 / self.bytes)
        return replace(self, sizes={name: max(1, int(size * share)) for name, size in self.sizes.items()})


FULL = Scenario(
    sizes={
        "voice-model": 256 * MIB,
        "image-encoder": 96 * MIB,
        "word-vectors": 48 * MIB,
        "tokenizer": 2 * MIB,
        "labels": 300 * KIB,
        "settings": KIB,
    },
    seconds=14.0,
)


class Mirrors:
    """The two servers with the assets of a scenario. ``most_open``: the most connections to both at one time."""

    def __init__(self, scenario: Scenario, servers: Sequence[AssetServer]) -> None:
        self.most_open = 0
        self.contents = {name: SeededContent(size, seed) for seed, (name, size) in enumerate(scenario.sizes.items())}
        self._servers = servers
        for number, server in enumerate(servers):
            for name, content in self.contents.items():
                faults = [*scenario.faults.get(name, ()), Throttle(scenario.rate)]
                if number == 0 and name == scenario.largest:
                    faults.append(BreaksOff(content.size // 2))
                server.add(f"/{name}.bin", content, faults=faults)

    def manifest(self) -> dict[str, object]:
        """Return the manifest that lists their addresses."""
        assets = []
        for name, content in self.contents.items():
            url, *fallbacks = [server.url(f"/{name}.bin") for server in self._servers]
            assets.append(
                {
                    "id": name, "url": url, "fallbackUrls": fallbacks, "localPath": f"models/{name}.bin",
                    "checksum": content.sha256(), "size": content.size, "required": True,
                }
            )  # fmt: skip
        return {"version": "1.0.0", "assets": assets}

    @property
    def sent(self) -> int:
        """Bytes of body that both servers gave to their sockets."""
        return sum(served.bytes for served in self.served())

    @property
    def open(self) -> int:
        """Connections that are open now, idle or not."""
        return sum(server.stats.connections_open for server in self._servers)

    def served(self) -> tuple[Served, ...]:
        """Return what each server has served so far."""
        return tuple(Served(s.stats.body_bytes_sent, len(s.stats.requests)) for s in self._servers)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; it is evaluated whenever a server has counted something."""
        waiting = [asyncio.ensure_future(server.stats.until(lambda _: condition())) for server in self._servers]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    async def watch(self) -> None:
        """Keep ``most_open`` up to date until cancelled."""

        def look() -> bool:
            self.most_open = max(self.most_open, self.open)
            return False

        await self.until(look)


@asynccontextmanager
async def mirrors_of(scenario: Scenario) -> AsyncIterator[Mirrors]:
    """Run the servers of a scenario."""
    async with AssetServer() as first, AssetServer() as second:
        mirrors = Mirrors(scenario, (first, second))
        watching = asyncio.ensure_future(mirrors.watch())
        try:
            yield mirrors
        finally:
            watching.cancel()
