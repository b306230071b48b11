"""What a correct server answers (RFC 9110), as a pure function from a resource and a request to an ``Answer``.

Rules: nothing here does I/O. An ``Answer`` says what to write, how fast, and where and how it stops, so that a fault
only has to change a value.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import Enum

from grym_fetch.testing.content import BytesContent, Content

DEFAULT_LAST_MODIFIED = "Thu, 01 Jan 2026 00:00:00 GMT"

_RANGE = re.compile(r"bytes=[ \t]*([0-9]*)-([0-9]*)[ \t]*", re.IGNORECASE)
_ETAG = re.compile(r'(?:W/)?"[^"]*"')


@dataclass(frozen=True, kw_only=True)
class RecordedRequest:
    """One request. ``path`` is decoded, ``query`` is raw; ``headers`` compare their names without case."""

    method: str
    path: str
    query: str = ""
    range: str | None = None
    if_range: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    remote_port: int = 0


@dataclass(frozen=True, kw_only=True)
class Resource:
    """What is served under a path, before a range is cut from it."""

    content: Content
    etag: str | None
    last_modified: str | None = DEFAULT_LAST_MODIFIED
    content_type: str = "application/octet-stream"
    content_encoding: str | None = None
    accepts_ranges: bool = True
    honours_if_range: bool = True


class Framing(Enum):
    """How the end of the body is marked: by the headers, a last chunk, or the end of the connection."""

    AS_HEADERS_SAY = "as headers say"
    CHUNKED = "chunked"
    CLOSE = "close"


class Ending(Enum):
    """How a response breaks off: FIN, RST, or silence on an open connection."""

    CLOSE = "close"
    RESET = "reset"
    STALL = "stall"


@dataclass(frozen=True)
class Cut:
    """The response breaks off after this many bytes of body; None: before the first byte of the status line."""

    after: int | None
    how: Ending


class Gate:
    """What a body held back by ``Hold`` waits for. Closed at first; any thread can open it, permanently."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_open = False
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def open(self) -> None:
        """Release everything that waits, now and from now on."""
        with self._lock:
            self._is_open = True
            for loop, opened in self._waiting:
                loop.call_soon_threadsafe(opened.set)

    async def passed(self) -> None:
        """Wait until it is open."""
        waiting = asyncio.get_running_loop(), asyncio.Event()
        with self._lock:
            if self._is_open:
                return
            self._waiting.add(waiting)
        try:
            await waiting[1].wait()
        finally:
            with self._lock:
                self._waiting.discard(waiting)


@dataclass(frozen=True)
class Span:
    """The bytes from ``start`` (inclusive) to ``stop`` (exclusive)."""

    content: Content
    start: int
    stop: int

    @property
    def length(self) -> int:
        """How many bytes the span has."""
        return self.stop - self.start


