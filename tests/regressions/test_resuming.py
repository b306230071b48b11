"""How other tools dealt with a broken download, and what happens to it here.

Each test has the number of its bug in the mark; its name says which project's it was and what went wrong.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from grym_fetch import MirrorsExhausted, StorageError
from grym_fetch.core.digest import Checksum
from grym_fetch.core.events import AssetVerifying
from grym_fetch.disk.stage import DiskStage
from grym_fetch.testing import (
    Chunked,
    ContentRange,
    Fault,
    NoRanges,
    RangeNotSatisfiable,
    Reset,
    ShiftRange,
    ShortPartial,
    SliceAs200,
    Truncate,
    seeded_bytes,
)
from grym_fetch.testing.answers import Answer, RecordedRequest, Span
from grym_fetch.testing.faults import PartFault
from grym_fetch.transfer import hashing, reporter
from tests.regressions.world import CONTENT, HALF, SIZE, World
from tests.support.invariants import SLACK
from tests.support.project import KIB, SMALL


@pytest.mark.shows("B1", "R2")
async def test_huggingface_hub_3778_the_whole_file_in_answer_to_a_retry_is_not_appended(world: World) -> None:
    """A node that ignores the Range of a retry, within one run, makes the file neither longer nor wrong."""
    world.asset(Reset(after=200 * KIB, times=1, ranged=True), NoRanges(skip=1))
    await world.arrives(parallel=1)
    assert all(request.headers["accept-encoding"] == "identity" for request in world.server.stats.requests)


@pytest.mark.shows("B18", "R1", "R2")
@pytest.mark.parametrize("pinned", [True, False])
async def test_git_lfs_6056_a_200_to_a_resumed_request_needs_no_hand(world: World, pinned: bool) -> None:
    """The next run requests the rest, gets the whole file, and is right at once: nothing must be deleted by hand."""
    file = world.serve()
    world.list(file, pinned=pinned)
    await world.break_off(file, allow_unpinned=True)
    file.faults = (NoRanges(),)
    await world.arrives(allow_unpinned=True)
    assert world.server.stats.requests[0].range is not None


@pytest.mark.shows("B41", "R1")
async def test_yt_dlp_2001_a_part_does_not_become_the_whole_file(world: World) -> None:
    """Of several connections, some get the requested range and some the whole file."""
    world.asset(NoRanges(skip=1, times=3))
    await world.arrives()


@pytest.mark.shows("B41", "R16", "R17")
async def test_yt_dlp_12994_a_416_from_an_address_that_has_changed_is_survived(world: World) -> None:
    """The file has a new address, whose server calls the rest of it unsatisfiable at first."""
    file = world.serve()
    world.list(file)
    await world.break_off(file)
    world.list(world.serve(RangeNotSatisfiable(content_range=f"bytes */{SIZE}", times=1), path="/new.bin"))
    await world.arrives()


@pytest.mark.shows("B42", "R2")
async def test_you_get_2804_a_chunked_answer_is_not_appended_from_the_start(world: World) -> None:
    """Without a length and without ranges, the file's start is not taken for its rest, which was requested."""
    file = world.serve()
    world.list(file)
    await world.break_off(file)
    file.faults = (Chunked(), NoRanges())
    await world.arrives()
    assert world.server.stats.requests[0].range is not None


@pytest.mark.shows("B43", "R4")
async def test_httrack_428_a_206_that_starts_too_early_brings_no_byte_twice(world: World) -> None:
    """A server that rounds the start down to a block is asked for the whole file instead."""
    file = world.serve()
    world.list(file)
    await world.break_off(file)
    file.faults = (ShiftRange(by=-512),)
    await world.arrives()


@pytest.mark.shows("B46", "R2", "R4")
@pytest.mark.parametrize("fault", [NoRanges(), ShiftRange(by=512), ContentRange(value="bytes 0-9/10")], ids=repr)
async def test_eliza_29454_what_is_measured_after_a_resume_is_not_the_digest_of_a_mixture(
    world: World, fault: PartFault
) -> None:
    """`pin` writes the checksum of what it fetched, so a download resumed from a bad server must be one version."""
    file = world.serve()
    world.list(file, pinned=False, size=False)
    await world.break_off(file, allow_unpinned=True)
    file.faults = (fault,)
    async with world.project.manager() as manager:
        await manager.pin(["a"])
    assert f'"{Checksum.of(CONTENT).bare}"' in world.project.manifest.read_text()
    assert world.path.read_bytes() == CONTENT


@pytest.mark.shows("B8", "R3")
@pytest.mark.parametrize(
    "faults",
    [[SliceAs200()], [SliceAs200(content_range=False)], [SliceAs200(), Chunked()]],
    ids=["with Content-Range", "with Content-Length", "chunked"],
)
@pytest.mark.parametrize("known", [True, False], ids=["size known", "size unknown"])
async def test_modelscope_hub_50_a_slice_called_200_is_not_the_file(
    world: World, faults: list[Fault], known: bool
) -> None:
    """A slice from the middle, sent as if it were the file, is not written at its start."""
    file = world.serve()
    world.list(file, size=known)
    await world.break_off(file)
    file.faults = tuple(faults)
    await world.arrives()


