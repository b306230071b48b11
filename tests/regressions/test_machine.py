"""How other tools coped with other processes, full disks, odd file systems and lost networks."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import stat
from collections.abc import Callable
from typing import TypeVar

import pytest

from grym_fetch import MirrorsExhausted
from grym_fetch.core.journal import Piece
from grym_fetch.disk.stage import DiskStage, StageKey
from grym_fetch.errors import DiskFull
from grym_fetch.testing import ChangeContent, NoRanges, NoValidator, Reset, seeded_bytes
from tests.regressions.world import CONTENT, HALF, SIZE, World
from tests.support.fakes import read_some
from tests.support.invariants import SLACK
from tests.support.project import KIB, ImpatientClock
from tests.support.transports import WAYS, Way

T = TypeVar("T")


def failing_from(call: int, function: Callable[..., T], number: int) -> Callable[..., T]:
    """``function``, failing from its n-th call on with this error of the system."""
    calls = 0

    def wrapped(*args: object, **more: object) -> T:
        nonlocal calls
        calls += 1
        if calls >= call:
            raise OSError(number, os.strerror(number))
        return function(*args, **more)

    return wrapped


async def two_at_once(world: World) -> None:
    """Two managers fetch the same file at the same time; both must get it."""
    async with world.project.manager() as one, world.project.manager() as other, asyncio.timeout(60):
        paths = await asyncio.gather(one.get_asset_path("a"), other.get_asset_path("a"))
    assert set(paths) == {world.path}
    assert world.path.read_bytes() == CONTENT
    assert world.project.staged() == []


# -- other processes --------------------------------------------------------------------------------------------------


@pytest.mark.shows("B12", "B13", "X1")
async def test_ollama_200_two_at_once_fetch_one_file_once(world: World) -> None:
    """If two want one file at once, one fetches it and the other waits."""
    world.asset()
    await two_at_once(world)
    assert world.sent <= SIZE + SLACK


@pytest.mark.posix
@pytest.mark.shows("B2", "B45", "X1", "X3", "S14")
async def test_huggingface_hub_4306_a_flock_that_locks_nothing_mixes_no_file(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If everybody gets every lock, two simultaneous fetches write two parts, and both are right."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    world.asset()
    await two_at_once(world)


@pytest.mark.posix
@pytest.mark.shows("B2", "X3", "S14")
async def test_huggingface_hub_2399_a_file_system_without_locks_is_worked_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If taking a lock is an error, nobody waits for it."""
    monkeypatch.setattr(fcntl, "flock", failing_from(1, fcntl.flock, errno.ENOLCK))
    world.asset()
    await two_at_once(world)


@pytest.mark.shows("B10", "B44", "B60", "X2")
async def test_modelscope_1778_a_lock_file_that_lies_about_is_nobodys(world: World) -> None:
    """A lock file is not the lock: one left by a dead process, with its name in it, is not waited for."""
    world.asset()
    locks = world.project.assets / ".grym-fetch" / "locks"
    locks.mkdir(parents=True)
    (locks / f"{StageKey('models/a.bin', '').path_key}.lock").write_text('{"pid": 1, "host": "elsewhere"}')
    clock = ImpatientClock()
    await world.arrives(clock=clock)
    assert world.last is not None
    assert world.last.of("asset_waiting") == []


# -- files that are there already -------------------------------------------------------------------------------------


@pytest.mark.shows("B5", "B11", "C12")
@pytest.mark.parametrize("there", [CONTENT[:-1], CONTENT[:HALF], b"", bytes(SIZE), CONTENT + b"x"], ids=len)
async def test_modelscope_1114_a_partial_file_is_not_skipped_as_done(world: World, there: bytes) -> None:
    """A file that is too short, too long, or of the right length but wrong, is replaced, and stays until then."""
    world.asset()
    world.path.parent.mkdir(parents=True)
    world.path.write_bytes(there)
    await world.arrives()


@pytest.mark.shows("B40", "R9")
@pytest.mark.parametrize("keep", [True, False], ids=["same validators", "new validators"])
async def test_s3transfer_86_a_file_that_is_replaced_meanwhile_is_one_version(world: World, keep: bool) -> None:
    """Four connections, no checksum, and the file is replaced at its origin: the file put in place is one version."""
    old = seeded_bytes(SIZE, seed=15)
    faults = [ChangeContent(CONTENT, keep_validators=keep, skip=3), *([NoValidator()] if keep else [])]
    world.list(world.serve(*faults, content=old), pinned=False, size=False)
    world.also_allowed = (old,)
    assert await world.sync(allow_unpinned=True) is None
    assert world.path.read_bytes() in (old, CONTENT)


@pytest.mark.shows("B40", "R2", "R12")
async def test_aws_cli_2321_two_versions_are_not_joined_where_nothing_tells_them_apart(world: World) -> None:
    """No ranges, no validator, no checksum: after a break in the old version the new one is fetched from its start."""
    old = seeded_bytes(SIZE, seed=15)
    faults = [NoValidator(), NoRanges(), Reset(after=HALF, times=1), ChangeContent(CONTENT, skip=1)]
    world.list(world.serve(*faults, content=old), pinned=False)
    await world.arrives(allow_unpinned=True)


@pytest.mark.shows("B40", "R10", "R12", "S3")
async def test_aws_cli_2321_two_versions_are_not_joined_by_two_runs(world: World) -> None:
    """The same when the version changes between two runs."""
    file = world.serve(NoValidator(), NoRanges(), Reset(after=HALF), content=seeded_bytes(SIZE, seed=15))
    world.list(file, pinned=False)
    await world.fails(retries=0, allow_unpinned=True)
    assert world.stage
    world.serve(NoValidator())
    await world.arrives(allow_unpinned=True)


