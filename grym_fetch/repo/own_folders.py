"""Which files a project or an earlier clean needs where they are, so that none of them is moved.

Rules: every folder above a file is checked up to the root, wherever the search began. An assets folder is one that has
a state folder, is next to a manifest, or was named; everything in it stays. In an external folder, the files that its
record lists stay. A manifest or a record that cannot be read may list anything.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from grym_fetch.core.paths import MOVED_FILES, STATE_FOLDER
from grym_fetch.core.text import safe_text
from grym_fetch.disk.folders import read_regular
from grym_fetch.disk.moved_files import MAX_RECORD_BYTES, parse_storage
from grym_fetch.manifest_files.project import ASSETS_NAME, CANDIDATES, MAX_MANIFEST_BYTES


class OwnFolders:
    """Each folder is checked once. ``named`` are assets folders that the user has named, without symlinks."""

    def __init__(self, named: Iterable[Path] = ()) -> None:
        self._named = frozenset(named)
        self._assets: dict[Path, bool] = {}
        self._moved: dict[Path, frozenset[str] | None] = {}

    def why_not(self, file: Path) -> str | None:
        """Why a file (an absolute path without symlinks) stays; None if nothing of ours needs it."""
        for folder in file.parents:
            if self._is_assets_dir(folder):
                shown = safe_text(str(folder), limit=4000)
                return f"it lies in {shown}, an assets folder of grym-fetch; add that to .gitignore"
            moved = self._moved_to(folder)
            if moved is None or (moved and file.relative_to(folder).as_posix() in moved):
                shown = safe_text(str(folder), limit=4000)
                return f"it was moved to {shown} before, where `grym-fetch restore` looks for it"
        return None

    def _is_assets_dir(self, folder: Path) -> bool:
        known = self._assets.get(folder)
        if known is None:
            known = self._assets[folder] = (
                folder in self._named or (folder / STATE_FOLDER).is_dir() or _is_beside_manifest(folder)
            )
        return known

    def _moved_to(self, folder: Path) -> frozenset[str] | None:
        if folder not in self._moved:
            self._moved[folder] = _listed(folder / MOVED_FILES)
        return self._moved[folder]


def _is_beside_manifest(folder: Path) -> bool:
    if folder.name.casefold() != ASSETS_NAME:
        return False
    try:
        if not os.path.samefile(folder, folder.with_name(ASSETS_NAME)):
            return False
    except OSError:
        return False
    return any(_is_manifest(folder.parent / name) for name in CANDIDATES)


def _is_manifest(path: Path) -> bool:
    try:
        return _entries(path, MAX_MANIFEST_BYTES) is not None
    except ValueError:
        return True


def _listed(record: Path) -> frozenset[str] | None:
    """The paths in its folder that a record lists; None if they are not known."""
    try:
        entries = _entries(record, MAX_RECORD_BYTES) or []
    except ValueError:
        return None
    paths = set()
    for entry in entries:
        with suppress(ValueError):
            paths.add(parse_storage(entry)[0])
    return frozenset(paths)


def _entries(path: Path, limit: int) -> list[object] | None:
    """The list ``assets`` in a file; None if there is none, as in another program's file of the same name.

    Raises `ValueError` if the file cannot be read.
    """
    if not os.path.isfile(path):
        return None
    try:
        document = json.loads(read_regular(os.path.realpath(path), limit=limit))
    except (OSError, RecursionError) as error:
        raise ValueError(str(error)) from error
    entries = document.get("assets") if isinstance(document, dict) else None
    return entries if isinstance(entries, list) else None
