"""Finds the large files of a folder, and adds up their sizes.

Rules: sizes are the bytes that git would store, so a sparse file counts in full, and a file of which git stores only a
pointer (Git LFS, git-annex) does not count. A file is large if it has more bytes than the limit. Files that git ignores
are left out, except ours: those that a placeholder stands for, or that the record says were moved.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from grym_fetch.core.suspicion import MAX_POINTER_BYTES
from grym_fetch.core.text import safe_text
from grym_fetch.disk.folders import open_regular
from grym_fetch.repo.git import GITLINK, Git, GitUnusable, IndexEntry
from grym_fetch.repo.placeholder import SUFFIX
from grym_fetch.repo.places import read_placeholder
from grym_fetch.repo.tree import Tree, below

log = logging.getLogger(__name__)

MIB = 1024 * 1024
NO_TYPE = "(none)"
_POINTER_FILTERS = frozenset({"lfs", "annex"})
"""Filters for which git stores a small text instead of the file."""
_POINTER_HEAD = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True, slots=True)
class LargeFile:
    """A file over the limit. ``path`` is relative to the folder that was searched."""

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
        """The folder it is in; ``.`` for the top folder."""
        return self.path.rpartition("/")[0] or "."


@dataclass(frozen=True, slots=True)
class Total:
    """How many files are counted under one name, and their bytes."""

    name: str
    files: int
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """What a folder contains: large files, largest first, and what was not looked into.

    ``ignored`` large files (git ignores them) and ``pointers`` (git stores only a pointer) are left out.
    """

    files: tuple[LargeFile, ...]
    ignored: int
    pointers: int
    symlinks: tuple[str, ...]
    repositories: tuple[str, ...]
    unreadable: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """The size of all files together."""
        return sum(file.size for file in self.files)


def survey(
    folder: Path,
    limit: int,
    root: Path,
    *,
    with_ignored: bool = False,
    is_strict: bool = False,
    recorded: Collection[tuple[str, int]] = (),
) -> Survey:
    """Search ``folder``, which is in the repository at ``root``, for files of more than ``limit`` bytes.

    ``recorded`` are the paths, relative to the root, and sizes of files that were once moved. If git does not answer,
    everything is listed; with ``is_strict``, `GitUnusable` is raised instead.
    """
    tree = Tree(folder)
    found: dict[str, int] = {}
    for path, entry in tree.files():
        try:
            size = entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue  # it disappeared in the meantime
        if size > limit:
            found[path] = size
    known = _Known(frozenset(), frozenset(), frozenset())
    try:
        if found and (git := Git.of(root)) is not None:
            known = _ask(git, root, below(root, folder), found, with_ignored=with_ignored, recorded=recorded)
    except GitUnusable as error:
        if is_strict:
            raise
        log.warning("what git ignores is listed too: %s", error)
    known_pointers = known.pointers | {path for path, size in found.items() if _is_pointer(folder / path, size)}
    left_out = known.ignored | known.nested | known_pointers
    files = [LargeFile(path, size) for path, size in found.items() if path not in left_out]
    return Survey(
        files=tuple(sorted(files, key=lambda file: (-file.size, file.path))),
        ignored=len(known.ignored),
        pointers=len(known_pointers),
        symlinks=tuple(sorted(tree.symlinks)),
        repositories=tuple(sorted({*tree.repositories, *known.submodules})),
        unreadable=tuple(sorted(tree.unreadable)),
    )


def survey_staged(folder: Path, limit: int, root: Path) -> Survey:
    """What the next commit would add or change in ``folder``: blobs of more than ``limit`` bytes, as they are staged.

    Of a file with a filter (Git LFS) that is its pointer. Raises `GitUnusable` if there is no repository.
    """
    git = Git.of(root)
    if git is None:
        raise GitUnusable(f"{safe_text(str(root), limit=4000)} is not in a git repository, so nothing is staged")
    prefix = below(root, folder)
    staged = {path: blob for path, blob in git.staged().items() if path.startswith(prefix)}
    sizes = git.blob_sizes(set(staged.values())) if staged else {}
    files = [
        LargeFile(path.removeprefix(prefix), sizes[blob]) for path, blob in staged.items() if sizes.get(blob, 0) > limit
    ]
    return Survey(
        files=tuple(sorted(files, key=lambda file: (-file.size, file.path))),
        ignored=0,
        pointers=0,
        symlinks=(),
        repositories=(),
        unreadable=(),
    )


@dataclass(frozen=True, slots=True)
class _Known:
    """What git says about the files found: which not to list, relative to the folder."""

    ignored: frozenset[str]
    pointers: frozenset[str]
    nested: frozenset[str]
    """Files in a submodule that is not set up here: git accepts none of their paths."""
    submodules: frozenset[str] = frozenset()


def _ask(
    git: Git,
    root: Path,
    prefix: str,
    found: dict[str, int],
    *,
    with_ignored: bool,
    recorded: Collection[tuple[str, int]],
) -> _Known:
    index = git.index()
    links = {f"{path}/" for path, entry in index.items() if entry.mode == GITLINK}
    above = {path: [parent for parent in _parents(prefix + path) if parent in links] for path in found} if links else {}
    nested = {path for path, parents in above.items() if parents}
    ours = [path for path in found if path not in nested]
    ignored = set() if with_ignored else git.ignored(prefix, ours)
    if ignored:
        placed = {path for path in index if path.endswith(SUFFIX)}
        placed |= {path for path in git.committed() if path.endswith(SUFFIX)}
        ignored = {
            path
            for path in ignored
            if prefix + path + SUFFIX not in placed
            and (prefix + path, found[path]) not in recorded
            and read_placeholder(root / (prefix + path + SUFFIX)) is None
        }
    listed = [path for path in ours if path not in ignored]
    return _Known(
        ignored=frozenset(ignored),
        pointers=frozenset(_pointers(git, index, prefix, listed)),
        nested=frozenset(nested),
        submodules=frozenset(
            parent.removeprefix(prefix) for parents in above.values() for parent in parents if parent.startswith(prefix)
        ),
    )


def _pointers(git: Git, index: dict[str, IndexEntry], prefix: str, paths: list[str]) -> set[str]:
    """The files of which git stores, or would store, a pointer. Not one that was committed in full before its filter.

    It does not matter whether a filter is installed: finding out would mean running its program.
    """
    filters = git.filters([prefix + path for path in paths])
    filtered = [path for path in paths if filters.get(prefix + path) in _POINTER_FILTERS]
    blobs = {path: index[prefix + path].blob for path in filtered if prefix + path in index}
    sizes = git.blob_sizes(set(blobs.values())) if blobs else {}
    return {path for path in filtered if path not in blobs or sizes.get(blobs[path], 0) <= MAX_POINTER_BYTES}


def _is_pointer(path: Path, size: int) -> bool:
    """Whether a file is itself a pointer to its content, as when Git LFS has not fetched that."""
    if size > MAX_POINTER_BYTES:
        return False
    try:
        with open(open_regular(os.fspath(path)), "rb") as file:
            return file.read(len(_POINTER_HEAD)) == _POINTER_HEAD
    except OSError:
        return False


def _parents(path: str) -> list[str]:
    """The folders above a path, each ending in a slash."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[:count]) + "/" for count in range(1, len(parts) + 1)]


def totals(files: Iterable[LargeFile], name: Callable[[LargeFile], str]) -> list[Total]:
    """Add up the sizes of files by name, largest sum first."""
    sums: dict[str, Total] = {}
    for file in files:
        key = name(file)
        before = sums.get(key, Total(key, 0, 0))
        sums[key] = Total(key, before.files + 1, before.bytes + file.size)
    return sorted(sums.values(), key=lambda total: (-total.bytes, total.name))


def ignore_line(path: str) -> str:
    """The line of the root's ``.gitignore`` that ignores exactly this path and no other.

    A newline in a name cannot be written in such a file; the line then matches any character in its place.
    """
    escaped = re.sub(r"([\\*?\[\]])", r"\\\1", path)
    escaped = re.sub(r"[\r\n]", "?", escaped)
    # Git drops spaces at the end unless they are escaped.
    bare = escaped.rstrip(" ")
    return "/" + bare + "\\ " * (len(escaped) - len(bare))
