"""What the world can do to a transfer, and what must come of it: one row per fault, against a real server."""

from __future__ import annotations

import pytest
from _pytest.mark.structures import ParameterSet

from grym_fetch import GrymFetchError, MirrorsExhausted, Settings
from grym_fetch.core.segments import segment_length
from grym_fetch.errors import DigestMismatch, LengthMismatch
from grym_fetch.testing import (
    AssetServer,
    BigHeaders,
    ChangeContent,
    Chunked,
    ChunkedCut,
    CloseDelimited,
    ContentLength,
    ContentRange,
    Endless,
    ETag,
    Fault,
    FlipByte,
    FlippingETag,
    Gzip,
    HangBeforeBody,
    HangBeforeHeaders,
    HtmlPage,
    IgnoreIfRange,
    LongPartial,
    LyingTotal,
    MultipartRanges,
    NoRanges,
    NoValidator,
    RangeNotSatisfiable,
    RedirectLoop,
    RefuseHead,
    RefuseRanges,
    Reset,
    RetryAfter,
    ServerGone,
    ShiftRange,
    ShortPartial,
    SliceAs200,
    Stall,
    Status,
    Truncate,
    WeakETag,
    WrongFile,
    seeded_bytes,
)
from tests.support.invariants import checked_sync
from tests.support.project import KIB, SMALL, ImpatientClock, Project
from tests.support.sweeps import typical

SIZE = 700 * KIB + 123
CONTENT = seeded_bytes(SIZE, seed=7)


def row(name: str, *values: object) -> ParameterSet:
    """A case that shows the row named at the beginning of its own name."""
    number = name.partition(" ")[0]
    return pytest.param(*values, id=name, marks=pytest.mark.shows(number))


def patience(faults: list[Fault]) -> float:
    """The seconds that nothing may arrive: few where silence is the fault, else as many as a busy machine may take."""
    return 0.3 if any(isinstance(fault, HangBeforeHeaders | HangBeforeBody | Stall) for fault in faults) else 60.0


# Faults that a single origin must be survived with, because they pass or because there is a way around them.
SURVIVED: dict[str, list[Fault]] = {
    "N1 reset once": [Reset(after=100_000, times=1)],
    "N1 reset again and again": [Reset(after=30_000, times=4)],
    "N2 clean truncation": [Truncate(after=50_000, times=2)],
    "N3 chunked and cut": [ChunkedCut(after=40_000, times=1)],
    "N4 no length, closed at the end": [CloseDelimited()],
    "N4 chunked": [Chunked()],
    "N9 endless body after the right bytes": [Endless()],
    "N8 chunked and no ranges": [Chunked(), NoRanges()],
    "N11 nothing comes back": [HangBeforeHeaders(times=1)],
    "N11 headers and nothing more": [HangBeforeBody(times=1)],
    "N12 stall": [Stall(after=60_000, times=1)],
    "N17 closed without an answer": [ServerGone(times=2)],
    "R1 no ranges": [NoRanges()],
    "R3 a slice as 200": [SliceAs200()],
    "R3 a slice as 200 without Content-Range": [SliceAs200(content_range=False)],
    "R4 another range": [ShiftRange(by=512)],
    "R4 another range, lied about": [ShiftRange(by=512, truthful=False)],
    "R5 no Content-Range": [ContentRange(value=None)],
    "R5 another unit": [ContentRange(value="items 0-9/10")],
    "R5 garbage": [ContentRange(value="bytes once upon a time")],
    "R6 shorter than asked": [ShortPartial(by=1000, times=40)],
    "R7 longer than promised": [LongPartial(by=1000)],
    "R11 weak validator": [WeakETag()],
    "R12 no validator": [NoValidator()],
    "R14 another ETag each time": [FlippingETag()],
    "R15 gzip once": [Gzip(times=1)],
    "R18 416 without a length": [RangeNotSatisfiable(content_range=None)],
    "R22 ranges forbidden": [RefuseRanges(status=403)],
    "R22 ranges a bad request": [RefuseRanges(status=400)],
    "R23 HEAD refused": [RefuseHead()],
    "R24 several parts": [MultipartRanges()],
    "A1 throttled": [RetryAfter(value="1", status=429, times=2)],
    "A1 throttled without a time": [RetryAfter(value=None, status=503, times=1)],
    "A2 throttled until a past date": [RetryAfter(value="Wed, 21 Oct 2015 07:28:00 GMT", status=503, times=1)],
    "A2 throttled for ever": [RetryAfter(value="999999999", status=503, times=1)],
    "A2 throttled in rubbish": [RetryAfter(value="soon", status=503, times=1)],
    "A3 server error": [Status(500, times=2)],
    "A3 bad gateway": [Status(502, times=1)],
    "R10 If-Range ignored": [IgnoreIfRange()],
}


