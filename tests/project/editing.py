"""What the tests of editing put into a project, and how they look into its manifest."""

from __future__ import annotations

import json
from typing import Any

from grym_fetch import AssetManager
from grym_fetch.settings import Settings
from grym_fetch.testing import seeded_bytes
from tests.support.hubs import HuggingFaceHub
from tests.support.project import KIB, SMALL, ImpatientClock, Project

CONTENT = seeded_bytes(300 * KIB, seed=21)
SMALL_CONTENT = seeded_bytes(3 * KIB, seed=22)


def entries(project: Project) -> dict[str, dict[str, Any]]:
    """The entries of the file, by id."""
    return {entry["id"]: entry for entry in json.loads(project.manifest.read_bytes())["assets"]}


def manager_for(project: Project, hub: HuggingFaceHub, **settings: Any) -> AssetManager:
    """A manager that knows the hub."""
    chosen = Settings(sizes=SMALL, retries=0, **settings)
    return AssetManager(project.manifest, settings=chosen, environ={"HF_ENDPOINT": hub.url}, clock=ImpatientClock())
