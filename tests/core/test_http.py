"""What a response means: the decision table, and that no server can get around it.

Names such as R4 or N7 in the table are short for one fault each: R for ranges and validators, N for framing, C for
status. The last column is the verdict, or only its kind where the words do not matter.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from grym_fetch.core.digest import Checksum
from grym_fetch.core.http import (
    MAX_RETRY_AFTER_S,
    NO_VALIDATOR,
    Asked,
    Broken,
    ErrorStatus,
    OtherRepresentation,
    Partial,
    Redirected,
    ResponseHead,
    Unsatisfiable,
    UnusableRange,
    Validator,
    Verdict,
    Whole,
    WrongDigest,
    WrongLength,
    is_transient,
    judge,
    may_be_for_the_range,
    parse_retry_after,
)
from grym_fetch.core.ranges import ByteRange
from tests.support.properties import examples

V1, V2 = Validator('"v1"'), Validator('"v2"')
MONDAY, TUESDAY = "Mon, 01 Jan 2024 00:00:00 GMT", "Tue, 02 Jan 2024 00:00:00 GMT"
SLICE = ByteRange(100, 200)
FIRST = ByteRange(0, 100)

# The four situations a request is made in.
KNOWN = Asked(SLICE, 1000, V1, ranges_proven=True)
RESUMED = Asked(SLICE, 1000, V1)
FRESH = Asked(FIRST)
ALL = Asked(None, 1000, V1)
UNSIZED = Asked(None)
PINNED = Asked(SLICE, 1000, V1, ranges_proven=True, checksum=Checksum.of(b"ours"))


def head(status: int, *lines: str) -> ResponseHead:
    """A response head from lines as on the wire; a repeated name has two values."""
    fields: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        fields.setdefault(name.lower(), []).append(value)
    return ResponseHead(status, fields)


CR = "Content-Range: bytes 100-199/1000"
CL = "Content-Length: 100"
TAG = 'ETag: "v1"'
CHUNKED = "Transfer-Encoding: chunked"
PAGE = "Content-Type: text/html"
GOOD = Partial(SLICE, 1000, V1)

Row = tuple[str, Asked, int, Sequence[str], Verdict | type]

TABLE: list[Row] = [
    # -- 206 as it should be
    ("206 as asked", KNOWN, 206, [CR, CL, TAG], GOOD),
    ("206 to the first request", FRESH, 206, ["Content-Range: bytes 0-99/1000", CL, TAG], Partial(FIRST, 1000, V1)),
    ("206 of all of a short file", FRESH, 206, ["Content-Range: bytes 0-9/10", TAG], Partial(ByteRange(0, 10), 10, V1)),
    ("206 without a validator", KNOWN, 206, [CR, CL], Partial(SLICE, 1000, NO_VALIDATOR)),
    ("206 says identity", KNOWN, 206, [CR, CL, TAG, "Content-Encoding: Identity"], GOOD),
    ("206 of an empty encoding", KNOWN, 206, [CR, CL, TAG, "Content-Encoding: "], GOOD),
    ("206 where lengths agree twice", KNOWN, 206, [CR, CL, CL, TAG], GOOD),
    # -- R4: other bytes than requested
    ("R4 starts too early", KNOWN, 206, ["Content-Range: bytes 99-199/1000", TAG], UnusableRange),
    ("R4 starts too late", KNOWN, 206, ["Content-Range: bytes 101-199/1000", TAG], UnusableRange),
    ("R4 starts at 0", KNOWN, 206, ["Content-Range: bytes 0-99/1000", TAG], UnusableRange),
    ("R4 ends too late", KNOWN, 206, ["Content-Range: bytes 100-200/1000", TAG], UnusableRange),
    ("R4 to the end of the file", KNOWN, 206, ["Content-Range: bytes 100-999/1000", TAG], UnusableRange),
    # -- R5: Content-Range is missing or invalid
    ("R5 none", KNOWN, 206, [CL, TAG], UnusableRange),
    ("R5 unknown total", KNOWN, 206, ["Content-Range: bytes 100-199/*", CL, TAG], Partial(SLICE, None, V1)),
    ("R5 unknown total at first", FRESH, 206, ["Content-Range: bytes 0-99/*", CL], Partial(FIRST, None, NO_VALIDATOR)),
    ("R5 unsatisfied form", KNOWN, 206, ["Content-Range: bytes */1000", CL, TAG], UnusableRange),
    ("R5 other unit", KNOWN, 206, ["Content-Range: items 100-199/1000", CL, TAG], UnusableRange),
    ("R5 last before first", KNOWN, 206, ["Content-Range: bytes 100-99/1000", TAG], UnusableRange),
    ("R5 total within the range", KNOWN, 206, ["Content-Range: bytes 100-199/199", TAG], UnusableRange),
    ("R5 garbage", KNOWN, 206, ["Content-Range: \x00\udcff bytes", TAG], UnusableRange),
    ("R5 empty", KNOWN, 206, ["Content-Range: ", TAG], UnusableRange),
    ("R5 twice, and equal", KNOWN, 206, [CR, CR, CL, CL, TAG, TAG], GOOD),
    ("R5 twice, and not equal", KNOWN, 206, [CR, "Content-Range: bytes 0-99/1000", CL, TAG], UnusableRange),
    ("R5 20 digits", KNOWN, 206, [f"Content-Range: bytes 100-199/{'9' * 20}", CL, TAG], UnusableRange),
    # -- R6, R7: shorter is legal, other lengths are not
    ("R6 shorter", KNOWN, 206, ["Content-Range: bytes 100-149/1000", TAG], Partial(ByteRange(100, 150), 1000, V1)),
    ("R6 one byte", KNOWN, 206, ["Content-Range: bytes 100-100/1000", TAG], Partial(ByteRange(100, 101), 1000, V1)),
    ("R7 longer body", KNOWN, 206, [CR, "Content-Length: 101", TAG], UnusableRange),
    ("R7 shorter body", KNOWN, 206, [CR, "Content-Length: 99", TAG], UnusableRange),
    ("R7 the whole body", KNOWN, 206, [CR, "Content-Length: 1000", TAG], UnusableRange),
    # -- R8, R9, R10: another representation
    ("R8 other total", KNOWN, 206, ["Content-Range: bytes 100-199/2000", CL, TAG], WrongLength(2000)),
    ("R8 total not known yet", FRESH, 206, ["Content-Range: bytes 0-99/2000", TAG], Partial(FIRST, 2000, V1)),
    (
        "R9 other ETag",
        KNOWN,
        206,
        [CR, CL, 'ETag: "v2"'],
        OtherRepresentation("the content at this address has changed", V2),
    ),
    ("R10 other ETag on resume", RESUMED, 206, [CR, CL, 'ETag: "v2"'], OtherRepresentation),
    ("R9 other ETag and total", KNOWN, 206, ["Content-Range: bytes 100-199/2000", 'ETag: "v2"'], OtherRepresentation),
    ("R10 200 with another ETag", RESUMED, 200, ["Content-Length: 1000", 'ETag: "v2"'], OtherRepresentation),
    ("R10 200 with another ETag and length", RESUMED, 200, ["Content-Length: 2000", 'ETag: "v2"'], OtherRepresentation),
    # -- R11, R12: weak validators and none
    ("R11 weakened on the way", KNOWN, 206, [CR, CL, 'ETag: W/"v1"'], Partial(SLICE, 1000, Validator('W/"v1"'))),
    ("R11 other weak ETag", KNOWN, 206, [CR, CL, 'ETag: W/"v2"'], OtherRepresentation),
    (
        "R11 other date",
        Asked(SLICE, 1000, Validator(None, MONDAY)),
        206,
        [CR, CL, f"Last-Modified: {TUESDAY}"],
        OtherRepresentation,
    ),
    (
        "R11 same ETag, other date",
        Asked(SLICE, 1000, Validator('"v1"', MONDAY)),
        206,
        [CR, CL, TAG, f"Last-Modified: {TUESDAY}"],
        Partial(SLICE, 1000, Validator('"v1"', TUESDAY)),
    ),
    ("R12 nothing to compare", Asked(SLICE, 1000), 206, [CR, CL, 'ETag: "v2"'], Partial(SLICE, 1000, V2)),
    # -- R1, R2, R21: the whole content to a ranged request
    ("R1 200 at 0", FRESH, 200, ["Content-Length: 1000", TAG], Whole(1000, V1, framed=True)),
    ("R2 200 further on", RESUMED, 200, ["Content-Length: 1000", TAG], Whole(1000, V1, framed=True)),
    ("R2 200 where ranges had worked", KNOWN, 200, ["Content-Length: 1000", TAG], Whole(1000, V1, framed=True)),
    ("R21 all of a file of the length asked", Asked(FIRST, 100), 200, [CL, TAG], Whole(100, V1, framed=True)),
    ("200 to a whole request", ALL, 200, ["Content-Length: 1000", TAG], Whole(1000, V1, framed=True)),
    ("200 of nothing", UNSIZED, 200, ["Content-Length: 0"], Whole(0, NO_VALIDATOR, framed=True)),
    # -- R3: a slice under the wrong status
    ("R3 200 with Content-Range", KNOWN, 200, [CR, CL, TAG], UnusableRange),
    ("R3 200 with a garbage Content-Range", KNOWN, 200, ["Content-Range: x", "Content-Length: 1000"], UnusableRange),
    ("R3 200 of the slice's length", KNOWN, 200, [CL, TAG], UnusableRange),
    ("R3 200 of the slice's length, total unknown", FRESH, 200, [CL, TAG], UnusableRange),
    ("R3 200 of another length, total unknown", FRESH, 200, ["Content-Length: 99", TAG], Whole(99, V1, framed=True)),
    ("R8 200 of another length", KNOWN, 200, ["Content-Length: 999", TAG], WrongLength(999)),
    ("R8 200 of the slice's length to a whole request", ALL, 200, [CL, TAG], WrongLength(100)),
    (
        "R8 a web page",
        ALL,
        200,
        ["Content-Length: 512", "Content-Type: Text/HTML; charset=utf-8"],
        WrongLength(512, "it sent a web page: a login, an error page or a captive portal?"),
    ),
    (
        "C13 the length of a pointer",
        Asked(None, 1_000_000),
        200,
        ["Content-Length: 134"],
        WrongLength(134, "so short a file may be a git-lfs pointer, which only names the file"),
    ),
    (
        "C13 the length of a pointer, in ranges",
        Asked(ByteRange(0, 100), 1_000_000),
        206,
        ["Content-Range: bytes 0-99/134"],
        WrongLength(134, "so short a file may be a git-lfs pointer, which only names the file"),
    ),
    (
        "C13 the length of a pointer, of a file that may be so short",
        Asked(None, 1024),
        200,
        ["Content-Length: 134"],
        WrongLength(134),
    ),
    ("C13 longer than a pointer", Asked(None, 1_000_000), 200, ["Content-Length: 201"], WrongLength(201)),
    ("C13 nothing", ALL, 200, ["Content-Length: 0"], WrongLength(0, "it sent an empty file")),
    # -- R15: encoded content
    ("R15 206 gzip", KNOWN, 206, [CR, CL, TAG, "Content-Encoding: gzip"], UnusableRange),
    ("R15 206 br, upper case", KNOWN, 206, [CR, CL, TAG, "Content-Encoding: BR"], UnusableRange),
    (
        "R15 206 twice encoded",
        KNOWN,
        206,
        [CR, TAG, "Content-Encoding: identity", "Content-Encoding: gzip"],
        UnusableRange,
    ),
    ("R15 206 of the right total, and a checksum decides", PINNED, 206, [CR, CL, TAG, "Content-Encoding: gzip"], GOOD),
    (
        "R15 206 of another total, whatever the checksum",
        PINNED,
        206,
        ["Content-Range: bytes 100-199/999", CL, TAG, "Content-Encoding: gzip"],
        UnusableRange,
    ),
    (
        "R15 200 of the right length, and a checksum decides",
        PINNED,
        200,
        ["Content-Length: 1000", TAG, "Content-Encoding: aws-chunked"],
        Whole(1000, V1, framed=True),
    ),
    (
        "R15 206 of an unknown total",
        Asked(FIRST, checksum=PINNED.checksum),
        206,
        ["Content-Range: bytes 0-99/*", TAG, "Content-Encoding: gzip"],
        UnusableRange,
    ),
    (
        "R15 206 while the total is unknown",
        Asked(FIRST, checksum=PINNED.checksum),
        206,
        ["Content-Range: bytes 0-99/1000", TAG, "Content-Encoding: gzip"],
        UnusableRange,
    ),
    (
        "R15 200 while the total is unknown",
        Asked(FIRST, checksum=PINNED.checksum),
        200,
        ["Content-Length: 1000", TAG, "Content-Encoding: gzip"],
        UnusableRange,
    ),
    (
        "R15 200 to a whole request, while the total is unknown",
        Asked(None, checksum=PINNED.checksum),
        200,
        ["Content-Length: 1000", TAG, "Content-Encoding: gzip"],
        Whole(1000, V1, framed=True),
    ),
    ("R15 200 of another length", PINNED, 200, ["Content-Length: 400", "Content-Encoding: gzip"], Broken),
    ("R15 200 gzip", ALL, 200, ["Content-Length: 1000", TAG, "Content-Encoding: gzip"], Broken),
    ("R15 200 gzip to a range", FRESH, 200, ["Content-Encoding: x-gzip"], Broken),
    # -- R16, R17, R18: 416
    ("R16 416 of the known length", KNOWN, 416, ["Content-Range: bytes */1000"], Unsatisfiable(1000)),
    ("R17 416 of a shorter content", KNOWN, 416, ["Content-Range: bytes */50"], Unsatisfiable(50)),
    ("R18 416 says nothing", KNOWN, 416, [], Unsatisfiable(None)),
    ("R18 416 of an empty content", FRESH, 416, ["Content-Range: bytes */0"], Unsatisfiable(0)),
    ("R18 416 with garbage", KNOWN, 416, ["Content-Range: bytes */-1"], Unsatisfiable(None)),
    ("R16 416 with an error page", KNOWN, 416, ["Content-Length: 5000", "Content-Type: text/html"], Unsatisfiable),
    # -- R22: refused because of the range only
    ("R22 403 to the first range", FRESH, 403, [], UnusableRange),
    ("R22 400 to the first range", FRESH, 400, [], UnusableRange),
    ("R22 501 to the first range", FRESH, 501, [], UnusableRange),
    ("R22 403 where ranges had worked", KNOWN, 403, [], ErrorStatus(403, "status 403: access denied")),
    ("R22 403 to a whole request", ALL, 403, [], ErrorStatus(403, "status 403: access denied")),
    ("R22 400 to a whole request", ALL, 400, [], ErrorStatus(400, "status 400")),
    ("R22 404 to the first range", FRESH, 404, [], ErrorStatus(404, "status 404: not found")),
    ("A3 501 to a whole request", ALL, 501, [], ErrorStatus(501, "status 501")),
    # -- R24, R26
    ("R24 several parts", KNOWN, 206, [CR, TAG, "Content-Type: multipart/byteranges; boundary=x"], UnusableRange),
    ("R24 several parts, no range", KNOWN, 206, ["Content-Type:  MULTIPART/ByteRanges"], UnusableRange),
    ("R26 206 chunked", KNOWN, 206, [CR, TAG, CHUNKED], GOOD),
    ("R26 206 chunked, other bytes", KNOWN, 206, ["Content-Range: bytes 0-99/1000", CHUNKED], UnusableRange),
    # -- R27, R23: fields that do not matter
    ("R27 Accept-Ranges none on a good 206", KNOWN, 206, [CR, CL, TAG, "Accept-Ranges: none"], GOOD),
    ("R27 Accept-Ranges bytes on a 200", FRESH, 200, ["Content-Length: 9", "Accept-Ranges: bytes"], Whole),
    ("206 though the whole was asked", ALL, 206, ["Content-Range: bytes 0-999/1000", TAG], Broken),
    # -- N4 to N8: framing
    ("N4 200 without a length", UNSIZED, 200, [TAG], Whole(None, V1, framed=False)),
    ("N4 206 without a length", KNOWN, 206, [CR, TAG], GOOD),
    ("N5 200 too short by its length", ALL, 200, ["Content-Length: 900", TAG], WrongLength(900)),
    ("N6 200 too long by its length", ALL, 200, ["Content-Length: 1100", TAG], WrongLength(1100)),
    ("N7 negative", ALL, 200, ["Content-Length: -1"], Broken),
    ("N7 rubbish", ALL, 200, ["Content-Length: 5a"], Broken),
    ("N7 empty", ALL, 200, ["Content-Length: "], Broken),
    ("N7 comma list", ALL, 200, ["Content-Length: 1000, 1000"], Whole(1000, NO_VALIDATOR, framed=True)),
    (
        "N7 comma list that differs",
        ALL,
        200,
        ["Content-Length: 1000, 999"],
        Broken("Content-Length fields that differ"),
    ),
    ("N7 two that differ", ALL, 200, ["Content-Length: 1000", "Content-Length: 999"], Broken),
    ("N7 two that agree", ALL, 200, 2 * ["Content-Length: 1000"], Whole(1000, NO_VALIDATOR, framed=True)),
    ("N7 20 digits", UNSIZED, 200, [f"Content-Length: {'9' * 20}"], Broken),
    ("N7 past every file", UNSIZED, 200, [f"Content-Length: {2**63}"], Broken),
    ("N7 rubbish on a 206", KNOWN, 206, [CR, "Content-Length: 100a", TAG], UnusableRange),
    ("N7 two that differ on a 206", KNOWN, 206, [CR, CL, "Content-Length: 99", TAG], UnusableRange),
    ("N8 200 chunked with a length", ALL, 200, ["Content-Length: 5", CHUNKED, TAG], Whole(None, V1, framed=True)),
    ("N8 206 chunked with a length", KNOWN, 206, [CR, "Content-Length: 5", CHUNKED, TAG], GOOD),
    ("N8 rubbish length beside chunked", ALL, 200, ["Content-Length: x", CHUNKED], Broken),
    # -- C1: redirects, refusals and everything else
    ("C1 301", KNOWN, 301, ["Location: /x"], Redirected("/x")),
    ("C1 302", KNOWN, 302, ["Location: https://h/x?sig=%2F"], Redirected("https://h/x?sig=%2F")),
    ("C1 303", ALL, 303, ["Location: y"], Redirected("y")),
    ("C1 307", KNOWN, 307, ["Location: y"], Redirected("y")),
    ("C1 308", KNOWN, 308, ["Location: y"], Redirected("y")),
    ("C1 302 to nowhere", KNOWN, 302, [], Broken),
    ("C1 302 to an empty address", KNOWN, 302, ["Location: "], Broken),
    ("C1 302 to two addresses", KNOWN, 302, ["Location: x", "Location: y"], Broken),
    ("C1 302 to one address, twice", KNOWN, 302, ["Location: y", "Location: y", "Location: "], Redirected("y")),
    ("C1 203 where a checksum decides", PINNED, 203, ["Content-Length: 1000", TAG], Whole(1000, V1, framed=True)),
    ("C1 203 without a checksum", KNOWN, 203, ["Content-Length: 1000", TAG], Broken),
    ("C1 300", KNOWN, 300, ["Location: y"], Broken),
    ("C1 304", KNOWN, 304, [TAG], Broken),
    ("C1 305", KNOWN, 305, ["Location: y"], Broken),
    *(
        (f"{status} in the coding {coding!r}", KNOWN, status, [f"Transfer-Encoding: {coding}", *more, TAG], Broken)
        for status, more in ((206, [CR, CL]), (200, []), (200, ["Content-Length: 1000"]))
        for coding in ("identity", "gzip", "chunked, identity", "gzip, chunked", "chunked, chunked", "", "xchunked")
    ),
    ("206 in chunks, whatever the case", KNOWN, 206, [CR, TAG, "Transfer-Encoding: Chunked "], GOOD),
    ("C1 100", KNOWN, 100, [], Broken),
    ("C1 101", KNOWN, 101, [], Broken),
    ("C1 201", ALL, 201, ["Content-Length: 1000", TAG], Broken),
    ("C1 204", KNOWN, 204, [], Broken),
    ("C1 207 with a good range", KNOWN, 207, [CR, CL, TAG], Broken),
    ("C1 226", KNOWN, 226, [CR, CL, TAG], Broken),
    ("C1 401", KNOWN, 401, [], ErrorStatus(401, "status 401: the server wants credentials")),
    ("C1 404", KNOWN, 404, [], ErrorStatus(404, "status 404: not found")),
    ("C1 404 with a page", KNOWN, 404, [PAGE], ErrorStatus(404, "status 404: not found")),
    ("C1 404 with Retry-After", KNOWN, 404, ["Retry-After: 5"], ErrorStatus(404, "status 404: not found")),
    (
        "C1 407",
        KNOWN,
        407,
        [],
        ErrorStatus(
            407,
            "status 407: the proxy wants another user or password than HTTP_PROXY and HTTPS_PROXY name",
        ),
    ),
    ("C1 410", KNOWN, 410, [], ErrorStatus(410, "status 410: gone for good")),
    (
        "C1 451",
        KNOWN,
        451,
        [],
        ErrorStatus(451, "status 451: unavailable for legal reasons; another mirror may have it"),
    ),
    (
        "C1 511",
        KNOWN,
        511,
        ["Retry-After: 7", PAGE],
        ErrorStatus(511, "status 511: this network wants a login; open any page in a browser"),
    ),
    (
        "C1 403 with a page",
        KNOWN,
        403,
        [PAGE],
        ErrorStatus(
            403,
            "status 403: access denied; it sent a web page: a login, a challenge for robots, or a filter on the way",
        ),
    ),
    (
        "C1 503 with a page",
        KNOWN,
        503,
        [PAGE],
        ErrorStatus(503, "status 503: it sent a web page: a login, a challenge for robots, or a filter on the way"),
    ),
    (
        "C1 202",
        KNOWN,
        202,
        ["Content-Length: 1000", TAG],
        Broken("status 202: accepted and not ready yet, or a challenge for robots; open it in a browser"),
    ),
    ("C1 418", KNOWN, 418, [], ErrorStatus(418, "status 418")),
    ("C1 408", KNOWN, 408, [], ErrorStatus(408, "status 408")),
    ("C1 425", KNOWN, 425, [], ErrorStatus(425, "status 425")),
    ("C1 429", KNOWN, 429, ["Retry-After: 7"], ErrorStatus(429, "status 429", retry_after=7.0)),
    ("C1 500", KNOWN, 500, [], ErrorStatus(500, "status 500")),
    ("C1 502", KNOWN, 502, [CR, CL, TAG], ErrorStatus(502, "status 502")),
    (
        "C1 503 until a date",
        KNOWN,
        503,
        ["Retry-After: Mon, 01 Jan 2024 00:01:30 GMT", f"Date: {MONDAY}"],
        ErrorStatus(503, "status 503", retry_after=90.0),
    ),
    ("C1 504 with rubbish", KNOWN, 504, ["Retry-After: soon"], ErrorStatus(504, "status 504")),
    ("C1 524", KNOWN, 524, [], ErrorStatus(524, "status 524")),
    ("C1 0", KNOWN, 0, [], Broken),
    ("C1 -206", KNOWN, -206, [CR], Broken),
    ("C1 999", KNOWN, 999, [], Broken),
]


# The other rows that a case of a row shows.
ALSO = {
    "R3": ["B8"],
    "R4": ["B17", "B43"],
    "R5": ["B17", "B35"],
    "R15": ["R34"],
    "R16": ["B65"],
    "R17": ["B65"],
    "R18": ["B65"],
    **{f"C1 {answer}": ["A29"] for answer in ("202", "451", "511", "403 with a page", "503 with a page")},
}


def rows_of(name: str) -> list[str]:
    """The rows that a case of the table shows: the one it is named for, and those that rest on the same rule."""
    row = name.partition(" ")[0]
    named = [row] if re.fullmatch(r"[A-Z][0-9]+", row) and row not in ("C1", "C13", "N5", "N6") else []
    coding = ["N21"] if "in the coding" in name else []
    return [*named, *coding, *ALSO.get(row, ()), *ALSO.get(name, ())]


@pytest.mark.parametrize(
    ("asked", "status", "lines", "expected"),
    [pytest.param(*case, id=name, marks=pytest.mark.shows(*rows_of(name))) for name, *case in TABLE],
)
def test_the_decision_table(asked: Asked, status: int, lines: Sequence[str], expected: Verdict | type) -> None:
    """Each response has one meaning, decided before a byte of its body is used."""
    verdict = judge(asked, head(status, *lines))
    if isinstance(expected, type):
        assert type(verdict) is expected
    else:
        assert verdict == expected


@pytest.mark.parametrize("field", ["Content-Range", "Content-Length"])
@pytest.mark.shows("S8")
def test_a_field_is_shown_only_if_no_secret_fits(field: str) -> None:
    """A short plain value is shown whole; of any other nothing is, since a part could be a part of a secret."""
    good = {"Content-Range": "bytes 100-199/1000", "Content-Length": "100"}
    for value, shown in (("x" * 60, True), ("x" * 61, False), ("pass\u00e9", False), ("x\ty", False)):
        verdict = judge(KNOWN, head(206, *(f"{name}: {text}" for name, text in {**good, field: value}.items())))
        assert isinstance(verdict, UnusableRange)
        assert (repr(value) in verdict.reason) == shown
        assert (value[:3] in verdict.reason) == shown


def test_the_reason_of_a_wrong_range_names_both() -> None:
    """The reason for a wrong range names what came and what was requested, in the wire's numbering."""
    assert judge(KNOWN, head(206, "Content-Range: bytes 0-99/1000")) == UnusableRange("bytes 0-99 instead of 100-199")


