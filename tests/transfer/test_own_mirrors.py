"""Mirrors of one's own: asked first or alone, without anything secret of the host that they stand for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from grym_fetch import AssetManager
from grym_fetch.errors import DigestMismatch
from grym_fetch.settings import MirrorRule
from grym_fetch.testing import AssetServer
from tests.support.project import Project

CONTENT = bytes(range(256)) * 300


@pytest.fixture
async def other_server() -> AsyncIterator[AssetServer]:
    """The mirror."""
    async with AssetServer() as running:
        yield running


@pytest.fixture
def project(tmp_path: Path, server: AssetServer, other_server: AssetServer) -> Project:
    """Twelve small files and a larger one at the first server; the second has the same below ``/hf/``."""
    made = Project(tmp_path)
    for number in range(13):
        content = CONTENT[number : 2000 + number] if number else CONTENT
        file = server.add(f"/org/{number}.bin", content)
        other_server.add(f"/hf/org/{number}.bin", content)
        made.add(f"a{number}", [file.url], content)
    return made


def rule(server: AssetServer, mirror: AssetServer, *, only: bool = False) -> MirrorRule:
    """All of the first server is at the second below ``/hf/``."""
    return MirrorRule(server.url("/"), mirror.url("/hf/"), only)


def is_right(project: Project) -> bool:
    """Whether every file is in its place."""
    return all(project.finals()[name].read_bytes() == content for name, content in project.contents.items())


@pytest.mark.shows("A14", "S7")
async def test_a_mirror_is_asked_first_and_gets_no_token(
    project: Project, server: AssetServer, other_server: AssetServer
) -> None:
    """Small files, which are fetched together, and large ones come from the mirror; the host's token goes nowhere."""
    token = f"GRYM_FETCH_TOKEN_127_0_0_1_PORT_{server.port}"
    environ = {
        token: "the-token-of-the-first-host",
        "GRYM_FETCH_MIRRORS": str(rule(server, other_server)),
    }
    async with AssetManager(project.manifest, environ=environ) as manager:
        await manager.sync(all=True)
    assert is_right(project)
    assert not server.stats.requests
    assert len(other_server.stats.requests) >= 13
    assert not any("authorization" in {name.lower() for name in each.headers} for each in other_server.stats.requests)


async def test_a_mirror_that_has_not_all_is_no_end(
    project: Project, server: AssetServer, other_server: AssetServer
) -> None:
    """What is missing or wrong at a mirror comes from the manifest's own address."""
    other_server.add("/hf/org/0.bin", CONTENT[::-1])
    other_server.add("/hf/org/1.bin", b"")
    async with project.manager(mirror_rules=(rule(server, other_server),)) as manager:
        await manager.sync(all=True)
    assert is_right(project)


async def test_only_a_mirror_is_asked(project: Project, server: AssetServer, other_server: AssetServer) -> None:
    """In a closed network the first host is not even tried, and the error names the mirror."""
    other_server.add("/hf/org/0.bin", CONTENT[::-1])
    async with project.manager(mirror_rules=(rule(server, other_server, only=True),)) as manager:
        await manager.get_asset_path("a1")
        with pytest.raises(DigestMismatch, match=rf"127\.0\.0\.1:{other_server.port}/hf/org/0\.bin"):
            await manager.get_asset_path("a0")
    assert not server.stats.requests


@pytest.mark.shows("S1")
async def test_what_has_no_checksum_has_no_mirror(
    project: Project, server: AssetServer, other_server: AssetServer
) -> None:
    """Nothing would prove what a mirror sends."""
    project.add("b", [server.url("/org/1.bin")], project.contents["a1"], pinned=False)
    rules = (rule(server, other_server, only=True),)
    async with project.manager(mirror_rules=rules, allow_unpinned=True) as manager:
        await manager.get_asset_path("b")
    assert not other_server.stats.requests
