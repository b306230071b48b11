"""Parses one HTTP/1.1 response from bytes: its head, and the part of its body that passes through here. Does no I/O.

llhttp does the parsing (through httptools). Rules: leniency is limited to a missing CR and spaces after a chunk's
length, which common servers send. A head that llhttp refuses is repaired if that is safe (`heads`), and read again. A
head, and the framing around the chunks of a body, is bounded. Bytes after a complete response are not read here: they
are the next response if one was asked for ahead, and otherwise do not belong to anything.
"""

from __future__ import annotations

import re
from collections import deque

import httptools

from grym_fetch.core.http import ResponseHead, is_chunked
from grym_fetch.net.errors import BROKEN, broken_reason
from grym_fetch.net.heads import Unmendable, mend

MAX_HEAD_BYTES = 32 * 1024
"""The most bytes of a head, including interim responses (1xx), and of the framing around the chunks of a body."""
MAX_FEED_BYTES = 64 * 1024
"""The most bytes fed at once."""
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
"""llhttp's reasons for refusing a head that may be repairable."""
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_EMPTY_LINE = re.compile(rb"\n\r?\n")
_INTERIM = re.compile(rb"HTTP/1\.[01] 1[0-9][0-9]")


class ResponseParser:
    """Reads one response. llhttp calls the methods that begin with ``on_``."""

    def __init__(self) -> None:
        self.head: ResponseHead | None = None
        self.body: deque[bytes] = deque()
        """Parts of the body, for the caller to take."""
        self.left: int | None = None
        """Bytes of the body that have not arrived yet, if the head gives its length."""
        self.is_chunked = False
        self.is_complete = False
        self.surplus = b""
        """The bytes that came after the end of a response of known length."""
        self.has_surplus = False
        """Whether anything came after the end of the response."""
        self.keeps_open = False
        """Whether the server will accept another request on this connection."""
        self.takes_more = False
        """Whether it will accept one before this response has ended (RFC 9112 section 9.3.2): HTTP/1.1, kept open."""
        self._fields: dict[str, list[str]] = {}
        self._field_bytes = self._overhead_bytes = 0
        self._received = bytearray()
        """The bytes received until the end of the head, and any that came with it."""
        self._is_odd = False
        """Whether llhttp has refused the form of the head, and we are waiting for all of it to see what it means."""
        self._problem = ""
        """Why a callback has refused the head."""
        self._llhttp = self._new_llhttp()

    def _new_llhttp(self) -> httptools.HttpResponseParser:
        llhttp = httptools.HttpResponseParser(self)
        llhttp.set_dangerous_leniencies(lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True)
        return llhttp

    def feed(self, data: memoryview) -> str | None:
        """Continue reading, up to the end of the head or of a body in chunks.

        Return what is wrong with the response, or None; anything that came before the fault is still good.
        """
        problem = self._feed(data)
        if problem is not None or self.is_complete or (self.head is not None and not self.is_chunked):
            # Nothing more is read here. llhttp and this object refer to each other: break the cycle.
            del self._llhttp
        return problem

    def _feed(self, data: memoryview) -> str | None:
        # Feed a head up to its end and no further, so that we know where the next response begins.
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
        # The body's own bytes do not count here, but a head or chunk framing without end does.
        if self._overhead_bytes > MAX_HEAD_BYTES + MAX_FEED_BYTES:
            return f"{BROKEN}: its header has no end"
        return None

    def _feed_mended(self) -> str | None:
        """Once the whole head is there, repair it and read it again."""
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
        """A response begins; a second one is not for us."""
        if self.is_complete:
            self.has_surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field line. Trailer fields are ignored."""
        if self.head is None:
            self._field_bytes += len(name) + len(value)
            if self._field_bytes > MAX_HEAD_BYTES:
                self._problem = f"its header is longer than {MAX_HEAD_BYTES // 1024} KiB"
                raise ValueError(self._problem)
            name, bare = name.lower(), value.strip()
            if name == b"transfer-encoding" and value != bare:
                # llhttp would read the body as if the field did not exist.
                self._problem = _ODD_SPACES
                raise ValueError(self._problem)
            self._fields.setdefault(name.decode("latin-1"), []).append(bare.decode("latin-1"))

    def on_headers_complete(self) -> None:
        """The head is complete; an interim one (1xx) is skipped."""
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
        """The response is over, as the head or the chunks said. An interim response does not count."""
        if self.head is not None:
            self.is_complete = True