# -- any response at all ------------------------------------------------------------------------------------------

near = st.sampled_from([0, 1, 49, 50, 99, 100, 101, 149, 150, 199, 200, 201, 999, 1000, 1001, 2**63, 10**20])
content_ranges = st.builds(
    "{}{}{}-{}/{}".format,
    st.sampled_from(["bytes", "BYTES", "items", "byte\u017f"]),
    st.sampled_from([" ", "  ", "=", "\u00a0"]),
    st.sampled_from([0, 100, 101]),
    st.sampled_from([49, 99, 149, 199, 200]),
    near | st.just("*"),
)
texts = st.text(max_size=30)
etags = st.sampled_from(['"v1"', '"v2"', 'W/"v1"', 'W/"v2"', "v1", "", '""'])
dates = st.sampled_from([MONDAY, TUESDAY, "rubbish"])
VALUES: Mapping[str, st.SearchStrategy[str]] = {
    "content-range": content_ranges | texts,
    "content-length": near.map(str) | texts,
    "content-encoding": st.sampled_from(["gzip", "identity", "", " IDENTITY "]) | texts,
    "transfer-encoding": st.just("chunked") | texts,
    "content-type": st.sampled_from(["text/html", "multipart/byteranges; boundary=x"]) | texts,
    "etag": etags | texts,
    "last-modified": dates | texts,
    "location": texts,
    "retry-after": st.integers(-5, 10**20).map(str) | dates | texts,
    "date": dates | texts,
}
heads = st.builds(
    ResponseHead,
    st.sampled_from([200, 206, 416, 302, 429, 503, 403]) | st.integers(-10, 1100),
    st.fixed_dictionaries({}, optional={name: st.lists(value, max_size=2) for name, value in VALUES.items()}),
)
validators = st.builds(Validator, st.none() | etags, st.none() | dates)
asks = st.builds(
    Asked,
    st.none() | st.sampled_from([SLICE, FIRST, ByteRange(100, 150)]),
    st.none() | near,
    validators,
    st.booleans(),
)


