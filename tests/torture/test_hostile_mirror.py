"""A mirror that always lies in every way the fault server knows, beside an honest one: the file arrives."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from grym_fetch.testing import (
    AnswerFault,
    AssetServer,
    BigHeaders,
    BodyFault,
    ChangeContent,
    Chunked,
    ChunkedCut,
    CloseDelimited,
    ContentLength,
    ContentRange,
    Delay,
    Drip,
    Endless,
    ETag,
    ExpiringRedirect,
    Fault,
    FlipByte,
    FlippingETag,
    FramingFault,
    Gate,
    Gzip,
    HangBeforeBody,
    HangBeforeHeaders,
    Hold,
    HtmlPage,
    IgnoreIfRange,
    LastModified,
    LongPartial,
    LyingTotal,
    MultipartRanges,
    NoRanges,
    NoValidator,
    PartFault,
    RangeNotSatisfiable,
    RawAnswer,
    Redirect,
    RedirectLoop,
    RefuseHead,
    RefuseRanges,
    Reset,
    ResourceFault,
    RetryAfter,
    ServerGone,
    ShiftRange,
    ShortPartial,
    SliceAs200,
    Stall,
    Status,
    Throttle,
    Truncate,
    WeakETag,
    WrongFile,
    seeded_bytes,
)
from grym_fetch.transfer import small_files
from tests.support.invariants import Recorder, checked_sync
from tests.support.project import KIB, ImpatientClock, Project
from tests.support.sweeps import typical

pytestmark = pytest.mark.shows("S12")

SIZE = 300 * KIB + 17
CONTENT = seeded_bytes(SIZE, seed=21)
OTHER = seeded_bytes(SIZE, seed=22)
MOST_REQUESTS = 60

LIES: dict[type[Fault], list[Fault]] = {
    BigHeaders: [BigHeaders(), BigHeaders(count=1, size=10_000_000)],
    ChangeContent: [ChangeContent(OTHER, skip=2), ChangeContent(CONTENT + b"!")],
    Chunked: [Chunked()],
    ChunkedCut: [ChunkedCut(after=1000), ChunkedCut()],
    CloseDelimited: [CloseDelimited(), CloseDelimited(http10=True)],
    ContentLength: [ContentLength("-1"), ContentLength(str(2**64)), ContentLength("7"), ContentLength("1, 2")],
    ContentRange: [ContentRange(None), ContentRange("bytes 9-1/5"), ContentRange(f"bytes 0-0/{2**70}")],
    Delay: [Delay(seconds=0.05)],
    Drip: [Drip(chunk=1, interval=0.05)],
    ETag: [ETag('"' + "e" * 10_000 + '"'), ETag("\x9b")],
    Endless: [Endless(), Endless(chunked=False)],
    ExpiringRedirect: [ExpiringRedirect("/behind", uses=1), ExpiringRedirect("/behind", uses=0)],
    FlipByte: [FlipByte(at=0), FlipByte(at=SIZE - 1)],
    FlippingETag: [FlippingETag()],
    Gzip: [Gzip()],
    HangBeforeBody: [HangBeforeBody()],
    HangBeforeHeaders: [HangBeforeHeaders()],
    Hold: [Hold(Gate(), at=20_000)],
    HtmlPage: [HtmlPage()],
    IgnoreIfRange: [IgnoreIfRange()],
    LastModified: [LastModified("the day after tomorrow")],
    LongPartial: [LongPartial(by=100_000)],
    LyingTotal: [LyingTotal(total=SIZE - 1), LyingTotal(total=2**62)],
    MultipartRanges: [MultipartRanges()],
    NoRanges: [NoRanges()],
    NoValidator: [NoValidator()],
    RangeNotSatisfiable: [RangeNotSatisfiable(content_range=None), RangeNotSatisfiable(content_range="bytes */1")],
    RawAnswer: [
        RawAnswer(b""),
        RawAnswer(b"\x00" * 70_000),
        RawAnswer(b"SSH-2.0-x\r\n", hold=True),
        RawAnswer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
        RawAnswer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n"),
        RawAnswer(b"HTTP/1.1 100 Continue\r\n\r\n" * 5000),
        RawAnswer(b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9/10\r\n\r\n0123456789"),
    ],
    Redirect: [
        Redirect("http://169.254.169.254/latest"),
        Redirect("file:///etc/passwd"),
        Redirect("//[::ffff:a9fe:a9fe]/"),
        Redirect(""),
        Redirect("http://[::]:p@"),
        Redirect("http://" + "a" * 9000),
        Redirect("/wrong", status=308),
    ],
    RedirectLoop: [RedirectLoop(), RedirectLoop(growing=True)],
    RefuseHead: [RefuseHead()],
    RefuseRanges: [RefuseRanges(status=403), RefuseRanges(status=501)],
    Reset: [Reset(after=0), Reset(after=10_000)],
    RetryAfter: [RetryAfter("999999999"), RetryAfter("-1", status=429), RetryAfter("\x9b")],
    ServerGone: [ServerGone(), ServerGone(reset=True)],
    ShiftRange: [ShiftRange(by=1), ShiftRange(by=1, truthful=False)],
    ShortPartial: [ShortPartial(by=1)],
    SliceAs200: [SliceAs200(), SliceAs200(content_range=False)],
    Stall: [Stall(after=0), Stall(after=20_000)],
    Status: [Status(n) for n in (204, 304, 400, 401, 404, 407, 418, 451, 500, 503)],
    Throttle: [Throttle(rate=400_000)],
    Truncate: [Truncate(after=0), Truncate(after=20_000)],
    WeakETag: [WeakETag()],
    WrongFile: [WrongFile(), WrongFile(seed=5)],
}
"""Every kind of fault there is, in the shapes that hurt most; none of them passes."""

KINDS = {Fault, AnswerFault, BodyFault, FramingFault, PartFault, ResourceFault}


def kinds(base: type[Fault] = Fault) -> set[type[Fault]]:
    """Every fault that the package has."""
    found = {kind for kind in base.__subclasses__() if kind.__module__.startswith("grym_fetch.testing.")}
    return found.union(*(kinds(kind) for kind in base.__subclasses__())) - KINDS


@pytest.fixture
async def server() -> AsyncIterator[AssetServer]:
    async with AssetServer() as running:
        running.add("/behind", CONTENT)
        running.add("/wrong", OTHER)
        running.add("/good.bin", CONTENT)
        yield running


async def fetch(
    tmp_path: Path, server: AssetServer, faults: list[Fault], *, size: bool = True, last: bool = False
) -> None:
    """Fetch with a bad mirror and a good one: in the end, and at every instant, the file is right or absent."""
    bad = server.add("/bad.bin", CONTENT, faults=faults).url
    good = server.url("/good.bin")
    project = Project(tmp_path / "project")
    path = project.add("a", [good, bad] if last else [bad, good], CONTENT, size=size)
    run = await checked_sync(project, server, stall_timeout=0.15, may_lose=None)
    assert run.failures == {}
    assert path.read_bytes() == CONTENT
    assert project.staged() == []
    assert len(server.stats.requests) < MOST_REQUESTS


def test_every_kind_of_fault_is_here() -> None:
    """Any new lie taught to the server must be tried here."""
    assert kinds() == LIES.keys()


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, id=f"{kind.__name__} {n}", marks=[pytest.mark.sweep] if n else [])
        for kind, faults in LIES.items()
        for n, fault in enumerate(faults)
    ],
)
async def test_one_lie(tmp_path: Path, server: AssetServer, fault: Fault) -> None:
    """Whatever one mirror keeps doing, the other one makes up for it."""
    await fetch(tmp_path, server, [fault])


async def test_what_makes_us_fail_is_the_failure_of_one_mirror(
    tmp_path: Path, server: AssetServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug of ours that a server triggers, as in the reader of redirects, does not cost the other mirrors' file."""

    def fail(*_: object) -> None:
        raise IndexError("string index out of range")

    monkeypatch.setattr("grym_fetch.transfer.request.follow_redirect", fail)
    await fetch(tmp_path, server, [Redirect("/x")])


