"""A damaged file is repaired: only what is wrong is fetched, and the file stays until the right one replaces it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from grym_fetch.core.content_hasher import PieceSummer
from grym_fetch.core.digest import Checksum
from grym_fetch.core.piece_digests import MIB, PieceSums, piece_ranges
from grym_fetch.disk.piece_sums import PieceSumsStore
from grym_fetch.disk.state import StateFolder
from grym_fetch.testing import AssetServer, seeded_bytes
from grym_fetch.testing.faults import Status
from tests.support.invariants import Run, checked_sync
from tests.support.project import Project

SIZE = 6 * MIB + 1000
SLACK = MIB // 2
CONTENT = seeded_bytes(SIZE, seed=92)


def pieces_of(content: bytes) -> dict[str, object]:
    """The content's pieces for a manifest."""
    parts = piece_ranges(len(content), MIB)
    return {"size": MIB, "sha256": [hashlib.sha256(content[p.start : p.stop]).hexdigest() for p in parts]}


def flipped(*places: int) -> bytes:
    """The content with a bit flipped at each of these places."""
    damaged = bytearray(CONTENT)
    for at in places:
        damaged[at] ^= 1
    return bytes(damaged)


DAMAGED: dict[str, tuple[bytes, int]] = {
    "a byte": (flipped(3 * MIB), 1),
    "both ends": (flipped(0, SIZE - 1), 2),
    "a zeroed third": (CONTENT[: 2 * MIB] + bytes(2 * MIB) + CONTENT[4 * MIB :], 2),
    "cut off": (CONTENT[: 4 * MIB + 5], 3),
    "too long": (CONTENT + b"more", 0),
}


@pytest.fixture(params=["the manifest's digests", "the sums of this machine"])
async def project(request: pytest.FixtureRequest, tmp_path: Path, server: AssetServer) -> Project:
    """A project whose asset is present, and whose pieces are known."""
    made = Project(tmp_path / "project")
    url = server.add("/a.bin", CONTENT).url
    if request.param == "the manifest's digests":
        made.add("a", [url], CONTENT, pieces=pieces_of(CONTENT))
    else:
        made.add("a", [url], CONTENT)
    place = made.finals()["a"]
    place.parent.mkdir(parents=True)
    if "pieces" not in made.entries[0]:
        place.write_bytes(CONTENT)
        async with made.manager() as manager:
            await manager.download_asset("a")
    server.stats.reset()
    return made


async def repaired(project: Project, server: AssetServer, damaged: bytes) -> Run:
    """Sync with this damaged file in place."""
    place = project.finals()["a"]
    place.write_bytes(damaged)
    return await checked_sync(project, server, also_allowed=[damaged], may_lose=None)


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.shows("C17")
async def test_only_what_is_wrong_is_fetched(project: Project, server: AssetServer, kind: str) -> None:
    """Only its pieces are fetched, as a whole; before that, the cost is reported."""
    damaged, bad = DAMAGED[kind]
    run = await repaired(project, server, damaged)
    assert project.finals()["a"].read_bytes() == CONTENT
    (told,) = run.heard.of("asset_damaged")
    assert (told["pieces"], told["bad"]) == (7, bad)
    right = [p for p in piece_ranges(SIZE, MIB) if damaged[p.start : p.stop] == CONTENT[p.start : p.stop]]
    assert told["bytes"] == SIZE - sum(piece.length for piece in right)
    # A connection that loses the end of its segment may have received some of it.
    assert server.stats.body_bytes_sent <= bad * MIB + SLACK
    (end,) = run.heard.of("asset_repaired")
    assert (end["pieces"], end["bad"], end["fetched"]) == (7, bad, bad)
    assert end["saved_bytes"] == SIZE - told["bytes"]
    assert "guess" not in told


@pytest.mark.shows("C17")
async def test_the_damaged_file_stays_until_the_right_one_is_there(project: Project, server: AssetServer) -> None:
    """A failed repair leaves it, and keeps what it has; the next one fetches only the rest."""
    damaged = flipped(MIB, 5 * MIB)
    server.add("/a.bin", CONTENT, faults=[Status(404)])
    run = await repaired(project, server, damaged)
    assert set(run.failures) == {"a"}
    assert project.finals()["a"].read_bytes() == damaged
    server.add("/a.bin", CONTENT)
    server.stats.reset()
    await checked_sync(project, server, also_allowed=[damaged])
    assert project.finals()["a"].read_bytes() == CONTENT
    assert 2 * MIB <= server.stats.body_bytes_sent <= 2 * MIB + SLACK


@pytest.mark.shows("C17")
async def test_what_the_sums_say_proves_nothing(tmp_path: Path, server: AssetServer) -> None:
    """Sums that call a wrong piece right cost a second request to an origin, and the whole is still verified."""
    project = Project.with_one_asset(tmp_path / "project", server, CONTENT)
    damaged = flipped(MIB + 1, 3 * MIB)
    summer = PieceSummer(MIB)
    summer.update(flipped(MIB + 1))
    project.finals()["a"].parent.mkdir(parents=True)
    sums = PieceSumsStore(StateFolder(project.assets))
    sums.record(Checksum.of(CONTENT), SIZE, PieceSums(MIB, summer.digests()))
    run = await repaired(project, server, damaged)
    assert project.finals()["a"].read_bytes() == CONTENT
    assert [event["bad"] for event in run.heard.of("asset_damaged")] == [1]
    assert server.stats.body_bytes_sent <= SIZE + SLACK
    found = sums.find(Checksum.of(CONTENT))
    assert found is not None
    assert found.xxh3 != summer.digests()


@pytest.mark.parametrize(("kind", "most"), {"a byte": 7, "a zeroed third": 2, "cut off": 3, "too long": 0}.items())
@pytest.mark.shows("C17")
async def test_without_any_digests(tmp_path: Path, server: AssetServer, kind: str, most: int) -> None:
    """What seems lost is fetched first, then what differs from an origin: never more than all of it."""
    project = Project.with_one_asset(tmp_path / "project", server, CONTENT)
    project.finals()["a"].parent.mkdir(parents=True)
    run = await repaired(project, server, DAMAGED[kind][0])
    assert project.finals()["a"].read_bytes() == CONTENT
    assert server.stats.body_bytes_sent <= min(most * MIB, SIZE) + SLACK
    (told,) = run.heard.of("asset_damaged")
    assert (told["guess"], told["at_most"]) == (True, SIZE)
