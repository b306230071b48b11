"""Which files a project or an earlier clean needs where they are, so that none of them is moved.

Rules: every folder above a file is checked up to the root, wherever the search began. An assets folder is one that has
a state folder, is next to a manifest, or was named; everything in it stays. In an external folder, the files that its
record lists stay. A manifest or a record that cannot be read may list anything. A file that git or grym-fetch itself
reads where it is stays, too: git's rules, manifests, and settings.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from grym_fetch.core.configuration import TABLE
from grym_fetch.core.paths import MOVED_FILES, STATE_FOLDER, collision_key
from grym_fetch.core.text import safe_text
from grym_fetch.disk.configuration import PROJECT_FILE
from grym_fetch.disk.folders import open_regular, read_regular
from grym_fetch.disk.moved_files import MAX_RECORD_BYTES, parse_storage
from grym_fetch.manifest_files.project import ASSETS_NAME, CANDIDATES, MAX_MANIFEST_BYTES

_READ_BY_GIT = frozenset(
    {".gitattributes", ".gitignore", ".gitmodules", ".git-blame-ignore-revs", ".mailmap", ".lfsconfig"}
)
"""What git, its usual settings and Git LFS read in a work tree."""
_READ_BY_US = frozenset({PROJECT_FILE, MOVED_FILES, *(Path(each).name for each in CANDIDATES)})
_LOCAL_PATH = b"localPath"
"""A key that every entry of a manifest has, and a column of one in Parquet."""
_MAX_LOOK_BYTES = 1024 * 1024


class OwnFolders:
    """Each folder is checked once. ``named``: assets folders and manifests that the user chose, without symlinks."""

    def __init__(self, named: Iterable[Path] = ()) -> None:
        self._named = frozenset(named)
        self._assets: dict[Path, bool] = {}
        self._moved: dict[Path, frozenset[str] | None] = {}

    def why_not(self, file: Path) -> str | None:
        """Why a file (an absolute path without symlinks) stays; None if nothing of ours needs it."""
        if collision_key(file.name) in _READ_BY_GIT:
            return "git reads it where it is"
        if file in self._named or (file.name in _READ_BY_US and _is_ours(file)):
            return "grym-fetch reads it where it is"
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


def _is_ours(file: Path) -> bool:
    """Whether a file with such a name is a manifest, a record, or has settings of ours."""
    match file.suffix:
        case ".toml":
            return TABLE.encode() in _part(file)
        case ".jsonl":
            return _LOCAL_PATH in _part(file)
        case ".parquet":
            return _LOCAL_PATH in _part(file, from_end=True)
        case _:
            return _is_manifest(file)


def _part(file: Path, *, from_end: bool = False) -> bytes:
    """The beginning of a file, or its end, where Parquet names its columns."""
    with suppress(OSError), open(open_regular(os.fspath(file)), "rb") as opened:
        if from_end:
            opened.seek(max(0, os.fstat(opened.fileno()).st_size - _MAX_LOOK_BYTES))
        return opened.read(_MAX_LOOK_BYTES)
    return b""


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
