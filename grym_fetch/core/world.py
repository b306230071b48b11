"""What a transfer needs of the world, as Protocols. Who serves them is known where the parts are put together only.

Rules: every method may raise only errors of `grym_fetch.core.errors`, or `asyncio.CancelledError`. Blocking work is
done off the event loop. A cancelled call has ended its work on the disk before it raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from grym_fetch.core.http import ResponseHead, Validator
from grym_fetch.core.journal import JournalState, Piece

T = TypeVar("T")


class Clock(Protocol):
    """Time and chance."""

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""

    def wall(self) -> float:
        """Seconds since the epoch."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    def jitter(self) -> float:
        """A random number in [0, 1)."""


class Response(Protocol):
    """An open response. Its body is read once, in order."""

    @property
    def head(self) -> ResponseHead:
        """Status and fields."""

    async def readinto(self, buffer: memoryview) -> int:
        """Fill the front of ``buffer`` with what has come of the body, waiting for at least one byte; 0 at its end."""

    def close(self) -> None:
        """Be done with it. The connection is kept only if the body was read to its end."""


class Connection(Protocol):
    """One place for a connection: at most one socket is open for it at any time."""

    @property
    def host(self) -> str:
        """Host and port that the open socket leads to, empty if none is open."""

    async def get(self, url: str, fields: Mapping[str, str]) -> Response:
        """Send one GET, follow nothing. An open socket to another host is closed first."""

    async def aclose(self) -> None:
        """Close the socket."""


class Transport(Protocol):
    """Makes connections."""

    def connection(self) -> Connection:
        """Return a new place for a connection; nothing is opened yet."""

    async def aclose(self) -> None:
        """Release what the connections share."""


Use = Callable[[memoryview], object]
"""What is done with bytes that are read back. It must not keep them: the memory is used again."""


class Stage(Protocol):
    """The part file and journal of one asset, owned by this process alone."""

    @property
    def recovered(self) -> JournalState:
        """What an earlier process left behind. It claims; nothing is proved yet."""

    async def write(self, start: int, data: bytes | memoryview, origin: int) -> Piece:
        """Write a piece and record it. Returns once both are with the operating system."""

    async def read(self, start: int, stop: int) -> bytes:
        """Read bytes back; shorter where the file ends."""

    async def feed(self, start: int, stop: int, use: Use) -> int:
        """Read bytes back and give them to ``use``, in order and off the loop. Returns how many; fewer at the end."""

    async def prove(self, pieces: Sequence[Piece], use: Use) -> int:
        """Read pieces back and give each to ``use``, up to the first that the disk does not hold. Returns how many."""

    async def note_size(self, size: int) -> None:
        """Record the content's length. `DiskFull` if the rest would not fit."""

    async def note_origin(self, number: int, url: str, validator: Validator) -> None:
        """Record an origin's validator."""

    async def note_void(self, start: int, stop: int) -> None:
        """Record that claims in this stretch no longer hold."""

    async def publish(self, size: int) -> Path:
        """Make the part durable and rename it into place; the path is durable on return. The stage is gone then."""

    async def discard(self) -> None:
        """Delete the part and the journal."""

    async def close(self) -> None:
        """Let go; what is there stays for the next process."""


class Threads(Protocol):
    """Where heavy work is done that is not the disk's: hashing."""

    async def compute(self, function: Callable[..., T], *args: object) -> T:
        """Call ``function(*args)`` off the event loop."""
