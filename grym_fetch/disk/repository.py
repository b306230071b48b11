"""Finds the root of a git repository: the folder that holds ``.git``, which is a file in a worktree or a submodule.

A dangling symlink of that name counts too: git will say what is wrong with it.
"""

from __future__ import annotations

import os
from pathlib import Path

from grym_fetch.core.errors import UnsafePath
from grym_fetch.core.git_folders import BESIDE_HEAD, HEAD, makes_a_repository, may_make_a_repository, needed_of
from grym_fetch.core.paths import collision_key
from grym_fetch.core.text import safe_text


def is_repository_root(folder: Path) -> bool:
    """Whether this folder is the root of a git repository."""
    return os.path.lexists(folder / ".git")


def repository_roots(folder: Path) -> list[Path]:
    """The roots of the git repositories that ``folder`` is in, the nearest first."""
    return [here for here in (folder, *folder.parents) if is_repository_root(here)]


def repository_root(folder: Path) -> Path | None:
    """The root of the git repository that ``folder`` is in; None if it is not in one."""
    return next(iter(repository_roots(folder)), None)


def git_own_folder(path: Path) -> Path | None:
    """The nearest of git's own folders that ``path`` is or leads into; None if there is none.

    A work tree may be in a repository's folder, for example in a bare one's; its files are not git's own. No folder is
    listed, because every command asks; `repo.tree` also knows the objects of a repository that is elsewhere.
    """
    real = Path(os.path.realpath(path))
    for here in (real, *real.parents):
        if here.name == ".git" or all(os.path.lexists(here / name) for name in ("HEAD", "objects", "refs")):
            return here
        if is_repository_root(here):
            return None
    return None


def check_is_not_gits(path: Path) -> None:
    """Raise `UnsafePath` if a folder to be written to is git's own, or in one."""
    if (own := git_own_folder(path)) is not None:
        shown = safe_text(str(own), limit=1000)
        reason = f"{shown} is git's own folder, and nothing is written there; choose another one"
        raise UnsafePath(safe_text(str(path), limit=1000), reason)


def check_makes_no_repository(root: Path, local_path: str) -> None:
    """Raise `UnsafePath` if git would take a folder for a repository once this file is there: see `core.git_folders`.

    The parts of a repository may come from several manifests, one after the other; only the disk shows them all.
    """
    if not may_make_a_repository(local_path):
        return
    parts = local_path.split("/")
    for depth, part in enumerate(parts):
        key = collision_key(part)
        if key not in BESIDE_HEAD and (key != HEAD or depth + 1 < len(parts)):
            continue
        folder = root.joinpath(*parts[:depth])
        try:
            names = {collision_key(name): name for name in os.listdir(folder)}
        except OSError:
            return  # nothing is there, or nothing can be put there
        names[key] = part
        if HEAD in names and (needed := needed_of(names)):
            together = dict.fromkeys((HEAD, *needed))
            others = ["/".join((*parts[:depth], names[key])) for key in together if names[key] != part]
            reason = f"it {makes_a_repository(others)}; remove what is there, or choose another folder"
            raise UnsafePath(safe_text(str(root / local_path), limit=1000), reason)
