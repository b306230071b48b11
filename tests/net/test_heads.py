"""Response heads that are corrected, and those that are not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.net.heads import Unmendable, mend
from grym_fetch.net.parser import ResponseParser
from tests.support.properties import examples

STATUS = b"HTTP/1.1 200 OK"


def mended(*lines: bytes, end: bytes = b"\r\n") -> list[bytes]:
    """The field lines of the head made of these."""
    status, *fields, last, rest = mend(end.join([STATUS, *lines])).split(b"\r\n")
    assert (status, last, rest) == (STATUS, b"", b"")
    return fields


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([b"Content-Length: 5", b"content-length:5 "], [b"Content-Length: 5"]),
        ([b"Content-Length: 5, 5"], [b"Content-Length: 5"]),
        ([b"X-A : 1"], [b"X-A: 1"]),
        ([b"X-A\t:1"], [b"X-A: 1"]),
        ([b"X-A: 1", b"  2", b"\t3"], [b"X-A: 1 2 3"]),
        ([b"X-A:", b" 1"], [b"X-A:  1"]),
        ([b"X A: 1", b"X-B: 2"], [b"X-B: 2"]),
        ([b": 1", b"X(B): 2", b"\xe9: 3"], []),
        ([b"X-A: \x01\xff"], [b"X-A: \x01\xff"]),
        ([b"Transfer-Encoding: chunked\t"], [b"Transfer-Encoding: chunked"]),
    ],
)
@pytest.mark.parametrize("end", [b"\r\n", b"\n"], ids=["CRLF", "LF"])
@pytest.mark.shows("N20")
def test_what_is_put_right(lines: list[bytes], expected: list[bytes], end: bytes) -> None:
    """Spaces around names and values are dropped, a folded field becomes one line; other lines are ignored."""
    assert mended(*lines, end=end) == expected


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([b"Content-Length: 5", b"Content-Length: 6"], "Content-Length fields that differ"),
        ([b"Content-Length: 5, 6"], "Content-Length fields that differ"),
        ([b"Content-Length: +5"], "an invalid Content-Length"),
        ([b"Content-Length:"], "an invalid Content-Length"),
        ([b"Content-Length: 5", b" 5"], "a folded Content-Length"),
        ([b"X-A: 1", b" Content-Length: 5"], "a folded Content-Length"),
        ([b"Transfer-Encoding:", b" chunked"], "a folded Transfer-Encoding"),
        ([b"Content-Length : 5"], "a Content-Length that is not written as a field"),
        ([b"TRANSFER-ENCODING\t: chunked"], "a Transfer-Encoding that is not written as a field"),
        ([b"x Content-Length: 5"], "a Content-Length that is not written as a field"),
        ([b"Content-Length 5"], "a Content-Length without a colon"),
        ([b"X-A"], ""),
        ([b" X-A: 1"], ""),
        ([b"X-A: \0"], ""),
        ([b"X\0A: 1"], ""),
        ([b"X-A: 1\rContent-Length: 5"], ""),
        ([b"X\rA: 1"], ""),
    ],
)
@pytest.mark.shows("N7", "N20", "S3")
def test_what_is_refused(lines: list[bytes], reason: str) -> None:
    """If the end of the body is in doubt, the reason names the field; a head that curl refuses is refused."""
    with pytest.raises(Unmendable) as caught:
        mended(*lines)
    assert str(caught.value) == reason


FRAMING_NAMES = (b"Content-Length", b"Transfer-Encoding")
NAMES = st.sampled_from([b"Content-Length", b"Transfer-Encoding", b"X-A", b"X A", b"", b"ETag", b"Content-Range"])
VALUES = st.sampled_from([b"5", b"7", b"5, 5", b"chunked", b"gzip", b"", b"a b", b"\x01", b"chunked\t", b"+5"])
COLONS = st.sampled_from([b":", b": ", b" :", b"\t: ", b":\t ", b":\r\n ", b" "])


@examples(300)
@given(st.lists(st.tuples(NAMES, COLONS, VALUES), max_size=5))
def test_a_head_has_one_meaning(fields: list[tuple[bytes, bytes, bytes]]) -> None:
    """Whatever is corrected, only well-formed fields say where the body ends, and all of them agree."""
    body = b"5\r\nabcde\r\n0\r\n\r\n"
    head = b"\r\n".join([STATUS, *(b"".join(field) for field in fields)])
    parser = ResponseParser()
    problem = parser.feed(memoryview(bytearray(head + b"\r\n\r\n" + body)))
    if problem is not None or parser.head is None:
        return
    framing = [(name, colon, value.strip()) for name, colon, value in fields if name in FRAMING_NAMES]
    assert all(colon.startswith(b":") and b"\n" not in colon for _, colon, _ in framing)
    lengths = {part.strip() for name, _, value in framing if name == b"Content-Length" for part in value.split(b",")}
    assert parser.left is None or lengths in ({b"5"}, {b"7"})
    assert not parser.is_chunked or (b"Transfer-Encoding", b"chunked") in {(name, value) for name, _, value in framing}