@dataclass(frozen=True)
class FileStart(PartFault):
    """Answers 206 with the file's first bytes, as many as were requested, and no Content-Range."""

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        body = answer.body
        return replace(answer, body=Span(body.content, 0, body.length)).with_header("Content-Range", None)


@pytest.mark.shows("B35", "R5")
async def test_rclone_6980_a_206_without_a_content_range_is_not_believed(world: World) -> None:
    """Each part had the right length, but contained the file's first bytes."""
    world.asset(FileStart(skip=1))
    await world.arrives()


@pytest.mark.shows("B37", "R1")
@pytest.mark.parametrize("pinned", [True, False])
async def test_dragonfly_client_1889_an_origin_that_ignores_ranges_gives_the_right_bytes(
    world: World, pinned: bool
) -> None:
    """A piece cut from the start of a whole file has the right length, but is the wrong part of it."""
    world.asset(NoRanges(), pinned=pinned)
    await world.arrives(allow_unpinned=True)


@pytest.mark.shows("B4", "R17")
async def test_huggingface_hub_2197_a_part_longer_than_the_file_does_not_mean_416_for_ever(world: World) -> None:
    """The file became shorter than what is here of it. One run is enough, without manual help."""
    longer = seeded_bytes(SIZE, seed=12)
    file = world.serve(content=longer)
    world.right = longer
    world.list(file, pinned=False, size=False)
    await world.break_off(file, at=SIZE - 10, allow_unpinned=True)
    world.right = CONTENT[:HALF]
    world.serve()
    await world.arrives(allow_unpinned=True, retries=0)


@pytest.mark.shows("B19", "B25", "R16", "R19")
@pytest.mark.parametrize("pinned", [True, False])
async def test_git_lfs_3172_a_file_that_is_complete_is_not_asked_for(world: World, pinned: bool) -> None:
    """All bytes had arrived when the first run ended; the second puts them in place without any request."""
    world.asset(pinned=pinned)
    await world.leave_whole(allow_unpinned=True)
    world.serve(RangeNotSatisfiable(content_range=f"bytes */{SIZE}"))
    await world.arrives(allow_unpinned=True)
    assert world.asked == 0


@pytest.mark.shows("B21")
@pytest.mark.parametrize("number", [errno.EBUSY, errno.EXDEV, errno.ESTALE], ids=errno.errorcode.get)
async def test_git_lfs_4229_a_rename_that_fails_does_not_break_the_resuming(world: World, number: int) -> None:
    """However the last step fails, the part is kept as it was, and the next run only repeats that step."""
    world.asset()
    with pytest.MonkeyPatch.context() as patch:
        # Between two file systems the file would be copied: here that fails as well.
        patch.setattr("grym_fetch.disk.stage.DiskStage._copy_across", failing(errno.EIO))
        await world.leave_whole(number=number)
    await world.arrives()
    assert world.asked == 0


@pytest.mark.shows("B24", "R16")
async def test_curl_2288_the_page_of_a_416_is_not_appended_to_a_finished_file(world: World) -> None:
    """A right file in place is neither requested nor touched, whatever the server would answer."""
    file = world.serve()
    world.list(file)
    await world.arrives()
    file.faults = (RangeNotSatisfiable(content_range=f"bytes */{SIZE}"),)
    world.forget()
    await world.arrives()
    assert world.asked == 0


@pytest.mark.shows("B25", "R16")
@pytest.mark.parametrize("content_range", [f"bytes */{SIZE}", None])
async def test_curl_12174_a_416_for_the_last_bytes_is_no_end(world: World, content_range: str | None) -> None:
    """With or without a Content-Range: if a server answers 416 to a valid range, the whole file is requested."""
    file = world.serve()
    world.list(file)
    await world.break_off(file, at=SIZE - 1)
    file.faults = (RangeNotSatisfiable(content_range=content_range),)
    await world.arrives()