@given(asks, heads)
@examples(300)
@pytest.mark.shows("N18", "N20", "B65")
def test_any_response_has_a_verdict(asked: Asked, response: ResponseHead) -> None:
    """Whatever a server sends, the verdict is a value, and only 200 and 206 can ever mean content."""
    verdict = judge(asked, response)
    if isinstance(verdict, Partial | Whole | OtherRepresentation | WrongLength):
        assert response.status in (200, 206)
    if isinstance(verdict, Whole):
        assert response.status == 200
        assert not response.fields.get("content-range")
        assert verdict.length is None or asked.total in (None, verdict.length)


def read_content_range(text: str) -> tuple[int, int, int | None] | None:
    """An independent reader of Content-Range: first, last and total."""
    unit, _, rest = text.strip(" \t").partition(" ")
    span, slash, total = rest.strip(" \t").partition("/")
    first, dash, last = span.partition("-")
    if unit.upper() != "BYTES" or not unit.isascii() or not (slash and dash):
        return None
    numbers = [first, last] if total == "*" else [first, last, total]
    if not all(number.isascii() and number.isdigit() for number in numbers):
        return None
    return int(first), int(last), None if total == "*" else int(total)


@given(
    asks,
    st.fixed_dictionaries(
        {"content-range": st.lists(content_ranges, min_size=1, max_size=1)},
        optional={name: st.lists(VALUES[name], min_size=1, max_size=2) for name in VALUES if name != "content-range"},
    ),
)
@example(asked=KNOWN, fields={"content-range": ["bytes 101-199/1000"]})
@example(asked=KNOWN, fields={"content-range": ["bytes 100-199/1000"], "transfer-encoding": ["chunked", "chunked"]})
@examples(400)
@pytest.mark.shows("R4", "R8", "R9", "B17", "S3")
def test_a_part_is_believed_only_if_everything_fits(asked: Asked, fields: Mapping[str, list[str]]) -> None:
    """A part starts where requested, stays in the range, matches the known total and version, and is not encoded."""
    verdict = judge(asked, ResponseHead(206, fields))
    if not isinstance(verdict, Partial):
        return
    found = read_content_range(fields["content-range"][0])
    assert found is not None
    first, last, total = found
    assert asked.wanted is not None
    assert first == asked.wanted.start
    assert last < asked.wanted.stop
    assert total is None or last < total < 2**63
    assert None in (total, asked.total) or total == asked.total
    assert (verdict.range, verdict.total) == (ByteRange(first, last + 1), total)
    assert {value.strip().lower() for value in fields.get("content-encoding", ())} <= {"", "identity"}
    assert [value.strip().lower() for value in fields.get("transfer-encoding", ())] in ([], ["chunked"])
    old, new = asked.validator, verdict.validator
    if old.etag and new.etag:
        assert re.sub("^W/", "", old.etag) == re.sub("^W/", "", new.etag)
    elif old.last_modified and new.last_modified:
        assert old.last_modified == new.last_modified
    if "transfer-encoding" not in fields:
        assert {int(value) for value in fields.get("content-length", ())} <= {last + 1 - first}


