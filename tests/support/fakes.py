"""The world in memory: a stage, a clock, threads and connections that implement the Protocols of `core.world`.

Rules: a fake keeps the whole contract (the contract suites check that), takes no time, and records what was
asked of it, so that a test can check the outcome and the work.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from grym_fetch.core.addresses import Credentials
from grym_fetch.core.errors import DiskFull
from grym_fetch.core.http import ResponseHead, Validator
from grym_fetch.core.journal import JournalEncoder, JournalState, Piece, piece_digest, read_journal
from grym_fetch.core.segments import SegmentSizes
from grym_fetch.core.world import Clock, Response, Stage, Transport, Use
from grym_fetch.runtime.buffers import Buffers
from grym_fetch.transfer.context import TransferContext, TransferSettings
from grym_fetch.transfer.request import Requester
from grym_fetch.transfer.scheduler import Scheduler

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose time jumps to the next moment at which something happens."""

    def __init__(self) -> None:
        super().__init__(_NoWaiting(self))
        self.now = 1000.0

    def time(self) -> float:
        """The virtual time."""
        return self.now

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as asyncio has it
        """Join the threads however long that takes: they end in real time, and the timeout is one in virtual time."""
        await super().shutdown_default_executor()


class _NoWaiting(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            # A thread is at work: one reads the manifest.
            found = super().select(10.0)
            assert found, "everybody waits for something that will never happen"
            return found
        self._loop.now += max(0.0, timeout)
        return super().select(0)


class VirtualClock:
    """Time passes only when somebody sleeps, and then at once. ``slept`` has every delay, in seconds."""

    def __init__(self, start: float = 1000.0, jitter: float = 0.5) -> None:
        self.now = start
        self.slept: list[float] = []
        self._jitter = jitter

    def monotonic(self) -> float:
        """The virtual time."""
        return self.now

    def wall(self) -> float:
        """The virtual time, since the epoch."""
        return 1_800_000_000.0 + self.now

    async def sleep(self, seconds: float) -> None:
        """Let the time pass, and others run."""
        self.slept.append(seconds)
        self.now += max(0.0, seconds)
        await asyncio.sleep(0)

    def jitter(self) -> float:
        """Always the same."""
        return self._jitter


class InlineThreads:
    """Computes on the loop, after others had a turn, as they have with real threads."""

    def __init__(self) -> None:
        self.calls = 0

    async def compute(self, function: Callable[..., T], *args: object) -> T:
        """Call ``function(*args)``."""
        self.calls += 1
        await asyncio.sleep(0)
        return function(*args)


@dataclass
class MemoryFolder:
    """What a disk would hold of one asset: the stage left behind, the published file, and the space."""

    content: str = "sha256:0"
    part: bytearray = field(default_factory=bytearray)
    journal: bytearray = field(default_factory=bytearray)
    published: bytes | None = None
    free: int = 1 << 40


class MemoryStage:
    """Implements `grym_fetch.core.world.Stage` over a `MemoryFolder`. ``reads`` has every range read back."""

    def __init__(self, folder: MemoryFolder) -> None:
        self.folder = folder
        self.reads: list[tuple[int, int]] = []
        self.recovered = self._recover()
        self._encoder = JournalEncoder(self.recovered.chain)
        if self.recovered.asset is None:
            folder.part.clear()
            folder.journal += self._encoder.header(folder.content)

    def _recover(self) -> JournalState:
        state = read_journal(bytes(self.folder.journal))
        if state.asset != self.folder.content:
            state = JournalState()
        del self.folder.journal[state.valid_bytes :]
        if state.asset is not None:
            state.pieces.drop(len(self.folder.part), 1 << 62)
        return state

    async def write(self, start: int, data: bytes | memoryview, origin: int) -> Piece:
        """Write a piece and record it."""
        await asyncio.sleep(0)
        part = self.folder.part
        if len(data) > self.folder.free:
            raise DiskFull("memory", "no space left on the device")
        part.extend(bytes(max(0, start - len(part))))
        part[start : start + len(data)] = data
        self.folder.free -= len(data)
        piece = Piece(start, start + len(data), piece_digest(data), origin)
        self.folder.journal += self._encoder.piece(piece)
        return piece

    async def read(self, start: int, stop: int) -> bytes:
        """Read bytes back."""
        await asyncio.sleep(0)
        self.reads.append((start, stop))
        return bytes(self.folder.part[start:stop])

    async def feed(self, start: int, stop: int, use: Use) -> int:
        """Read bytes back and use them."""
        data = await self.read(start, stop)
        use(memoryview(data))
        return len(data)

    async def prove(self, pieces: Sequence[Piece], use: Use) -> int:
        """Read pieces back, compare their digests, and use each right one; stop after the first wrong one."""
        for number, piece in enumerate(pieces):
            data = await self.read(piece.start, piece.stop)
            if len(data) != piece.stop - piece.start or piece_digest(data) != piece.digest:
                return number
            use(memoryview(data))
        return len(pieces)

    async def note_size(self, size: int) -> None:
        """Record the content's length. `DiskFull` if the rest would not fit."""
        await asyncio.sleep(0)
        self.folder.journal += self._encoder.size(size)
        if size - len(self.folder.part) > self.folder.free:
            raise DiskFull("memory", f"not enough space: {self.folder.free} bytes are free")

    async def note_origin(self, number: int, url: str, validator: Validator) -> None:
        """Record an origin's validator."""
        await asyncio.sleep(0)
        self.folder.journal += self._encoder.origin(number, url, validator)

    async def note_void(self, start: int, stop: int) -> None:
        """Record that claims in this range no longer hold."""
        await asyncio.sleep(0)
        self.folder.journal += self._encoder.void(start, stop)

    async def publish(self, size: int) -> Path:
        """Put the part in place; the stage is then gone."""
        await asyncio.sleep(0)
        part = bytes(self.folder.part[:size])
        self.folder.published = part + bytes(size - len(part))
        self._clear()
        return Path("/memory") / self.folder.content

    async def discard(self) -> None:
        """Delete the part and the journal."""
        await asyncio.sleep(0)
        self._clear()

    def _clear(self) -> None:
        self.folder.part.clear()
        self.folder.journal.clear()

    async def close(self) -> None:
        """Let go; the content stays."""
        await asyncio.sleep(0)


class Taken:
    """The bytes that were read back and used."""

    def __init__(self) -> None:
        self.data = b""

    def use(self, data: memoryview) -> None:
        """Keep a copy."""
        self.data += data


async def read_proved(stage: Stage, piece: Piece) -> bytes | None:
    """The piece's bytes if they were used, otherwise None."""
    taken = Taken()
    if await stage.prove([piece], taken.use) == 1:
        return taken.data
    assert taken.data == b""
    return None


class ScriptedResponse:
    """A response made of values. ``closed`` says whether its user has finished with it."""

    def __init__(self, status: int, fields: Mapping[str, str] | None = None, body: Iterable[bytes] = ()) -> None:
        self.head = ResponseHead(status, {name.lower(): [value] for name, value in (fields or {}).items()})
        self.closed = False
        self._body = list(body)

    async def readinto(self, buffer: memoryview) -> int:
        """Give the next of the given chunks, and nothing after the last."""
        await asyncio.sleep(0)
        if not self._body:
            return 0
        chunk = self._body.pop(0)
        count = min(len(chunk), len(buffer))
        buffer[:count] = chunk[:count]
        if count < len(chunk):
            self._body.insert(0, chunk[count:])
        return count

    def close(self) -> None:
        """Finish with it."""
        self.closed = True


Answer = ScriptedResponse | Exception | Callable[[Mapping[str, str]], ScriptedResponse]


async def read_some(response: Response, most: int = 65_536) -> bytes:
    """Return the next bytes of a body, or nothing at its end."""
    buffer = bytearray(most)
    count = await response.readinto(memoryview(buffer))
    return bytes(buffer[:count])


class ScriptedConnection:
    """Answers each address from its script; the last answer is repeated. ``asked`` has every address and its fields."""

    def __init__(self, script: Mapping[str, list[Answer]] | None = None) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.given: list[ScriptedResponse] = []
        self.host = ""
        self.closed = False
        self._script = {url: list(answers) for url, answers in (script or {}).items()}

    async def get(self, url: str, fields: Mapping[str, str]) -> ScriptedResponse:
        """Give the next answer of this address."""
        await asyncio.sleep(0)
        self.asked.append((url, dict(fields)))
        answers = self._script[url]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        response = answer if isinstance(answer, ScriptedResponse) else answer(fields)
        self.given.append(response)
        return response

    async def aclose(self) -> None:
        """There is no socket to close."""
        self.closed = True
        self.host = ""

    @property
    def addresses(self) -> list[str]:
        """The requested addresses, without the fields."""
        return [url for url, _ in self.asked]


class ScriptedTransport:
    """Makes `ScriptedConnection`, all with the same script, and remembers them."""

    def __init__(self, script: Mapping[str, list[Answer]] | None = None) -> None:
        self.connections: list[ScriptedConnection] = []
        self._script = script

    def connection(self) -> ScriptedConnection:
        """Return a new one."""
        made = ScriptedConnection(self._script)
        self.connections.append(made)
        return made

    async def aclose(self) -> None:
        """Nothing is shared."""


def context_of(transport: Transport, clock: Clock | None = None) -> TransferContext:
    """What transfers over this transport share. Nothing is hashed in threads, and no one listens to their events."""
    return TransferContext(
        scheduler=Scheduler(transport, connections=1),
        requester=Requester(Credentials({}, {})),
        threads=InlineThreads(),
        buffers=Buffers(SegmentSizes().piece, connections=1),
        clock=clock or VirtualClock(),
        emit=lambda _: None,
        settings=TransferSettings(),
    )
