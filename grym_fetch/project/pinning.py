"""Pins assets: writes missing checksums and sizes into their entries.

Rules: each result is written at once, so that an interruption loses no finished work; results that have to wait for the
file are written together. A result for an entry that somebody else has changed is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import EditRefused, GrymFetchError, Problem, SyncFailed
from grym_fetch.core.events import Event, RunFinished, RunStarted
from grym_fetch.core.manifest import Asset, ManifestSource
from grym_fetch.core.manifest_parser import ParsedManifest
from grym_fetch.core.manifest_schema import PIECES
from grym_fetch.core.manifest_text import Setting
from grym_fetch.core.piece_digests import PieceDigests
from grym_fetch.core.text import safe_text
from grym_fetch.core.world import Clock
from grym_fetch.engine.engine import Engine
from grym_fetch.project.entries import Entries, numbered
from grym_fetch.project.measuring import Measured, Measurer


@dataclass(frozen=True, slots=True)
class Pinned:
    """An asset, or its stand-in, whose checksum and size are in the manifest now. ``fetched``: now.

    ``pieces``: how many pieces have their digests in the manifest now; None if none were written.
    ``before``: the checksum that was there, if it was pinned anew.
    """

    id: str
    checksum: Checksum
    size: int
    path: Path
    fetched: bool
    is_stand_in: bool = False
    pieces: int | None = None
    before: Checksum | None = None


@dataclass(frozen=True, slots=True)
class PinReport:
    """What `AssetManager.pin` did."""

    pinned: tuple[Pinned, ...]
    failed: Mapping[str, GrymFetchError]


@dataclass(eq=False, slots=True)
class _Record:
    """A result for an asset, to be written into the manifest. ``error`` says why it was refused."""

    asset: Asset
    measured: Measured
    pieces: PieceDigests | None = None
    is_written: bool = False
    error: EditRefused | None = None


class Pinner:
    """Pins the assets of one project, as many at a time as ``engine`` allows."""

    def __init__(
        self, *, engine: Engine, entries: Entries, measurer: Measurer, clock: Clock, emit: Callable[[Event], None]
    ) -> None:
        self._engine = engine
        self._entries = entries
        self._measurer = measurer
        self._clock = clock
        self._emit = emit
        self._writing = asyncio.Lock()
        self._records: list[_Record] = []

    async def pin(
        self,
        manifest: ManifestSource,
        ids: Collection[str] | None,
        *,
        exclude: Collection[str] = (),
        minimal: bool,
        pieces: bool = False,
        allow_suspicious: bool = False,
        before_fetch: Callable[[], Awaitable[None]],
        on_change: Callable[[ParsedManifest[ManifestSource]], None],
        on_pinned: Callable[[Pinned], object],
    ) -> PinReport:
        """Write missing checksums and sizes into the manifest, fetching the files that are not there.

        Covers the assets named, or all if ``ids`` is None, without ``exclude``, and their stand-ins; with ``minimal``
        only the stand-ins. A missing size alone is added only for assets that are named. ``pieces``: also write the
        digests of the pieces of each asset that lacks them.

        Raises `SyncFailed` if any of them failed; the others are pinned nevertheless.
        """
        self._entries.check_editable()
        wanted = _to_pin(manifest, ids, exclude, minimal=minimal, pieces=pieces)
        await before_fetch()
        if not wanted:
            return PinReport((), {})
        return await self._pin(wanted, on_change, on_pinned, pieces=pieces, allow_suspicious=allow_suspicious)

    async def _pin(
        self,
        assets: Collection[Asset],
        on_change: Callable[[ParsedManifest[ManifestSource]], None],
        on_pinned: Callable[[Pinned], object],
        *,
        pieces: bool,
        allow_suspicious: bool,
    ) -> PinReport:
        began = self._clock.monotonic()
        self._emit(RunStarted(assets=len(assets), bytes=sum(asset.size or 0 for asset in assets)))
        pinned: list[Pinned] = []
        failed: dict[str, GrymFetchError] = {}
        verified = unverified = downloaded = 0
        queue = iter(assets)

        async def pin_some() -> None:
            nonlocal verified, unverified, downloaded
            for asset in queue:
                try:
                    measured = await self._measurer.find_or_fetch(asset, allow_suspicious=allow_suspicious)
                    downloaded += measured.downloaded or 0
                    digests = None
                    # Those that are there belong to what the asset was, and are measured anew with it.
                    if (pieces and not asset.is_stand_in) or asset.pieces is not None:
                        digests = await self._measurer.pieces(measured.path, measured.checksum, measured.size)
                    await self._record(_Record(asset, measured, digests), on_change)
                except GrymFetchError as error:
                    failed[f"{asset.id} (stand-in)" if asset.is_stand_in else asset.id] = error
                    continue
                self._measurer.note_verified(measured.path, measured.checksum, measured.signature)
                await self._measurer.keep([replace(asset, checksum=measured.checksum, size=measured.size)])
                fetched = measured.downloaded is not None
                # The bytes of an unpinned asset had nothing to be verified against: they are pinned, not verified.
                verified += fetched and asset.pinned
                unverified += fetched and not asset.pinned
                done = Pinned(
                    asset.id,
                    measured.checksum,
                    measured.size,
                    measured.path,
                    fetched,
                    asset.is_stand_in,
                    pieces=None if digests is None else len(digests.sha256),
                )
                pinned.append(done)
                on_pinned(done)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._engine.max_active_assets, len(assets))):
                    group.create_task(pin_some())
        finally:
            self._emit(
                RunFinished(
                    verified=verified,
                    unverified=unverified,
                    reused=len(pinned) - verified - unverified,
                    failed=len(failed),
                    downloaded_bytes=downloaded,
                    seconds=round(self._clock.monotonic() - began, 3),
                )
            )
        if failed:
            raise SyncFailed(failed)
        return PinReport(tuple(pinned), failed)

    async def _record(self, mine: _Record, on_change: Callable[[ParsedManifest[ManifestSource]], None]) -> None:
        """Write what was found into the asset's entry, with what others have found while the file was being written."""
        self._records.append(mine)
        try:
            async with self._writing:
                if not mine.is_written:
                    waiting = list(self._records)
                    on_change(await self._entries.set_values(partial(self._settings_of, waiting)))
                    for record in waiting:
                        record.is_written = True
                    del self._records[: len(waiting)]
        except BaseException:
            if not mine.is_written:
                # The others are still waiting, and will write their results themselves.
                self._records.remove(mine)
            raise
        if mine.error is not None:
            raise mine.error

    def _settings_of(self, records: list[_Record], manifest: ManifestSource) -> list[Setting]:
        """Return what to write for these. Refuses results for an entry that has changed since."""
        entries = numbered(manifest, [record.asset.id for record in records])
        settings = []
        for record in records:
            asset, found = record.asset, record.measured
            number, entry = entries.get(asset.id, (None, None))
            now = entry.stand_in() if entry is not None and asset.is_stand_in else entry
            record.error = None
            if number is None or now is None or not _is_about(now, asset) or now.checksum not in (None, found.checksum):
                reason = "has been changed meanwhile by somebody else; look at it, and pin it again"
                record.error = self._entries.refused(Problem(f"asset '{safe_text(asset.id)}'", "", reason))
                continue
            values: dict[str, object] = {"size": found.size}
            if now.checksum is None:
                values = {"checksum": found.checksum.bare, **values}
            if record.pieces is not None:
                values["pieces"] = PIECES.write(record.pieces)
            settings.append(Setting(number, values, asset.is_stand_in))
        return settings


def _to_pin(
    manifest: ManifestSource, ids: Collection[str] | None, exclude: Collection[str], *, minimal: bool, pieces: bool
) -> list[Asset]:
    """The assets and stand-ins that lack a checksum, a size if they are named, or pieces. Raises `UnknownAsset`."""

    def lacks_something(kind: Asset) -> bool:
        if not kind.pinned or (ids is not None and kind.size is None):
            return True
        return pieces and kind.pieces is None and not kind.is_stand_in

    chosen = manifest.pick(ids, exclude=exclude)
    kinds = [kind for asset in chosen for kind in dict.fromkeys((asset, asset.stand_in()))]
    return [kind for kind in kinds if (kind.is_stand_in or not minimal) and lacks_something(kind)]


def _is_about(entry: Asset, asset: Asset) -> bool:
    """Whether what the entry says about the content is still the same as when the content was fetched."""
    return (entry.url, entry.local_path, entry.is_stand_in) == (asset.url, asset.local_path, asset.is_stand_in)
