"""Walks a folder for its files: fast, and never through a symlink or into a repository.

Rules: ``.git`` and ``node_modules`` are skipped. So are symlinks, folders that cannot be read, and folders that are
themselves repositories or hold a repository's objects, packed or loose; these are remembered. Paths are relative to
the folder, with ``/``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from grym_fetch.disk.repository import repository_root

SKIPPED = frozenset({".git", "node_modules"})
_REPOSITORY = frozenset({"HEAD", "objects", "refs"})
"""The names by which git recognises a repository, whatever the folder's name (setup.c, is_git_directory)."""
_OBJECTS = frozenset({"info", "pack"})
_PACK = re.compile(r"pack-[0-9a-f]{40,64}\.(?:pack|idx)")
_LOOSE_FOLDER = re.compile(r"[0-9a-f]{2}")
_LOOSE_OBJECT = re.compile(r"[0-9a-f]{38}(?:[0-9a-f]{24})?")
"""The name of a loose object (SHA-1 or SHA-256), without the two digits that name its folder."""


class Tree:
    """One walk. ``symlinks``, ``repositories`` and ``unreadable`` are complete once `files` is exhausted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.symlinks: list[str] = []
        self.repositories: list[str] = []
        self.unreadable: list[str] = []

    def files(self) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Yield every regular file, in no particular order."""
        pending = [("", os.fspath(self._folder))]
        while pending:
            prefix, folder = pending.pop()
            try:
                with os.scandir(folder) as listing:
                    entries = list(listing)
            except OSError:
                self.unreadable.append(prefix or ".")
                continue
            names = {entry.name for entry in entries}
            if (prefix and ".git" in names) or is_store(folder, names):
                self.repositories.append(prefix or ".")
                continue
            for entry in entries:
                if entry.name in SKIPPED:
                    continue
                path = prefix + entry.name
                if entry.is_symlink():
                    self.symlinks.append(path)
                elif entry.is_dir(follow_symlinks=False):
                    pending.append((path + "/", entry.path))
                elif entry.is_file(follow_symlinks=False):
                    yield path, entry


def is_store(folder: str, names: Collection[str]) -> bool:
    """Whether a folder with these names is a repository without a work tree, or the objects of one."""
    if _REPOSITORY.issubset(names):
        return True
    if _OBJECTS.issubset(names) and _has_one(folder, "pack", _PACK):
        return True
    loose = [name for name in names if _LOOSE_FOLDER.fullmatch(name)]
    if not loose or not _OBJECTS.issuperset(set(names) - set(loose)):
        return False
    return any(_has_one(folder, name, _LOOSE_OBJECT) for name in loose)


def _has_one(folder: str, inside: str, form: re.Pattern[str]) -> bool:
    """Whether the folder ``inside`` contains a name of this form."""
    try:
        return any(form.fullmatch(name) for name in os.listdir(os.path.join(folder, inside)))
    except OSError:
        return False


def git_folder_above(path: Path) -> Path | None:
    """The outermost of git's own folders that ``path`` is or is in; None if there is none.

    A work tree may be in a repository's folder, for example in a bare one's; its files are not git's own.
    """
    found = None
    for candidate in (path, *path.parents):
        try:
            names = set(os.listdir(candidate))
        except OSError:  # it does not exist, or may be entered but not read
            names = set()
        if candidate.name == ".git" or is_store(os.fspath(candidate), names):
            found = candidate
        elif ".git" in names:
            break
    return found


def find_root(folder: Path, cwd: Path) -> Path:
    """The root of the repository that ``folder`` is in; if there is none, ``cwd`` if that is above, else ``folder``."""
    if (root := repository_root(folder)) is not None:
        return root
    return cwd if folder.is_relative_to(cwd) else folder


def below(root: Path, folder: Path) -> str:
    """The prefix that makes a path in ``folder`` relative to ``root``: empty, or ending in a slash."""
    relative = folder.relative_to(root).as_posix()
    return "" if relative == "." else f"{relative}/"
