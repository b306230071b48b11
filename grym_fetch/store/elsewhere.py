"""Files that are on this machine already, by their size: what might be an asset, which its digest then decides.

The places, in this order: those that the user names, the assets folder itself (a file under an earlier name), the
external folder, the assets folders of this user's other projects that use the store (where it is on), and the caches of
Hugging Face, torch.hub and pooch, where these programs keep them.

Rules: nothing is changed here, and no symlink is followed. No folder is looked through because another user says so: it
might be the whole machine. Only a file in the project's own assets folder may get a
second name. Any other is shared block by block, or copied: the program that it belongs to may write to it at any time,
and a hard link would have to make it read-only. That holds for a cache within the assets folder, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from grym_fetch.core.errors import StorageError
from grym_fetch.core.paths import STATE_FOLDER
from grym_fetch.disk.state import StateFolder
from grym_fetch.runtime import system
from grym_fetch.store.users import store_users

_SKIPPED = frozenset({STATE_FOLDER, ".git", ".locks", ".no_exist"})
_POOCH = ("pooch", "scipy-data", "scikit-image", "xarray_tutorial_data")
"""Pooch has no common cache but for `pooch.retrieve`: each package has a folder of its own name."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file of an asset's size. ``may_link``: whether it may get a second name, so that both are read-only."""

    path: Path
    may_link: bool = False


def cache_folders(environ: Mapping[str, str]) -> list[Path]:
    """Where other programs keep what they have downloaded for this user."""
    home = environ.get("HOME", "")
    cache = environ.get("XDG_CACHE_HOME", "") or (os.path.join(home, ".cache") if os.path.isabs(home) else "")
    folders = []
    if named := environ.get("HF_HUB_CACHE", "") or environ.get("HUGGINGFACE_HUB_CACHE", ""):
        folders.append(named)
    elif named := environ.get("HF_HOME", ""):
        folders.append(os.path.join(named, "hub"))
    elif cache:
        folders.append(os.path.join(cache, "huggingface", "hub"))
    if named := environ.get("TORCH_HOME", ""):
        folders.append(os.path.join(named, "hub"))
    elif cache:
        folders.append(os.path.join(cache, "torch", "hub"))
    if cache:
        folders += [os.path.join(cache, name) for name in _POOCH]
    return [Path(os.path.expanduser(folder)) for folder in folders]


class FilesElsewhere:
    """The files in these places, which are looked through once, when first asked for one."""

    def __init__(
        self,
        assets_dir: Path,
        external_dir: Path,
        *,
        environ: Mapping[str, str],
        store: Path | None = None,
        named: Iterable[Path] = (),
    ) -> None:
        self._assets_dir = assets_dir
        self._external_dir = external_dir
        self._environ = environ
        self._store = store
        self._named = tuple(named)
        self._by_size: dict[int, list[Candidate]] | None = None

    def of_size(self, size: int) -> list[Candidate]:
        """Files of this size, the most likely first. Blocking: for a thread."""
        if self._by_size is None:
            self._by_size = {}
            seen: set[tuple[int, int]] = set()
            places = tuple(self._places())
            others = {Path(os.path.realpath(place)) for place in places[len(self._named) + 1 :]}
            here = Path(os.path.realpath(self._assets_dir))
            others = {other for other in others if here in other.parents}
            for place in places:
                for path, figures in _files(place):
                    if (key := (figures.st_dev, figures.st_ino)) not in seen:
                        seen.add(key)
                        is_own = place == self._assets_dir and others.isdisjoint(Path(os.path.realpath(path)).parents)
                        candidate = Candidate(path, may_link=is_own)
                        self._by_size.setdefault(figures.st_size, []).append(candidate)
        return self._by_size.get(size, [])

    def _places(self) -> Iterator[Path]:
        yield from self._named
        yield self._assets_dir
        yield self._external_dir
        if self._store is not None:
            with suppress(OSError, StorageError):
                users = store_users(StateFolder(self._store))
                yield from [user.assets_dir for user in users if user.owner == system.user_id()]
        yield from cache_folders(self._environ)


def _files(place: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The files below a folder, or the one that the user has named; what cannot be read is left out."""
    if place.is_file():
        yield place, place.stat()
        return
    waiting = [place]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        if entry.name not in _SKIPPED:
                            waiting.append(Path(entry.path))
                    elif entry.is_file(follow_symlinks=False):
                        yield (
                            Path(entry.path),
                            os.lstat(entry.path),
                        )  # Windows tells an entry's device and inode only there
