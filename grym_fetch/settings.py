"""What a user can choose about how assets are fetched."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from grym_fetch.core.segments import SegmentSizes
from grym_fetch.core.validation import instance_of, number, one_of, refuse_nonsense, whole_number

__all__ = ["Mirrors", "SegmentSizes", "Settings"]

Mirrors = Literal["fallback", "together"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a user can choose about how assets are fetched. Times in seconds, ``limit_rate`` in bytes per second.

    ``parallel`` is the most connections open at once over all assets, ``max_per_host`` the most of them on one host.
    ``mirrors``: whether an asset's addresses are asked one after the other, or all at once, each as far as it is fast.

    Raises ValueError for a value that makes no sense, also through `dataclasses.replace`; it names the field and says
    what is allowed.
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

    def __post_init__(self) -> None:
        refuse_nonsense(self, RULES)


RULES = {
    "parallel": whole_number(1),
    "max_per_host": whole_number(1).or_none("no limit"),
    "mirrors": one_of("fallback", "together"),
    "limit_rate": number(above=0).or_none("no limit"),
    "retries": whole_number(0),
    "stall_timeout": number(above=0),
    "connect_timeout": number(above=0),
    "lock_timeout": number(least=0),
    "offline": instance_of(bool),
    "allow_unpinned": instance_of(bool),
    "allow_stale": instance_of(bool),
    "allow_private_addresses": instance_of(bool),
    "sizes": instance_of(SegmentSizes),
}
"""What each field of `Settings` may be. The command line holds its options to the same."""