def test_a_part_is_believed_at_all() -> None:
    """The property above is not vacuous: a response that fits is accepted."""
    assert isinstance(judge(KNOWN, head(206, CR)), Partial)


# -- validators ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("etag", "strong"),
    [
        ('"v1"', True),
        ('""', True),
        ('"a,b"', True),
        ('"\xe9"', True),
        ('W/"v1"', False),
        ("v1", False),
        ('"v1', False),
        ('v1"', False),
        ('"a"b"', False),
        ('"a b"', False),
        ('"a\x7f"', False),
        ('"v1", "v2"', False),
        ('"v1"\n', False),
        ("", False),
        (None, False),
    ],
)
@pytest.mark.shows("R11", "B23")
def test_only_a_strong_etag_is_sent(etag: str | None, strong: bool) -> None:
    """If-Range carries only a well-formed strong ETag, never a weak one and never a date (RFC 9110 section 13.1.5).

    Nor bytes that are not ASCII: no request can carry them as they came.
    """
    validator = Validator(etag, MONDAY)
    assert validator.is_strong is strong
    assert validator.if_range == (etag if strong and etag != '"\xe9"' else None)


@pytest.mark.parametrize(
    ("one", "other", "contradict"),
    [
        (V1, V1, False),
        (V1, V2, True),
        (V1, Validator('W/"v1"'), False),
        (Validator('W/"v1"'), Validator('W/"v2"'), True),
        (Validator('w/"v1"'), V1, True),
        (V1, NO_VALIDATOR, False),
        (NO_VALIDATOR, NO_VALIDATOR, False),
        (V1, Validator(""), False),
        (Validator(None, MONDAY), Validator(None, TUESDAY), True),
        (Validator(None, MONDAY), Validator(None, MONDAY), False),
        (Validator('"v1"', MONDAY), Validator('"v1"', TUESDAY), False),
        (Validator('"v1"', MONDAY), Validator('"v2"', MONDAY), True),
        (Validator('"v1"', MONDAY), Validator(None, TUESDAY), True),
        (Validator('"v1"', MONDAY), Validator(None, MONDAY), False),
        (Validator('"v1"'), Validator(None, MONDAY), False),
    ],
)
def test_what_contradicts(one: Validator, other: Validator, contradict: bool) -> None:
    """Two validators contradict each other if a shared field differs; the ETag decides if both have one."""
    assert one.contradicts(other) is contradict
    assert other.contradicts(one) is contradict


