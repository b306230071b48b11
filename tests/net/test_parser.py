"""One response from bytes: its head, its body, and what belongs to neither."""

from __future__ import annotations

import gc
import weakref

import pytest

from grym_fetch.net.parser import MAX_FEED_BYTES, MAX_HEAD_BYTES, ResponseParser

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def parsed(*portions: bytes) -> ResponseParser:
    """A parser that has read these bytes without finding a fault."""
    parser = ResponseParser()
    for portion in filter(None, portions):
        assert parser.feed(memoryview(portion)) is None
    return parser


def problem_of(*portions: bytes) -> str | None:
    """The fault in the first portion that has one."""
    parser = ResponseParser()
    return next((problem for portion in portions if (problem := parser.feed(memoryview(portion)))), None)


@pytest.mark.parametrize(
    ("raw", "left", "is_chunked", "is_complete"),
    [
        (HEAD + b"Content-Length: 5\r\n\r\nbo", 3, False, False),
        (HEAD + b"Content-Length: 5\r\n\r\nbodys", 0, False, True),
        (HEAD + b"\r\nbo", None, False, False),
        (CHUNKED + b"2\r\nbo\r\n", None, True, False),
        (CHUNKED + b"2\r\nbo\r\n0\r\n\r\n", None, True, True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", None, False, True),
    ],
    ids=["sized", "sized and whole", "until close", "chunked", "chunked and whole", "no body"],
)
def test_how_the_body_ends(raw: bytes, left: int | None, is_chunked: bool, is_complete: bool) -> None:
    """RFC 9112 section 6.3: the head says where the body ends, however the bytes are split."""
    # Only a chunked body passes through here, apart from what comes along with the end of the head.
    cut = len(raw) if is_chunked else raw.index(b"\r\n\r\n") + 3
    for parser in (parsed(raw), parsed(*(raw[at : at + 1] for at in range(cut)), raw[cut:])):
        assert parser.head is not None
        assert (parser.left, parser.is_chunked, parser.is_complete) == (left, is_chunked, is_complete)
        assert not parser.has_surplus


@pytest.mark.shows("N7")
@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 4\r\nX: y\r\ncontent-length:4\r\n",
        b"Content-Length: 4, 4\r\n",
        b"Content-Length: 4\nContent-Length: 4,4\n",
    ],
)
@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"])
def test_equal_lengths_count_once(fields: bytes, before: bytes) -> None:
    """A length given twice the same way is one length (RFC 9110 section 8.6), however the bytes are split."""
    raw = before + HEAD + fields + b"\r\nbody"
    for parser in (parsed(raw), parsed(*(raw[at : at + 1] for at in range(len(raw) - 5)), raw[-5:])):
        assert parser.head is not None
        assert parser.head.fields["content-length"] == ["4"]
        assert (b"".join(parser.body), parser.left, parser.is_complete) == (b"body", 0, True)


@pytest.mark.shows("N10")
@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n", b"\r\n\n", b"\n\r\n"])
@pytest.mark.parametrize("field", [b"Content-Length: 4", b"Content-Length: 4, 4"], ids=["plain", "odd"])
def test_an_interim_response_ends_at_its_empty_line(end: bytes, field: bytes) -> None:
    """The answer behind an interim response begins after its empty line, with or without CRs, however it is split."""
    raw = b"HTTP/1.1 100 Continue" + end + HEAD[:-2] + end[: end.index(b"\n") + 1] + field + end + b"body"
    for parser in (parsed(raw), parsed(*(raw[at : at + 1] for at in range(len(raw) - 5)), raw[-5:])):
        assert parser.head is not None
        assert (parser.head.status, b"".join(parser.body), parser.is_complete) == (200, b"body", True)


@pytest.mark.parametrize(
    "raw", [HEAD + b"Content-Length: 4\r\n\r\nbo", CHUNKED + b"0\r\n\r\n", HEAD + b"Content-Length: x\r\n\r\n"]
)
def test_what_was_read_is_freed_at_once(raw: bytes) -> None:
    """A parser and llhttp refer to each other only until the last byte that passes through here."""
    parser = ResponseParser()
    parser.feed(memoryview(raw))
    gone = weakref.ref(parser)
    gc.disable()
    try:
        del parser
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.shows("N7", "N8")
@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (HEAD + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\n", "Content-Length fields that differ"),
        (HEAD + b"Content-Length: 4, 5\r\n\r\n", "Content-Length fields that differ"),
        (HEAD + b"Content-Length: 5a\r\n\r\n", "an invalid Content-Length"),
        (HEAD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n", "an invalid Content-Length"),
        (CHUNKED[:-2] + b"Content-Length: 4\r\n\r\n", "Content-Length beside Transfer-Encoding"),
        (b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80", "speaks HTTP/2"),
        (b"\x15\x03\x01\0\x02\x02\x46", "speaks TLS"),
    ],
)
def test_what_is_wrong_with_a_head_is_named(raw: bytes, named: str) -> None:
    """If framing is in doubt, the response is refused, and the error names the field or the other protocol."""
    assert named in (problem_of(raw) or "")


def test_the_body_is_what_the_chunks_hold() -> None:
    """Sizes, extensions and trailers of chunks are part of neither the body nor the head."""
    parser = parsed(CHUNKED + b"2;a=b\r\nbo\r\n2 \r\ndy\r\n0\r\nETag: late\r\n\r\n")
    assert b"".join(parser.body) == b"body"
    assert parser.head is not None
    assert parser.head.get("etag") is None


@pytest.mark.shows("N5", "S3")
@pytest.mark.parametrize("more", [HEAD, b"\x00noise", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes"])
def test_what_follows_changes_nothing(more: bytes) -> None:
    """Bytes behind a complete response are reported, and are part of neither its head nor its body."""
    parser = parsed(HEAD + b"Content-Length: 2\r\nX: y\r\n\r\nno" + more)
    assert parser.is_complete
    assert parser.has_surplus
    assert b"".join(parser.body) == b"no"
    assert parser.head is not None
    assert dict(parser.head.fields) == {"content-length": ["2"], "x": ["y"]}


@pytest.mark.parametrize(
    ("field", "keeps_open"), [(b"X: y", True), (b"Connection: close", False), (b"Connection: keep-alive", True)]
)
def test_whether_another_request_may_follow(field: bytes, keeps_open: bool) -> None:
    """RFC 9112 section 9.3: a connection persists unless the server says otherwise."""
    assert parsed(HEAD + b"Content-Length: 0\r\n" + field + b"\r\n\r\n").keeps_open is keeps_open


@pytest.mark.shows("N10", "S4")
def test_overhead_is_bounded_and_a_body_is_not() -> None:
    """An endless head is refused, as is endless framing; a long chunked body is neither."""
    assert "breaks the rules" in (problem_of(HEAD, *[b"X: y\r\n"] * (MAX_HEAD_BYTES // 2)) or "")
    interim = [b"HTTP/1.1 100 Continue\r\n\r\n"] * (MAX_HEAD_BYTES + MAX_FEED_BYTES)
    assert "no end" in (problem_of(*interim) or "")
    chunk = b"1000\r\n" + bytes(0x1000) + b"\r\n"
    assert problem_of(CHUNKED, *[chunk] * 100) is None
