"""The states of one HTTP/1.1 socket, seen from the client, and which may follow which.

The legal moves are data, as in h11, so that a test can go through all of them. RFC 9112 section 6.3 has the three ways
in which a body ends, section 9 what becomes of the socket then.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto


class State(Enum):
    """What a socket is doing."""

    CONNECTING = auto()
    """There is no socket yet."""
    IDLE = auto()
    """Nothing is under way; a request may be sent."""
    SENT = auto()
    """A request was sent and not a byte has come back."""
    HEAD = auto()
    """The head of the response is arriving."""
    SIZED = auto()
    """A body whose length is known is arriving."""
    CHUNKED = auto()
    """A body in chunks is arriving."""
    UNTIL_CLOSE = auto()
    """A body is arriving that only the end of the connection ends."""
    DONE = auto()
    """The whole response has arrived, and its reader has not let go of it."""
    MUST_CLOSE = auto()
    """Nothing is under way, and no request may follow: the server said so, or sent what nobody had asked for."""
    FAILED = auto()
    """The response broke the rules or stopped arriving. What came before that may still be read."""
    CLOSING = auto()
    """We have closed the socket; asyncio has yet to say that it is gone."""
    CLOSED = auto()
    """The socket is gone."""
    UNANSWERED = auto()
    """The socket is gone, and not a byte had come back for the last request."""


class IllegalMove(AssertionError):
    """A move that is not in the table: a bug of ours."""


MOVES: Mapping[State, frozenset[State]] = {
    State.CONNECTING: frozenset({State.IDLE, State.CLOSED}),
    State.IDLE: frozenset({State.SENT, State.MUST_CLOSE, State.CLOSING, State.CLOSED}),
    State.SENT: frozenset({State.HEAD, State.FAILED, State.CLOSING, State.UNANSWERED}),
    State.HEAD: frozenset(
        {
            State.SIZED,
            State.CHUNKED,
            State.UNTIL_CLOSE,
            State.DONE,
            State.MUST_CLOSE,
            State.FAILED,
            State.CLOSING,
            State.CLOSED,
        }
    ),
    State.SIZED: frozenset({State.DONE, State.MUST_CLOSE, State.FAILED, State.CLOSING, State.CLOSED}),
    State.CHUNKED: frozenset({State.DONE, State.MUST_CLOSE, State.FAILED, State.CLOSING, State.CLOSED}),
    State.UNTIL_CLOSE: frozenset({State.FAILED, State.CLOSING, State.CLOSED}),
    State.DONE: frozenset({State.IDLE, State.MUST_CLOSE, State.CLOSING, State.CLOSED}),
    State.MUST_CLOSE: frozenset({State.CLOSING, State.CLOSED}),
    State.FAILED: frozenset({State.CLOSING, State.CLOSED}),
    State.CLOSING: frozenset({State.CLOSED}),
    State.CLOSED: frozenset(),
    State.UNANSWERED: frozenset(),
}

PARSED = (State.SENT, State.HEAD, State.CHUNKED)
"""What arrives goes through the parser."""
RAW = (State.SIZED, State.UNTIL_CLOSE)
"""What arrives is the body, as it is."""
UNFINISHED = (*PARSED, *RAW)
"""Part of a response is still to come."""
OPEN = (State.IDLE, *UNFINISHED, State.DONE)
"""The socket is open, and nothing says yet that it cannot be used again."""
ENDED = (State.CLOSING, State.CLOSED, State.UNANSWERED)
"""The socket is gone, or soon will be."""
