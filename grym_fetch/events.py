"""The events, and the `Subscription` that `AssetManager.events` returns, which yields them."""

from __future__ import annotations

from grym_fetch.core.events import (
    AssetDamaged,
    AssetFailed,
    AssetPlanned,
    AssetRepaired,
    AssetRestarted,
    AssetReused,
    AssetVerified,
    AssetVerifying,
    AssetWaiting,
    Event,
    LinkMode,
    MirrorSwitched,
    ProgressMade,
    RetryScheduled,
    RunFinished,
    RunStarted,
)
from grym_fetch.runtime.bus import Subscription

__all__ = [
    "AssetDamaged",
    "AssetFailed",
    "AssetPlanned",
    "AssetRepaired",
    "AssetRestarted",
    "AssetReused",
    "AssetVerified",
    "AssetVerifying",
    "AssetWaiting",
    "Event",
    "LinkMode",
    "MirrorSwitched",
    "ProgressMade",
    "RetryScheduled",
    "RunFinished",
    "RunStarted",
    "Subscription",
]