# -- the disk ---------------------------------------------------------------------------------------------------------


@pytest.mark.shows("B14", "D3")
async def test_ollama_1731_a_disk_that_is_full_for_the_journal_blocks_no_later_run(world: World) -> None:
    """The journal's next line does not fit. Once there is space, the next run continues from the lines before."""
    world.asset()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", failing_from(8, os.write, errno.ENOSPC))
        failure = await world.fails(parallel=1)
    assert isinstance(failure, DiskFull)
    world.forget()
    await world.arrives()
    assert world.sent < SIZE


@pytest.mark.posix
@pytest.mark.shows("B63", "D2", "D4")
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG], ids=errno.errorcode.get)
async def test_lmstudio_703_a_full_disk_is_said_and_forgets_nothing(world: World, number: int) -> None:
    """The error is the disk's, at once and not after retries; what was written is not fetched again."""
    world.asset()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pwrite", failing_from(20, os.pwrite, number))
        failure = await world.fails(parallel=1)
    assert isinstance(failure, DiskFull)
    assert world.last is not None
    assert world.last.of("retry_scheduled") == []
    world.forget()
    await world.arrives()
    assert world.sent < SIZE - HALF // 2


@pytest.mark.shows("B38", "D19")
async def test_dragonfly_4733_a_disk_slower_than_the_network_loses_no_piece(world: World) -> None:
    """The network waits for the disk: no piece is dropped, however fast the network is."""
    write = DiskStage.write
    most = writing = 0

    async def slowly(stage: DiskStage, start: int, data: bytes | memoryview, origin: int) -> Piece:
        nonlocal most, writing
        writing += 1
        most = max(most, writing)
        for _ in range(200):
            await asyncio.sleep(0)
        try:
            return await write(stage, start, data, origin)
        finally:
            writing -= 1

    world.asset()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DiskStage, "write", slowly)
        await world.arrives(parallel=4)
    assert 1 < most <= 4


@pytest.mark.shows("B58", "D7")
async def test_nix_2707_nothing_is_preallocated(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Preallocation that is unsupported, or takes minutes, is no problem; a part is only as long as what arrived."""
    # macOS has no such call.
    monkeypatch.setattr(os, "posix_fallocate", failing_from(1, len, errno.EOPNOTSUPP), raising=False)
    file = world.serve()
    world.list(file)
    await world.break_off(file)
    assert (world.stage / "part").stat().st_size <= HALF
    await world.arrives()


@pytest.mark.shows("B59", "D6")
@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP], ids=errno.errorcode.get)
async def test_restic_3720_a_folder_that_cannot_be_flushed_fails_nothing(
    world: World, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system that flushes files but not folders, files are still put in place."""
    fsync = os.fsync

    def only_files(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    world.asset()
    await world.arrives()


@pytest.mark.posix
@pytest.mark.shows("B64", "D20")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002], ids=oct)
async def test_huggingface_hub_1141_the_mode_of_a_temporary_file_does_not_stay(world: World, mask: int) -> None:
    """The file in place has the mode that the umask gives to any file, whatever the mode of its stage."""
    world.asset()
    before = os.umask(mask)
    try:
        await world.arrives()
    finally:
        os.umask(before)
    assert stat.S_IMODE(world.path.stat().st_mode) == 0o666 & ~mask


# -- the network ------------------------------------------------------------------------------------------------------


@pytest.mark.shows("B49", "P11")
async def test_comfy_desktop_1322_a_network_that_goes_leaves_nothing_under_the_final_name(world: World) -> None:
    """Connections break and no new ones can be made. When the network is back, the run continues from there."""
    file = world.serve(Reset(after=0, covering=HALF))
    world.list(file)

    async def unplug() -> None:
        await world.server.stats.until(lambda stats: len(stats.requests) > 2)
        await world.server.refuse_connections()

    unplugged = asyncio.create_task(unplug())
    failure = await world.fails(parallel=1)
    await unplugged
    assert isinstance(failure, MirrorsExhausted)
    assert "connect" in str(failure)
    file.faults = ()
    await world.server.accept_connections()
    world.forget()
    await world.arrives()
    assert world.sent <= SIZE - HALF // 2


@pytest.mark.shows("B52", "N19")
@pytest.mark.parametrize("way", WAYS)
async def test_aiohttp_13348_a_slow_reader_gets_every_byte_and_no_error(world: World, way: Way) -> None:
    """The complete body has arrived in buffers, the connection is closed, and the reader is slow."""
    content = seeded_bytes(3 * KIB * KIB, seed=16)
    file = world.serve(content=content)
    transport = way()
    connection = transport.connection()
    response = await connection.get(file.url, {"Connection": "close"})
    received = bytearray()
    while data := await read_some(response, 16 * KIB):
        received += data
        for _ in range(5):
            await asyncio.sleep(0)
    response.close()
    await connection.aclose()
    await transport.aclose()
    assert received == content


@pytest.mark.shows("B53")
async def test_aiohttp_2249_no_download_is_too_long(world: World) -> None:
    """One file takes more than an hour while bytes keep coming: there is no limit on the total time."""
    world.asset()
    clock = ImpatientClock()
    await world.arrives(clock=clock, limit_rate=100)
    assert sum(clock.slept) > 3600
