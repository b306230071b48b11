"""Where the machine's store is, where a content is in it, and what this user has verified there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import NotWritable
from grym_fetch.disk.state import StateFolder
from grym_fetch.disk.verified import FileSignature, VerifiedCache, VerifiedFile

OBJECTS = "objects"


def store_at(choice: bool | str, environ: Mapping[str, str]) -> Path | None:
    """The place of the store that was chosen; None for no store. Raises `NotWritable` for a user without a home.

    By default it is where the system keeps what programs can fetch again: ``~/.cache`` (XDG), or ``~/Library/Caches``.
    """
    if choice is False:
        return None
    if choice is not True:
        return Path(os.path.abspath(os.path.expanduser(choice)))
    return _cache_home(environ) / "store"


def _cache_home(environ: Mapping[str, str]) -> Path:
    if os.path.isabs(named := environ.get("XDG_CACHE_HOME", "")):
        return Path(named) / "grym-fetch"
    from platformdirs import user_cache_path  # most runs have no store, or one with a name

    with suppress(RuntimeError):  # its later versions raise that for a user without a home
        if (place := user_cache_path("grym-fetch", appauthor=False)).is_absolute():
            return place
    raise NotWritable("~/.cache/grym-fetch/store", "this user has no home folder; name the store: --store=DIR")


def object_path(checksum: Checksum) -> str:
    """Where a content is, relative to the store."""
    return f"{OBJECTS}/{checksum.algorithm}/{checksum.hexdigest[:2]}/{checksum.hexdigest}"


class StoreStamps:
    """What this user has verified in the store. Reads the log when first asked, and again when it does not know."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._cache = VerifiedCache(StateFolder(place))

    def judge(self, checksum: Checksum, figures: os.stat_result) -> bool | None:
        """Whether a file with these ``figures`` is the store's, and has this checksum; None if that is not known."""
        return self._cache.judge(str(self._place / object_path(checksum)), checksum, figures)

    def judge_again(self, checksum: Checksum, figures: os.stat_result) -> bool | None:
        """`judge`, but read the log again if it is not known: another process may have written to it."""
        if (known := self.judge(checksum, figures)) is None:
            self._cache = VerifiedCache(StateFolder(self._place))
            known = self.judge(checksum, figures)
        return known

    def record(self, checksum: Checksum, signature: FileSignature, actual: Checksum | None = None) -> None:
        """Remember that the object of this checksum has it, or that it has the ``actual`` one."""
        file = VerifiedFile(str(self._place / object_path(checksum)), str(actual or checksum), signature)
        self._cache.record_all([file])
