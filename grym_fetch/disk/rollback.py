"""Remembers, in our state folder, the version of each manifest that was used with an assets folder.

Rules: one small file a manifest, replaced whole. It is believed only if it is this user's own and undamaged; any other
counts as none, so that nobody who may write there can stop a project. Failing to write it is harmless and silent.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from contextlib import suppress
from pathlib import Path

from grym_fetch.core.freshness import version_number
from grym_fetch.core.paths import STATE_FOLDER
from grym_fetch.disk.folders import open_state, sync

MAX_BYTES = 4096


class RollbackGuard:
    """The last version seen of one manifest, with one assets folder."""

    def __init__(self, assets_dir: Path, manifest: Path) -> None:
        # Not the absolute path: a project that is moved or mounted elsewhere is still the same.
        name = os.path.relpath(manifest, assets_dir)
        key = hashlib.sha256(os.fsencode(name)).hexdigest()[:24]
        self._state = assets_dir / STATE_FOLDER
        self._name = f"seen-{key}"

    def read(self) -> str | None:
        """Return it, None if there is none that can be believed."""
        try:
            descriptor = os.open(
                f"{self._state}/{self._name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            )
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
        """Replace it; None forgets it. Blocking: for a thread."""
        with suppress(OSError):
            folder = open_state(self._state)
            try:
                self._write(folder, version)
            finally:
                os.close(folder)

    def _write(self, folder: int, version: str | None) -> None:
        if version is None:
            os.unlink(self._name, dir_fd=folder)
            return
        fresh = f"{self._name}.{os.getpid()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(fresh, flags, 0o600, dir_fd=folder)
        try:
            os.write(descriptor, encode_version(version))
            sync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(fresh, self._name, src_dir_fd=folder, dst_dir_fd=folder)


def encode_version(version: str) -> bytes:
    """Return the file's content for a version."""
    text = json.dumps(version).encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(text), text)


def decode_version(data: bytes) -> str | None:
    """Read a file's content; None if it is none of ours."""
    text = data[9:].removesuffix(b"\n")
    try:
        if data[:9] != b"%08x " % zlib.crc32(text):
            return None
        version = json.loads(text.decode("ascii"))
    except (ValueError, RecursionError):
        return None
    return version if isinstance(version, str) and version_number(version) is not None else None
