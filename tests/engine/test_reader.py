"""An asset is read before it is all there: what is asked for comes first, and only what was judged is handed out."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from grym_fetch import AssetManager, MirrorsExhausted, create_mock_asset_manager
from grym_fetch.core.digest import Checksum
from grym_fetch.core.piece_digests import PieceDigests, piece_ranges
from grym_fetch.engine.reader import AssetReader
from grym_fetch.errors import AssetMissing, DigestMismatch, PolicyRefused, StorageError, UnpinnedAsset, UnverifiedRead
from grym_fetch.events import AssetVerified, MirrorSwitched
from grym_fetch.testing import AssetServer, ChangeContent, Gate, Hold, Status, seeded_bytes
from tests.support.project import KIB, OWN, Project
from tests.support.small_world import OneConnection, SmallWorld

PIECE = 64 * KIB
SIZE = 20 * PIECE + 777
CONTENT = seeded_bytes(SIZE, seed=20)


def pieces_of(content: bytes) -> dict[str, object]:
    """The content's pieces for a manifest."""
    parts = piece_ranges(len(content), PIECE)
    return {"size": PIECE, "sha256": [hashlib.sha256(content[p.start : p.stop]).hexdigest() for p in parts]}


def parsed(pieces: dict[str, object]) -> PieceDigests:
    """The same as it is read from a manifest."""
    return PieceDigests(PIECE, tuple(pieces["sha256"]))  # type: ignore[arg-type]  # a list of texts


def project_of(root: Path, *servers: AssetServer, pieces: bool = True, **more: object) -> Project:
    """A project whose asset these servers have."""
    project = Project(root / "project")
    entry: dict[str, object] = {"pieces": pieces_of(CONTENT)} if pieces else {}
    project.add("a", [server.url("/a.bin") for server in servers], CONTENT, **{**entry, **more})  # type: ignore[arg-type]
    return project


@pytest.fixture
async def other_server() -> AsyncIterator[AssetServer]:
    """A second mirror."""
    async with AssetServer() as made:
        yield made


async def test_a_header_is_read_while_the_rest_still_comes(tmp_path: Path, server: AssetServer) -> None:
    """The first bytes are there once their piece is: the server has sent hardly more, and goes on afterwards."""
    gate = Gate()
    server.add("/a.bin", CONTENT, faults=[Hold(gate, at=2 * PIECE)])
    async with project_of(tmp_path, server).manager() as manager:
        async with manager.open_asset("a") as file:
            assert (await file.read(100), file.tell(), file.size) == (CONTENT[:100], 100, SIZE)
            assert server.stats.body_bytes_sent <= 2 * PIECE
            gate.open()
            buffer = bytearray(3 * PIECE)
            assert await file.readinto(buffer) == len(buffer)
            assert buffer == CONTENT[100 : 100 + len(buffer)]
            assert await file.read() == CONTENT[100 + len(buffer) :]
            assert await file.read(1) == b""
        # It may have been closed before the file was put in its place; nothing is fetched for that.
        await manager.download_asset("a")
    assert server.stats.body_bytes_sent == SIZE


@pytest.mark.shows("S1")
async def test_a_manifest_that_changes_while_the_old_content_comes(tmp_path: Path, server: AssetServer) -> None:
    """Who opens the new entry gets no byte of what the old one asked for, though the id is the same."""
    gate, project = Gate(), Project(tmp_path / "project")
    old, new = (seeded_bytes(3 * PIECE, seed=seed) for seed in (1, 2))
    project.add("a", [server.add("/old.bin", old, faults=[Hold(gate, at=2 * PIECE)]).url], old, pieces=pieces_of(old))
    url = server.add("/new.bin", new).url
    async with project.manager() as manager:
        before = asyncio.create_task(manager.download_asset("a"))
        async with manager.open_asset("a") as file:
            assert await file.read(9) == old[:9]
        (entry,) = manager.manifest.assets
        await manager.remove_asset("a")
        await manager.add_asset(replace(entry, url=url, checksum=Checksum.of(new), pieces=parsed(pieces_of(new))))
        async with manager.open_asset("a", keep_downloading=True) as file:
            reading = asyncio.create_task(file.read())
            await asyncio.sleep(0)
            gate.open()
            assert Checksum.of(await reading) == Checksum.of(new)  # to show how megabytes differ takes seconds
        await manager.download_asset("a")  # the one that goes on
        await before
        assert (await manager.check_asset("a")).valid


