"""Takes assets from what is on this machine already. Asks nobody."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from grym_fetch.core.errors import GrymFetchError, SyncFailed
from grym_fetch.engine.reports import Adopted, AdoptReport

if TYPE_CHECKING:
    from grym_fetch.core.manifest import Asset
    from grym_fetch.engine.protocol import AssetEngine


async def adopt(
    engine: AssetEngine, assets: Sequence[Asset], places: Sequence[Path], on_adopted: Callable[[Adopted], object]
) -> AdoptReport:
    """Make these present as far as they are on this machine. An asset without a checksum is not: nothing proves it.

    Raises `SyncFailed` if some of them could not be put in place.
    """
    adopter = engine.adopter(places)
    adopted: list[Adopted] = []
    present: list[str] = []
    missing: list[str] = []
    failed: dict[str, GrymFetchError] = {}
    for asset in assets:
        try:
            result = await adopter.adopt(asset) if asset.pinned else None
        except GrymFetchError as error:
            failed[asset.id] = error
            continue
        if result is None:
            missing.append(asset.id)
        elif result.taken is None:
            present.append(asset.id)
        else:
            adopted.append(one := Adopted(asset.id, result.path, result.taken.source, result.taken.link))
            on_adopted(one)
    if failed:
        raise SyncFailed(failed)
    return AdoptReport(tuple(adopted), tuple(present), tuple(missing))