async def test_a_wrong_digest_turns_to_a_mirror_and_says_so(tmp_path: Path, server: AssetServer) -> None:
    """The events report this switch like any other, with its reason."""
    bad = server.add("/bad.bin", bytes(len(CONTENT))).url
    project = Project(tmp_path)
    project.add("a", [bad, server.url("/good.bin")], CONTENT)
    async with project.manager() as manager:
        recorder = Recorder(manager)
        await manager.get_asset_path("a")
    (switch,) = recorder.of("mirror_switched")
    assert (switch["from"], switch["to"]) == (bad, server.url("/good.bin"))
    assert "checksum does not match" in str(switch["reason"])


class FastClock(ImpatientClock):
    """A minute goes by in 0.15 seconds: a crawl takes long, while no silence does."""

    def monotonic(self) -> float:
        """400 times as many seconds."""
        return 400 * super().monotonic()


@pytest.mark.shows("N13")
async def test_who_gives_a_few_bytes_now_and_then_is_left(tmp_path: Path, server: AssetServer) -> None:
    """A mirror that never stalls but makes no progress is left with the reason; a lone one is waited for."""
    bad = server.add("/bad.bin", CONTENT, faults=[Drip(chunk=5, interval=0.02)]).url
    project = Project(tmp_path / "project")
    project.add("a", [bad, server.url("/good.bin")], CONTENT)
    async with asyncio.timeout(60), project.manager(FastClock()) as manager:
        recorder = Recorder(manager)
        await manager.get_asset_path("a")
    (switch,) = recorder.of("mirror_switched")
    assert switch["reason"] == "slower than 1 KiB/s for 60 s"
    content = CONTENT[:200]
    alone = server.add("/alone.bin", content, faults=[Drip(chunk=5, interval=0.02)]).url
    path = project.add("a", [alone, alone], content)
    async with asyncio.timeout(60), project.manager(FastClock()) as manager:
        await manager.get_asset_path("a")
    assert path.read_bytes() == content


