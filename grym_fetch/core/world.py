"""What a transfer needs from outside, as Protocols. What implements them is known only where the parts are assembled.

Rules: every method raises only errors of `grym_fetch.core.errors`, or `asyncio.CancelledError`. Blocking work is
done off the event loop. A cancelled call has finished its work on the disk before it raises.
`Transport` and the objects it makes are public, in `grym_fetch.transport`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from grym_fetch.core.http import ResponseHead, Validator
from grym_fetch.core.journal import JournalState, Piece

T = TypeVar("T")


class Clock(Protocol):
    """Time and randomness."""

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""

    def wall(self) -> float:
        """Seconds since the epoch."""

    async def sleep(self, seconds: float) -> None:
        """Wait for this many seconds."""

    def jitter(self) -> float:
        """A random number in [0, 1)."""


class Response(Protocol):
    """A response whose head has arrived. Its body is read once, from its beginning."""

    @property
    def head(self) -> ResponseHead:
        """Status and header fields."""

    async def readinto(self, buffer: memoryview) -> int:
        """Wait for at least one byte of the body and put what has arrived at the front of ``buffer``.

        Returns the number of bytes, 0 at the end of the body. A body that breaks off is an error, not an end. Do not
        keep the buffer: others will reuse it.
        """

    def close(self) -> None:
        """Let go of the response, whether or not its body was read. Called once, before the next `Connection.get`."""


class Connection(Protocol):
    """A place for one connection: it holds at most one socket at any time, and serves one request after another."""

    @property
    def host(self) -> str:
        """Host and port of the open socket, as in a URL; empty if there is none.

        The next request to this host gets this connection. If keeping a connection gains nothing, return an empty text.
        """

    async def get(self, url: str, fields: Mapping[str, str]) -> Response:
        """Send a GET with these header fields and wait for the head of the response.

        A redirect is a response like any other: it is not followed here. ``fields`` may hold a ``Range`` and
        credentials for this host alone. An open socket to another host is closed first.
        """

    async def aclose(self) -> None:
        """Close the socket, if one is open. `get` may open one again."""


class AheadConnection(Connection, Protocol):
    """A connection that can send requests ahead of their turn (RFC 9112 section 9.3.2). This is optional.

    A request sent ahead is a hint and promises nothing: `get` with the same address and fields returns its answer, in
    the order of sending. If there is none (the socket is gone, or another request came first), `get` asks as usual.
    """

    def ask_ahead(self, url: str, fields: Mapping[str, str]) -> bool:
        """Send a request now if the server has shown on this socket that it can take it. Return whether it was sent."""

    @property
    def ahead(self) -> int:
        """How many requests were sent ahead that may still be answered."""

    @property
    def is_ahead(self) -> bool:
        """Whether the last response that `get` returned answers a request that was sent ahead."""

    def lost_ahead(self) -> bool:
        """Whether, since the last call, requests sent ahead were lost by the server or something on the way.

        Not if the server announced it, or if it was our own doing.
        """

    def drop_ahead(self) -> None:
        """Nobody will ask for these answers: close the socket, so that the server does not send them in vain."""


class PostConnection(Connection, Protocol):
    """A connection that can also send a POST. This is optional: git and Git LFS servers are asked with it."""

    async def post(self, url: str, fields: Mapping[str, str], body: bytes) -> Response:
        """Send a POST with these header fields and this body, and wait for the head of the response.

        All that is said of `get` holds here, too. ``fields`` has no ``Content-Length``. The request only asks
        something, so it may be repeated if the socket was closed before an answer came.
        """


class Transport(Protocol):
    """A way to the network: how to get bytes from an address.

    Its methods, and those of its connections and responses, are called in one event loop. They raise only errors of
    `grym_fetch.errors`, such as `ConnectFailed`, `ConnectionLost` or `Stalled`, and `asyncio.CancelledError`. Time-outs
    and the refusal of addresses are up to them.
    """

    def connection(self) -> Connection:
        """Return a new place for a connection; opens nothing yet.

        Called up to ``parallel`` times for assets, and once for each time that hubs are asked.
        """

    async def aclose(self) -> None:
        """Release what the connections share. All of them have been closed before."""


Use = Callable[[memoryview], object]
"""Called with bytes that were read back. It must not keep them: the memory is reused."""


class Stage(Protocol):
    """The part file and journal of one asset, owned by this process alone."""

    @property
    def recovered(self) -> JournalState:
        """What an earlier process left behind. These are claims; nothing is proved yet."""

    async def write(self, start: int, data: bytes | memoryview, origin: int) -> Piece:
        """Write a piece and record it. Returns once both are with the operating system."""

    async def read(self, start: int, stop: int) -> bytes:
        """Read bytes back; fewer if the file ends before."""

    async def feed(self, start: int, stop: int, use: Use) -> int:
        """Read bytes back and pass them to ``use``, in order and off the loop. Returns how many; fewer at the end."""

    async def prove(self, pieces: Sequence[Piece], use: Use) -> int:
        """Read pieces back and pass each to ``use``, up to the first that the disk does not hold. Returns how many."""

    async def note_size(self, size: int) -> None:
        """Record the content's length. Raises `DiskFull` if the rest would not fit."""

    async def note_origin(self, number: int, url: str, validator: Validator) -> None:
        """Record an origin's validator."""

    async def note_void(self, start: int, stop: int) -> None:
        """Record that claims in this range no longer hold."""

    async def publish(self, size: int) -> Path:
        """Make the part durable and rename it into place; the path is durable on return, and the stage is gone."""

    async def discard(self) -> None:
        """Delete the part and the journal."""

    async def close(self) -> None:
        """Close the stage; its files stay for the next process."""


class Threads(Protocol):
    """Threads for heavy work other than the disk's: hashing."""

    async def compute(self, function: Callable[..., T], *args: object) -> T:
        """Call ``function(*args)`` off the event loop."""


class ThreadPool(Threads, Protocol):
    """Threads with an owner, who ends them."""

    def close(self) -> None:
        """End the threads when their current work is done; work that has not begun is dropped."""


ThreadPools = Callable[[str, int], ThreadPool]
"""Makes threads: this many, with this name."""
