"""Files in the assets folder that no asset names: after `remove`, or under a path that has changed.

Rules: only this user's files count, and none that is hidden or that `grym-fetch clean` has put there, neither a moved
file nor a placeholder. A folder that belongs to an asset, unpacked from its archive, is that asset's with all that is
in it. A folder with state or records of its own (another assets folder, an external one, a store), a repository, and a
project that uses the folder are not looked into. Nor does a file count that git tracks.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from grym_fetch.core.errors import UnsafePath
from grym_fetch.core.paths import MOVED_FILES, PLACEHOLDER_SUFFIX, STATE_FOLDER
from grym_fetch.core.text import safe_text
from grym_fetch.disk.folders import close_each, exists, open_child, open_folder
from grym_fetch.disk.moved_files import parse_storage, read_document
from grym_fetch.disk.prune import Pruned
from grym_fetch.disk.repository import repository_root
from grym_fetch.repo.git import Git
from grym_fetch.repo.tree import below, is_store
from grym_fetch.runtime import system
from grym_fetch.store.stamps import OBJECTS
from grym_fetch.store.users import USERS

log = logging.getLogger(__name__)


def find_orphans(assets_dir: Path, named: Collection[str], homes: Collection[Path] = ()) -> list[Pruned]:
    """The files in the assets folder that nothing in ``named``, files or folders, accounts for. Blocking.

    ``homes`` are the roots of the projects that use it. Raises ``OSError`` or `StorageError` if it cannot be read,
    and `GitUnusable` if it is not known what git tracks.
    """
    try:
        root = open_folder(assets_dir, (), create=False)
    except FileNotFoundError:
        return []
    try:
        inside = _inside(assets_dir, homes)
        if "." in inside or _is_repository(assets_dir, root):
            log.info("%s is a project or a repository, so no file in it is an orphan", safe_text(str(assets_dir)))
            return []
        kept = {*named, MOVED_FILES, *_moved_here(assets_dir), *_tracked(assets_dir), *inside}
        if exists(root, f"{STATE_FOLDER}/{USERS}"):
            kept.add(OBJECTS)  # it is a store as well
        return sorted(_orphans(assets_dir, root, "", kept), key=lambda each: each.name)
    finally:
        close_each(root)


def _orphans(assets_dir: Path, folder: int, above: str, kept: set[str]) -> Iterator[Pruned]:
    for name in system.listdir(folder):
        path = f"{above}{name}"
        if name.startswith(".") or name.endswith(PLACEHOLDER_SUFFIX) or path in kept:
            continue
        with suppress(OSError):
            figures = system.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISDIR(figures.st_mode):
                inner = open_child(folder, name)
                try:
                    is_other = exists(inner, STATE_FOLDER) or exists(inner, MOVED_FILES)
                    if not is_other and not _is_repository(assets_dir / path, inner):
                        yield from _orphans(assets_dir, inner, f"{path}/", kept)
                finally:
                    close_each(inner)
            elif stat.S_ISREG(figures.st_mode) and figures.st_uid == system.user_id():
                size = system.allocated_bytes(figures) if figures.st_nlink == 1 else 0
                yield Pruned("orphan", path, "no asset names it", size)


def _inside(assets_dir: Path, homes: Collection[Path]) -> set[str]:
    """The paths of those folders that are in the assets folder, relative to it."""
    top = assets_dir.resolve()
    return {home.relative_to(top).as_posix() for home in (each.resolve() for each in homes) if home.is_relative_to(top)}


def _is_repository(place: Path, folder: int) -> bool:
    names = system.listdir(folder)
    return ".git" in names or is_store(os.fspath(place), names)


def _tracked(assets_dir: Path) -> Iterator[str]:
    """The files of the assets folder that git tracks, relative to it."""
    top = assets_dir.resolve()
    repository = repository_root(top)
    git = Git.of(repository) if repository is not None else None
    if git is not None and repository is not None:
        prefix = below(repository, top)
        yield from (path.removeprefix(prefix) for path in git.index() if path.startswith(prefix))


def _moved_here(assets_dir: Path) -> Iterator[str]:
    """What `grym-fetch clean` has moved into this folder, if it is a project's external folder as well."""
    try:
        _, entries = read_document(assets_dir / MOVED_FILES) or ({}, [])
        for entry in entries:
            yield parse_storage(entry)[0]
    except ValueError as error:
        reason = f"{error}; so it is not known which files were moved here, and none counts as an orphan"
        raise UnsafePath(safe_text(str(assets_dir / MOVED_FILES)), reason) from None
