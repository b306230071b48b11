"""With digests of pieces in the manifest, a wrong piece costs one piece, and its sender is named at once."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from grym_fetch.core.digest import Checksum
from grym_fetch.core.journal import Piece
from grym_fetch.core.manifest_schema import ASSET
from grym_fetch.core.origins import Origins
from grym_fetch.core.piece_digests import piece_ranges
from grym_fetch.core.ranges import ByteRange
from grym_fetch.core.segments import SegmentSizes
from grym_fetch.errors import DigestMismatch
from grym_fetch.events import MirrorSwitched
from grym_fetch.testing import AssetServer, ChangeContent, FlipByte, NoRanges, Status, Truncate, seeded_bytes
from grym_fetch.transfer.state import DownloadState
from tests.support.fakes import InlineThreads, MemoryFolder, MemoryStage
from tests.support.invariants import Run, checked_sync
from tests.support.project import KIB, Project

PIECE = 64 * KIB
SIZE = 40 * PIECE + 777
CONTENT = seeded_bytes(SIZE, seed=95)


@pytest.fixture
async def other_server() -> AsyncIterator[AssetServer]:
    """A second mirror."""
    async with AssetServer() as made:
        yield made


def pieces_of(content: bytes) -> dict[str, object]:
    """The content's pieces for a manifest."""
    parts = piece_ranges(len(content), PIECE)
    return {"size": PIECE, "sha256": [hashlib.sha256(content[p.start : p.stop]).hexdigest() for p in parts]}


def flipped(every: int, first: int = 100) -> bytes:
    """The content with one byte flipped in each range of this length."""
    wrong = bytearray(CONTENT)
    for at in range(first, SIZE, every):
        wrong[at] ^= 1
    return bytes(wrong)


def project_of(root: Path, *servers: AssetServer) -> Project:
    """A project whose asset these servers have, in this order, with its pieces in the manifest."""
    project = Project(root / "project")
    project.add("a", [server.url("/a.bin") for server in servers], CONTENT, pieces=pieces_of(CONTENT))
    return project


async def sync(project: Project, *servers: AssetServer, **settings: object) -> Run:
    """Fetch it, and check whether the file is right."""
    run = await checked_sync(project, *servers, may_lose=None, **settings)  # type: ignore[arg-type]  # checked there
    if not run.failures:
        assert project.finals()["a"].read_bytes() == CONTENT
    return run


def downloaded(run: Run) -> int:
    """Bytes that came over the network."""
    [end] = run.heard.of("run_finished")
    assert isinstance(end["downloaded_bytes"], int)
    return end["downloaded_bytes"]


@pytest.mark.shows("C16")
async def test_a_wrong_byte_once(tmp_path: Path, server: AssetServer) -> None:
    """It costs its piece, even if no other origin can be asked; the event says which origin sent it."""
    server.add("/a.bin", CONTENT, faults=[FlipByte(9, times=1)])
    run = await sync(project_of(tmp_path, server), server)
    [restart] = run.heard.of("asset_restarted")
    assert restart["discarded"] == PIECE
    assert restart["reason"] == f"piece 1 of 41 is wrong, from {server.url('/a.bin')}"
    assert SIZE + PIECE <= downloaded(run) <= SIZE + 4 * PIECE


@pytest.mark.shows("C16")
async def test_a_wrong_byte_for_good(tmp_path: Path, server: AssetServer) -> None:
    """No origin has the right one: this is found when it comes again, not after the whole file."""
    server.add("/a.bin", CONTENT, faults=[FlipByte(9)])
    run = await sync(project_of(tmp_path, server), server, parallel=1)
    error = run.failures["a"]
    assert isinstance(error, DigestMismatch)
    assert "piece 1 of 41 is wrong" in str(error)
    assert downloaded(run) < SIZE


