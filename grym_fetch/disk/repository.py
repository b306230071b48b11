"""Where a git repository begins: the folder that holds ``.git``, which is a file in a worktree or a submodule."""

from __future__ import annotations

import os
from pathlib import Path


def is_repository_root(folder: Path) -> bool:
    """Whether a git repository begins here."""
    return os.path.exists(folder / ".git")  # unlike Path.exists, never raises


def repository_root(folder: Path) -> Path | None:
    """The root of the git repository that ``folder`` is in, None if it is in none."""
    return next((here for here in (folder, *folder.parents) if is_repository_root(here)), None)
