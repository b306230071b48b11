"""The content of a manifest, as in `AssetManager.manifest`."""

from __future__ import annotations

from grym_fetch.core.digest import Algorithm, Checksum, Hasher
from grym_fetch.core.manifest import Asset, Manifest, ManifestSource, StandIn
from grym_fetch.core.piece_digests import PieceDigests
from grym_fetch.core.stated import StatedDigest, StatedKind

__all__ = [
    "Algorithm",
    "Asset",
    "Checksum",
    "Hasher",
    "Manifest",
    "ManifestSource",
    "PieceDigests",
    "StandIn",
    "StatedDigest",
    "StatedKind",
]