@pytest.mark.parametrize("mirrors", ["fallback", "together"])
@pytest.mark.parametrize("liar", [0, 1])
@pytest.mark.shows("C16")
async def test_a_mirror_that_lies_in_every_segment(
    tmp_path: Path, server: AssetServer, other_server: AssetServer, mirrors: str, liar: int
) -> None:
    """Beside a good mirror, it is named, left, and costs a few pieces."""
    servers = [server, other_server]
    for number, each in enumerate(servers):
        each.add("/a.bin", CONTENT, faults=[ChangeContent(flipped(PIECE), keep_validators=True)] * (number == liar))
    run = await sync(project_of(tmp_path, *servers), *servers, mirrors=mirrors)
    assert not run.failures
    assert downloaded(run) <= 1.5 * SIZE
    wrong = servers[liar].url("/a.bin")
    named = [event for event in run.heard.of("asset_restarted") if wrong in str(event["reason"])]
    if liar == 0 or mirrors == "together":
        assert named
        [switch] = run.heard.of("mirror_switched")
        assert (switch["from"], switch["to"]) == (wrong, servers[1 - liar].url("/a.bin"))
        assert "is wrong" in str(switch["reason"])
        assert [event["wrong_origins"] for event in run.heard.of("asset_verified")] == [(wrong,)]
    else:
        assert not run.heard.of("asset_restarted")


@pytest.mark.shows("C16")
async def test_a_liar_is_left_for_a_mirror_that_failed_a_moment_ago(
    tmp_path: Path, server: AssetServer, other_server: AssetServer
) -> None:
    """That one must not be asked yet; when it may be, the download goes on."""
    server.add("/a.bin", CONTENT, faults=[Status(500, times=2)])
    other_server.add("/a.bin", CONTENT, faults=[ChangeContent(flipped(PIECE), keep_validators=True)])
    run = await sync(project_of(tmp_path, server, other_server), server, other_server)
    assert not run.failures
    first, second = server.url("/a.bin"), other_server.url("/a.bin")
    assert [(event["from"], event["to"]) for event in run.heard.of("mirror_switched")] == [
        (first, second),
        (second, first),
    ]


@pytest.mark.shows("C16")
async def test_what_a_liar_gave_right_is_kept(tmp_path: Path, server: AssetServer, other_server: AssetServer) -> None:
    """One wrong byte near the end costs one piece, from the other mirror."""
    at = 39 * PIECE + 5
    server.add("/a.bin", CONTENT, faults=[ChangeContent(flipped(SIZE, first=at), keep_validators=True)])
    other_server.add("/a.bin", CONTENT)
    run = await sync(project_of(tmp_path, server, other_server), server, other_server)
    assert downloaded(run) <= SIZE + 5 * PIECE
    assert other_server.stats.body_bytes_sent <= 4 * PIECE


async def test_all_agree_against_the_manifest(tmp_path: Path, server: AssetServer, other_server: AssetServer) -> None:
    """If both have the same other content, the error says so: the entry is probably outdated."""
    for each in (server, other_server):
        each.add("/a.bin", flipped(SIZE))
    run = await sync(project_of(tmp_path, server, other_server), server, other_server)
    assert isinstance(run.failures["a"], DigestMismatch)
    assert "2 addresses have other content than the pieces in the manifest" in str(run.failures["a"])


async def test_a_whole_stream_is_judged_as_well(tmp_path: Path, server: AssetServer, other_server: AssetServer) -> None:
    """A lying origin without ranges is left in the middle of its stream."""
    server.add("/a.bin", flipped(SIZE, first=3 * PIECE), faults=[NoRanges()])
    other_server.add("/a.bin", CONTENT)
    run = await sync(project_of(tmp_path, server, other_server), server, other_server)
    assert not run.failures
    [switch] = run.heard.of("mirror_switched")
    assert "piece 4 of 41 is wrong" in str(switch["reason"])


@pytest.mark.shows("C16")
async def test_a_piece_of_two_origins(tmp_path: Path, server: AssetServer, other_server: AssetServer) -> None:
    """The first breaks off within a wrong piece: whose byte was wrong cannot be said, and the piece comes once more."""
    server.add("/a.bin", flipped(SIZE), faults=[Truncate(after=10 * KIB, times=1), Status(503)])
    other_server.add("/a.bin", CONTENT)
    run = await sync(project_of(tmp_path, server, other_server), server, other_server, parallel=1, retries=0)
    assert not run.failures
    [restart] = run.heard.of("asset_restarted")
    assert restart["discarded"] == PIECE
    assert all(each.url("/a.bin") in str(restart["reason"]) for each in (server, other_server))
    assert downloaded(run) <= SIZE + 5 * PIECE


