"""A manifest too long to be held: chosen from and iterated over, a part at a time.

Rules: it answers as `Manifest` does, from the same rules. What it returns is a tuple if it is short, so that who asks
for a few assets gets what every other code takes; otherwise an `AssetStream`, which reads its assets anew each time.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from fnmatch import translate
from itertools import chain, count

from grym_fetch.core.errors import UnknownAsset, UnknownTag
from grym_fetch.core.manifest import ESSENTIAL_TAG, GLOB, Asset, Manifest
from grym_fetch.core.nearest import nearest_names
from grym_fetch.core.validation import refuse_one_text
from grym_fetch.disk.database import Database, key_of, text_of
from grym_fetch.manifest_files.index import ManifestIndex

MAX_HELD = 10_000
"""A list or a choice of at most so many assets is held as a whole."""
_NEAR = 50
"""So many ids on each side, in alphabetical order, are compared with an unknown one."""


class AssetStream(Collection[Asset]):
    """Some assets of a long manifest, in its order; ``minimal``: as their small stand-ins where they have one.

    ``numbers`` is the table that has which, None for all.
    """

    def __init__(
        self,
        manifest: LongManifest,
        index: ManifestIndex,
        numbers: str | None,
        *,
        minimal: bool,
        owner: AssetStream | None = None,
    ) -> None:
        self._manifest = manifest  # whose database ends with it
        self._owner = owner  # whose table ends with it
        self._index = index
        self._numbers = numbers
        self._minimal = minimal
        where = "" if numbers is None else f" WHERE n IN {numbers}"
        size = "small_size" if minimal else "size"
        [(self._count, self._bytes)] = index.database.rows(
            f"SELECT COUNT(*), COALESCE(SUM({size}), 0) FROM entries{where}"  # noqa: S608 - names of our own
        )

    def __len__(self) -> int:
        assert isinstance(self._count, int)
        return self._count

    def __iter__(self) -> Iterator[Asset]:
        return chain.from_iterable(self.batches())

    def __contains__(self, asset: object) -> bool:
        return isinstance(asset, Asset) and any(each == asset for each in self)

    def as_stand_ins(self) -> AssetStream:
        """Return the same assets, as their small stand-ins where they have one."""
        return AssetStream(self._manifest, self._index, self._numbers, minimal=True, owner=self)

    def known_bytes(self) -> int:
        """The sum of the sizes that are known."""
        assert isinstance(self._bytes, int)
        return self._bytes

    def batches(self) -> Iterator[tuple[Asset, ...]]:
        """Yield all assets, some at a time, in order. Blocking: for a thread."""
        for first, assets in self._index.assets():
            some: Iterable[Asset] = assets
            if self._numbers is not None:
                found = self._index.database.rows(
                    f"SELECT n FROM {self._numbers} WHERE n >= ? AND n < ?",  # noqa: S608 - a name of our own
                    (first, first + len(assets)),
                )
                chosen = {n for (n,) in found}
                some = (asset for n, asset in zip(count(first), assets, strict=False) if n in chosen)
            if batch := tuple(asset.stand_in() if self._minimal else asset for asset in some):
                yield batch


class LongManifest:
    """The assets of a project, as `Manifest` has them. Its temporary database ends with it."""

    def __init__(self, index: ManifestIndex, *, max_held: int = MAX_HELD) -> None:
        self._index = index
        self._max_held = max_held
        self._tables = count()
        self._marks: dict[bool, str | None] = {}
        weakref.finalize(self, index.database.close)

    @property
    def version(self) -> str | None:
        """The list's version, if it has one."""
        return self._index.head.version

    @property
    def updated(self) -> str | None:
        """When the list was last changed, as it says."""
        return self._index.head.updated

    @property
    def expires(self) -> float | None:
        """When the list expires, in seconds since the epoch."""
        return self._index.head.expires

    @property
    def extra(self) -> Mapping[str, object]:
        """The keys at the top level that have no meaning here."""
        return self._index.head.extra

    @property
    def assets(self) -> Collection[Asset]:
        """Every asset."""
        return self._chosen(None)

    @property
    def required(self) -> Collection[Asset]:
        """The assets marked as required; none where none is marked so."""
        return self._chosen("SELECT n FROM entries WHERE required")

    def get(self, asset_id: str) -> Asset:
        """Return the asset with this id. Raises `UnknownAsset`."""
        if (n := self._index.number_of(asset_id)) is None:
            raise self._unknown(asset_id)
        return self._index.asset(n)

    def owner_of(self, path: str) -> str | None:
        """Return the id of the asset that has this path, or is inside it, or above it; None if there is none."""
        return self._index.owner_of(path)

    def number_of(self, asset_id: str) -> int | None:
        """Return which entry has this id, counted from 0; None if there is none."""
        return self._index.number_of(asset_id)

    def pick(self, ids: Collection[str] | None = None, *, exclude: Collection[str] = ()) -> Collection[Asset]:
        """Return the assets named, as `Manifest.pick` does; with globs or ``exclude`` in the manifest's order.

        Raises `UnknownAsset`.
        """
        refuse_one_text(ids=ids, exclude=exclude)
        if ids is None:
            return self.select(all=True, exclude=exclude)
        if exclude or any(self._index.number_of(each) is None for each in ids):
            return self.select(ids, exclude=exclude)
        return tuple(self.get(each) for each in dict.fromkeys(ids))

    def select(
        self,
        ids: Collection[str] = (),
        tags: Collection[str] = (),
        all: bool = False,  # noqa: A002 - the word of the command line and of the public API
        minimal: bool = False,
        exclude: Collection[str] = (),
    ) -> Collection[Asset]:
        """Return the assets chosen, as `Manifest.select` does. Raises `UnknownAsset` or `UnknownTag`."""
        refuse_one_text(ids=ids, tags=tags, exclude=exclude)
        if unknown := self._unknown_tags(tags):
            raise UnknownTag(unknown, [text_of(tag) for (tag,) in self._database.rows(_SOME_TAGS)])
        parts = []
        if not all and (ids or tags):
            chosen = self._table()
            for asset_id in ids:
                self._note(chosen, asset_id)
            for tag in tags:
                self._database.run(f"INSERT OR IGNORE INTO {chosen} SELECT n FROM tags WHERE tag = ?", (key_of(tag),))  # noqa: S608
            parts.append(f"SELECT n FROM {chosen}")  # noqa: S608
        elif not all and (marked := self._marked(minimal)) is not None:
            parts.append(marked)
        if exclude:
            without = self._table()
            for asset_id in exclude:
                self._note(without, asset_id)
            parts = parts or ["SELECT n FROM entries"]
            parts.append(f"SELECT n FROM {without}")  # noqa: S608
        return self._chosen(" EXCEPT ".join(parts) or None, minimal=minimal)

    def chooses_all(self, minimal: bool = False) -> bool:
        """Whether `select` without a choice takes every asset, because none is marked; False if there are none."""
        return self._index.count > 0 and self._marked(minimal) is None

    def is_usual(self, asset: Asset, minimal: bool = False) -> bool:
        """Whether `select` without a choice takes this asset of the list."""
        marked = self._marked(minimal)
        if marked is None:
            return True
        return ESSENTIAL_TAG in asset.tags if "tags" in marked else asset.required

    def _marked(self, minimal: bool) -> str | None:
        """What finds the marked assets; None if none is marked. Looked for once: it is asked of each asset."""
        if minimal not in self._marks:
            self._marks[minimal] = self._find_marks(minimal)
        return self._marks[minimal]

    def _find_marks(self, minimal: bool) -> str | None:
        essential = "SELECT 1 FROM tags WHERE tag = ? LIMIT 1"
        if minimal and self._database.rows(essential, (key_of(ESSENTIAL_TAG),)):
            return f"SELECT n FROM tags WHERE tag = X'{key_of(ESSENTIAL_TAG).hex()}'"  # noqa: S608 - a word of our own
        if self._database.rows("SELECT 1 FROM entries WHERE required LIMIT 1"):
            return "SELECT n FROM entries WHERE required"
        return None

    @property
    def _database(self) -> Database:
        return self._index.database

    def _chosen(self, query: str | None, *, minimal: bool = False) -> Collection[Asset]:
        table = None
        if query is not None:
            table = self._table()
            self._database.run(f"INSERT OR IGNORE INTO {table} {query}")
        stream = AssetStream(self, self._index, table, minimal=minimal)
        if table is not None:
            weakref.finalize(stream, _drop, self._database, table)
        return tuple(stream) if len(stream) <= self._max_held else stream

    def _table(self) -> str:
        table = f"numbers_{next(self._tables)}"
        self._database.run(f"CREATE TABLE {table} (n INTEGER PRIMARY KEY)")
        return table

    def _note(self, table: str, text: str) -> None:
        """Note the assets that an id or a glob means. Raises `UnknownAsset`."""
        insert = f"INSERT OR IGNORE INTO {table} VALUES (?)"  # noqa: S608 - a name of our own
        if (n := self._index.number_of(text)) is not None:
            self._database.run(insert, (n,))  # also where it looks like a glob
            return
        found: list[int] = []
        if GLOB.search(text):
            fits: Callable[[str], object] = re.compile(translate(text)).match
            rows = self._database.each("SELECT id, n FROM entries")
            found = [n for key, n in rows if isinstance(n, int) and fits(text_of(key))]
        if not found:
            raise self._unknown(text)
        self._database.run_all(insert, ((n,) for n in found))

    def _unknown_tags(self, tags: Collection[str]) -> list[str]:
        query = "SELECT 1 FROM tags WHERE tag = ? LIMIT 1"
        return [tag for tag in dict.fromkeys(tags) if not self._database.rows(query, (key_of(tag),))]

    def _unknown(self, text: str) -> UnknownAsset:
        plain = GLOB.sub("", text)
        key = key_of(plain)
        near = [
            text_of(found)
            for order, compare in (("DESC", "<"), ("ASC", ">="))
            for (found,) in self._database.rows(
                f"SELECT id FROM entries WHERE id {compare} ? ORDER BY id {order} LIMIT {_NEAR}",  # noqa: S608
                (key,),
            )
        ]
        begin = [each for each in near if plain and each.startswith(plain)] if plain != text else []
        return UnknownAsset(text, (begin or nearest_names(plain, near))[:3])


_SOME_TAGS = "SELECT DISTINCT tag FROM tags ORDER BY tag LIMIT 100"


def _drop(database: Database, table: str) -> None:
    if not database.is_closed:
        database.run(f"DROP TABLE {table}")


def held_or_long(index: ManifestIndex, *, max_held: int = MAX_HELD) -> Manifest | LongManifest:
    """Return the manifest, whole if it is short: then everything can be done with it."""
    if index.count > max_held:
        return LongManifest(index, max_held=max_held)
    head = index.head
    assets = tuple(chain.from_iterable(assets for _, assets in index.assets()))
    index.database.close()
    return Manifest(version=head.version, updated=head.updated, expires=head.expires, assets=assets, extra=head.extra)
