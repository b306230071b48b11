"""Files in the assets folder that no asset names: after `remove`, or under a path that has changed.

Rules: only this user's files count, and none that is hidden or that `grym-fetch clean` has put there, neither a moved
file nor a placeholder. A folder that belongs to an asset, unpacked from its archive, is that asset's with all that is
in it. A folder with state or records of its own (another assets folder, an external one, a store) is not looked into.
"""

from __future__ import annotations

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
from grym_fetch.runtime import system
from grym_fetch.store.stamps import OBJECTS
from grym_fetch.store.users import USERS


def find_orphans(assets_dir: Path, named: Collection[str]) -> list[Pruned]:
    """The files in the assets folder that nothing in ``named``, files or folders, accounts for. Blocking.

    Raises ``OSError`` or `StorageError` if it cannot be read.
    """
    try:
        root = open_folder(assets_dir, (), create=False)
    except FileNotFoundError:
        return []
    try:
        kept = {*named, MOVED_FILES, *_moved_here(assets_dir)}
        if exists(root, f"{STATE_FOLDER}/{USERS}"):
            kept.add(OBJECTS)  # it is a store as well
        return sorted(_orphans(root, "", kept), key=lambda each: each.name)
    finally:
        close_each(root)


def _orphans(folder: int, above: str, kept: set[str]) -> Iterator[Pruned]:
    for name in os.listdir(folder):
        path = f"{above}{name}"
        if name.startswith(".") or name.endswith(PLACEHOLDER_SUFFIX) or path in kept:
            continue
        with suppress(OSError):
            figures = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISDIR(figures.st_mode):
                below = open_child(folder, name)
                try:
                    if not (exists(below, STATE_FOLDER) or exists(below, MOVED_FILES)):
                        yield from _orphans(below, f"{path}/", kept)
                finally:
                    close_each(below)
            elif stat.S_ISREG(figures.st_mode) and figures.st_uid == system.user_id():
                size = system.allocated_bytes(figures) if figures.st_nlink == 1 else 0
                yield Pruned("orphan", path, "no asset names it", size)


def _moved_here(assets_dir: Path) -> Iterator[str]:
    """What `grym-fetch clean` has moved into this folder, if it is a project's external folder as well."""
    try:
        _, entries = read_document(assets_dir / MOVED_FILES) or ({}, [])
        for entry in entries:
            yield parse_storage(entry)[0]
    except ValueError as error:
        reason = f"{error}; so it is not known which files were moved here, and none counts as an orphan"
        raise UnsafePath(safe_text(str(assets_dir / MOVED_FILES)), reason) from None
