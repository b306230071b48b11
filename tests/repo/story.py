"""Repositories for tests, made with the real git, and what must hold for them."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from grym_fetch.repo.clean import Cleaner, Kept, Moved, plan_clean

NOON = datetime(2026, 3, 9, 12, tzinfo=UTC)
LIMIT = 1000
"""A file with more bytes than this is large here."""

_ENVIRON = {
    "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.org", "GIT_COMMITTER_NAME": "c",
    "GIT_COMMITTER_EMAIL": "c@example.org", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null",
}  # fmt: skip


def git(folder: Path, *arguments: str, day: int = 1) -> str:
    """Run git and return its output. ``day`` of January is the time of a commit."""
    date = {"GIT_AUTHOR_DATE": f"2026-01-{day:02}T12:00:00Z", "GIT_COMMITTER_DATE": f"2026-01-{day:02}T12:00:00Z"}
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=os.environ | _ENVIRON | date, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def write(folder: Path, name: str, content: bytes) -> Path:
    """Write a file, with its folders."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def commit(folder: Path, *, day: int = 1) -> str:
    """Commit everything and return the commit's name."""
    git(folder, "add", "-A", day=day)
    git(folder, "commit", "-q", "-m", "a commit", day=day)
    return git(folder, "rev-parse", "HEAD")


def repository(folder: Path) -> Path:
    """An empty repository."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    return folder


def clean(root: Path, target: Path, *, allow_dirty: bool = False) -> list[Moved | Kept]:
    """Move large files; return the outcome for each file tried."""
    plan = plan_clean(root, root, target, LIMIT, allow_dirty=allow_dirty)
    with Cleaner(plan, lambda: NOON) as cleaner:
        return list(cleaner.moves())
