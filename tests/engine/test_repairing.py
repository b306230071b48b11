"""Repairing an asset: what it found, what it cost, and what a dry run says about that beforehand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from grym_fetch.core.piece_digests import MIB
from grym_fetch.disk.verified import FileSignature
from grym_fetch.errors import AssetMissing, UnpinnedAsset
from grym_fetch.reports import RepairReport
from grym_fetch.testing import AssetServer, seeded_bytes
from tests.support.project import Project
from tests.transfer.test_repair import pieces_of

SIZE = 3 * MIB
SLACK = MIB // 2
"""How much a connection may have received of an end of its segment that it lost."""
CONTENT = seeded_bytes(SIZE, seed=93)
FLIPPED = CONTENT[:MIB] + bytes([CONTENT[MIB] ^ 1]) + CONTENT[MIB + 1 :]
ZEROED = CONTENT[: 2 * MIB] + bytes(4096) + CONTENT[2 * MIB + 4096 :]


async def repair(
    root: Path, server: AssetServer, there: bytes | None, *, knows: bool, **more: object
) -> tuple[Project, RepairReport, RepairReport]:
    """Repair a file, after a dry run; with digests in the manifest or without. Returns both reports."""
    project = Project(root / "project")
    pieces = {"pieces": pieces_of(CONTENT)} if knows else {}
    place = project.add("a", [server.add("/a.bin", CONTENT).url], CONTENT, **pieces, **more)  # type: ignore[arg-type]
    if there is not None:
        place.parent.mkdir(parents=True)
        place.write_bytes(there)
    async with project.manager() as manager:
        planned = await manager.repair_asset("a", dry_run=True)
        assert there is None or place.read_bytes() == there
        assert not server.stats.requests
        done = await manager.repair_asset("a")
    assert place.read_bytes() == CONTENT
    return project, planned, done


async def test_an_intact_file(tmp_path: Path, server: AssetServer) -> None:
    """It is read, and nothing else happens."""
    project, planned, done = await repair(tmp_path, server, CONTENT, knows=True)
    assert planned == done == RepairReport("a", project.finals()["a"], "intact")
    assert not server.stats.requests


async def test_a_flipped_byte(tmp_path: Path, server: AssetServer) -> None:
    """It costs its piece, as the dry run says."""
    project, planned, done = await repair(tmp_path, server, FLIPPED, knows=True)
    place = project.finals()["a"]
    assert planned == RepairReport("a", place, "damaged", pieces=3, bad=1, bytes_to_fetch=MIB)
    assert MIB <= done.downloaded_bytes <= MIB + SLACK
    done = replace(done, downloaded_bytes=MIB)
    assert done == replace(planned, outcome="repaired", fetched=1, downloaded_bytes=MIB, saved_bytes=2 * MIB)


async def test_a_guess_that_is_right(tmp_path: Path, server: AssetServer) -> None:
    """Without digests, a block of zeros is taken for damage."""
    _, planned, done = await repair(tmp_path, server, ZEROED, knows=False)
    assert (planned.bad, planned.bytes_to_fetch, planned.bytes_at_most, planned.is_guess) == (1, MIB, SIZE, True)
    assert (done.outcome, done.fetched) == ("repaired", 1)
    assert done.downloaded_bytes <= MIB + SLACK


async def test_a_guess_that_is_wrong(tmp_path: Path, server: AssetServer) -> None:
    """It costs no more than the whole file: the fetched piece counts."""
    both = ZEROED[:5] + bytes([ZEROED[5] ^ 1]) + ZEROED[6:]
    _, planned, done = await repair(tmp_path, server, both, knows=False)
    assert (planned.bad, planned.is_guess) == (1, True)
    assert (done.outcome, done.saved_bytes) == ("replaced", 0)
    assert SIZE <= done.downloaded_bytes <= SIZE + SLACK


async def test_nobody_knows(tmp_path: Path, server: AssetServer) -> None:
    """If nothing is known about the pieces, all may have to be fetched to find the wrong one; not more."""
    _, planned, done = await repair(tmp_path, server, FLIPPED, knows=False)
    assert (planned.outcome, planned.pieces, planned.bad) == ("damaged", 3, 0)
    assert (planned.bytes_to_fetch, planned.bytes_at_most) == (MIB, SIZE)
    assert done.outcome == "replaced"
    assert done.downloaded_bytes <= SIZE + SLACK


async def test_a_file_that_was_verified_and_rots(tmp_path: Path, server: AssetServer) -> None:
    """A repair also reads files that seem unchanged since they were verified."""
    project, _, _ = await repair(tmp_path, server, CONTENT, knows=False)
    place = project.finals()["a"]
    async with project.manager() as manager:
        cache = manager._ready().engine.local_files.verified_cache  # type: ignore[attr-defined]
        place.write_bytes(FLIPPED)
        asset = manager.manifest.get("a")
        cache.record(place, asset.checksum, FileSignature.of(place.stat()))
        assert manager.state_of(asset) == "verified"
        report = await manager.repair_asset("a")
    assert (report.outcome, report.bad, report.fetched) == ("repaired", 1, 1)


async def test_what_cannot_be_repaired(tmp_path: Path, server: AssetServer) -> None:
    """A missing file cannot be repaired, nor can one whose right content is unknown."""
    with pytest.raises(AssetMissing, match="grym-fetch sync a"):
        await repair(tmp_path / "missing", server, None, knows=True)
    with pytest.raises(UnpinnedAsset):
        await repair(tmp_path / "unpinned", server, CONTENT, knows=False, pinned=False)
