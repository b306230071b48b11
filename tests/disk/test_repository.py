"""Where a git repository begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from grym_fetch.core.errors import UnsafePath
from grym_fetch.disk.repository import (
    check_is_not_gits,
    check_makes_no_repository,
    is_repository_root,
    repository_root,
)


@pytest.mark.parametrize("is_worktree", [False, True])
def test_the_root_is_found_from_below(tmp_path: Path, is_worktree: bool) -> None:
    """The nearest folder with .git is the root, whether .git is a folder or, in a worktree, a file."""
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


@pytest.mark.shows("S17")
@pytest.mark.parametrize(
    ("there", "place"),
    [
        (["HEAD", "objects/x"], "refs/heads/main"),
        (["HEAD", "refs/x"], "objects/a/b"),
        (["objects/x", "refs/x"], "HEAD"),
        (["head", "Objects/x"], "REFS/x"),
        (["HEAD"], "commondir"),
        (["commondir"], "HEAD"),
        (["HEAD", "objects/x", "refs/x"], "objects/y"),
        (["HEAD", "objects/x"], "ref\u017f/x"),
    ],
)
@pytest.mark.parametrize("above", ["", "a/b/", "refs/"])
def test_what_would_complete_a_repository(tmp_path: Path, there: list[str], place: str, above: str) -> None:
    """Whoever put the other parts there, the last one is refused, with a word on what it would complete."""
    for name in there:
        (tmp_path / above / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / above / name).touch()
    with pytest.raises(UnsafePath, match="makes a git repository together with"):
        check_makes_no_repository(tmp_path, above + place)


@pytest.mark.parametrize(
    ("there", "place"),
    [
        (["HEAD", "objects/x"], "refs.bin"),
        (["objects/x", "refs/x"], "HEAD/x"),
        (["HEAD", "a/objects/x"], "a/refs/x"),
        (["objects/x"], "refs/x"),
        ([], "a/HEAD"),
        (["a"], "a/HEAD"),
    ],
)
def test_what_completes_nothing(tmp_path: Path, there: list[str], place: str) -> None:
    """Names that mean nothing to git, alone or together, are ordinary names."""
    for name in there:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    check_makes_no_repository(tmp_path, place)


@pytest.mark.posix
@pytest.mark.shows("S17")
@pytest.mark.parametrize(
    ("path", "is_gits"),
    [
        ("repo/.git/x/y", True), ("repo/.git", True), ("repo/sub/new", False), ("bare/new", True), ("bare", True),
        ("bare/tree/new", False), ("elsewhere", False), ("link/new", True),
    ],
)  # fmt: skip
def test_what_is_git_s_own(tmp_path: Path, path: str, is_gits: bool) -> None:
    """A repository's folder by its name or by what is in it, seen through links; not the work trees in it."""
    for name in ("repo/.git", "repo/sub", "bare/objects", "bare/refs", "bare/HEAD", "bare/tree/.git"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to("repo/.git")
    if is_gits:
        with pytest.raises(UnsafePath, match="git's own folder"):
            check_is_not_gits(tmp_path / path)
    else:
        check_is_not_gits(tmp_path / path)