@pytest.mark.shows("B30", "P4")
@pytest.mark.parametrize("damage", ["zeros", "empty", "gone", "half", "rubbish"])
async def test_aria2_790_a_damaged_journal_costs_bytes_and_nothing_else(world: World, damage: str) -> None:
    """A journal that a crash left as zeros, empty or torn stops no run and spoils no file."""
    file = world.serve()
    world.list(file)
    await world.break_off(file)
    journal = world.stage / "journal"
    text = journal.read_bytes()
    if damage == "gone":
        journal.unlink()
    else:
        journal.write_bytes(
            {"zeros": bytes(len(text)), "empty": b"", "half": text[: len(text) // 2], "rubbish": text[::-1]}[damage]
        )
    await world.arrives()


@pytest.mark.shows("B32", "P7")
async def test_aria2_2204_bytes_without_a_journal_are_no_reason_to_refuse(world: World) -> None:
    """A part without a journal is started afresh, without asking the user."""
    file = world.serve()
    world.list(file)
    await world.break_off(file)
    (world.stage / "journal").unlink()
    await world.arrives()
    assert world.sent <= SIZE + SLACK


@pytest.mark.shows("B33")
async def test_aria2_1257_one_bad_piece_is_one_piece_fetched_again(world: World) -> None:
    """If one byte of a complete part was changed on disk, only the piece with that byte is fetched."""
    world.asset()
    await world.leave_whole()
    part = world.stage / "part"
    data = bytearray(part.read_bytes())
    data[HALF] ^= 0xFF
    part.write_bytes(data)
    await world.arrives()
    assert world.sent <= SMALL.piece


@pytest.mark.shows("B44", "P5")
async def test_conda_13488_what_somebody_appended_to_a_part_is_not_in_the_file(world: World) -> None:
    """Bytes written after or over what is claimed are found out, whoever wrote them."""
    file = world.serve()
    world.list(file)
    await world.break_off(file)
    with (world.stage / "part").open("ab") as part:
        part.write(seeded_bytes(SIZE, seed=13))
    await world.arrives()


@pytest.mark.shows("B47", "D8", "P2")
async def test_foundry_local_909_a_part_of_zeros_of_full_length_is_not_healthy(world: World) -> None:
    """The journal claims every byte, and the disk has lost them all but their number: all are fetched again."""
    world.asset()
    await world.leave_whole()
    (world.stage / "part").write_bytes(bytes(SIZE))
    await world.arrives()
    assert world.sent >= SIZE


@pytest.mark.shows("B48", "P2", "P6")
@pytest.mark.parametrize("left", [0, HALF])
async def test_nextcloud_10547_a_journal_that_is_ahead_of_its_data_spreads_no_empty_file(
    world: World, left: int
) -> None:
    """The journal survived a power cut, but the data did not, or not all of it."""
    world.asset()
    await world.leave_whole()
    os.truncate(world.stage / "part", left)
    await world.arrives()
    assert SIZE - left <= world.sent <= SIZE - left + SLACK


@pytest.mark.posix
@pytest.mark.shows("B16", "D15")
async def test_ollama_8769_a_stage_that_vanishes_before_the_rename_is_an_error_and_not_the_end(world: World) -> None:
    """Somebody deletes the part when every byte is there. The run reports it; the next one fetches it."""
    world.asset()
    publish = DiskStage.publish

    async def vanish(stage: DiskStage, size: int) -> Path:
        shutil.rmtree(world.stage)
        return await publish(stage, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DiskStage, "publish", vanish)
        assert isinstance(await world.fails(), StorageError)
    await world.arrives()


@pytest.mark.shows("B54", "N1")
async def test_uv_16934_a_body_that_breaks_off_is_not_fetched_again_from_its_start(world: World) -> None:
    """Broken off again and again, the file costs hardly more than its bytes."""
    world.asset(Reset(after=64 * KIB, times=4))
    async with asyncio.timeout(60):
        await world.arrives(parallel=1)
    assert world.sent <= SIZE + SLACK


@pytest.mark.shows("B55", "N2", "N6")
async def test_hermes_agent_114603_a_clean_end_in_the_middle_deletes_nothing(world: World) -> None:
    """The server closes properly but too early, every time. What has arrived waits for the next run."""
    file = world.serve(Truncate(after=8 * KIB, covering=HALF))
    world.list(file)
    async with asyncio.timeout(60):
        failure = await world.fails(parallel=1, retries=0)
    assert isinstance(failure, MirrorsExhausted)
    assert "What has arrived is kept" in str(failure)
    file.faults = ()
    world.forget()
    await world.arrives()
    assert world.sent <= SIZE - HALF + SLACK


@pytest.mark.shows("B36", "R6")
async def test_rclone_4223_parts_shorter_than_asked_leave_no_hole(world: World) -> None:
    """Each answer is legal but shorter than the requested range."""
    world.asset(ShortPartial(by=5 * KIB + 1, times=12))
    await world.arrives(retries=0)
    assert world.sent <= SIZE + SLACK


def failing(number: int) -> Callable[..., None]:
    """A function that always fails with this error of the system."""

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.shows("U10")
async def test_what_is_all_there_is_read_with_progress(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage with every byte is hashed before it is used, which takes minutes for a large file: events say how far."""
    monkeypatch.setattr(hashing, "STRIDE_BYTES", 64 * KIB)
    monkeypatch.setattr(reporter, "TOLD_EVERY_BYTES", 100 * KIB)
    file = world.serve()
    world.list(file)
    await world.leave_whole()
    await world.arrives()
    assert world.asked == 0
    assert world.last is not None
    hashed = [event.bytes for event in world.last.events if isinstance(event, AssetVerifying)]
    assert len(hashed) >= 4
    assert hashed == sorted(set(hashed))
