"""Walks a folder for its files: fast, and never through a symlink or into another repository.

Rules: skipped are ``.git`` and ``node_modules``; folders that are repositories of their own, symlinks, and folders that
cannot be read are remembered. Paths are relative to the folder, with ``/``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from grym_fetch.disk.repository import repository_root

SKIPPED = frozenset({".git", "node_modules"})


class Tree:
    """One walk. ``symlinks``, ``repositories`` and ``unreadable`` are complete once `files` is exhausted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.symlinks: list[str] = []
        self.repositories: list[str] = []
        self.unreadable: list[str] = []

    def files(self) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Yield every regular file, in no order."""
        pending = [("", os.fspath(self._folder))]
        while pending:
            prefix, folder = pending.pop()
            try:
                with os.scandir(folder) as listing:
                    entries = list(listing)
            except OSError:
                self.unreadable.append(prefix or ".")
                continue
            if prefix and any(entry.name == ".git" for entry in entries):
                self.repositories.append(prefix)
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


def find_root(folder: Path, cwd: Path) -> Path:
    """The root of the repository that ``folder`` is in; where there is none, ``cwd`` if that is above, else itself."""
    if (root := repository_root(folder)) is not None:
        return root
    return cwd if folder.is_relative_to(cwd) else folder
