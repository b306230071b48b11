"""The lists of a run's tasks, in the folder that all nodes share: a file for each, which its worker reads.

Rules: a list is read only if it has the digest that came with its task. It lies in this user's private folder, and is
removed with its task. A run that has died leaves its lists, which the next run removes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from grym_fetch.core.errors import ClusterError, StorageError
from grym_fetch.core.manifest import Asset
from grym_fetch.core.manifest_parser import read_entries
from grym_fetch.core.manifest_schema import ASSET
from grym_fetch.core.paths import STAND_IN_FOLDER
from grym_fetch.core.strict_json import read_json
from grym_fetch.core.text import safe_text
from grym_fetch.disk.folders import close_each, make_root, open_child, remove_tree, storage_errors
from grym_fetch.disk.owner import Owner, is_left_behind
from grym_fetch.disk.state import StateFolder, open_state, read_state
from grym_fetch.manifest_files.lines import encode_entry_line
from grym_fetch.runtime import system

log = logging.getLogger(__name__)

FOLDER = "cluster"
MAX_LIST_BYTES = 1024 * 1024 * 1024
"""No task has so long a list: it would be a thousand assets with the digests of a million pieces each."""
_STAND_IN = b"s"
_FULL = b" "


class WorkFolder:
    """The folder of one run. ``run`` is its name, of which `new_run` makes one."""

    def __init__(self, assets_dir: Path, run: str) -> None:
        self._state = StateFolder(assets_dir)
        self.path = self._state.own / FOLDER / run
        self._run = run

    @property
    def is_there(self) -> bool:
        """Whether this process sees it."""
        try:
            close_each(self._state.open(FOLDER, self._run))
        except (OSError, StorageError):
            return False
        return True

    def make(self) -> None:
        """Make it, and remove those of runs that have died. Raises `StorageError`."""
        with storage_errors(self.path):
            make_root(self._state.assets_dir)
            close_each(self._state.open(FOLDER, self._run, create=True))
            with self._state.opened(FOLDER) as above:
                for name in system.listdir(above):
                    if name != self._run:
                        _remove_if_left(above, name)

    def write(self, number: int, assets: Sequence[Asset]) -> str:
        """Write the list of a task. Return its SHA-256, in hex. Raises `StorageError`."""
        data = b"".join(map(_line, assets))
        with storage_errors(self.path), self._state.opened(FOLDER, self._run) as folder:
            descriptor = open_state(folder, _name(number), os.O_EXCL)
            with open(descriptor, "wb") as file:
                file.write(data)
        return hashlib.sha256(data).hexdigest()

    def read(self, number: int, digest: str) -> tuple[Asset, ...]:
        """Read the list of a task. Raises `ClusterError` if it is not there, or not the one that was written."""
        data = None
        with suppress(OSError, StorageError), self._state.opened(FOLDER, self._run) as folder:
            data = read_state(folder, _name(number), MAX_LIST_BYTES)
        if data is None:
            raise ClusterError(f"the list of task {number} is not in {safe_text(str(self.path))}")
        if hashlib.sha256(data).hexdigest() != digest:
            raise ClusterError(f"the list of task {number} in {safe_text(str(self.path))} is not what was written")
        return _assets(data)

    def drop(self, number: int) -> None:
        """Remove the list of a task."""
        with suppress(OSError, StorageError), self._state.opened(FOLDER, self._run) as folder:
            system.unlink(_name(number), dir_fd=folder)

    def remove(self) -> None:
        """Remove the folder, and what is left in it."""
        with suppress(OSError, StorageError), self._state.opened(FOLDER) as above:
            remove_tree(above, self._run)


def new_run() -> str:
    """Return a name for a run, which says whose it is."""
    return f"{Owner.this().encode()}.{secrets.token_hex(4)}"


def _remove_if_left(above: int, name: str) -> None:
    try:
        folder = open_child(above, name)
        try:
            is_left = is_left_behind(Owner.parse(name.rpartition(".")[0]), Path(name), above=above)
        finally:
            close_each(folder)
        if is_left:
            remove_tree(above, name)
    except OSError as error:
        log.debug("the folder of a run that has died stays: %s", error)


def _name(number: int) -> str:
    return f"{number}.jsonl"


def _line(asset: Asset) -> bytes:
    """The entry of an asset. A stand-in is marked by what is before it, and listed at its asset's own path."""
    if not asset.is_stand_in:
        return _FULL + encode_entry_line(ASSET.write(asset))
    plain = replace(asset, local_path=asset.local_path.removeprefix(f"{STAND_IN_FOLDER}/"))
    return _STAND_IN + encode_entry_line(ASSET.write(plain))


def _assets(data: bytes) -> tuple[Asset, ...]:
    lines = data.splitlines()
    value = read_json(b"[%b]" % b",".join(line[1:] for line in lines), max_bytes=MAX_LIST_BYTES).value
    assert isinstance(value, list)
    assets, wrong = read_entries(value, (), lambda index: f"line {index + 1}")
    if wrong:
        raise ClusterError(f"the list of a task cannot be read: {wrong[0]}")
    return tuple(
        replace(asset, local_path=f"{STAND_IN_FOLDER}/{asset.local_path}", is_stand_in=True)
        if line.startswith(_STAND_IN)
        else asset
        for asset, line in zip(assets, lines, strict=True)
    )
