"""One response of HTTP/1.1, from bytes: its head, and of its body what passes through here. Does no I/O.

llhttp reads (through httptools). Rules: nothing is read leniently but a missing CR and spaces behind a chunk's length,
which common servers send. A head that llhttp refuses is put right where that is safe (`heads`), and read once more. A
head, and what surrounds the chunks of a body, is bounded. What follows a complete response is not read here: it is the
next response if one was asked for ahead, and else belongs to nothing.
"""

from __future__ import annotations

import re
from collections import deque

import httptools

from grym_fetch.core.http import ResponseHead, is_chunked
from grym_fetch.net.errors import BROKEN, broken_reason
from grym_fetch.net.heads import Unmendable, mend

MAX_HEAD_BYTES = 32 * 1024
"""The most that a head may be, interim responses (1xx) included, and what surrounds the chunks of a body."""
MAX_FEED_BYTES = 64 * 1024
"""The most that is fed at once."""
_ODD_SPACES = "spaces around a Transfer-Encoding"
_MENDABLE = (
    "Duplicate Content-Length",
    "Invalid character in Content-Length",
    "Invalid header field char",
    "Invalid header token",
    "Invalid header value char",
    "Unexpected space after start line",
    "Unexpected whitespace after header value",
)
"""llhttp's reasons to refuse a head that may still be one."""
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_EMPTY_LINE = re.compile(rb"\n\r?\n")
_INTERIM = re.compile(rb"HTTP/1\.[01] 1[0-9][0-9]")


class ResponseParser:
    """Reads one response. llhttp calls the methods that begin with ``on_``."""

    def __init__(self) -> None:
        self.head: ResponseHead | None = None
        self.body: deque[bytes] = deque()
        """Portions of the body, to be taken from here."""
        self.left: int | None = None
        """Bytes of the body that have not come yet, where the head gives its length."""
        self.is_chunked = False
        self.is_complete = False
        self.surplus = b""
        """What came behind the end of a response whose length is known."""
        self.has_surplus = False
        """Whether something came behind the end of the response."""
        self.keeps_open = False
        """Whether the server would take another request on this connection."""
        self.takes_more = False
        """Whether it would take one before this response has ended (RFC 9112 section 9.3.2): HTTP/1.1, kept open."""
        self._fields: dict[str, list[str]] = {}
        self._field_bytes = self._overhead_bytes = 0
        self._received = bytearray()
        """What has come up to the end of the head, and with it."""
        self._is_odd = False
        """Whether llhttp has refused the head for its form, and the whole of it is awaited to see what it means."""
        self._problem = ""
        """Why a callback has refused the head."""
        self._llhttp = self._new_llhttp()

    def _new_llhttp(self) -> httptools.HttpResponseParser:
        llhttp = httptools.HttpResponseParser(self)
        llhttp.set_dangerous_leniencies(lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True)
        return llhttp

    def feed(self, data: memoryview) -> str | None:
        """Read on, up to the end of the head or of a body in chunks.

        Return what is wrong with the response, or None; what came before it is good all the same.
        """
        problem = self._feed(data)
        if problem is not None or self.is_complete or (self.head is not None and not self.is_chunked):
            # Nothing more is read here. llhttp and this object hold each other: garbage that only the collector finds.
            del self._llhttp
        return problem

    def _feed(self, data: memoryview) -> str | None:
        # A head is fed up to its end and no further: so it is known where the next response begins.
        while self.head is None and len(data):
            end = self._end_of_lines(data)
            if (problem := self._feed_llhttp(data[:end])) is not None:
                return problem
            data = data[end:]
        if not len(data):
            return None
        if self.is_chunked and not self.is_complete:
            return self._feed_llhttp(data)
        if not self.is_complete:
            count = len(data) if self.left is None else min(self.left, len(data))
            self.body.append(bytes(data[:count]))
            if self.left is not None:
                self.left -= count
                self.is_complete = not self.left
            data = data[count:]
        if len(data):
            self.surplus, self.has_surplus = bytes(data), True
        return None

    def _end_of_lines(self, data: memoryview) -> int:
        """Where the first empty line in ``data`` ends, which may have begun before it; its length if there is none."""
        tail = bytes(self._received[-2:])
        if tail and (found := _EMPTY_LINE.search(tail + bytes(data[:2]))) is not None and found.end() > len(tail):
            return found.end() - len(tail)
        found = _EMPTY_LINE.search(data)
        return len(data) if found is None else found.end()

    def _feed_llhttp(self, data: memoryview) -> str | None:
        self._overhead_bytes += len(data)
        if self.head is None:
            self._received += data
        try:
            if not self._is_odd:
                self._llhttp.feed_data(data)
            elif (problem := self._feed_mended()) is not None:
                return problem
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self.is_complete:
                self.has_surplus = True
            elif self.head is None and not self._is_odd and (str(error) in _MENDABLE or self._problem is _ODD_SPACES):
                self._is_odd = True
                return self._feed_llhttp(data[:0])
            else:
                reason = broken_reason(str(error), bytes(self._received[:16]))
                return f"{reason}: {self._problem}" if self._problem else reason
        if self.head is not None:
            self._received.clear()
        # What a body brings counts for nothing here; a head, or the wrapping of chunks, without end does.
        if self._overhead_bytes > MAX_HEAD_BYTES + MAX_FEED_BYTES:
            return f"{BROKEN}: its header has no end"
        return None

    def _feed_mended(self) -> str | None:
        """Read the head again, put right, once it is there."""
        while (end := _HEAD_END.search(self._received)) is not None and _INTERIM.match(self._received):
            del self._received[: end.end()]
        if end is None:
            return None
        try:
            head = mend(bytes(self._received[: end.start()]))
        except Unmendable as error:
            return f"{BROKEN}: {error}" if str(error) else BROKEN
        rest = bytes(self._received[end.end() :])
        self._fields.clear()
        self._field_bytes = 0
        self._problem = ""
        self._llhttp = self._new_llhttp()
        self._llhttp.feed_data(head + rest)
        self._is_odd = False
        return None

    def on_message_begin(self) -> None:
        """A response begins; a second one is not ours."""
        if self.is_complete:
            self.has_surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field line. Trailer fields are of no use to us."""
        if self.head is None:
            self._field_bytes += len(name) + len(value)
            if self._field_bytes > MAX_HEAD_BYTES:
                self._problem = f"its header is longer than {MAX_HEAD_BYTES // 1024} KiB"
                raise ValueError(self._problem)
            if name.lower() == b"transfer-encoding" and value != value.strip():
                # llhttp would read the body as if the field were not there.
                self._problem = _ODD_SPACES
                raise ValueError(self._problem)
            self._fields.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip())

    def on_headers_complete(self) -> None:
        """The head is there; an interim one (1xx) is passed over."""
        if self.is_complete:
            return
        status = self._llhttp.get_status_code()
        if 100 <= status < 200:
            self._fields.clear()
            return
        self.head = ResponseHead(status, self._fields)
        self.keeps_open = self._llhttp.should_keep_alive()
        self.takes_more = self.keeps_open and self._llhttp.get_http_version() == "1.1"
        self.is_chunked = bool(is_chunked(self.head))
        lengths = self._fields.get("content-length")
        if lengths and is_chunked(self.head) is False:
            self.left = int(lengths[0])

    def on_body(self, data: bytes) -> None:
        """Part of a body in chunks."""
        if self.is_complete:
            return
        self._overhead_bytes = 0
        self.body.append(data)

    def on_message_complete(self) -> None:
        """The response is over, where the head or the chunks said so. An interim one is none."""
        if self.head is not None:
            self.is_complete = True