@pytest.mark.parametrize("known_size", typical([True, False], True), ids=["size known", "size unknown"])
@pytest.mark.parametrize("faults", [row(name, faults) for name, faults in SURVIVED.items()])
@pytest.mark.shows("S4")
async def test_one_origin_survives(
    server: AssetServer, project: Project, faults: list[Fault], known_size: bool
) -> None:
    """A fault that passes, or that there is a way around, costs only requests."""
    file = server.add("/a.bin", CONTENT, faults=faults)
    path = project.add("a", [file.url], CONTENT, size=known_size)
    run = await checked_sync(project, server, stall_timeout=patience(faults))
    assert not run.failures
    assert path.read_bytes() == CONTENT
    assert project.staged() == []


def most_segments() -> int:
    """The most requests into which a fetch of `CONTENT` is divided: if each is as short as on a slow link.

    One that fails is followed by fewer. One with a wrong digest gets all of these, each byte once, and
    then a single one for the whole file, in case only the ranges lied.
    """
    count, missing = 1, SIZE - SMALL.first
    while missing > 0:
        count += 1
        missing -= segment_length(missing, Settings().parallel, 1.0, SMALL)
    return count


# Faults that no retry fixes: the origin is bad. Each with its class and what the error must say.
FATAL: dict[str, tuple[list[Fault], type[GrymFetchError], str]] = {
    "A4 not found": ([Status(404)], MirrorsExhausted, "404"),
    "A4 gone": ([Status(410)], MirrorsExhausted, "410"),
    "A5 denied": ([Status(403)], MirrorsExhausted, "403"),
    "A5 credentials wanted": ([Status(401)], MirrorsExhausted, "credentials"),
    "A8 redirect loop": ([RedirectLoop()], MirrorsExhausted, "redirect"),
    "N1 reset for ever": ([Reset(after=0)], MirrorsExhausted, "broke off"),
    "N7 length is rubbish": ([ContentLength(value="5a")], MirrorsExhausted, ""),
    "N10 endless headers": ([BigHeaders()], MirrorsExhausted, "HTTP"),
    "N11 never an answer": ([HangBeforeHeaders()], MirrorsExhausted, "nothing arrived"),
    "R8 another total": ([LyingTotal(total=SIZE + 1)], MirrorsExhausted, "size mismatch"),
    "R15 gzip for ever": ([Gzip()], MirrorsExhausted, "gzip"),
    "C1 a web page": ([HtmlPage()], MirrorsExhausted, "web page"),
    "C2 one byte flipped": ([FlipByte(at=300_000)], DigestMismatch, "expected sha256:"),
    "C3 another file": ([WrongFile(seed=3)], DigestMismatch, "expected sha256:"),
}


@pytest.mark.parametrize(("faults", "error", "text"), [row(name, *case) for name, case in FATAL.items()])
async def test_one_bad_origin_is_named(
    server: AssetServer, project: Project, faults: list[Fault], error: type[GrymFetchError], text: str
) -> None:
    """An origin that cannot give the file is named with its reason, and the old file stays."""
    file = server.add("/a.bin", CONTENT, faults=faults)
    path = project.add("a", [file.url], CONTENT)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"old")
    run = await checked_sync(project, server, stall_timeout=patience(faults))
    assert type(run.failures["a"]) in (error, LengthMismatch) or error is DigestMismatch
    assert isinstance(run.failures["a"], error)
    assert text in str(run.failures["a"])
    assert "/a.bin" in str(run.failures["a"])
    assert path.read_bytes() == b"old"
    (told,) = run.heard.of("asset_failed")
    assert told["error"] == type(run.failures["a"]).__name__
    assert isinstance(run.failures["a"], MirrorsExhausted | DigestMismatch)
    assert told["attempts"] == tuple(str(failure) for failure in run.failures["a"].failures)
    assert told["attempts"]
    assert len(server.stats.requests) <= most_segments() + 1