@pytest.mark.shows("S1")
async def test_digests_of_pieces_that_are_new_in_the_manifest(tmp_path: Path, server: AssetServer) -> None:
    """A download that began without them judges nothing, so what it brings is handed to nobody who goes by them."""
    gate, project = Gate(), project_of(tmp_path, server, pieces=False)
    server.add("/a.bin", b"!" + CONTENT[1:], faults=[Hold(gate, at=2 * PIECE)])
    async with project.manager() as manager:
        before = asyncio.create_task(manager.download_asset("a"))
        async with manager.open_asset("a", unverified_ok=True) as file:
            assert (await file.read(9))[:1] == b"!"
        (entry,) = manager.manifest.assets
        await manager.remove_asset("a")
        await manager.add_asset(replace(entry, pieces=parsed(pieces_of(CONTENT))))
        async with manager.open_asset("a") as file:
            reading = asyncio.create_task(file.read(9))
            await asyncio.sleep(0)
            gate.open()
            with pytest.raises((MirrorsExhausted, DigestMismatch)):
                await reading
        with pytest.raises(DigestMismatch):
            await before


async def test_the_end_is_asked_for_first(tmp_path: Path) -> None:
    """A reader that begins at the end, as zip readers do, gets the end with the first request."""
    world = SmallWorld({"http://one.test/a": CONTENT})
    project = Project(tmp_path / "project")
    project.add("a", ["http://one.test/a"], CONTENT, pieces=pieces_of(CONTENT))
    async with world.manager(project) as manager, manager.open_asset("a") as file:
        file.seek(-22, io.SEEK_END)
        assert await file.read() == CONTENT[-22:]
        assert world.requests[0][1] == f"bytes={20 * PIECE}-{SIZE - 1}"
        assert world.sent < 4 * PIECE


async def test_a_reader_does_not_wait_for_busy_connections(tmp_path: Path) -> None:
    """If all connections are at work on other bytes, one of them turns to what is waited for."""
    gate, held, asked = asyncio.Event(), asyncio.Event(), dict[OneConnection, str]()

    async def hold_all_but_the_end(connection: OneConnection, _url: str, count: int) -> None:
        if not count:
            asked[connection] = world.requests[-1][1]
        elif int(asked[connection].removeprefix("bytes=").partition("-")[0]) < 10 * PIECE:
            held.set()
            await gate.wait()

    world = SmallWorld({"http://one.test/a": CONTENT}, pace=hold_all_but_the_end)
    project = Project(tmp_path / "project")
    project.add("a", ["http://one.test/a"], CONTENT, pieces=pieces_of(CONTENT))
    async with world.manager(project) as manager:
        whole = asyncio.create_task(manager.get_asset_path("a"))
        await held.wait()
        assert len(asked) == 1  # the first answer shows how to go on; it is held
        async with manager.open_asset("a") as file:
            file.seek(12 * PIECE)
            assert await file.read(10) == CONTENT[12 * PIECE :][:10]
        assert not whole.done()
        gate.set()
        assert (await whole).read_bytes() == CONTENT


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.shows("C18")
@pytest.mark.parametrize("position", [5, 9 * PIECE + 5, SIZE - 5])
async def test_a_lying_server_gives_nothing(
    tmp_path: Path, server: AssetServer, other_server: AssetServer, position: int
) -> None:
    """A wrong byte is not handed out: the reader gets the right one of a mirror, and the liar is named."""
    wrong = bytearray(CONTENT)
    wrong[position] ^= 1
    server.add("/a.bin", CONTENT, faults=[ChangeContent(bytes(wrong), keep_validators=True)])
    other_server.add("/a.bin", CONTENT)
    async with project_of(tmp_path, server, other_server).manager() as manager:
        async with manager.events() as events, manager.open_asset("a") as file:
            file.seek(position)
            assert await file.read(1) == CONTENT[position : position + 1]
            told = [event for event in events.drain() if isinstance(event, MirrorSwitched)]
        assert [event.from_ for event in told] == [server.url("/a.bin")]
        assert (await manager.get_asset_path("a")).read_bytes() == CONTENT