@pytest.mark.shows("N13")
async def test_small_assets_are_not_held_up_either(
    tmp_path: Path, server: AssetServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The short way of small assets is limited, too; then they go the long way, to the next mirror."""
    monkeypatch.setattr(small_files, "CRAWL_TIMEOUT_S", 0.1)
    content = CONTENT[: 50 * KIB]
    bad = server.add("/bad.bin", content, faults=[Drip(chunk=5, interval=0.02)]).url
    good = server.add("/small.bin", content).url
    project = Project(tmp_path / "project")
    paths = [project.add(f"a{n}", [bad, good], content) for n in range(5)]
    async with asyncio.timeout(60), project.manager(stall_timeout=0.15) as manager:
        await manager.sync()
    assert [path.read_bytes() == content for path in paths] == [True] * 5


@pytest.mark.parametrize("seed", typical(range(12), 0, 1))
async def test_several_lies(tmp_path: Path, server: AssetServer, seed: int) -> None:
    """Three lies at once, some only now and then, whichever mirror comes first, with and without a size."""
    chance = random.Random(seed)
    every = [fault for faults in LIES.values() for fault in faults]
    faults = chance.sample(every, 3)
    await fetch(tmp_path, server, faults, size=chance.random() < 0.5, last=chance.random() < 0.5)


async def test_a_mirror_with_more_bytes_than_any_disk(tmp_path: Path, server: AssetServer) -> None:
    """If the manifest has no size, the first mirror's absurd length is not a reason to call the disk full."""
    liar = server.add("/liar", CONTENT, faults=[ContentLength("9999999999999999"), NoRanges()]).url
    honest = server.add("/honest", CONTENT).url
    project = Project(tmp_path / "project")
    project.add("a", [liar, honest], CONTENT, size=None)
    async with project.manager() as manager:
        path = await manager.get_asset_path("a")
    assert path.read_bytes() == CONTENT
