"""The rollback guard: remembers which version of a manifest was last used with an assets folder.

Rules: one small file for each manifest, replaced whole, in two places: in the user's state folder, which outlives the
assets folder and is there before it, and in the assets folder, which moves with its project. The later version counts.
A file is trusted only if it is this user's own and undamaged; any other counts as none, so that nobody else who can
write there can stop a project. Failing to write one is harmless and silent.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from grym_fetch.core.checked_lines import decode_line, encode_line
from grym_fetch.core.freshness import version_number
from grym_fetch.core.paths import STATE_FOLDER
from grym_fetch.disk.atomic import PRIVATE, replace_file
from grym_fetch.disk.folders import open_state
from grym_fetch.disk.user_state import key_of, open_user_state

MAX_BYTES = 4096


class RollbackGuard:
    """The last version of one manifest that was used. ``user_state`` is the user's state folder, if there is one."""

    def __init__(self, assets_dir: Path, manifest: Path, user_state: Path | None = None) -> None:
        # Not the absolute path: a project that is moved or mounted elsewhere is still the same.
        name = os.path.relpath(manifest, assets_dir)
        key = hashlib.sha256(os.fsencode(name)).hexdigest()[:24]
        self._state = assets_dir / STATE_FOLDER
        self._name = f"manifest-version-{key}"
        self._user_state = user_state
        self._user_name = f"manifest-version-{key_of(manifest)}"

    def read(self) -> str | None:
        """Return the version, None if there is none that can be trusted."""
        versions = [self._read(self._state / self._name)]
        if self._user_state is not None:
            versions.append(self._read(self._user_state / self._user_name))
        return max(filter(None, versions), key=lambda version: version_number(version) or (), default=None)

    @staticmethod
    def _read(path: Path) -> str | None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            data = os.read(descriptor, MAX_BYTES) if os.fstat(descriptor).st_uid == os.geteuid() else b""
        except OSError:
            return None
        finally:
            os.close(descriptor)
        return decode_version(data)

    def write(self, version: str | None) -> None:
        """Replace the version; None forgets it. Blocking: for a thread."""
        with suppress(OSError):
            _write(open_state(self._state), self._name, version)
        if self._user_state is not None:
            with suppress(OSError):
                _write(open_user_state(self._user_state), self._user_name, version)

    def has(self, version: str | None) -> bool:
        """Whether this version is what `write` would leave. An assets folder that is not there yet lacks nothing."""
        if self._user_state is not None and self._read(self._user_state / self._user_name) != version:
            return False
        return self._read(self._state / self._name) == version or not self._state.parent.is_dir()


def _write(folder: int, name: str, version: str | None) -> None:
    try:
        if version is None:
            os.unlink(name, dir_fd=folder)
            return
        replace_file(folder, name, encode_version(version), mode=PRIVATE)
    finally:
        os.close(folder)


def encode_version(version: str) -> bytes:
    """Return the file's content for a version."""
    return encode_line(version)


def decode_version(data: bytes) -> str | None:
    """Read a file's content; None if we have not written it."""
    try:
        version = decode_line(data)
    except ValueError:
        return None
    return version if isinstance(version, str) and version_number(version) is not None else None