@pytest.mark.shows("R25", "R13", "R14")
def test_what_another_server_says_contradicts_nothing() -> None:
    """A validator counts only for the server that gave it, or for any server if that is unknown."""
    here, there, unknown = Validator('"v1"', None, "here"), Validator('"v2"', MONDAY, "there"), V2
    assert not here.contradicts(there)
    assert not there.contradicts(here)
    assert here.contradicts(replace(there, server="here"))
    assert unknown.contradicts(here)
    assert here.is_for("here")
    assert unknown.is_for("here")
    assert not here.is_for("there")
    asked = Asked(ByteRange(0, 10), 100, here)
    head = ResponseHead(206, {"content-range": ["bytes 0-9/100"], "etag": ['"v2"']}, "there")
    assert judge(asked, head) == Partial(ByteRange(0, 10), 100, Validator('"v2"', None, "there"))
    assert isinstance(judge(asked, replace(head, server="here")), OtherRepresentation)


@pytest.mark.shows("R25", "R11")
@pytest.mark.parametrize(
    ("one", "other", "proves"),
    [
        (V1, V1, True),
        (V1, V2, False),
        (Validator('"v1"', MONDAY), Validator('"v1"', TUESDAY), True),
        (Validator('"v1"', None, "here"), Validator('"v1"', None, "here"), True),
        (Validator('"v1"', None, "here"), Validator('"v1"', None, "there"), False),
        (Validator('W/"v1"'), Validator('W/"v1"'), False),
        (Validator(None, MONDAY), Validator(None, MONDAY), False),
        (NO_VALIDATOR, NO_VALIDATOR, False),
    ],
)
def test_what_proves_the_same_bytes(one: Validator, other: Validator, proves: bool) -> None:
    """Only the same strong ETag from the same server proves the same bytes."""
    assert one.proves(other) is proves
    assert other.proves(one) is proves


