"""Setting up a project on every kind of file system."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from grym_fetch.project.setup import folder_steps, manifest_step

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where hard links are not permitted (FAT, some FUSE and SMB), every file is still created."""

    def link(*arguments: object, **more: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    root = tmp_path / "project"
    root.mkdir()
    places = {"assets_dir": None, "external_assets_dir": str(tmp_path / "assets")}
    step, project = manifest_step(root, {}, NOW, config=None, places=places)
    assert step.state == "done"
    assert {step.state for step in folder_steps(project, NOW)} == {"done"}
    assert json.loads((root / "assets.json").read_bytes())["assets"] == []
    assert json.loads((tmp_path / "assets/asset-manifest.json").read_bytes())["assets"] == []
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(
        ["project", "assets", "assets.json", "assets", "asset-manifest.json", ".gitignore"]
    )