@pytest.mark.shows("C16")
async def test_what_an_earlier_run_left_is_judged(tmp_path: Path, server: AssetServer) -> None:
    """A stage from before the manifest had pieces may hold wrong ones: each costs a piece, and nobody is blamed."""
    project = Project(tmp_path / "project")
    wrong = ChangeContent(flipped(SIZE), keep_validators=True)
    url = server.add("/a.bin", CONTENT, faults=[wrong, Truncate(after=10 * KIB, times=1), Status(404)]).url
    project.add("a", [url], CONTENT)
    assert (await sync(project, server, parallel=1, retries=0)).failures
    server.add("/a.bin", CONTENT)
    project.add("a", [url], CONTENT, pieces=pieces_of(CONTENT))
    run = await sync(project, server)
    assert not run.failures
    assert [event["reason"] for event in run.heard.of("asset_restarted")] == ["piece 1 of 41 is wrong"]


@pytest.mark.shows("C3")
@pytest.mark.parametrize("mirrors", ["fallback", "together"])
async def test_without_pieces_the_liar_is_named_in_the_end(
    tmp_path: Path, server: AssetServer, other_server: AssetServer, mirrors: str
) -> None:
    """The whole is wrong: what the other mirror sends instead shows which one sent the wrong bytes."""
    server.add("/a.bin", flipped(PIECE))
    other_server.add("/a.bin", CONTENT)
    project = Project(tmp_path / "project")
    urls = [each.url("/a.bin") for each in (server, other_server)]
    project.add("a", urls, CONTENT)
    run = await sync(project, server, other_server, mirrors=mirrors)
    assert [event["wrong_origins"] for event in run.heard.of("asset_verified")] == [(urls[0],)]


class SlowStage(MemoryStage):
    """A stage whose first write takes until it is released."""

    def __init__(self) -> None:
        super().__init__(MemoryFolder())
        self.go = asyncio.Event()

    async def write(self, start: int, data: bytes | memoryview, origin: int) -> Piece:
        """Wait, and write."""
        await self.go.wait()
        return await super().write(start, data, origin)


@pytest.mark.shows("C16")
async def test_found_wrong_while_it_is_written() -> None:
    """A piece is hashed from memory: when its write finally ends, it does not count as present."""
    content = CONTENT[: 2 * PIECE]
    entry = {"id": "a", "url": "https://h.example/a", "localPath": "a", "size": len(content)}
    parsed = ASSET.read({**entry, "checksum": Checksum.of(content).bare, "pieces": pieces_of(content)})
    stage, origins = SlowStage(), Origins(parsed.urls)
    state = DownloadState(parsed, origins, stage, InlineThreads(), lambda: None, SegmentSizes())
    segment = state.segments.promise(length=PIECE, horizon=len(content))
    assert segment is not None
    state.segments.arrived(segment, PIECE)
    hashing = asyncio.ensure_future(state.hash())
    storing = asyncio.ensure_future(state.store(0, bytes(PIECE), origins.current))
    for _ in range(50):
        await asyncio.sleep(0)
    assert state.condemned == [(ByteRange(0, PIECE), {0})]
    stage.go.set()
    await storing
    assert list(state.pieces) == []
    assert state.segments.missing_in(0, PIECE) == ByteRange(0, PIECE)
    await state.store(0, content[:PIECE], origins.current)
    for _ in range(50):
        await asyncio.sleep(0)
    assert state.frontier.position == PIECE
    hashing.cancel()
    await asyncio.wait([hashing])


@pytest.mark.shows("C16")
async def test_a_liar_is_asked_last_for_other_assets(
    tmp_path: Path, server: AssetServer, other_server: AssetServer
) -> None:
    """A host that was found out with one asset sends nothing of the next ones, if others have them as well."""
    server.add("/a.bin", CONTENT, faults=[ChangeContent(flipped(PIECE), keep_validators=True)])
    other_server.add("/a.bin", CONTENT)
    other = seeded_bytes(30 * PIECE, seed=96)
    for each in (server, other_server):
        each.add("/b.bin", other)
    project = project_of(tmp_path, server, other_server)
    project.add("b", [each.url("/b.bin") for each in (server, other_server)], other)
    async with project.manager() as manager:
        async with manager.events() as events:
            await manager.get_asset_path("a")
            await manager.get_asset_path("b")
            told = [each for each in events.drain() if isinstance(each, MirrorSwitched) and each.asset == "b"]
        assert [(each.from_, each.reason) for each in told] == [
            (server.url("/b.bin"), "it sent wrong bytes of another asset")
        ]
    assert not [request for request in server.stats.requests if request.path == "/b.bin"]
