"""Waits for the lock of an asset that another process may be fetching.

Rule: a lock saves bandwidth, and nothing else depends on it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from grym_fetch.core.errors import Locked
from grym_fetch.core.events import AssetWaiting
from grym_fetch.core.manifest import Asset
from grym_fetch.disk.locks import FileLock
from grym_fetch.transfer.context import TransferContext

LOCK_POLL_S = 0.2
"""The time between two tries to get a lock that another process holds."""


class LockTaker(Protocol):
    """What takes a lock if it is free, off the event loop."""

    async def try_lock(self, lock: FileLock) -> bool:
        """Return whether it was taken."""


async def acquire_lock(lock: FileLock, asset: Asset, taker: LockTaker, context: TransferContext, *, path: Path) -> bool:
    """Acquire the lock, waiting for its holder. Returns whether it had to wait: the asset is then probably there.

    ``path`` is the asset's, for messages. Raises `Locked` after the user's ``lock_timeout``.
    """
    clock, lock_timeout = context.clock, context.settings.lock_timeout
    deadline = clock.monotonic() + lock_timeout
    announced = ""
    while not await taker.try_lock(lock):
        if lock.holder != announced:
            announced = lock.holder
            context.emit(AssetWaiting(asset=asset.id, holder=lock.holder))
        if clock.monotonic() >= deadline:
            raise Locked(
                path,
                f"{asset.id}: {lock.holder} has been fetching it for more than "
                f"{lock_timeout:g} s; wait for it, stop it, or raise --lock-timeout",
            )
        await clock.sleep(LOCK_POLL_S)
    return bool(announced)
