"""Where a git repository begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from grym_fetch.disk.repository import is_repository_root, repository_root


@pytest.mark.parametrize("is_worktree", [False, True])
def test_the_root_is_found_from_below(tmp_path: Path, is_worktree: bool) -> None:
    """The nearest folder with .git is the root, be it a folder or, in a worktree, a file."""
    below = tmp_path / "repository" / "a" / "b"
    below.mkdir(parents=True)
    assert repository_root(below) is None
    root = tmp_path / "repository"
    if is_worktree:
        (root / ".git").write_text("gitdir: elsewhere\n")
    else:
        (root / ".git").mkdir()
    assert repository_root(below) == repository_root(root) == root
    assert is_repository_root(root)
    assert not is_repository_root(below)
