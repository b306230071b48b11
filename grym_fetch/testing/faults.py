"""The faults that a server can be told to have, as values: ``server.add(path, content, faults=[Truncate(9)])``.

Rules: a fault is a value; the server counts. Of the faults that apply to a request, those with ``combines`` all take
effect; of the others only the first, and only that one uses up one of its ``times``. So
``[Status(503, times=2), Truncate(after=9, times=1)]`` hits three requests, one after the other.

The faults of ranges, validators and content are in ``resource_faults``. Write your own fault as an ``AnswerFault`` with
a ``bend``, or a ``ResourceFault`` with a ``bend_resource``.
"""

# Every ``bend`` has the signature of ``Fault.bend``, whether or not it reads all of it.
# ruff: noqa: ARG002

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from grym_fetch.testing.answers import (
    Answer,
    Cut,
    Ending,
    Framing,
    Gate,
    Grant,
    RecordedRequest,
    Resource,
    Span,
    parse_range,
    plain_answer,
)
from grym_fetch.testing.content import (
    UnendingContent,
)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Base of all faults, with the limits that each takes.

    ``skip``: let the first n requests pass that the fault could have hit. ``times``: hit this many, then never again;
    None is always. ``ranged``: hit only requests with a Range (True) or without one (False). ``covering``: hit only
    requests for bytes that include this position.
    """

    combines: ClassVar[bool] = False

    times: int | None = None
    skip: int = 0
    ranged: bool | None = None
    covering: int | None = None

    def applies(self, request: RecordedRequest, answer: Answer) -> bool:
        """Whether the fault could hit this request, otherwise answered by ``answer``. Subclasses narrow this."""
        if self.ranged is not None and self.ranged != (request.range is not None):
            return False
        if self.covering is None:
            return True
        size = answer.body.content.size
        asked = None if request.range is None else parse_range(request.range, size)
        return self.covering in (range(size) if asked is None else asked)


@dataclass(frozen=True, kw_only=True)
class ResourceFault(Fault):
    """Base of the faults that change the resource before a range is cut from it; they combine."""

    combines: ClassVar[bool] = True

    def bend_resource(self, resource: Resource, hit: int) -> Resource:
        """Return what to serve instead; ``hit`` counts the requests this fault has hit, from 0."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class AnswerFault(Fault):
    """Base of the faults that change the response."""

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        """Return what to answer instead; ``hit`` counts the requests this fault has hit, from 0."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class BodyFault(AnswerFault):
    """Base of the faults that hit responses with the resource's body: 200 and 206 to GET."""

    def applies(self, request: RecordedRequest, answer: Answer) -> bool:
        """Whether the response would carry bytes of the resource."""
        return request.method == "GET" and answer.status in (200, 206) and super().applies(request, answer)


@dataclass(frozen=True, kw_only=True)
class FramingFault(BodyFault):
    """Base of the faults that change only framing or pace; they combine."""

    combines: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class PartFault(AnswerFault):
    """Base of the faults that hit only what would be a 206 without them."""

    def applies(self, request: RecordedRequest, answer: Answer) -> bool:
        """Whether the response would be a 206."""
        return answer.status == 206 and super().applies(request, answer)


# --- The connection breaks or is slow ---


@dataclass(frozen=True)
class Reset(BodyFault):
    """Resets the connection (RST) after this many bytes of body."""

    after: int

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        return replace(answer, cut=Cut(self.after, Ending.RESET))


@dataclass(frozen=True)
class Truncate(BodyFault):
    """Closes the connection cleanly (FIN) after this many bytes of body."""

    after: int

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        return replace(answer, cut=Cut(self.after, Ending.CLOSE))


@dataclass(frozen=True)
class Stall(BodyFault):
    """Sends this many bytes of body, then nothing more, on an open connection."""

    after: int

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        return replace(answer, cut=Cut(self.after, Ending.STALL))


@dataclass(frozen=True)
class HangBeforeHeaders(AnswerFault):
    """Accepts the request but never sends a byte."""

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        return replace(answer, cut=Cut(None, Ending.STALL))


@dataclass(frozen=True)
class HangBeforeBody(BodyFault):
    """Sends the headers but never a byte of the body."""

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        return replace(answer, cut=Cut(0, Ending.STALL))


@dataclass(frozen=True)
class ServerGone(AnswerFault):
    """Closes the connection without a response, with RST if ``reset``."""

    reset: bool = False

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        return replace(answer, cut=Cut(None, Ending.RESET if self.reset else Ending.CLOSE))


@dataclass(frozen=True)
class Drip(FramingFault):
    """Sends the body in pieces of ``chunk`` bytes with ``interval`` seconds between them."""

    chunk: int
    interval: float

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        return replace(answer, chunk=self.chunk, interval=self.interval)


@dataclass(frozen=True)
class Throttle(FramingFault):
    """Sends the body at no more than ``rate`` bytes per second on each connection."""

    rate: float

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        return replace(answer, rate=self.rate if answer.rate is None else min(self.rate, answer.rate))


@dataclass(frozen=True)
class Hold(FramingFault):
    """Sends the bytes before position ``at`` of the file, and the rest once the test opens ``gate``."""

    gate: Gate
    at: int

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        return replace(answer, hold=(self.at, self.gate))


@dataclass(frozen=True)
class Delay(AnswerFault):
    """Waits this many seconds before responding; delays add up."""

    combines: ClassVar[bool] = True
    seconds: float

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        return replace(answer, delay=answer.delay + self.seconds)


