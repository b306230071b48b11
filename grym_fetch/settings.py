"""The user's choices about how assets are fetched."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from grym_fetch.core.configuration import FETCHING
from grym_fetch.core.mirror_rules import MirrorRule
from grym_fetch.core.segments import SegmentSizes
from grym_fetch.core.validation import instance_of, refuse_nonsense
from grym_fetch.core.variables import settings_in

__all__ = ["LinkModes", "MirrorRule", "Mirrors", "SegmentSizes", "Settings"]

Mirrors = Literal["fallback", "together"]
LinkModes = Literal["auto", "reflink", "hardlink", "copy"]


class _Named:
    """Remembers which fields were named at construction, so that the environment decides only the others."""

    __slots__ = ("_named",)
    _named: frozenset[str]
    __match_args__: tuple[str, ...]

    def __new__(cls, *values: object, **fields: object) -> Self:
        made = object.__new__(cls)
        object.__setattr__(made, "_named", frozenset((*cls.__match_args__[: len(values)], *fields)))
        return made

    def __getnewargs_ex__(self) -> tuple[tuple[()], dict[str, Any]]:
        """Keep the same fields named in a copy, even in another process."""
        return (), {name: getattr(self, name) for name in self._named}


@dataclass(frozen=True, slots=True)
class Settings(_Named):
    """A user's choices about how assets are fetched. Times in seconds, ``limit_rate`` in bytes per second.

    A manager takes a field that is not named from its environment variable, else from a settings file; only then it
    has this default. `dataclasses.replace` names all fields.

    ``parallel`` is the most connections open at once over all assets, ``max_per_host`` the most of them on one host.
    ``mirror_rules``: mirrors of one's own for assets with a checksum, see `MirrorRule`. ``store``: whether to share
    files with other projects through the machine's store, or the path of another store. For the others see the options
    of the command line.

    Raises ValueError for an invalid value, also through `dataclasses.replace`; it names the field and says what is
    allowed.
    """

    parallel: int = 4
    max_per_host: int | None = None
    mirrors: Mirrors = "fallback"
    mirror_rules: tuple[MirrorRule, ...] = ()
    limit_rate: float | None = None
    retries: int = 5
    stall_timeout: float = 30.0
    connect_timeout: float = 10.0
    patience: float = 120.0
    lock_timeout: float = 3600.0
    offline: bool = False
    allow_unpinned: bool = False
    allow_stale: bool = False
    allow_private_addresses: bool = True
    pipelining: bool = True
    store: bool | str = False
    link_mode: LinkModes = "auto"
    adopt: bool = False
    sizes: SegmentSizes = field(default_factory=SegmentSizes)

    def __post_init__(self) -> None:
        refuse_nonsense(self, RULES)

    def with_environment(
        self,
        environ: Mapping[str, str],
        *,
        configured: Mapping[str, object] | None = None,
        without: Collection[str] = (),
        root: Path | None = None,
    ) -> Self:
        """Return these settings, with the fields that were not named taken from the environment.

        ``configured``: values from files, which the environment overrides. ``without``: further fields that stay
        as they are. ``root``: the project's, to which a relative ``store`` from the environment or a file is relative.
        Raises `ValueError` naming a variable that cannot be read.
        """
        decided = {*self._named, *without}
        given: dict[str, Any] = {name: each for name, each in (configured or {}).items() if name not in decided}
        given |= settings_in(environ, without=decided)
        if root is not None and isinstance(store := given.get("store"), str) and not store.startswith("~"):
            given["store"] = os.path.abspath(os.path.join(root, store))
        return replace(self, **given) if given else self


RULES = {**FETCHING, "sizes": instance_of(SegmentSizes)}
"""The allowed values of each field of `Settings`."""
