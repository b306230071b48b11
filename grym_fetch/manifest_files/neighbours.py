"""The manifests whose files are in one assets folder: more than one may be, and none of them may undo another's work.

Each user keeps a list of the manifests that were used with the folder, each with the device that it is on. It can be
lost without harm: a manifest is listed again the next time it is synced.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from grym_fetch.core.archives import unpacked_path
from grym_fetch.core.checked_lines import decode_line, encode_line
from grym_fetch.core.errors import GrymFetchError, StorageError, UnsafePath
from grym_fetch.core.manifest import Asset, ManifestSource
from grym_fetch.core.text import safe_text
from grym_fetch.disk.folders import close_each, path_from, write_all
from grym_fetch.disk.state import StateFolder, is_gone, is_private, nearest, open_state, read_state
from grym_fetch.manifest_files.project import load_manifest

USERS = "manifests"
"""The list of manifests whose files are fetched into the folder."""
READERS = "readers"
"""The list of manifests for which the folder is the external one, where files are only looked for."""
_MAX_BYTES = 1024 * 1024
_UNKNOWN = -1
"""The device in a line of an earlier version."""


class Neighbours:
    """The other manifests used with an assets folder, beside the one at ``manifest``. Blocking: for a thread."""

    def __init__(self, state: StateFolder, manifest: Path, *, name: str = USERS) -> None:
        self._list = name
        self._state = state
        self._manifest = manifest
        # Not the absolute path: a project that is moved or mounted elsewhere is still the same project.
        self._name = path_from(os.path.realpath(state.assets_dir), os.path.realpath(manifest))
        self._is_noted = False

    def note(self) -> None:
        """Remember that this manifest is used here. Failing to do so is harmless and silent."""
        if self._is_noted:
            return
        self._is_noted = True
        with suppress(OSError, StorageError), self._state.opened() as folder:
            device = os.stat(nearest(os.path.realpath(self._manifest))).st_dev
            if _names(folder, self._list).get(self._name) == device or not is_private(folder):
                return
            descriptor = open_state(folder, self._list, os.O_APPEND)
            try:
                write_all(descriptor, encode_line([self._name, device]))
            finally:
                close_each(descriptor)

    def others(self, *, strict: bool = False) -> Iterator[tuple[Path, ManifestSource]]:
        """The other manifests that are still there, with their paths. One that cannot be read is left out.

        ``strict``: raises `ManifestError` instead, or `StorageError`, also for one whose disk may only be away.
        """
        listed: dict[str, int] = {}
        with suppress(OSError, StorageError), self._state.opened() as folder:
            listed = _names(folder, self._list)
        for name, device in listed.items():
            if name == self._name:
                continue
            path = Path(os.path.normpath(os.path.join(os.path.realpath(self._state.assets_dir), name)))
            if not os.path.lexists(path):
                if strict and not is_gone(str(path), device):
                    raise StorageError(
                        safe_text(str(path), limit=1000),
                        "this manifest is used with the folder as well, and its disk may be away; connect it. If the "
                        f"project is gone for good, remove {safe_text(str(self._state.own / self._list), limit=1000)}",
                    )
                continue
            try:
                manifest = load_manifest(path).manifest
            except GrymFetchError:
                if strict:
                    raise
                continue
            yield path, manifest

    def refuse_clash(self, asset: Asset) -> None:
        """Raise `UnsafePath` if another manifest has another content for the asset's place: it would be replaced."""
        for path, manifest in self.others():
            for other in manifest.assets:
                for each in (other, other.stand_in()):
                    if each.local_path == asset.local_path and each.checksum != asset.checksum:
                        place = self._state.assets_dir / asset.local_path
                        reason = (
                            f"belongs to {safe_text(other.id)} of {safe_text(str(path), limit=1000)} as well as to "
                            f"{safe_text(asset.id)} of {safe_text(str(self._manifest), limit=1000)}, with other "
                            "content; change one's localPath, or use another --assets-dir"
                        )
                        raise UnsafePath(safe_text(str(place)), reason)


def is_used_by_manifests(state: StateFolder) -> bool:
    """Whether this user has fetched into the folder, as an assets folder."""
    with suppress(OSError, StorageError), state.opened() as folder:
        return bool(_names(folder, USERS))
    return False


def _names(folder: int, listed: str) -> dict[str, int]:
    names: dict[str, int] = {}
    for line in (read_state(folder, listed, _MAX_BYTES) or b"").splitlines():
        with suppress(ValueError):
            match decode_line(line):
                case [str(name)]:
                    names[name] = _UNKNOWN
                case [str(name), int(device)]:
                    names[name] = device
    return names


def named_paths(manifest: ManifestSource) -> Iterator[str]:
    """What belongs to a manifest's assets: their files, their stand-ins, and the folders they are unpacked into."""
    for asset in manifest.assets:
        for each in dict.fromkeys((asset, asset.stand_in())):
            yield each.local_path
            if each.extract:
                with suppress(ValueError):
                    yield unpacked_path(each.local_path)