# --- The framing lies ---


@dataclass(frozen=True)
class ContentLength(BodyFault):
    """Sends this raw text as Content-Length with the true body, then closes if ``close``."""

    value: str
    close: bool = True

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        return replace(answer.with_header("Content-Length", self.value), close=self.close)


@dataclass(frozen=True)
class Chunked(FramingFault):
    """Sends the body chunked, without Content-Length."""

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        return _chunked(answer)


@dataclass(frozen=True)
class ChunkedCut(BodyFault):
    """Sends the body chunked and closes after this many bytes (None: all), without the last chunk."""

    after: int | None = None

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        after = answer.body.length if self.after is None else self.after
        return replace(_chunked(answer), cut=Cut(after, Ending.CLOSE))


@dataclass(frozen=True)
class CloseDelimited(FramingFault):
    """Sends no length: closing the connection ends the body, either announced or as in HTTP/1.0."""

    http10: bool = False

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        return _close_delimited(answer, http10=self.http10)


@dataclass(frozen=True)
class Endless(BodyFault):
    """Sends the body and then other bytes without end: chunked, or else without a length."""

    chunked: bool = True

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        unending = UnendingContent(answer.body.content)
        answer = replace(answer, body=Span(unending, answer.body.start, unending.size))
        return _chunked(answer) if self.chunked else _close_delimited(answer, http10=False)


@dataclass(frozen=True)
class BigHeaders(AnswerFault):
    """Adds ``count`` header fields with values of ``size`` bytes."""

    combines: ClassVar[bool] = True
    count: int = 200
    size: int = 4096

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        padding = tuple((f"X-Padding-{number}", "p" * self.size) for number in range(self.count))
        return replace(answer, headers=answer.headers + padding)


@dataclass(frozen=True)
class RawAnswer(AnswerFault):
    """Writes these bytes instead of a response, then closes, or waits if ``hold``."""

    data: bytes
    hold: bool = False

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        return replace(answer, raw=self.data, cut=Cut(0, Ending.STALL if self.hold else Ending.CLOSE))


# --- Another status ---


@dataclass(frozen=True)
class Status(AnswerFault):
    """Answers with this status, body and headers."""

    code: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        return plain_answer(self.code, self.body, self.headers)


@dataclass(frozen=True)
class RetryAfter(AnswerFault):
    """Answers 503 or another ``status``, with this raw Retry-After and Date where they are not None."""

    value: str | None
    status: int = 503
    date: str | None = None

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        busy = plain_answer(self.status, b"come back later\n").with_header("Retry-After", self.value)
        return busy.with_header("Date", self.date)


@dataclass(frozen=True)
class Redirect(AnswerFault):
    """Redirects to a path of this server or an address; the text goes into Location as it is."""

    to: str
    status: int = 302

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        return plain_answer(self.status, b"moved\n", {"Location": self.to})


@dataclass(frozen=True)
class RedirectLoop(AnswerFault):
    """Redirects to its own path, each time with a new query if ``growing``."""

    status: int = 302
    growing: bool = False

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        to = f"{request.path}?hop={hit + 1}" if self.growing else request.path
        return plain_answer(self.status, b"moved\n", {"Location": to})


@dataclass(frozen=True)
class ExpiringRedirect(AnswerFault):
    """Redirects to an address with a fresh token; without one that is valid, the address answers 403.

    ``uses`` and ``seconds`` limit each token. ``to``: a path of this server, or the ``url`` of a file of another
    ``AssetServer`` that runs in this process.
    """

    to: str
    uses: int | None = None
    seconds: float | None = None
    status: int = 302

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        # Depends on the path, too: two hubs that lead to one file do not issue the same token.
        token = f"secret-{zlib.crc32(request.path.encode()):08x}-{hit + 1}"
        joint = "&" if "?" in self.to else "?"
        headers = {"Location": f"{self.to}{joint}token={token}", "Cache-Control": "no-store"}
        grant = Grant(url=self.to, token=token, uses=self.uses, seconds=self.seconds)
        return replace(plain_answer(self.status, b"moved\n", headers), grant=grant)


@dataclass(frozen=True)
class HtmlPage(AnswerFault):
    """Answers with 200 and the login page of a captive portal."""

    page: bytes = b"<!doctype html><title>Welcome to the hotel</title><p>Please accept our terms.\n"

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        headers = {"Content-Type": "text/html; charset=utf-8"}
        return plain_answer(200, self.page, headers)


@dataclass(frozen=True)
class RefuseHead(AnswerFault):
    """Answers 405, or another ``status``, to HEAD."""

    status: int = 405

    def applies(self, request: RecordedRequest, answer: Answer) -> bool:
        """Whether the request is a HEAD."""
        return request.method == "HEAD" and super().applies(request, answer)

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        return plain_answer(self.status, b"no HEAD here\n", {"Allow": "GET"})


def _chunked(answer: Answer) -> Answer:
    answer = answer.with_header("Content-Length", None).with_header("Transfer-Encoding", "chunked")
    return replace(answer, framing=Framing.CHUNKED)


def _close_delimited(answer: Answer, *, http10: bool) -> Answer:
    answer = answer.with_header("Content-Length", None).with_header("Transfer-Encoding", None)
    answer = answer.with_header("Connection", None if http10 else "close")
    return replace(answer, framing=Framing.CLOSE, version="HTTP/1.0" if http10 else "HTTP/1.1")