@pytest.mark.shows("C18")
async def test_a_lie_is_found_before_its_turn(tmp_path: Path) -> None:
    """A reader judges a piece that the digest of the whole has not reached, and gets the right one at once."""
    gate, asked = asyncio.Event(), dict[OneConnection, str]()

    async def hold_the_middle(connection: OneConnection, _url: str, count: int) -> None:
        if not count:
            asked[connection] = world.requests[-1][1]
        elif 0 < int(asked[connection].removeprefix("bytes=").partition("-")[0]) < 10 * PIECE:
            await gate.wait()

    urls = ["http://one.test/a", "http://two.test/a"]
    world = SmallWorld({urls[0]: CONTENT[:-5] + bytes(5), urls[1]: CONTENT}, pace=hold_the_middle)
    project = Project(tmp_path / "project")
    project.add("a", urls, CONTENT, pieces=pieces_of(CONTENT))
    async with world.manager(project, parallel=4) as manager, manager.open_asset("a") as file:
        file.seek(-5, io.SEEK_END)
        read = asyncio.create_task(file.read())
        await _turns(4000)
        assert read.done()
        assert await read == CONTENT[-5:]
        gate.set()
        assert (await manager.get_asset_path("a")).read_bytes() == CONTENT


@pytest.mark.shows("C18")
async def test_nobody_has_the_right_bytes(tmp_path: Path, server: AssetServer) -> None:
    """Then the reader gets the error of the download, and no byte of that piece."""
    wrong = bytearray(CONTENT)
    wrong[-5] ^= 1
    server.add("/a.bin", bytes(wrong))
    async with project_of(tmp_path, server).manager() as manager, manager.open_asset("a") as file:
        file.seek(-5, io.SEEK_END)
        with pytest.raises(DigestMismatch):
            await file.read(1)


@pytest.mark.shows("C18")
async def test_without_pieces_it_is_refused(tmp_path: Path, server: AssetServer) -> None:
    """Nothing could be verified before the end. Once the asset is there, it is a plain file."""
    server.add("/a.bin", CONTENT)
    async with project_of(tmp_path, server, pieces=False).manager() as manager:
        with pytest.raises(UnverifiedRead, match="pin --pieces a"):
            await manager.open_asset("a").open()
        assert not server.stats.requests
        await manager.get_asset_path("a")
        async with manager.open_asset("a") as file:
            file.seek(7)
            assert await file.read(5) == CONTENT[7:12]
            assert await file.read() == CONTENT[12:]


@pytest.mark.shows("C18")
async def test_without_a_checksum_pieces_do_not_help(tmp_path: Path, server: AssetServer) -> None:
    """They are not believed without it; the error says what is missing, also once the file is there."""
    server.add("/a.bin", CONTENT)
    async with project_of(tmp_path, server, pinned=False).manager(allow_unpinned=True) as manager:
        for _ in range(2):
            with pytest.raises(UnverifiedRead, match=r"no checksum .* pin --pieces a.*allow_unpinned"):
                await manager.open_asset("a").open()
            await manager.get_asset_path("a")


async def test_an_unpinned_asset_must_be_allowed_as_well(tmp_path: Path, server: AssetServer) -> None:
    """To take what arrives is not to allow what nobody has pinned: the error names the setting."""
    server.add("/a.bin", CONTENT)
    async with project_of(tmp_path, server, pinned=False).manager() as manager:
        with pytest.raises(UnpinnedAsset, match="--allow-unpinned"):
            async with manager.open_asset("a", unverified_ok=True) as file:
                await file.read()


