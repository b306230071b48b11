"""What a user can choose about how assets are fetched."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from grym_fetch.core.segments import SegmentSizes

__all__ = ["Mirrors", "SegmentSizes", "Settings"]

Mirrors = Literal["fallback", "together"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a user can choose about how assets are fetched. Times in seconds, ``limit_rate`` in bytes per second.

    ``parallel`` is the most connections open at once over all assets, ``max_per_host`` the most of them on one host.
    ``mirrors``: whether an asset's addresses are asked one after the other, or all at once, each as far as it is fast.
    """

    parallel: int = 4
    max_per_host: int | None = None
    mirrors: Mirrors = "fallback"
    limit_rate: float | None = None
    retries: int = 5
    stall_timeout: float = 30.0
    connect_timeout: float = 10.0
    lock_timeout: float = 3600.0
    offline: bool = False
    allow_unpinned: bool = False
    allow_stale: bool = False
    allow_private_addresses: bool = True
    sizes: SegmentSizes = field(default_factory=SegmentSizes)