@dataclass(frozen=True, kw_only=True)
class Grant:
    """A token that opens ``url`` for ``uses`` requests and ``seconds``; None means no limit."""

    url: str
    token: str
    uses: int | None
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A response to write: what to send, how fast, and where it breaks off.

    ``delay`` and ``interval`` are in seconds, ``chunk`` in bytes, ``rate`` in bytes per second. ``raw`` replaces the
    whole response. ``close`` ends the connection after a complete response, unannounced. ``hold``: from this position
    in the content on, nothing is sent until the gate is open.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: Span
    framing: Framing = Framing.AS_HEADERS_SAY
    version: str = "HTTP/1.1"
    close: bool = False
    cut: Cut | None = None
    delay: float = 0.0
    rate: float | None = None
    chunk: int | None = None
    interval: float = 0.0
    raw: bytes | None = None
    grant: Grant | None = None
    hold: tuple[int, Gate] | None = None

    def header(self, name: str) -> str | None:
        """Return the first value of a header, ignoring the case of its name."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def with_header(self, name: str, value: str | None) -> Answer:
        """Return the answer with this header set, or removed if ``value`` is None."""
        kept = tuple(pair for pair in self.headers if pair[0].lower() != name.lower())
        return replace(self, headers=kept if value is None else (*kept, (name, value)))

    def with_body(self, body: Span) -> Answer:
        """Return the answer with another body and the right Content-Length for it."""
        return replace(self, body=body).with_header("Content-Length", str(body.length))


def bytes_span(data: bytes) -> Span:
    """Return all of ``data`` as a span."""
    return Span(BytesContent(data), 0, len(data))


def plain_answer(status: int, data: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
    """Return an answer without bytes of the resource: an error, a redirect, a page."""
    answer = Answer(status=status, body=bytes_span(data), headers=tuple((headers or {}).items()))
    if status == 204 or status == 304 or status < 200:
        return answer
    if answer.header("Content-Type") is None and data:
        answer = answer.with_header("Content-Type", "text/plain")
    return answer if answer.header("Content-Length") is not None else answer.with_body(answer.body)


def parse_range(value: str, size: int) -> range | None:
    """Return the positions that a ``Range`` names: an empty range if unsatisfiable, None to ignore it.

    RFC 9110, 14.1.2 and 14.2: an unknown unit, rubbish, and more than one range (a server may) are ignored.
    """
    match = _RANGE.fullmatch(value)
    if match is None or match.group(1) == match.group(2) == "":
        return None
    first, last = match.groups()
    if first == "":
        return range(max(0, size - int(last)), size)
    if last != "" and int(last) < int(first):
        return None
    stop = size if last == "" else min(int(last) + 1, size)
    return range(int(first), stop) if int(first) < stop else range(0)


def true_answer(resource: Resource, request: RecordedRequest, now: datetime) -> Answer:
    """Return a correct response to a GET or HEAD; 405 for another method."""
    if request.method not in ("GET", "HEAD"):
        return plain_answer(405, b"only GET and HEAD\n", {"Allow": "GET, HEAD"})
    refused = _precondition(resource, request)
    if refused is not None:
        return refused
    size = resource.content.size
    # 14.2: GET is the only method for which Range is defined.
    if request.method == "GET" and request.range is not None and resource.accepts_ranges:
        asked = parse_range(request.range, size)
        if asked is not None and _if_range_holds(resource, request, now):
            if not asked:
                return plain_answer(416, b"range not satisfiable\n", {"Content-Range": f"bytes */{size}"})
            part = Span(resource.content, asked.start, asked.stop)
            content_range = f"bytes {asked.start}-{asked.stop - 1}/{size}"
            return _success(resource, 206, part).with_header("Content-Range", content_range)
    return _success(resource, 200, Span(resource.content, 0, size))


def _success(resource: Resource, status: int, body: Span) -> Answer:
    fields = {
        "Content-Type": resource.content_type,
        "Content-Encoding": resource.content_encoding,
        "ETag": resource.etag,
        "Last-Modified": resource.last_modified,
        "Accept-Ranges": "bytes" if resource.accepts_ranges else None,
    }
    present = tuple((name, value) for name, value in fields.items() if value is not None)
    return Answer(status=status, headers=present, body=body).with_body(body)


def _precondition(resource: Resource, request: RecordedRequest) -> Answer | None:
    """The order of RFC 9110, 13.2.2, steps 1 to 4."""
    failed = plain_answer(412, b"precondition failed\n")
    if_match, if_none_match = request.headers.get("If-Match"), request.headers.get("If-None-Match")
    modified = _date(resource.last_modified)
    if if_match is not None:
        tags = _ETAG.findall(if_match)
        strong = resource.etag is not None and not resource.etag.startswith("W/") and resource.etag in tags
        if if_match.strip() != "*" and not strong:
            return failed
    else:
        unmodified_since = _date(request.headers.get("If-Unmodified-Since"))
        if unmodified_since is not None and (modified is None or modified > unmodified_since):
            return failed
    unchanged = plain_answer(304, b"", {"ETag": resource.etag} if resource.etag is not None else None)
    if if_none_match is not None:
        tags = [tag.removeprefix("W/") for tag in _ETAG.findall(if_none_match)]
        same = resource.etag is not None and resource.etag.removeprefix("W/") in tags
        return unchanged if same or if_none_match.strip() == "*" else None
    modified_since = _date(request.headers.get("If-Modified-Since"))
    if modified_since is not None and modified is not None and modified <= modified_since:
        return unchanged
    return None


def _if_range_holds(resource: Resource, request: RecordedRequest, now: datetime) -> bool:
    """RFC 9110, 13.1.5: a strong comparison for a tag; for a date, an exact match with a strong one."""
    condition = request.if_range
    if condition is None or not resource.honours_if_range:
        return True
    if '"' in condition:
        return condition == resource.etag and not condition.startswith("W/")
    modified = _date(resource.last_modified)
    return modified is not None and modified == _date(condition) and now - modified >= timedelta(seconds=1)


def _date(value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        parsed = parsedate_to_datetime(value)
    except ValueError:
        return None
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)
