"""How other tools dealt with servers that answer wrongly, not at all, or too late, and what happens here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from grym_fetch import MirrorsExhausted
from grym_fetch.core.http import MAX_RETRY_AFTER_S
from grym_fetch.errors import DigestMismatch, LengthMismatch, Throttled
from grym_fetch.testing import (
    Chunked,
    ChunkedCut,
    CloseDelimited,
    ExpiringRedirect,
    Fault,
    FlipByte,
    FlippingETag,
    Gzip,
    HtmlPage,
    IgnoreIfRange,
    NoRanges,
    NoValidator,
    RangeNotSatisfiable,
    RefuseHead,
    RefuseRanges,
    Reset,
    RetryAfter,
    Stall,
    Status,
    Truncate,
    WrongFile,
    seeded_bytes,
)
from grym_fetch.testing.answers import Answer, Framing, RecordedRequest
from grym_fetch.testing.faults import BodyFault, FramingFault
from tests.regressions.world import HALF, SIZE, World
from tests.support.invariants import SLACK
from tests.support.project import KIB, ImpatientClock


@dataclass(frozen=True)
class Label(BodyFault):
    """Labels the bytes as encoded, but sends them unchanged."""

    label: str

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        return answer.with_header("Content-Encoding", self.label)


PAGE = b"<!doctype html><title>Please log in</title>".ljust(635)
"""As long as the page that was once stored as a model."""


@pytest.mark.shows("B3", "R15", "R23")
@pytest.mark.parametrize("fault", [Gzip(times=1), Gzip(times=1, ranges=True), RefuseHead()], ids=repr)
@pytest.mark.parametrize("size", [True, False], ids=["size known", "size unknown"])
async def test_huggingface_hub_3234_no_compressed_length_and_no_head_is_taken_for_the_files(
    world: World, fault: Fault, size: bool
) -> None:
    """The length comes from ranges of the unencoded bytes; no HEAD request is sent."""
    world.asset(fault, size=size)
    await world.arrives()
    assert {request.method for request in world.server.stats.requests} == {"GET"}


@pytest.mark.shows("R34")
@pytest.mark.parametrize("label", ["gzip", "x-gzip", "aws-chunked", "UTF-8", "none", "binary"])
@pytest.mark.parametrize("size", [True, False], ids=["size known", "size unknown"])
async def test_right_bytes_under_a_wrong_label_arrive(world: World, label: str, size: bool) -> None:
    """Content labelled as encoded but sent plain is the file: its checksum shows it."""
    world.asset(Label(label), size=size)
    await world.arrives()


@pytest.mark.shows("R15", "R34")
async def test_what_is_encoded_and_wrong_is_called_encoded(world: World) -> None:
    """If the digest differs, the error says under which label the bytes came."""
    world.asset(Gzip(), size=False)
    assert "sent it gzip-encoded" in str(await world.fails())
    world.asset(Gzip())
    assert "gzip-encoded content" in str(await world.fails())


@pytest.mark.shows("B6", "C1")
async def test_huggingface_hub_2589_a_page_of_635_bytes_is_called_a_page(world: World) -> None:
    """If the manifest has the size, the page is refused unread; otherwise by its digest. Both errors call it a page."""
    world.asset(HtmlPage(page=PAGE))
    failure = await world.fails()
    assert isinstance(failure, MirrorsExhausted)
    assert "web page" in str(failure)
    assert "635" in str(failure)
    world.asset(HtmlPage(page=PAGE), size=False)
    failure = await world.fails()
    assert isinstance(failure, DigestMismatch)
    assert "web page" in str(failure)
    assert world.project.staged() == []


@pytest.mark.shows("B7", "C6", "C9")
@pytest.mark.parametrize("actual", [SIZE - 1, SIZE + 1])
async def test_huggingface_hub_1521_a_file_of_another_size_is_the_sources_fault(world: World, actual: int) -> None:
    """The error has both sizes, and says where each comes from."""
    world.list(world.serve(content=seeded_bytes(actual, seed=11)))
    failure = await world.fails()
    assert isinstance(failure, MirrorsExhausted)
    assert isinstance(failure.failures[0].error, LengthMismatch)
    assert f"the manifest says {SIZE} bytes, the server {actual}" in str(failure)


@pytest.mark.shows("B9", "C4")
@pytest.mark.parametrize("faults", [[], [CloseDelimited()]], ids=["with a length", "without"])
async def test_modelscope_1365_nothing_is_called_nothing(world: World, faults: Sequence[Fault]) -> None:
    """An empty body is not called corrupt: the error says that 0 bytes came."""
    world.list(world.serve(*faults, content=b""), size=False)
    assert "0 bytes" in str(await world.fails())


@pytest.mark.shows("B17", "R22")
@pytest.mark.parametrize("status", [400, 403, 500])
async def test_ollama_an_error_page_is_not_written_where_the_part_belongs(world: World, status: int) -> None:
    """One of several connections gets an error whose page is as long as the part would be."""
    page = seeded_bytes(64 * KIB, seed=14)
    fault = Status(status, body=page, covering=HALF, times=1)
    world.list(world.serve(fault), world.serve(path="/mirror.bin"))
    await world.arrives()
    assert world.sent <= SIZE + len(page) + SLACK


@pytest.mark.shows("B17", "B56", "N12")
@pytest.mark.parametrize("after", [0, 1, 100 * KIB])
async def test_google_resumable_media_239_a_stall_ends_and_is_not_retried_for_ever(world: World, after: int) -> None:
    """A server that always sends a few bytes and then nothing is given up, with the reason."""
    world.asset(Stall(after=after), NoRanges())
    failure = await world.fails(stall_timeout=0.05, retries=2)
    assert isinstance(failure, MirrorsExhausted)
    assert "nothing arrived" in str(failure)
    assert world.asked <= 4


@pytest.mark.shows("B20")
@pytest.mark.parametrize("faults", [[], [CloseDelimited()], [Chunked()]], ids=["a length", "no length", "chunked"])
async def test_git_lfs_2030_a_server_that_breaks_off_and_has_no_ranges_comes_to_an_end(
    world: World, faults: Sequence[Fault]
) -> None:
    """Every try begins at the first byte and ends in the middle, so the number of tries is limited."""
    world.asset(NoRanges(), Truncate(after=HALF), *faults)
    assert isinstance(await world.fails(), MirrorsExhausted)
    assert world.asked <= 8


@pytest.mark.shows("B20")
@pytest.mark.parametrize("pinned", [True, False])
async def test_git_lfs_2030_getting_as_far_as_before_is_no_progress(world: World, pinned: bool) -> None:
    """Each try brings megabytes, but none of them is new: they do not renew the budget of retries."""
    world.right = seeded_bytes(5 * KIB * KIB, seed=17)
    world.asset(NoRanges(), Truncate(after=4 * KIB * KIB), *([] if pinned else [NoValidator()]), pinned=pinned)
    async with asyncio.timeout(60):
        failure = await world.fails(retries=2, allow_unpinned=True, may_lose=4 * KIB * KIB)
    assert isinstance(failure, MirrorsExhausted)
    assert world.asked <= 6


@pytest.mark.shows("B27", "C1")
@pytest.mark.parametrize(
    "fault", [HtmlPage(covering=HALF, times=1), Status(503, body=PAGE, covering=HALF, times=1)], ids=["200", "503"]
)
async def test_aria2_1115_an_error_page_inside_one_segment_is_not_in_the_file(world: World, fault: Fault) -> None:
    """The bytes of a page are nowhere in the file, whatever status it came with."""
    world.list(world.serve(fault), world.serve(path="/mirror.bin"))
    await world.arrives()


@pytest.mark.shows("B28", "N2")
@pytest.mark.parametrize("pinned", [True, False])
async def test_aria2_886_a_segment_that_was_aborted_is_not_complete(world: World, pinned: bool) -> None:
    """One range never arrives. Whatever else did, and with or without a checksum, the file is not put in place."""
    world.asset(Truncate(after=0, covering=HALF), pinned=pinned)
    async with asyncio.timeout(60):
        assert isinstance(await world.fails(allow_unpinned=True, retries=1), MirrorsExhausted)


@dataclass(frozen=True)
class LengthAndChunks(FramingFault):
    """Sends the body chunked, along with a wrong Content-Length."""

    value: str

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        answer = answer.with_header("Transfer-Encoding", "chunked").with_header("Content-Length", self.value)
        return replace(answer, framing=Framing.CHUNKED)


@pytest.mark.shows("B29", "N8")
@pytest.mark.parametrize("value", ["5", "99999999"])
@pytest.mark.parametrize("faults", [[], [NoRanges()]], ids=["ranges", "no ranges"])
async def test_aria2_473_a_length_beside_chunks_is_not_believed(
    world: World, value: str, faults: Sequence[Fault]
) -> None:
    """RFC 9112 section 6.3: such a response may be an attack. It is refused, and a mirror is asked."""
    bad = world.serve(LengthAndChunks(value), *faults)
    world.list(bad)
    assert "breaks the rules" in str(await world.fails())
    world.list(bad, world.serve(path="/mirror.bin"))
    await world.arrives()


@pytest.mark.shows("B31", "N2", "N3")
@pytest.mark.parametrize("fault", [Truncate(after=HALF), ChunkedCut(after=HALF)], ids=repr)
@pytest.mark.parametrize("pinned", [True, False])
async def test_aria2_1278_what_cannot_be_resumed_is_not_left_under_the_final_name(
    world: World, fault: Fault, pinned: bool
) -> None:
    """No ranges, no validator, perhaps no checksum, and never the whole file: the final name stays free."""
    world.asset(NoRanges(), NoValidator(), fault, pinned=pinned, size=pinned)
    assert isinstance(await world.fails(allow_unpinned=True), MirrorsExhausted)


@pytest.mark.shows("B34", "R13", "R28", "C3", "S3", "S12")
async def test_aria2_1526_mirrors_with_other_content_are_not_mixed(world: World) -> None:
    """The first has a different file of the same size and fails half-way; the second is right. So is the result."""
    bad = world.serve(WrongFile(), Truncate(after=0, covering=HALF), path="/bad.bin")
    world.list(bad, world.serve())
    await world.arrives()
    assert world.last is not None
    assert world.last.of("asset_restarted")


@pytest.mark.shows("B50", "A6")
async def test_transformers_45797_a_signed_address_that_is_always_expired_is_no_loop(world: World) -> None:
    """Every address given out is refused: after a few walks the run ends and says why."""
    target = world.serve(path="/signed.bin")
    world.list(world.serve(ExpiringRedirect(to=target.path, uses=0)))
    failure = await world.fails()
    assert isinstance(failure, MirrorsExhausted)
    assert "403" in str(failure)
    assert world.asked <= 40


@pytest.mark.shows("B50", "A6")
@pytest.mark.parametrize(("pipelining", "lost"), [(False, 64 * KIB), (True, 192 * KIB)], ids=["in turn", "ahead"])
async def test_xet_core_238_signed_addresses_that_expire_again_and_again_hang_nothing(
    world: World, pipelining: bool, lost: int
) -> None:
    """Each address opens the file twice. No connection waits forever, and no bytes are lost except some sent ahead."""
    target = world.serve(path="/signed.bin")
    world.list(world.serve(ExpiringRedirect(to=target.path, uses=2)))
    await world.arrives(pipelining=pipelining)
    assert world.sent <= SIZE + lost


@pytest.mark.shows("B51", "R14")
@pytest.mark.parametrize("further", [(), (IgnoreIfRange(),)], ids=["as it should", "whatever If-Range says"])
@pytest.mark.parametrize("pinned", [True, False])
async def test_aria2_next_46_an_etag_that_changes_with_each_request_is_noise(
    world: World, pinned: bool, further: tuple[Fault, ...]
) -> None:
    """It is not a failure: with a checksum the parts are combined, without one the file is read as one stream."""
    world.asset(FlippingETag(), *further, pinned=pinned)
    await world.arrives(allow_unpinned=True, retries=0)


@pytest.mark.shows("B57", "A2")
@pytest.mark.parametrize("value", ["9999999999", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT", "-5"])
async def test_urllib3_3743_a_giant_retry_after_is_neither_a_crash_nor_a_life(world: World, value: str) -> None:
    """Whatever a server asks for, nobody waits longer than two minutes for it."""
    world.asset(RetryAfter(value, status=429, times=1))
    clock = ImpatientClock()
    await world.arrives(clock=clock)
    assert max(clock.slept) <= MAX_RETRY_AFTER_S + 30


@pytest.mark.shows("B57", "A2")
async def test_go_retryablehttp_247_a_server_that_always_wants_to_wait_is_given_up(world: World) -> None:
    """A budget ends this, too, and the error says that the server wanted to be left alone."""
    world.asset(RetryAfter("999999999"))
    clock = ImpatientClock()
    failure = await world.fails(clock=clock, retries=2)
    assert isinstance(failure, MirrorsExhausted)
    assert isinstance(failure.failures[0].error, Throttled)
    assert sum(clock.slept) <= 3 * (MAX_RETRY_AFTER_S + 30)


@pytest.mark.shows("B65", "R18")
@pytest.mark.parametrize("value", [None, "*/9", f"*/{SIZE}", "bytes */", "bytes */x", "bytes 0-9/*", "", "*"])
@pytest.mark.parametrize("size", [True, False], ids=["size known", "size unknown"])
async def test_starlette_a_416_in_any_dress_is_read_or_passed_over(world: World, value: str | None, size: bool) -> None:
    """After a 416 without a Content-Range, or with a nonsensical one, the whole file is requested."""
    world.asset(RangeNotSatisfiable(content_range=value), size=size)
    await world.arrives()


@pytest.mark.shows("B15", "C2", "C5")
async def test_ollama_941_a_wrong_digest_is_mended_without_a_hand(world: World) -> None:
    """Wrong bytes from an earlier run and from one mirror are both found and replaced in one run."""
    first = world.serve(FlipByte(at=9))
    world.list(first)
    await world.break_off(first)
    world.list(first, world.serve(path="/mirror.bin"))
    await world.arrives()


@pytest.mark.shows("B39", "C8", "S1")
@pytest.mark.parametrize("faults", [[], [NoRanges()]], ids=["ranges", "one stream"])
@pytest.mark.parametrize("at", [0, HALF, SIZE - 1])
async def test_dragonfly_3031_a_digest_is_compared_on_every_way(world: World, faults: Sequence[Fault], at: int) -> None:
    """A wrong bit at the start, in the middle or at the end is found in ranges or in one stream, fresh or resumed."""
    file = world.serve(FlipByte(at=at), *faults)
    world.list(file)
    assert isinstance(await world.fails(), DigestMismatch)
    assert world.project.staged() == []


@pytest.mark.shows("R1")
async def test_ours_a_server_that_loses_its_ranges_after_a_break_is_read_as_one_stream(world: World) -> None:
    """One break uses up the patience with broken answers; the loss of ranges does not count as one of these."""
    world.asset(Reset(after=0, skip=1, times=1), NoRanges(skip=4))
    await world.arrives(may_lose=SIZE)  # the stream passes over what ranges have brought


@pytest.mark.shows("R29", "S12")
@pytest.mark.parametrize("status", [404, 403])
async def test_ours_missing_files_say_nothing_of_a_server_that_refuses_ranges(world: World, status: int) -> None:
    """Three assets do not exist at all; the fourth does, if requested without a range."""
    for number in range(3):
        missing = world.serve(Status(status), path=f"/{number}.bin")
        world.project.add(f"m{number}", [missing.url], world.right)
    world.asset(RefuseRanges(status=status))
    assert await world.sync(parallel=1) is None
    assert world.last is not None
    assert [event["asset"] for event in world.last.of("asset_verified")] == ["a"]