@pytest.mark.parametrize(
    ("validator", "truth"),
    [(NO_VALIDATOR, False), (Validator("", ""), False), (V1, True), (Validator(None, MONDAY), True)],
)
def test_a_validator_is_true_if_it_says_something(validator: Validator, truth: bool) -> None:
    """An empty validator counts as none."""
    assert bool(validator) is truth


def test_fields_are_joined_by_commas() -> None:
    """A repeated field is one list (RFC 9110 section 5.3); a field without a value counts as absent."""
    assert head(200, "Via: a", "Via: b").get("via") == "a, b"
    assert head(200).get("via") is None
    assert ResponseHead(200, {"via": ()}).get("via") is None


# -- Retry-After --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "date", "expected"),
    [
        (None, MONDAY, None),
        ("0", None, 0.0),
        ("120", None, 120.0),
        (" 5 ", None, 5.0),
        ("999999999", None, 999999999.0),
        ("9" * 18, None, 999999999999999999.0),
        ("9" * 19, None, None),
        ("9" * 5000, None, None),
        ("-5", None, None),
        ("+5", None, None),
        ("1.5", None, None),
        ("1e3", None, None),
        ("0x10", None, None),
        ("٥", None, None),
        ("inf", None, None),
        ("nan", None, None),
        ("5 seconds", None, None),
        ("", None, None),
        ("soon", MONDAY, None),
        (TUESDAY, MONDAY, 86400.0),
        (MONDAY, MONDAY, 0.0),
        (MONDAY, TUESDAY, 0.0),
        (TUESDAY, None, None),
        (TUESDAY, "", None),
        (TUESDAY, "rubbish", None),
        ("Tuesday, 02-Jan-24 00:00:00 GMT", MONDAY, 86400.0),
        ("Tue, 02 Jan 2024 00:00:00 +0100", MONDAY, 82800.0),
        ("Tue, 02 Jan 2024 00:00:00 -0000", MONDAY, None),
        ("Tue, 02 Jan 2024 00:00:00 +9999999999", MONDAY, None),
        ("Tue, 02 Jan 99999 00:00:00 GMT", MONDAY, None),
        ("Tue, 32 Jan 2024 00:00:00 GMT", MONDAY, None),
        ("Mon, 1 Jan , 10:10:10 GMT", MONDAY, None),
    ],
)
@pytest.mark.shows("A2", "B57")
def test_reads_retry_after(text: str | None, date: str | None, expected: float | None) -> None:
    """Seconds, or a date measured against the server's own Date, never below 0; garbage is ignored."""
    assert parse_retry_after(text, date) == expected


