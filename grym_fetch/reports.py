"""What `AssetManager` returns and tells: the state of an asset, progress, plans, reports and readers."""

from __future__ import annotations

from grym_fetch.disk.prune import Pruned, PruneReport
from grym_fetch.engine.reader import AssetReader
from grym_fetch.engine.reports import (
    Adopted,
    AdoptReport,
    AssetProgress,
    AssetState,
    AssetStatus,
    RepairReport,
    SyncPlan,
    SyncReport,
)
from grym_fetch.manifest_files.project import Project
from grym_fetch.project.pinning import Pinned, PinReport
from grym_fetch.project.updating import NewerVersion

__all__ = [
    "AdoptReport",
    "Adopted",
    "AssetProgress",
    "AssetReader",
    "AssetState",
    "AssetStatus",
    "NewerVersion",
    "PinReport",
    "Pinned",
    "Project",
    "PruneReport",
    "Pruned",
    "RepairReport",
    "SyncPlan",
    "SyncReport",
]
