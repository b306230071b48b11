"""Where a git repository begins: the folder that holds ``.git``, which is a file in a worktree or a submodule.

A dangling symlink of that name counts, too: what is wrong with it is for git to say.
"""

from __future__ import annotations

import os
from pathlib import Path


def is_repository_root(folder: Path) -> bool:
    """Whether a git repository begins here."""
    return os.path.lexists(folder / ".git")


def repository_root(folder: Path) -> Path | None:
    """The root of the git repository that ``folder`` is in, None if it is in none."""
    return next((here for here in (folder, *folder.parents) if is_repository_root(here)), None)
