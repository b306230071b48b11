"""Finds the large files of a folder, and says how they add up.

Rules: sizes are in bytes and those that git would store, so a sparse file counts in full. A file is large if it has
more bytes than the limit.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from grym_fetch.repo.git import Git, GitUnusable
from grym_fetch.repo.tree import Tree

log = logging.getLogger(__name__)

MIB = 1024 * 1024
NO_TYPE = "(none)"


@dataclass(frozen=True, slots=True)
class LargeFile:
    """A file over the limit. ``path`` is relative to the folder that was looked through."""

    path: str
    size: int

    @property
    def type(self) -> str:
        """The extension in lower case, with its dot; `NO_TYPE` if there is none."""
        name = self.path.rpartition("/")[2]
        stem, dot, extension = name.rpartition(".")
        return f".{extension.lower()}" if dot and stem and extension else NO_TYPE

    @property
    def folder(self) -> str:
        """The folder it lies in, ``.`` for the topmost."""
        return self.path.rpartition("/")[0] or "."


@dataclass(frozen=True, slots=True)
class Total:
    """How many files share a name, and their bytes."""

    name: str
    files: int
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """What a folder has: large files, the largest first, and what was not looked into.

    ``ignored`` counts large files that git ignores and that are left out.
    """

    files: tuple[LargeFile, ...]
    ignored: int
    symlinks: tuple[str, ...]
    repositories: tuple[str, ...]
    unreadable: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """The size of all files together."""
        return sum(file.size for file in self.files)


def survey(folder: Path, limit: int, root: Path, *, with_ignored: bool = False) -> Survey:
    """Look through ``folder``, which lies in the repository at ``root``, for files of more than ``limit`` bytes."""
    tree = Tree(folder)
    found: dict[str, int] = {}
    for path, entry in tree.files():
        try:
            size = entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue  # it went away while we looked
        if size > limit:
            found[path] = size
    ignored: set[str] = set()
    if not with_ignored and found:
        try:
            if (git := Git.of(root)) is not None:
                ignored = git.ignored(below(root, folder), found)
        except GitUnusable as error:
            log.warning("what git ignores is listed too: %s", error)
    files = [LargeFile(path, size) for path, size in found.items() if path not in ignored]
    return Survey(
        files=tuple(sorted(files, key=lambda file: (-file.size, file.path))),
        ignored=len(ignored),
        symlinks=tuple(sorted(tree.symlinks)),
        repositories=tuple(sorted(tree.repositories)),
        unreadable=tuple(sorted(tree.unreadable)),
    )


def below(root: Path, folder: Path) -> str:
    """What to put before a path in ``folder`` so that it is relative to ``root``: empty, or ending in a slash."""
    relative = folder.relative_to(root).as_posix()
    return "" if relative == "." else f"{relative}/"


def totals(files: Iterable[LargeFile], name: Callable[[LargeFile], str]) -> list[Total]:
    """Add files up by a name, the largest sum first."""
    sums: dict[str, Total] = {}
    for file in files:
        key = name(file)
        before = sums.get(key, Total(key, 0, 0))
        sums[key] = Total(key, before.files + 1, before.bytes + file.size)
    return sorted(sums.values(), key=lambda total: (-total.bytes, total.name))


def ignore_line(path: str) -> str:
    """The line of the root's ``.gitignore`` that ignores exactly this path and no other."""
    escaped = re.sub(r"([\\*?\[\]])", r"\\\1", path)
    # Git cuts off spaces at the end unless they are escaped.
    bare = escaped.rstrip(" ")
    return "/" + bare + "\\ " * (len(escaped) - len(bare))
