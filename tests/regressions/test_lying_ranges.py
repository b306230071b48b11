"""Servers that refuse ranges in odd ways or answer them with other bytes, and caches that hold an old file."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from grym_fetch import MirrorsExhausted
from grym_fetch.errors import DigestMismatch, LengthMismatch
from grym_fetch.testing import (
    Chunked,
    Fault,
    NoRanges,
    NoValidator,
    PartFault,
    Reset,
    ServerGone,
    Status,
    seeded_bytes,
)
from grym_fetch.testing.answers import Answer, RecordedRequest, Resource, Span
from grym_fetch.testing.content import as_content
from grym_fetch.testing.faults import ResourceFault
from tests.regressions.world import CONTENT, HALF, SIZE, World
from tests.support.project import KIB

OLD = seeded_bytes(SIZE, seed=12)


@dataclass(frozen=True)
class FirstBytes(PartFault):
    """Answers each range with the right header and the first bytes of the file, as a broken gateway does."""

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        return answer.with_body(Span(answer.body.content, 0, answer.body.length))


@dataclass(frozen=True)
class ClippedBody(PartFault):
    """Names the end of the requested range and no total, chunked, whatever the file has (koa-range)."""

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        assert request.range is not None
        asked = request.range.removeprefix("bytes=")
        answer = Chunked().bend(answer, request, hit)
        return answer.with_header("Content-Range", f"bytes {asked}/*")


@dataclass(frozen=True)
class StaleCache(ResourceFault):
    """Serves an old file, until a request asks that no cache answer it."""

    old: bytes

    def applies(self, request: RecordedRequest, answer: Answer) -> bool:
        """Whether a cache may answer."""
        return request.headers.get("Cache-Control") != "no-cache"

    def bend_resource(self, resource: Resource, hit: int) -> Resource:
        content = as_content(self.old)
        return replace(resource, content=content, etag=f'"{content.fingerprint()}"')


@pytest.mark.shows("R29")
@pytest.mark.parametrize(
    "fault",
    [*(Status(code, ranged=True) for code in (404, 405, 406, 500, 503)), ServerGone(reset=True, ranged=True)],
    ids=repr,
)
@pytest.mark.parametrize("size", [True, False], ids=["size known", "size unknown"])
async def test_a_refusal_of_ranges_is_not_one_of_the_content(world: World, fault: Fault, size: bool) -> None:
    """Whatever a firewall answers to a Range, the file is fetched without one."""
    world.asset(fault, size=size)
    await world.arrives(retries=1)
    assert [request.range for request in world.server.stats.requests if request.range is None] == [None]


@pytest.mark.shows("R29", "A4")
@pytest.mark.parametrize("status", [404, 410, 451])
async def test_what_is_not_there_is_asked_for_twice_at_most(world: World, status: int) -> None:
    """Once with a range and once without; a file that is gone for good only once."""
    world.asset(Status(status))
    assert isinstance(await world.fails(), MirrorsExhausted)
    assert world.asked == (1 if status == 410 else 2)


@pytest.mark.shows("R30")
async def test_ranges_that_bring_the_beginning_are_found_out(world: World) -> None:
    """This holds even with a single address: its complete answer differs, and is accepted."""
    world.asset(FirstBytes())
    await world.arrives()
    assert world.sent < 2 * SIZE + 200 * KIB


@pytest.mark.shows("R30", "C3")
@pytest.mark.parametrize("faults", [[], [NoValidator()]], ids=["with an ETag", "without"])
async def test_other_content_is_not_fetched_twice(world: World, faults: list[Fault]) -> None:
    """It is the same up to four borders of ranges that came ahead, and sixteen pieces: no more is requested.

    How far that is depends on how fast the machine was: such a range may be long.
    """
    long = seeded_bytes(4 * SIZE, seed=11)
    world.right = long
    world.list(world.serve(*faults, content=seeded_bytes(4 * SIZE, seed=12)))
    assert isinstance(await world.fails(), DigestMismatch)
    assert world.last is not None
    (end,) = world.last.of("run_finished")
    assert len(long) < end["downloaded_bytes"] < 1.75 * len(long)  # type: ignore[operator]


@pytest.mark.shows("R32")
@pytest.mark.parametrize("old", [OLD, OLD[:-100]], ids=["same length", "another length"])
@pytest.mark.parametrize("faults", [[], [NoRanges()]], ids=["ranges", "no ranges"])
@pytest.mark.parametrize("size", [True, False], ids=["size known", "size unknown"])
async def test_a_cache_with_the_old_file_is_passed_by(
    world: World, old: bytes, faults: list[Fault], size: bool
) -> None:
    """The only address is asked once more, in a way that no cache answers."""
    world.asset(StaleCache(old), *faults, size=size)
    await world.arrives()


@pytest.mark.shows("R32", "C9")
async def test_a_length_that_stays_wrong_past_the_caches_is_told(world: World) -> None:
    """It is asked twice, and then given up."""
    world.list(world.serve(content=OLD[:-1]))
    failure = await world.fails()
    assert isinstance(failure, MirrorsExhausted)
    assert isinstance(failure.failures[0].error, LengthMismatch)
    assert world.asked == 2


@pytest.mark.shows("R31")
@pytest.mark.parametrize("pinned", [True, False], ids=["checksum", "no checksum"])
async def test_a_206_that_names_more_than_there_is(world: World, pinned: bool) -> None:
    """Its body ends cleanly before the end it names: the whole file is requested, and ends where it ends."""
    world.right = CONTENT[: 40 * KIB]
    world.asset(ClippedBody(), size=False, pinned=pinned)
    await world.arrives(allow_unpinned=True, retries=0)


@pytest.mark.shows("R33", "R2")
async def test_a_stale_checksum_costs_one_download_where_there_are_no_ranges(world: World) -> None:
    """The stream repeats what an earlier run left, and counts it as its own."""
    file = world.serve(NoRanges(), content=OLD)
    world.list(file)
    file.faults = (NoRanges(), Reset(after=HALF))
    await world.fails(retries=0, parallel=1, may_lose=None)
    file.faults = (NoRanges(),)
    world.forget()
    assert isinstance(await world.fails(may_lose=None), DigestMismatch)
    assert world.last is not None
    (end,) = world.last.of("run_finished")
    assert end["downloaded_bytes"] < SIZE + 100 * KIB  # type: ignore[operator]
