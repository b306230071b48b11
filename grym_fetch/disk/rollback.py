"""The rollback guard: remembers which version of a manifest was last used with an assets folder.

Rules: one small file for each manifest, replaced whole, in two places: in the user's state folder, which exists before
the assets folder and outlives it, and in the assets folder, which moves with its project. The later version counts. A
file is trusted only if it belongs to this user and is undamaged; any other is ignored, so that nobody else who can
write there can block a project. Failing to write one is harmless and silent.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from grym_fetch.core.checked_lines import decode_line, encode_line
from grym_fetch.core.errors import StorageError
from grym_fetch.core.freshness import version_number
from grym_fetch.disk.atomic import PRIVATE, replace_file
from grym_fetch.disk.folders import close_each, path_from
from grym_fetch.disk.state import StateFolder, read_state
from grym_fetch.runtime import system

MAX_BYTES = 4096


class RollbackGuard:
    """The last version of one manifest that was used with one assets folder."""

    def __init__(self, assets_dir: Path, manifest: Path) -> None:
        # Not the absolute path: a project that is moved or mounted elsewhere is still the same project.
        name = path_from(assets_dir, manifest)
        key = hashlib.sha256(os.fsencode(name)).hexdigest()[:24]
        self._state = StateFolder(assets_dir)
        self._name = f"manifest-version-{key}"

    def read(self) -> str | None:
        """Return the version; None if there is none that can be trusted."""
        versions = [self._read_in(self._state.open), self._read_in(self._state.open_elsewhere)]
        return max(filter(None, versions), key=lambda version: version_number(version) or (), default=None)

    def write(self, version: str | None) -> None:
        """Store the version; None forgets the old one. Blocking: for a thread."""
        self._write_in(self._state.open, version)
        self._write_in(self._state.open_elsewhere, version)

    def has(self, version: str | None) -> bool:
        """Whether this version is stored as `write` would store it. A missing assets folder needs no file."""
        if self._read_in(self._state.open_elsewhere) != version:
            return False
        return self._read_in(self._state.open) == version or not os.path.isdir(self._state.assets_dir)

    def _read_in(self, open_folder: Callable[[], int]) -> str | None:
        try:
            folder = open_folder()
        except (OSError, StorageError):
            return None
        try:
            data = read_state(folder, self._name, MAX_BYTES)
        finally:
            close_each(folder)
        return None if data is None else decode_version(data)

    def _write_in(self, open_folder: Callable[..., int], version: str | None) -> None:
        with suppress(OSError, StorageError):
            folder = open_folder(create=version is not None)
            try:
                if version is None:
                    system.unlink(self._name, dir_fd=folder)
                else:
                    replace_file(folder, self._name, encode_version(version), mode=PRIVATE)
            finally:
                close_each(folder)


def encode_version(version: str) -> bytes:
    """Return the file's content for a version."""
    return encode_line(version)


def decode_version(data: bytes) -> str | None:
    """Read a file's content; None if we did not write it."""
    try:
        version = decode_line(data)
    except ValueError:
        return None
    return version if isinstance(version, str) and version_number(version) is not None else None