DATE_WORDS = [
    "Mon,",
    "1",
    "Jan",
    ",",
    "2024",
    "10:10:10",
    ":",
    "GMT",
    "+",
    "-",
    "-0000",
    "10.10",
    "Jan,",
    "-1",
    "9999999999999",
]


@given(texts | st.lists(st.sampled_from(DATE_WORDS), max_size=7).map(" ".join), st.none() | dates | texts)
@examples(300)
@pytest.mark.shows("A2", "B57")
def test_any_retry_after_is_a_wait_or_none(text: str, date: str | None) -> None:
    """Whatever the text, nothing raises, and no wait is negative or endless."""
    seconds = parse_retry_after(text, date)
    assert seconds is None or 0.0 <= seconds < float("inf")


@pytest.mark.shows("A2", "B57", "S4")
def test_the_longest_wait_is_bearable() -> None:
    """No server is waited for longer than a few minutes."""
    assert 0 < MAX_RETRY_AFTER_S <= 300


def stated(content: bytes, name: str = "sha-256") -> str:
    """A value of ``Repr-Digest``: RFC 9530 section 2, a dictionary of byte sequences."""
    return f"{name}=:{base64.b64encode(hashlib.new(name.replace('-', ''), content).digest()).decode()}:"


OURS = Checksum.of(b"ours")


