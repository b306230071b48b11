"""Long manifests for tests: written small, and indexed as if they were long."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from grym_fetch.manifest_files.index import build_index
from grym_fetch.manifest_files.lines import LinesFile
from grym_fetch.manifest_files.long_manifest import LongManifest


def entry(asset_id: str, **more: object) -> dict[str, Any]:
    """A good entry."""
    return {"id": asset_id, "url": f"https://h.example.org/{asset_id}", "localPath": f"d/{asset_id}.bin"} | more


def write_lines(path: Path, entries: Iterable[object], head: object = None) -> Path:
    """Write an ``assets.jsonl``."""
    lines = [{"version": "1.0"} if head is None else head, *entries]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def long_manifest(path: Path, entries: Iterable[object]) -> LongManifest:
    """Read a list as if it were too long to be held."""
    index, _ = build_index(LinesFile(write_lines(path, entries), "assets.jsonl"), "assets.jsonl")
    return LongManifest(index, max_held=0)
