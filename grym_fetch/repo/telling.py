"""What `clean` and `restore` tell while they copy and read back large files: the events of a sync.

Rules: a file is named by its path in the repository. Copying is `progress`, reading is `asset_verifying`; the end is
`asset_verified`, `asset_reused` or `asset_failed`. Nothing was downloaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from grym_fetch.core.digest import Checksum
from grym_fetch.core.events import (
    AssetFailed,
    AssetReused,
    AssetVerified,
    AssetVerifying,
    Event,
    ProgressMade,
)
from grym_fetch.core.progress import Meter

Emit = Callable[[Event], object]


def unheard(event: Event) -> None:
    """Nobody wants to know."""


class WorkStopped(Exception):
    """Nobody wants the work any more."""


class Told:
    """Tells of one file. ``emit`` is called in whatever thread works; ``path`` is the file's in the repository."""

    def __init__(self, emit: Emit, path: str, now: Callable[[], float] = time.monotonic) -> None:
        self._emit = emit
        self._path = path
        self._now = now
        self._began = now()
        self._size: int | None = None
        self._meter = Meter(now=self._began)
        self._is_stopped = False

    def stop(self) -> None:
        """End the work: whoever tells of the next bytes gets `WorkStopped`. From any thread."""
        self._is_stopped = True

    def _go_on(self) -> None:
        if self._is_stopped:
            raise WorkStopped

    def copying(self, size: int) -> Callable[[int], None]:
        """So many bytes are to be copied. Returns what is called with how many are, by now."""
        self._size = size

        def copied(count: int) -> None:
            self._go_on()
            now = self._now()
            self._meter.advance(now, on_hand=count, received=count, total=size)
            if self._meter.is_due(now) or count >= size:
                state = self._meter.read(now)
                eta = None if state.eta is None else round(state.eta, 1)
                rate = round(state.rate, 1)
                self._emit(ProgressMade(asset=self._path, bytes=state.bytes, total=size, rate=rate, eta=eta))

        return copied

    def reading(self, size: int) -> Callable[[int], None]:
        """So many bytes are to be read and hashed. Returns what is called with how many are, by now."""
        self._size = size

        def read(count: int) -> None:
            self._go_on()
            if self._meter.is_due(self._now()):
                self._emit(AssetVerifying(asset=self._path, bytes=min(count, size), total=size))

        return read

    def done(self, place: str, checksum: Checksum) -> None:
        """The file is in its new place, and right."""
        self._emit(
            AssetVerified(
                asset=self._path,
                path=place,
                checksum=str(checksum),
                size=self._size or 0,
                seconds=round(self._now() - self._began, 3),
                downloaded_bytes=0,
            )
        )

    def there(self, place: str) -> None:
        """There was nothing to do."""
        self._emit(AssetReused(asset=self._path, path=place))

    def failed(self, error: Exception) -> None:
        """It stays as it was."""
        self._emit(AssetFailed(asset=self._path, error=type(error).__name__, message=str(error)))