@pytest.mark.parametrize("is_known", [True, False])
async def test_unverified_if_that_is_wanted(tmp_path: Path, server: AssetServer, is_known: bool) -> None:
    """What arrives is handed out, also of an asset without checksum and size."""
    gate = Gate()
    server.add("/a.bin", CONTENT, faults=[Hold(gate, at=2 * PIECE)])
    project = project_of(tmp_path, server, pieces=False, pinned=is_known, size=is_known)
    async with (
        project.manager(allow_unpinned=True) as manager,
        manager.open_asset("a", unverified_ok=True) as file,
    ):
        assert file.size == SIZE
        assert await file.read(1000) == CONTENT[:1000]
        gate.open()
        assert await file.read() == CONTENT[1000:]


async def test_what_an_earlier_run_left_is_judged(tmp_path: Path, server: AssetServer) -> None:
    """A byte of the part file that flipped meanwhile is fetched again before it is handed out."""
    gate = Gate()
    server.add("/a.bin", CONTENT, faults=[Hold(gate, at=12 * PIECE)])
    project = project_of(tmp_path, server)
    async with project.manager(parallel=1) as manager, manager.open_asset("a") as file:
        file.seek(8 * PIECE)
        await file.read(4 * PIECE)
    gate.open()
    [part] = (project.assets / OWN / "stage").glob("*/part")
    with part.open("r+b") as damaged:
        damaged.seek(9 * PIECE + 7)
        damaged.write(bytes([CONTENT[9 * PIECE + 7] ^ 1]))
    async with project.manager() as manager, manager.open_asset("a") as file:
        file.seek(9 * PIECE)
        assert await file.read(PIECE) == CONTENT[9 * PIECE :][:PIECE]


@pytest.mark.shows("C18")
async def test_a_part_file_that_changes_behind_us(tmp_path: Path, server: AssetServer) -> None:
    """What was found right as it arrived and reads otherwise now is not handed out."""
    gate = Gate()
    server.add("/a.bin", CONTENT, faults=[Hold(gate, at=4 * PIECE)])
    project = project_of(tmp_path, server)
    async with project.manager(parallel=1) as manager, manager.open_asset("a") as file:
        file.seek(3 * PIECE)
        await file.read(1)
        file.seek(0)
        await file.read(2 * PIECE)
        [part] = (project.assets / OWN / "stage").glob("*/part")
        with part.open("r+b") as damaged:
            damaged.write(bytes([CONTENT[0] ^ 1]))
        file.seek(0)
        with pytest.raises(StorageError, match="other content than was written"):
            await file.read(1)


@pytest.mark.shows("C18")
async def test_a_failed_download_is_no_end(tmp_path: Path, server: AssetServer) -> None:
    """A read raises what the download raised."""
    server.add("/a.bin", CONTENT, faults=[Status(404, skip=1)])
    async with project_of(tmp_path, server).manager(retries=0) as manager, manager.open_asset("a") as file:
        with pytest.raises(MirrorsExhausted):
            await file.read()


async def test_a_closed_manager_is_no_end(tmp_path: Path, server: AssetServer) -> None:
    """A read that waits when the manager is closed raises; so does one after the reader was closed."""
    server.add("/a.bin", CONTENT, faults=[Hold(Gate(), at=PIECE)])
    async with project_of(tmp_path, server).manager() as manager:
        file = manager.open_asset("a")
        await file.open()
        await file.read(1)
        read = asyncio.create_task(file.read())
        await asyncio.sleep(0)
    with pytest.raises(AssetMissing, match="closed before it was all there"):
        await read
    await file.aclose()
    await file.aclose()
    with pytest.raises(ValueError, match="closed"):
        await file.read()


