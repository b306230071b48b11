"""Every event, as `AssetManager.events` yields them."""

from __future__ import annotations

from grym_fetch.core.events import (
    AssetFailed,
    AssetPlanned,
    AssetRestarted,
    AssetReused,
    AssetVerified,
    AssetVerifying,
    AssetWaiting,
    Event,
    MirrorSwitched,
    ProgressMade,
    RetryScheduled,
    RunFinished,
    RunStarted,
)

__all__ = [
    "AssetFailed",
    "AssetPlanned",
    "AssetRestarted",
    "AssetReused",
    "AssetVerified",
    "AssetVerifying",
    "AssetWaiting",
    "Event",
    "MirrorSwitched",
    "ProgressMade",
    "RetryScheduled",
    "RunFinished",
    "RunStarted",
]
