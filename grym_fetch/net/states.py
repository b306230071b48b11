"""The states of one HTTP/1.1 socket, seen from the client, and which may follow which.

The legal moves are data, as in h11, so that a test can go through all of them. RFC 9112 section 6.3 describes the three
ways in which a body ends, section 9 what then happens to the socket. Requests may be sent ahead of their answers
(section 9.3.2): the state is that of the answer under way, and the next answer begins when this one is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto


class State(Enum):
    """The state of a socket."""

    CONNECTING = auto()
    """There is no socket yet."""
    IDLE = auto()
    """Nothing is under way; a request may be sent."""
    SENT = auto()
    """A request was sent, all earlier ones are answered, and not a byte of its answer has arrived."""
    HEAD = auto()
    """The head of the response is arriving."""
    SIZED = auto()
    """A body of known length is arriving."""
    CHUNKED = auto()
    """A body in chunks is arriving."""
    UNTIL_CLOSE = auto()
    """A body is arriving that only the end of the connection ends."""
    DONE = auto()
    """The whole response has arrived, but its reader is not done with it. Further bytes are the next one's, if any."""
    MUST_CLOSE = auto()
    """Nothing is under way, and no request may follow: the server said so, or sent bytes that nobody had asked for."""
    FAILED = auto()
    """The response broke the rules or stopped arriving. The bytes before that may still be read."""
    CLOSING = auto()
    """We have closed the socket; asyncio has not confirmed it yet."""
    CLOSED = auto()
    """The socket is gone."""
    UNANSWERED = auto()
    """The socket is gone, and not a byte had arrived for the last request."""

    __hash__ = object.__hash__  # members are singletons; hashing by name, as `Enum` does, costs ten times as much


# Module-level names, as in h11: looking a member up in its class costs more than everything else in a move.
CONNECTING = State.CONNECTING
IDLE = State.IDLE
SENT = State.SENT
HEAD = State.HEAD
SIZED = State.SIZED
CHUNKED = State.CHUNKED
UNTIL_CLOSE = State.UNTIL_CLOSE
DONE = State.DONE
MUST_CLOSE = State.MUST_CLOSE
FAILED = State.FAILED
CLOSING = State.CLOSING
CLOSED = State.CLOSED
UNANSWERED = State.UNANSWERED


class IllegalMove(AssertionError):
    """A move that is not in the table: a bug in our code."""


MOVES: Mapping[State, frozenset[State]] = {
    CONNECTING: frozenset({IDLE, CLOSED}),
    IDLE: frozenset({SENT, MUST_CLOSE, CLOSING, CLOSED}),
    SENT: frozenset({HEAD, FAILED, CLOSING, UNANSWERED}),
    HEAD: frozenset(
        {
            SIZED,
            CHUNKED,
            UNTIL_CLOSE,
            DONE,
            MUST_CLOSE,
            FAILED,
            CLOSING,
            CLOSED,
        }
    ),
    SIZED: frozenset({DONE, MUST_CLOSE, FAILED, CLOSING, CLOSED}),
    CHUNKED: frozenset({DONE, MUST_CLOSE, FAILED, CLOSING, CLOSED}),
    UNTIL_CLOSE: frozenset({FAILED, CLOSING, CLOSED}),
    DONE: frozenset({IDLE, SENT, MUST_CLOSE, CLOSING, CLOSED}),
    MUST_CLOSE: frozenset({CLOSING, CLOSED}),
    FAILED: frozenset({CLOSING, CLOSED}),
    CLOSING: frozenset({CLOSED}),
    CLOSED: frozenset(),
    UNANSWERED: frozenset(),
}

PARSED = (SENT, HEAD, CHUNKED)
"""Arriving bytes go through the parser."""
RAW = (SIZED, UNTIL_CLOSE)
"""Arriving bytes are the body itself."""
UNFINISHED = (*PARSED, *RAW)
"""Part of a response is still to come."""
OPEN = (IDLE, *UNFINISHED, DONE)
"""The socket is open and, as far as we know, can be used again."""
ENDED = (CLOSING, CLOSED, UNANSWERED)
"""The socket is gone, or soon will be."""