@pytest.mark.shows("C10")
@pytest.mark.parametrize(
    ("value", "condemns"),
    [
        (stated(b"ours"), False),
        (stated(b"theirs"), True),
        (f"{stated(b'theirs', 'sha-512')}, {stated(b'theirs')}", True),
        (f"{stated(b'theirs')};q=1", True),
        (stated(b"theirs", "sha-512"), False),  # there is none of the manifest's algorithm
        (f"{stated(b'ours')}, {stated(b'theirs')}", False),  # two digests, neither believed
        (stated(b"theirs").upper(), False),
        (stated(b"theirs")[:-3], False),
        ("sha-256=:AAAA:", False),
        ("", False),
    ],
)
def test_a_server_condemns_its_own_content(value: str, condemns: bool) -> None:
    """``Repr-Digest`` covers the whole content even on a part; one that differs from the manifest's is final."""
    for asked, status, lines in ((SLICE, 206, (CR, CL)), (None, 200, ("Content-Length: 1000",))):
        verdict = judge(Asked(asked, 1000, checksum=OURS), head(status, *lines, f"Repr-Digest: {value}"))
        assert isinstance(verdict, WrongDigest) == condemns
        if isinstance(verdict, WrongDigest):
            assert verdict.actual == Checksum.of(b"theirs")
        assert not isinstance(judge(Asked(asked, 1000), head(status, *lines, f"Repr-Digest: {value}")), WrongDigest)


DATE = "Wed, 21 Oct 2015 07:28:00 GMT"
MOMENT = 1_445_412_480


@pytest.mark.parametrize(
    ("status", "fields", "seconds"),
    [
        (202, {"retry-after": "7"}, 7.0),
        (403, {"retry-after": "7"}, 7.0),
        (429, {"ratelimit": '"name";r=0;t=55'}, 55.0),
        (429, {"ratelimit": '"a, b; c";r=9;t=99, "d";r=0;t=5 , "e"; r=0; t=11'}, 11.0),
        (429, {"ratelimit": "default;t=8;r=0"}, 8.0),
        (503, {"ratelimit": '"name";r=0;t=55', "retry-after": "3"}, 3.0),
        (429, {"ratelimit": '"name";r=1;t=55'}, None),
        (429, {"ratelimit": '"name";r=0;t=soon'}, None),
        (429, {"ratelimit-remaining": "0", "ratelimit-reset": "12"}, 12.0),
        (429, {"x-ratelimit-reset": "12"}, 12.0),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(MOMENT + 90), "date": DATE}, 90.0),
        (429, {"x-ratelimit-reset": str(MOMENT - 90), "date": DATE}, 0.0),
        (429, {"x-ratelimit-reset": str(MOMENT + 90)}, None),
        (429, {"x-ratelimit-remaining": "5", "x-ratelimit-reset": "12"}, None),
        (429, {}, None),
    ],
)
@pytest.mark.shows("A25")
def test_how_long_a_server_wants_to_be_left_alone(status: int, fields: dict[str, str], seconds: float | None) -> None:
    """The wait is read from whichever field gives it; a point in time is measured against the server's own date."""
    verdict = judge(Asked(ByteRange(0, 10)), ResponseHead(status, {name: [value] for name, value in fields.items()}))
    assert isinstance(verdict, ErrorStatus)
    assert verdict.retry_after == seconds
    assert verdict.is_throttling


@pytest.mark.shows("A3")
def test_which_statuses_may_pass() -> None:
    """The same request may succeed later after 408, 425, throttling, and server errors that are not for good."""
    transient = {status for status in range(1000) if is_transient(status)}
    assert transient == {408, 420, 425, 429, 430, *range(500, 600)} - {501, 505, 511}


@pytest.mark.shows("R22")
def test_which_refusals_may_be_for_the_range() -> None:
    """Any error may be, unless it asks for credentials or patience, or says that the content is gone."""
    possible = {status for status in range(1000) if may_be_for_the_range(status)}
    assert possible == {*range(400, 600)} - {401, 407, 410, 420, 429, 430}


@pytest.mark.shows("A25")
def test_which_statuses_are_throttling() -> None:
    """A status that says so, or any other with a stated wait, however short."""
    throttling = {status for status in range(1000) if ErrorStatus(status, "").is_throttling}
    assert throttling == {420, 429, 430, 503, 509, 529}
    assert ErrorStatus(403, "", 0.0).is_throttling


def test_a_403_that_speaks_of_other_limits_is_no_throttling() -> None:
    """Access is denied, but requests are left, so this is not throttling."""
    fields = {"x-ratelimit-remaining": ["59"], "x-ratelimit-reset": ["12"]}
    verdict = judge(Asked(None), ResponseHead(403, fields))
    assert isinstance(verdict, ErrorStatus)
    assert not verdict.is_throttling
