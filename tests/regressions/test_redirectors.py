"""A redirector that leads to one server now and to another one later, as mirror networks and CDNs do.

The servers mostly have the same file, and each has its own ETag for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from grym_fetch import MirrorsExhausted
from grym_fetch.testing import AssetServer, ChangeContent, ETag, Fault, Redirect, Reset, ServedFile, Truncate, WrongFile
from tests.regressions.world import CONTENT, HALF, SIZE, World
from tests.support.project import KIB


@pytest.fixture
async def nodes(world: World) -> AsyncIterator[tuple[AssetServer, AssetServer]]:
    """Two servers, each on its own port."""
    async with AssetServer() as first, AssetServer() as second:
        world.others = [first, second]
        yield first, second


def offer(node: AssetServer, *faults: Fault) -> ServedFile:
    """The file at a node, with an ETag of the node's own."""
    return node.add("/a.bin", CONTENT, faults=[ETag(f'"{node.port}"'), *faults])


def redirector(world: World, first: ServedFile, second: ServedFile) -> ServedFile:
    """An address that leads to the first file once, and to the second from then on."""
    return world.serve(Redirect(first.url, times=1), Redirect(second.url))


@pytest.mark.shows("A6", "R25")
async def test_a_server_that_dies_is_asked_for_no_more(world: World, nodes: tuple[AssetServer, AssetServer]) -> None:
    """After a failure the first address is asked again, which knows a server that works; what has come is kept."""
    first, second = offer(nodes[0], Reset(after=0, covering=HALF)), offer(nodes[1])
    world.list(redirector(world, first, second))
    await world.arrives(parallel=1)
    assert nodes[0].stats.body_bytes_sent > 0
    assert nodes[1].stats.body_bytes_sent > 0
    assert nodes[0].stats.body_bytes_sent + nodes[1].stats.body_bytes_sent <= SIZE + 128 * KIB
    assert world.last is not None
    assert not world.last.of("asset_restarted")


@pytest.mark.shows("R25", "R13")
async def test_another_servers_etag_is_no_change(world: World, nodes: tuple[AssetServer, AssetServer]) -> None:
    """The next run is led to another server with another ETag for the same bytes: it resumes."""
    first, second = offer(nodes[0], Truncate(after=0, covering=HALF)), offer(nodes[1])
    world.list(redirector(world, first, second))
    await world.fails(retries=0, parallel=1)
    kept = world.stage.joinpath("part").stat().st_size
    assert kept > SIZE // 4
    await world.arrives()
    assert nodes[1].stats.body_bytes_sent <= SIZE - kept + 64 * KIB
    assert {request.if_range for request in nodes[1].stats.requests} <= {None, f'"{nodes[1].port}"'}


@pytest.mark.shows("R25", "R9", "R10")
async def test_the_same_servers_etag_is_held_to(world: World, nodes: tuple[AssetServer, AssetServer]) -> None:
    """On the same server, a changed ETag is a change."""
    file = offer(nodes[0], Truncate(after=0, covering=HALF))
    world.list(world.serve(Redirect(file.url)))
    await world.fails(retries=0, parallel=1)
    offer(nodes[0], ETag('"another"'))
    await world.arrives()
    assert world.last is not None
    assert world.last.of("asset_restarted")


@pytest.mark.shows("R25", "R9", "R28")
async def test_what_two_servers_gave_is_asked_of_one(world: World, nodes: tuple[AssetServer, AssetServer]) -> None:
    """The first server has a different file of the same size and dies half-way: the second is asked for all of it."""
    first, second = offer(nodes[0], WrongFile(), Reset(after=0, covering=HALF)), offer(nodes[1])
    world.list(redirector(world, first, second))
    await world.arrives(parallel=1)
    assert world.last is not None
    assert len(world.last.of("asset_restarted")) == 1


@pytest.mark.shows("R25", "R30")
async def test_two_servers_that_are_both_wrong_are_asked_once_more_only(
    world: World, nodes: tuple[AssetServer, AssetServer]
) -> None:
    """Neither has the file: one of them is asked for what both gave, then once for the whole, and the error says so."""
    breaks = Reset(after=0, covering=HALF, times=1)
    first, second = offer(nodes[0], WrongFile(), breaks), offer(nodes[1], WrongFile(), replace(breaks, skip=1))
    turns = [Redirect(file.url, times=1) for file in (first, second)]
    world.list(world.serve(*turns, *turns))
    # A request sent ahead and reset counts as never sent, and leads to no other server.
    assert "sha256" in str(await world.fails(parallel=1, pipelining=False))
    assert world.last is not None
    reasons = [str(event["reason"]) for event in world.last.of("asset_restarted")]
    assert [reason.partition("; ")[2] for reason in reasons] == [
        "asking one server for what several gave",
        "asking for the whole, past all caches",
    ]
    asked = [request for node in nodes for request in node.stats.requests]
    assert [request.headers.get("Cache-Control") for request in asked if request.range is None] == ["no-cache"]


@pytest.mark.shows("R25", "R11", "R12", "S3")
@pytest.mark.parametrize("etag", ['"same"', None], ids=["the same ETag", "no ETag"])
async def test_without_a_checksum_two_servers_are_never_mixed(
    world: World, nodes: tuple[AssetServer, AssetServer], etag: str | None
) -> None:
    """Nothing shows that two servers have the same content, not even the same ETag: the second gives all of it."""
    other = bytes(SIZE)
    first = nodes[0].add("/a.bin", CONTENT, faults=[ETag(etag), Reset(after=0, covering=HALF)])
    second = nodes[1].add("/a.bin", CONTENT, faults=[ChangeContent(other), ETag(etag)])
    world.also_allowed = [other]
    world.right = other
    world.list(redirector(world, first, second), pinned=False)
    await world.arrives(parallel=1, allow_unpinned=True)


@pytest.mark.shows("A6")
async def test_a_redirector_that_leads_to_the_dead_only_is_given_up(
    world: World, nodes: tuple[AssetServer, AssetServer]
) -> None:
    """The budget of retries belongs to the first address, however many servers it names."""
    files = [offer(node) for node in nodes]
    for node in nodes:
        await node.refuse_connections()
    world.list(redirector(world, *files))
    assert isinstance(await world.fails(retries=2), MirrorsExhausted)
    assert world.asked <= 10
