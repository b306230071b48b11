"""Repairs one asset's file, or says what that would cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from grym_fetch.core.command_lines import command_line
from grym_fetch.core.errors import AssetMissing, UnpinnedAsset
from grym_fetch.engine.reports import RepairReport

if TYPE_CHECKING:
    from grym_fetch.core.manifest import Asset
    from grym_fetch.engine.coordinator import Coordinator


async def repair(coordinator: Coordinator, asset: Asset, *, dry_run: bool) -> RepairReport:
    """Read the asset's file and fetch what is wrong of it; with ``dry_run``, only say what that would be.

    Raises `AssetMissing` if no file is there, `UnpinnedAsset` if nothing says what it must be, and what
    `Coordinator.fetch` raises.
    """
    if not asset.pinned:
        raise UnpinnedAsset(asset.id, is_there=True)
    places = [place for place in coordinator.engine.local_files.places(asset) if place.exists()]
    if not places:
        sync = command_line("grym-fetch", "sync", names=(asset.id,))
        raise AssetMissing(asset.id, "no file is there to be repaired", f"Fetch it with `{sync}`.")
    return await (_examine(coordinator, asset, places[0]) if dry_run else _repair(coordinator, asset))


async def _examine(coordinator: Coordinator, asset: Asset, place: Path) -> RepairReport:
    found, damage = await coordinator.engine.fetcher.examine(asset)
    if found is not None and not found.is_wrong:
        return RepairReport(asset.id, found.path, "intact")
    if damage is None:
        return RepairReport(asset.id, place, "damaged", bytes_to_fetch=asset.size or 0)
    return RepairReport(
        asset.id,
        damage.path,
        "damaged",
        pieces=damage.pieces,
        bad=damage.bad,
        bytes_to_fetch=damage.bytes_to_fetch,
        is_guess=damage.is_guess,
        bytes_at_most=damage.size if damage.is_guess else None,
    )


async def _repair(coordinator: Coordinator, asset: Asset) -> RepairReport:
    result = await coordinator.repair(asset)
    if result.fetched is None and result.taken:
        return RepairReport(asset.id, result.path, "replaced")
    if result.fetched is None:
        return RepairReport(asset.id, result.path, "intact")
    size, downloaded = result.fetched.size, result.fetched.downloaded
    if (repaired := result.repaired) is None or not repaired.saved_bytes:
        return RepairReport(asset.id, result.path, "replaced", bytes_to_fetch=size, downloaded_bytes=downloaded)
    return RepairReport(
        asset.id,
        result.path,
        "repaired",
        pieces=repaired.pieces,
        bad=repaired.bad,
        bytes_to_fetch=size - repaired.saved_bytes,
        fetched=repaired.fetched,
        downloaded_bytes=downloaded,
        saved_bytes=repaired.saved_bytes,
    )
