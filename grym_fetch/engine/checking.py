"""The state of an asset on disk, by its metadata or by reading and verifying it. Fetches nothing."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from grym_fetch.core.errors import StorageError
from grym_fetch.core.events import AssetFailed, AssetReused, AssetVerifying, Event
from grym_fetch.disk.local_files import Look, Presence
from grym_fetch.engine.reports import AssetState, AssetStatus
from grym_fetch.runtime.waiting import wait_uncancelled

if TYPE_CHECKING:
    from grym_fetch.core.manifest import Asset
    from grym_fetch.engine.protocol import AssetEngine


SAID_BY_STATE = _PARTIAL, _MISSING = "only partly downloaded", "missing"
"""What is wrong with an asset where its state says all."""
AT_ONCE = 8
AT_ONCE_BYTES = 16 * 1024 * 1024
"""So many small files are checked beside each other, since the way into a thread and back takes longer than to read
them. Of more bytes than this only one file is read at a time, as a disk likes best."""


async def in_order(
    assets: Sequence[Asset],
    check: Callable[[Asset], Awaitable[AssetStatus]],
    on_unread: Callable[[StorageError], object],
) -> AsyncGenerator[AssetStatus, None]:
    """Yield each asset's status, in this order; small ones are checked beside each other.

    ``on_unread`` is called with the error of one whose file cannot be read.
    """
    waiting = deque(assets)
    running: deque[tuple[int, asyncio.Task[AssetStatus]]] = deque()
    try:
        while waiting or running:
            while waiting and len(running) < AT_ONCE:
                size = AT_ONCE_BYTES if waiting[0].size is None else waiting[0].size
                if running and size + sum(each for each, _ in running) > AT_ONCE_BYTES:
                    break
                asset = waiting.popleft()
                running.append((size, asyncio.ensure_future(check(asset))))
            try:
                status = await running[0][1]
            except StorageError as error:
                on_unread(error)
            else:
                yield status
            running.popleft()
    finally:
        for _, task in running:
            task.cancel()
        await wait_uncancelled([task for _, task in running])


async def check(
    engine: AssetEngine, asset: Asset, assets_dir: Path, *, full: bool, emit: Callable[[Event], None]
) -> AssetStatus:
    """Read the asset's file, unless it is known to be verified; with ``full``, always read it.

    If it is read, events say so: ``asset_verifying``, and in the end ``asset_reused`` or ``asset_failed``. Raises
    `StorageError` if it cannot be read.
    """
    is_read = False

    def on_read(count: int, total: int, unpacking: bool | None = None) -> None:
        nonlocal is_read
        is_read = True
        emit(AssetVerifying(asset=asset.id, bytes=min(count, total), total=total, unpacking=unpacking))

    try:
        found = await _look(
            engine, asset, assets_dir, full=full, on_hashing=on_read, on_comparing=partial(on_read, unpacking=True)
        )
    except StorageError as error:
        error.asset_id = error.asset_id or asset.id
        if is_read:
            emit(AssetFailed(asset=asset.id, error=type(error).__name__, message=str(error)))
        raise
    if is_read and found.error is None:
        emit(AssetReused(asset=asset.id, path=str(found.path), unverified=None if asset.pinned else True))
    elif is_read:
        emit(AssetFailed(asset=asset.id, error="IntegrityError", message=f"{asset.id}: {found.error}"))
    return found


async def _look(
    engine: AssetEngine,
    asset: Asset,
    assets_dir: Path,
    *,
    full: bool,
    on_hashing: Callable[[int, int], None],
    on_comparing: Callable[[int, int], None],
) -> AssetStatus:
    def status(state: AssetState, path: Path, error: str | None = None) -> AssetStatus:
        return AssetStatus(asset.id, state, path, error, is_stand_in=asset.is_stand_in)

    found = await engine.local_files.find(asset, full=full, on_hashing=on_hashing)
    if found is None:
        destination = assets_dir / asset.local_path
        if any(_are_begun(engine, [asset])):
            return status(AssetState.PARTIAL, destination, _PARTIAL)
        return status(AssetState.MISSING, destination, _MISSING)
    if found.error is not None:
        return status(AssetState.CORRUPT, found.path, found.error)
    if asset.extract and not await _is_unpacked(engine, asset, found.path, on_comparing, full=full):
        return status(AssetState.PARTIAL, found.path, "not unpacked")
    return status(AssetState.VERIFIED if found.verified else AssetState.UNVERIFIED, found.path)


def seen_at_once(engine: AssetEngine, assets: Collection[Asset], assets_dir: Path) -> dict[str, AssetStatus]:
    """Return what a look at many assets says for certain, as `check` would. Each of the others has to be checked."""
    statuses: dict[str, AssetStatus] = {}
    missing: list[Asset] = []
    for asset, look in zip(assets, engine.local_files.look_at(assets), strict=True):
        if look.presence is Presence.NOTHING:
            missing.append(asset)
        elif look.path is not None and not asset.extract:
            statuses[asset.id] = AssetStatus(
                asset.id, AssetState.VERIFIED, Path(look.path), is_stand_in=asset.is_stand_in
            )
    for asset, is_begun in zip(missing, _are_begun(engine, missing), strict=True):
        state, error = (AssetState.PARTIAL, _PARTIAL) if is_begun else (AssetState.MISSING, _MISSING)
        path = assets_dir / asset.local_path
        statuses[asset.id] = AssetStatus(asset.id, state, path, error, is_stand_in=asset.is_stand_in)
    return statuses


async def _is_unpacked(
    engine: AssetEngine, asset: Asset, archive: Path, on_read: Callable[[int, int], None], *, full: bool
) -> bool:
    """As for a file: what is known to be unchanged is not read, unless all is to be read."""
    if not full and await asyncio.to_thread(engine.is_unpacked, asset, archive):
        return True
    return await engine.find_unpacked(asset, archive, on_read)


def states_of(engine: AssetEngine, assets: Sequence[Asset]) -> list[AssetState]:
    """Return each asset's state without reading a file."""
    looks = engine.local_files.look_at(assets) if len(assets) > 1 else map(engine.local_files.look, assets)
    states = [_state(engine, asset, look) for asset, look in zip(assets, looks, strict=True)]
    missing = [index for index, state in enumerate(states) if state is AssetState.MISSING]
    for index, is_begun in zip(missing, _are_begun(engine, [assets[index] for index in missing]), strict=True):
        if is_begun:
            states[index] = AssetState.PARTIAL
    return states


def _state(engine: AssetEngine, asset: Asset, look: Look) -> AssetState:
    match look.presence:
        case Presence.VERIFIED:
            is_whole = not asset.extract or engine.is_unpacked(asset, Path(str(look.path)))
            return AssetState.VERIFIED if is_whole else AssetState.PARTIAL
        case Presence.UNREAD:
            return AssetState.PRESENT if asset.pinned else AssetState.UNVERIFIED
        case Presence.OTHER:
            return AssetState.CORRUPT
        case Presence.NOTHING:
            return AssetState.MISSING


def _are_begun(engine: AssetEngine, assets: Sequence[Asset]) -> list[bool]:
    # The fetcher takes long to import, so ask it only if there is anything at all.
    if not assets or not engine.local_files.has_stages():
        return [False] * len(assets)
    return [count > 0 for count in engine.fetcher.staged_bytes(assets)]
