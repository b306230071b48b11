"""The manifest as values: the assets of a project, where each comes from, and what it must be.

Rules: plain frozen values that know nothing of files or of JSON (see `grym_fetch.core.manifest_parser`). No `dict` of a
file gets in here but ``metadata`` and the unknown keys, which are kept as they are.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Protocol, runtime_checkable

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import UnknownAsset, UnknownTag
from grym_fetch.core.nearest import nearest_names
from grym_fetch.core.paths import STAND_IN_FOLDER, find_collisions
from grym_fetch.core.piece_digests import PieceDigests
from grym_fetch.core.stated import StatedDigest
from grym_fetch.core.validation import refuse_one_text

ESSENTIAL_TAG = "essential"
"""The tag of the assets that ``--minimal`` chooses."""
GLOB = re.compile(r"[*?\[]")
"""What makes a glob of an id."""


@dataclass(frozen=True, slots=True)
class StandIn:
    """A small file that stands in for an asset in tests. ``size`` in bytes, None if not known."""

    url: str
    checksum: Checksum | None = None
    size: int | None = None
    fallback_urls: tuple[str, ...] = ()
    extra: Mapping[str, object] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Asset:
    """One entry of the manifest. ``size`` in bytes, None if not known; ``checksum`` None if unpinned.

    ``name`` is the id unless given. ``local_path`` is relative to the assets folder. ``extract``: it is an archive that
    is unpacked next to itself. ``source`` is the short address that it was added from, if any. ``pieces`` are the
    digests of its pieces, if the manifest has them. ``extra`` holds the keys of the entry that have no meaning here.

    ``stated`` is a digest that no manifest takes (MD5, say) and that the content must have when it is fetched to be
    added or updated. It is never written.
    """

    id: str
    url: str
    local_path: str
    name: str = ""
    description: str = ""
    fallback_urls: tuple[str, ...] = ()
    checksum: Checksum | None = None
    size: int | None = None
    version: str | None = None
    required: bool = False
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, object] = field(default_factory=dict, hash=False)
    minimal: StandIn | None = None
    extract: bool = False
    source: str | None = None
    pieces: PieceDigests | None = None
    stated: StatedDigest | None = None
    extra: Mapping[str, object] = field(default_factory=dict, hash=False)
    is_stand_in: bool = False

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.id)

    @property
    def urls(self) -> tuple[str, ...]:
        """Every address, the primary one first, none twice."""
        return tuple(dict.fromkeys((self.url, *self.fallback_urls)))

    @property
    def pinned(self) -> bool:
        """Whether a checksum says what the content must be."""
        return self.checksum is not None

    def stand_in(self) -> Asset:
        """Return the asset as its small stand-in, in a place of its own; the asset itself if it has none."""
        if self.minimal is None:
            return self
        return replace(
            self,
            url=self.minimal.url,
            fallback_urls=self.minimal.fallback_urls,
            checksum=self.minimal.checksum,
            size=self.minimal.size,
            local_path=f"{STAND_IN_FOLDER}/{self.local_path}",
            minimal=None,
            pieces=None,
            stated=None,
            is_stand_in=True,
        )


@runtime_checkable
class AssetBatches(Protocol):
    """Assets that are read some at a time, because they are too many to be held. Also a collection of them."""

    def batches(self) -> Iterator[tuple[Asset, ...]]:
        """Yield all of them, in order. Blocking: for a thread."""

    def known_bytes(self) -> int:
        """The sum of the sizes that are known."""

    def as_stand_ins(self) -> Collection[Asset]:
        """The same assets, as their small stand-ins where they have one."""


def known_bytes(assets: Collection[Asset] | AssetBatches) -> int:
    """Return the sum of the sizes that are known."""
    return assets.known_bytes() if isinstance(assets, AssetBatches) else sum(asset.size or 0 for asset in assets)


def in_batches(assets: Collection[Asset] | AssetBatches) -> Iterator[tuple[Asset, ...]]:
    """Yield assets some at a time if they are too many to be held, and else all at once. May block, as a file does."""
    if isinstance(assets, AssetBatches):
        yield from assets.batches()
    else:
        yield tuple(assets)


def as_stand_ins(assets: Collection[Asset]) -> Collection[Asset]:
    """Return these assets, as their small stand-ins where they have one."""
    return assets.as_stand_ins() if isinstance(assets, AssetBatches) else tuple(each.stand_in() for each in assets)


class ManifestSource(Protocol):
    """The assets of a project, in the order of the file, however many: a `Manifest`, or one too long to be held.

    What is returned as a collection is a tuple, or reads its assets again each time that it is iterated.
    """

    @property
    def version(self) -> str | None:
        """The list's version, if it has one."""

    @property
    def updated(self) -> str | None:
        """When the list was last changed, as it says."""

    @property
    def expires(self) -> float | None:
        """When the list expires, in seconds since the epoch."""

    @property
    def extra(self) -> Mapping[str, object]:
        """The keys at the top level that have no meaning here."""

    @property
    def assets(self) -> Collection[Asset]:
        """Every asset."""

    @property
    def required(self) -> Collection[Asset]:
        """The assets marked as required; none where none is marked so."""

    def get(self, asset_id: str) -> Asset:
        """Return the asset with this id. Raises `UnknownAsset`."""

    def number_of(self, asset_id: str) -> int | None:
        """Return which entry has this id, counted from 0; None if there is none."""

    def owner_of(self, path: str) -> str | None:
        """Return the id of an asset that has this path, or lies in it, or above it; None if there is none."""

    def pick(self, ids: Collection[str] | None = None, *, exclude: Collection[str] = ()) -> Collection[Asset]:
        """Return the assets named, see `Manifest.pick`. Raises `UnknownAsset`."""

    def select(
        self,
        ids: Collection[str] = (),
        tags: Collection[str] = (),
        all: bool = False,  # noqa: A002 - the word of the command line and of the public API
        minimal: bool = False,
        exclude: Collection[str] = (),
    ) -> Collection[Asset]:
        """Return the assets chosen, see `Manifest.select`. Raises `UnknownAsset` or `UnknownTag`."""

    def chooses_all(self, minimal: bool = False) -> bool:
        """Whether `select` without a choice takes every asset, because none is marked; False if there are none."""

    def is_usual(self, asset: Asset, minimal: bool = False) -> bool:
        """Whether `select` without a choice takes this asset of the list."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The assets of a project, in the order of the file. Ids are distinct. ``expires``: seconds since the epoch."""

    version: str | None = None
    updated: str | None = None
    expires: float | None = None
    assets: tuple[Asset, ...] = ()
    extra: Mapping[str, object] = field(default_factory=dict, hash=False)
    _by_id: dict[str, Asset] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_id", {asset.id: asset for asset in self.assets})

    def get(self, asset_id: str) -> Asset:
        """Return the asset with this id.

        Raises:
            UnknownAsset: there is none; the error names the nearest ids.
        """
        asset = self._by_id.get(asset_id)
        if asset is None:
            raise self._unknown(asset_id)
        return asset

    def number_of(self, asset_id: str) -> int | None:
        """Return which entry has this id, counted from 0; None if there is none."""
        return next((number for number, known in enumerate(self._by_id) if known == asset_id), None)

    def owner_of(self, path: str) -> str | None:
        """Return the id of an asset that has this path, or lies in it, or above it; None if there is none."""
        paths = [path, *(asset.local_path for asset in self.assets)]
        found = next((each for each in find_collisions(paths) if each.first == 0), None)
        return None if found is None else self.assets[found.second - 1].id

    def _unknown(self, text: str) -> UnknownAsset:
        plain = GLOB.sub("", text)
        near = [asset_id for asset_id in self._by_id if plain and asset_id.startswith(plain)] if plain != text else []
        return UnknownAsset(text, (near or nearest_names(plain, self._by_id))[:3])

    def pick(self, ids: Collection[str] | None = None, *, exclude: Collection[str] = ()) -> tuple[Asset, ...]:
        """Return the assets named, in that order and none twice; all if ``ids`` is None; never one of ``exclude``.

        Both take ids and globs (``*``, ``?``, ``[abc]``). What a glob matches is in the manifest's order.

        Raises:
            UnknownAsset: an id is not in the manifest, or a glob matches none.
        """
        refuse_one_text(ids=ids, exclude=exclude)
        without = set(self._named(exclude))
        chosen = self._by_id if ids is None else dict.fromkeys(self._named(ids))
        return tuple(self._by_id[asset_id] for asset_id in chosen if asset_id not in without)

    def _named(self, texts: Collection[str]) -> Iterator[str]:
        for text in texts:
            if text in self._by_id:
                yield text  # also where it looks like a glob
            elif GLOB.search(text) and (found := [each for each in self._by_id if fnmatchcase(each, text)]):
                yield from found
            else:
                raise self._unknown(text)

    def select(
        self,
        ids: Collection[str] = (),
        tags: Collection[str] = (),
        all: bool = False,  # noqa: A002 - the word of the command line and of the public API
        minimal: bool = False,
        exclude: Collection[str] = (),
    ) -> tuple[Asset, ...]:
        """Return the chosen assets, in the manifest's order.

        Chosen are the assets named in ``ids`` and those with any of ``tags``; ``all`` chooses every one. ``exclude``
        leaves out what is named there. Both take ids and globs, as `pick` does.
        Without a choice these are the required ones, or with ``minimal`` the essential ones if any has that tag;
        where nothing is marked (`chooses_all`), every asset. With ``minimal`` each asset that has a stand-in is
        returned as that.

        Raises:
            UnknownAsset: an id is not in the manifest, or a glob matches none.
            UnknownTag: no asset has one of the tags.
        """
        refuse_one_text(ids=ids, tags=tags, exclude=exclude)
        if unknown := self.unknown_tags(tags):
            raise UnknownTag(unknown, sorted({tag for asset in self.assets for tag in asset.tags}))
        named, without = set(self._named(ids)), set(self._named(exclude))
        if all:
            chosen = self.assets
        elif ids or tags:
            wanted = frozenset(tags)
            chosen = tuple(a for a in self.assets if a.id in named or not wanted.isdisjoint(a.tags))
        else:
            chosen = self._marked(minimal) or self.assets
        chosen = tuple(a for a in chosen if a.id not in without)
        return tuple(a.stand_in() for a in chosen) if minimal else chosen

    def chooses_all(self, minimal: bool = False) -> bool:
        """Whether `select` without a choice takes every asset, because none is marked; False if there are none."""
        return bool(self.assets) and not self._marked(minimal)

    def is_usual(self, asset: Asset, minimal: bool = False) -> bool:
        """Whether `select` without a choice takes this asset of the list."""
        marked = self._marked(minimal)
        if not marked:
            return True
        return asset.required if marked == self.required else ESSENTIAL_TAG in asset.tags

    @property
    def required(self) -> tuple[Asset, ...]:
        """The assets marked as required, in the manifest's order; none where none is marked so."""
        return tuple(a for a in self.assets if a.required)

    def _marked(self, minimal: bool) -> tuple[Asset, ...]:
        essential = tuple(a for a in self.assets if ESSENTIAL_TAG in a.tags) if minimal else ()
        return essential or self.required

    def unknown_tags(self, tags: Collection[str]) -> tuple[str, ...]:
        """Return those of ``tags`` that no asset has, in their order."""
        known = {tag for asset in self.assets for tag in asset.tags}
        return tuple(tag for tag in dict.fromkeys(tags) if tag not in known)