@pytest.mark.parametrize("keep", [False, True])
async def test_what_becomes_of_the_download(tmp_path: Path, server: AssetServer, keep: bool) -> None:
    """It ends with its last reader, and what has arrived is kept; or it goes on, as the caller says."""
    gate = Gate()
    server.add("/a.bin", CONTENT, faults=[Hold(gate, at=2 * PIECE)])
    project = project_of(tmp_path, server)
    async with project.manager() as manager:
        async with manager.open_asset("a", keep_downloading=keep) as file:
            await file.read(1)
        gate.open()
        tasks = [task for task in asyncio.all_tasks() if task.get_name() == "fetch a"]
        assert bool(tasks) == keep
        await asyncio.gather(*tasks)
        assert project.finals()["a"].exists() == keep
        assert bool(project.staged()) != keep


async def test_several_readers_share_one_download(tmp_path: Path, server: AssetServer) -> None:
    """Each has its own position; every piece comes once."""
    server.add("/a.bin", CONTENT)
    ends: list[AssetVerified] = []

    async def read(manager: AssetManager, position: int) -> bytes:
        async with manager.open_asset("a", keep_downloading=True) as file:
            file.seek(position)
            return await file.read()

    async with project_of(tmp_path, server).manager() as manager:
        manager.on_event(lambda event: ends.append(event) if isinstance(event, AssetVerified) else None)
        positions = [0, 7 * PIECE + 3, 15 * PIECE]
        found = await asyncio.gather(*(read(manager, position) for position in positions))
        await manager.download_asset("a")  # joins the one that goes on
    assert found == [CONTENT[position:] for position in positions]
    assert [end.downloaded_bytes for end in ends] == [SIZE]


async def test_a_stand_in_is_read_once_it_is_there(tmp_path: Path, server: AssetServer) -> None:
    """It is small and never has pieces, so a test with stand-ins reads as the real code does."""
    stand_in = seeded_bytes(3000, seed=21)
    server.add("/small.bin", stand_in)
    checksum = hashlib.sha256(stand_in).hexdigest()
    minimal = {"url": server.url("/small.bin"), "checksum": checksum, "size": len(stand_in)}
    project = project_of(tmp_path, server, minimal=minimal)
    async with AssetManager(project.manifest, minimal=True, environ={}) as manager, manager.open_asset("a") as file:
        assert await file.read() == stand_in


async def test_positions(tmp_path: Path, server: AssetServer) -> None:
    """It seeks as any file does."""
    server.add("/a.bin", CONTENT)
    async with project_of(tmp_path, server).manager() as manager, manager.open_asset("a") as file:
        assert file.seek(10) == 10
        assert file.seek(5, io.SEEK_CUR) == 15
        assert file.seek(10, io.SEEK_END) == SIZE + 10
        assert await file.read(5) == b""
        for offset, whence in [(-1, io.SEEK_SET), (-SIZE - 1, io.SEEK_END), (0, 9)]:
            with pytest.raises(ValueError, match="cannot seek"):
                file.seek(offset, whence)


async def test_a_file_that_is_cut_off_while_it_is_read(tmp_path: Path, server: AssetServer) -> None:
    """That is an error, not the end."""
    server.add("/a.bin", CONTENT)
    async with project_of(tmp_path, server).manager() as manager:
        path = await manager.get_asset_path("a")
        async with manager.open_asset("a") as file:
            with path.open("r+b") as cut:
                cut.truncate(1000)
            with pytest.raises(StorageError, match="cut off"):
                await file.read()


async def test_a_mock_reads_the_file_that_it_was_given(tmp_path: Path) -> None:
    """The code under test opens the asset as ever; a failure raises."""
    (tmp_path / "model").write_bytes(CONTENT[:1000])
    error = PolicyRefused("https://mock.invalid/b", "no")
    mock = create_mock_asset_manager({"a": tmp_path / "model"}, fail={"b": error}, missing={"a"})
    async with mock.open_asset("a") as file:
        assert isinstance(file, AssetReader)
        assert await file.read() == CONTENT[:1000]
    async with mock.open_asset("b") as file:
        with pytest.raises(PolicyRefused):
            await file.read()
    assert [call.arguments for call in mock.calls if call.name == "open_asset"] == [
        {"asset_id": "a"},
        {"asset_id": "b"},
    ]