@pytest.mark.parametrize("known_size", typical([True, False], True), ids=["size known", "size unknown"])
@pytest.mark.parametrize(
    "name", [*(row(name, name) for name in [*FATAL, "R4 another range, lied about"]), "half-way for good"]
)
@pytest.mark.shows("S12")
async def test_a_good_mirror_saves_it(server: AssetServer, project: Project, name: str, known_size: bool) -> None:
    """However the first origin lies or fails, one good mirror is enough; the switch is reported with its reason."""
    faults = FATAL[name][0] if name in FATAL else SURVIVED.get(name) or [Truncate(after=0, covering=SIZE // 2)]
    bad = server.add("/bad.bin", CONTENT, faults=faults)
    good = server.add("/good.bin", CONTENT)
    path = project.add("a", [bad.url, good.url], CONTENT, size=known_size)
    run = await checked_sync(project, server, stall_timeout=patience(faults))
    assert not run.failures, run.failures
    assert path.read_bytes() == CONTENT
    switches = run.heard.of("mirror_switched")
    restarts = run.heard.of("asset_restarted")
    assert switches or restarts
    assert all(event["reason"] for event in [*switches, *restarts])


@pytest.mark.shows("R13", "S12")
async def test_good_bytes_are_kept_at_a_switch(server: AssetServer, project: Project) -> None:
    """Bytes from a mirror that then failed for good are not fetched again from the next one."""
    half = SIZE // 2
    bad = server.add("/bad.bin", CONTENT, faults=[Truncate(after=0, covering=half)])
    good = server.add("/good.bin", CONTENT)
    path = project.add("a", [bad.url, good.url], CONTENT)
    run = await checked_sync(project, server, parallel=1)
    assert not run.failures
    assert path.read_bytes() == CONTENT
    assert server.stats.of("/good.bin").body_bytes_sent <= SIZE - half + 128 * KIB


@pytest.mark.shows("C6", "A20", "S1", "S12")
async def test_wrong_on_every_mirror(server: AssetServer, project: Project) -> None:
    """A wrong checksum everywhere is an integrity error that names both digests and each origin."""
    first = server.add("/first.bin", CONTENT, faults=[FlipByte(at=10)])
    second = server.add("/second.bin", CONTENT, faults=[WrongFile(seed=9)])
    path = project.add("a", [first.url, second.url], CONTENT)
    run = await checked_sync(project, server)
    error = run.failures["a"]
    assert isinstance(error, DigestMismatch)
    assert error.expected in str(error)
    assert error.actual in str(error)
    assert "/first.bin" in str(error)
    assert "/second.bin" in str(error)
    assert not path.exists()
    assert project.staged() == []


@pytest.mark.shows("C5", "B15", "S1")
async def test_poisoned_resume(server: AssetServer, project: Project) -> None:
    """Wrong bytes left by an earlier run are found and fetched again, once, from the same origin."""
    file = server.add("/a.bin", CONTENT, faults=[FlipByte(at=5, times=1), Reset(after=0, covering=400_000)])
    path = project.add("a", [file.url], CONTENT)
    run = await checked_sync(project, server, retries=0, parallel=1)
    assert isinstance(run.failures["a"], MirrorsExhausted)
    file.faults = ()
    run = await checked_sync(project, server)
    assert not run.failures
    assert path.read_bytes() == CONTENT
    assert run.heard.of("asset_planned")[0]["resumed_bytes"] != 0
    assert len(run.heard.of("asset_restarted")) == 1


@pytest.mark.parametrize("etag", ["changes", "stays", "absent"])
@pytest.mark.shows("R10", "R12", "S3")
async def test_content_changes_between_runs(server: AssetServer, project: Project, etag: str) -> None:
    """A file replaced at its origin between two runs is never mixed with its old half."""
    faults: list[Fault] = [Reset(after=0, covering=400_000)]
    if etag == "absent":
        faults.insert(0, NoValidator())
    if etag == "stays":
        faults.insert(0, ETag(value='"same"'))
    old = seeded_bytes(SIZE, seed=8)
    file = server.add("/a.bin", old, faults=faults)
    path = project.add("a", [file.url], CONTENT)
    await checked_sync(project, server, retries=0, parallel=1)
    assert project.staged()
    file = server.add("/a.bin", CONTENT, faults=[f for f in faults if not isinstance(f, Reset)])
    run = await checked_sync(project, server)
    assert not run.failures
    assert path.read_bytes() == CONTENT


@pytest.mark.shows("R9", "B40", "S3")
async def test_content_changes_while_we_fetch(server: AssetServer, project: Project) -> None:
    """A file replaced at its origin half-way through is fetched again, not mixed."""
    old = seeded_bytes(SIZE, seed=8)
    file = server.add("/a.bin", old, faults=[ChangeContent(CONTENT, skip=4)])
    path = project.add("a", [file.url], CONTENT)
    run = await checked_sync(project, server, parallel=1)
    assert not run.failures
    assert path.read_bytes() == CONTENT
    assert run.heard.of("asset_restarted")


@pytest.mark.shows("R9", "R12", "S1", "S3")
async def test_content_changes_in_secret(server: AssetServer, project: Project) -> None:
    """The checksum reveals a change that the server hides; asked once more for the whole file, the server has it."""
    old = seeded_bytes(SIZE, seed=8)
    file = server.add("/a.bin", old, faults=[ChangeContent(CONTENT, keep_validators=True, skip=4)])
    path = project.add("a", [file.url], CONTENT)
    run = await checked_sync(project, server, parallel=1)
    assert not run.failures
    assert path.read_bytes() == CONTENT
    (restart,) = run.heard.of("asset_restarted")
    assert "asking for the whole" in str(restart["reason"])
    assert server.stats.requests[-1].range is None
    assert project.staged() == []


@pytest.mark.shows("R9", "R12", "B40", "S3")
async def test_unpinned_parts_are_never_mixed(server: AssetServer, project: Project) -> None:
    """Without a checksum, content that changes during the download ends as one of the two versions, complete."""
    old = seeded_bytes(SIZE, seed=8)
    for number, keep in enumerate((False, True)):
        changed = ChangeContent(CONTENT, keep_validators=keep, skip=2)
        file = server.add(f"/{number}.bin", old, faults=[changed, *([NoValidator()] if keep else [])])
        path = project.add(str(number), [file.url], CONTENT, pinned=False, size=False)
        run = await checked_sync(project, server, also_allowed=[old], allow_unpinned=True, parallel=1)
        assert not run.failures
        assert path.read_bytes() in (old, CONTENT)
        assert run.heard.of("asset_verified")[-1]["unverified"] is True


@pytest.mark.shows("A1", "A2")
async def test_retry_after_is_honoured(server: AssetServer, project: Project) -> None:
    """A server that asks to be left alone for a while is left alone, and a request for a year is capped."""
    file = server.add("/a.bin", CONTENT, faults=[RetryAfter(value="7", status=429, times=1)])
    project.add("a", [file.url], CONTENT)
    clock = ImpatientClock()
    run = await checked_sync(project, server, clock=clock)
    assert not run.failures
    assert any(7 <= delay < 10 for delay in clock.slept)


@pytest.mark.shows("R20")
async def test_an_empty_file(server: AssetServer, project: Project) -> None:
    """An empty file is fetched like any other, whether its size is known or not."""
    file = server.add("/a.bin", b"")
    for size in (True, False):
        path = project.add(f"a{size}", [file.url], b"", size=size)
        run = await checked_sync(project, server)
        assert not run.failures
        assert path.read_bytes() == b""


@pytest.mark.parametrize("size", [1, 16 * KIB - 1, 16 * KIB, 16 * KIB + 1, 64 * KIB, 64 * KIB + 1, 300 * KIB])
@pytest.mark.shows("R20")
async def test_sizes_at_the_edges(server: AssetServer, project: Project, size: int) -> None:
    """A size just at, below or above a piece or a segment is no special case."""
    content = seeded_bytes(size, seed=size)
    file = server.add("/a.bin", content)
    for known in (True, False):
        path = project.add(f"a{known}", [file.url], content, size=known)
        run = await checked_sync(project, server)
        assert not run.failures
        assert path.read_bytes() == content


@pytest.mark.shows("M13", "U4", "S8")
async def test_no_secret_is_kept(server: AssetServer, project: Project) -> None:
    """A secret in an address reaches the server, but no event, error, journal or log."""
    canary = "s3cr3t-canary"
    file = server.add("/a.bin", CONTENT, faults=[Reset(after=100_000, times=2), Status(404, skip=2)])
    url = file.url.replace("http://", f"http://user:{canary}@") + f"?token={canary}"
    project.add("a", [url], CONTENT)
    run = await checked_sync(project, server, parallel=1)
    texts = [str(run.failures["a"]), repr(run.failures["a"]), *(repr(event.as_json()) for event in run.heard.events)]
    assert not [text for text in texts if canary in text]
    assert canary.encode() not in project.all_text()
    request = server.stats.requests[0]
    assert canary in request.query
    assert request.headers["authorization"].startswith("Basic ")
