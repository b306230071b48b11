"""Identifies the content that an asset asks for: data kept under it can be used by any asset that asks for the same."""

from __future__ import annotations

from grym_fetch.core.journal import address_hash
from grym_fetch.core.manifest import Asset


def content_fingerprint(asset: Asset) -> str:
    """The checksum; for an unpinned asset a hash of its address, which may be a secret."""
    return str(asset.checksum) if asset.checksum is not None else f"unpinned {address_hash(asset.url)}"
