"""A long manifest, judged and kept in a temporary database: what is held in memory does not grow with its length.

Rules: the same as for a short one. Each entry is judged alone as it comes; ids and paths are then compared in sorted
order, by the indexes of the database. The entries themselves are kept there, too, compressed and in parts, so that a
file which is changed meanwhile changes nothing here.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

from grym_fetch.core.archives import unpacked_path
from grym_fetch.core.errors import ManifestError, Problem
from grym_fetch.core.git_folders import BESIDE_HEAD, HEAD, makes_a_repository, needed_of
from grym_fetch.core.manifest import Asset, Manifest
from grym_fetch.core.manifest_parser import UnknownKeys, read_entries
from grym_fetch.core.manifest_schema import ENTRIES, MANIFEST
from grym_fetch.core.paths import PART_END, part_key, sorted_collisions, why_equal, why_nested
from grym_fetch.core.schema import problems_of
from grym_fetch.core.text import safe_text
from grym_fetch.disk.database import Database, key_of, text_of
from grym_fetch.manifest_files.lines import LongFile, Part

MAX_PROBLEMS = 1000
"""After so many problems, no more are looked for."""
_PATH, _FOLDER = 0, 1
"""Whose key it is: the file's, or that of the folder it is unpacked into."""
_TABLES = """
    CREATE TABLE parts (first INTEGER PRIMARY KEY, entries BLOB);
    CREATE TABLE entries (n INTEGER PRIMARY KEY, id BLOB, place INTEGER, size INTEGER, small_size INTEGER,
        required INTEGER);
    CREATE TABLE paths (key BLOB, kind INTEGER, n INTEGER);
    CREATE TABLE tags (tag BLOB, n INTEGER);
"""
_INDEXES = """
    CREATE INDEX entries_by_id ON entries (id, n);
    CREATE INDEX paths_by_key ON paths (key, kind, n);
    CREATE INDEX tags_by_tag ON tags (tag, n);
"""


class ManifestIndex:
    """The entries of one manifest. ``head`` has its other keys, and no assets."""

    def __init__(self, head: Manifest, source: str, unit: str) -> None:
        self.head = head
        self.source = source
        self.unit = unit
        self.database = Database()
        self.count = 0
        self.database.script(_TABLES)
        self._last: tuple[int, list[object]] = (-1, [])

    def add(self, part: Part, assets: Sequence[Asset]) -> None:
        """Keep some more entries; ``assets`` are what they mean, none if something is wrong with the list."""
        first, database = self.count, self.database
        self.count += len(part.entries)
        # What could not be read is not repeated in any report either.
        text = json.dumps(part.entries, separators=(",", ":"), default=lambda _: None).encode("ascii")
        database.run("INSERT INTO parts VALUES (?, ?)", (first, zlib.compress(text, 1)))
        asset_at = dict(enumerate(assets))
        rows, paths, tags = [], [], []
        for n, (entry, place) in enumerate(zip(part.entries, part.places, strict=True)):
            asset_id = entry.get("id") if isinstance(entry, dict) else None
            asset = asset_at.get(n)
            size = None if asset is None else asset.size
            small = size if asset is None or asset.minimal is None else asset.minimal.size
            known_id = key_of(asset_id) if isinstance(asset_id, str) else None
            rows.append((first + n, known_id, place, size, small, asset is not None and asset.required))
            tags += [(key_of(tag), first + n) for tag in (asset.tags if asset is not None else ())]
            if isinstance(entry, dict) and isinstance(path := entry.get("localPath"), str):
                paths.append((key_of(part_key(path)), _PATH, first + n))
                if entry.get("extract") is True:
                    with suppress(ValueError):  # `read_entries` reports it
                        paths.append((key_of(part_key(unpacked_path(path))), _FOLDER, first + n))
        database.run_all("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", rows)
        database.run_all("INSERT INTO paths VALUES (?, ?, ?)", paths)
        database.run_all("INSERT INTO tags VALUES (?, ?)", tags)

    def finish(self) -> None:
        """Make it ready to be searched: nothing is added any more."""
        self.database.script(_INDEXES)

    # -- looking ----------------------------------------------------------------------------------------------------

    def entry(self, n: int) -> object:
        """Return an entry as it is in the file."""
        first, entries = self._last
        if not first <= n < first + len(entries):
            [(at, data)] = self.database.rows(
                "SELECT first, entries FROM parts WHERE first <= ? ORDER BY first DESC LIMIT 1", (n,)
            )
            assert isinstance(at, int)
            assert isinstance(data, bytes)
            first, entries = self._last = at, json.loads(zlib.decompress(data))
        return entries[n - first]

    def parts(self) -> Iterator[tuple[int, list[object]]]:
        """Yield all entries as they are in the file, in parts, each with the number of its first."""
        at = -1
        while found := self.database.rows(
            "SELECT first, entries FROM parts WHERE first > ? ORDER BY first LIMIT 1", (at,)
        ):
            [(first, data)] = found
            assert isinstance(first, int)
            assert isinstance(data, bytes)
            at = first
            yield first, json.loads(zlib.decompress(data))

    def assets(self) -> Iterator[tuple[int, tuple[Asset, ...]]]:
        """Yield all assets, in parts, each with the number of its first."""
        for first, entries in self.parts():
            yield first, ENTRIES.read(entries)

    def asset(self, n: int) -> Asset:
        """Return one asset."""
        [asset] = ENTRIES.read([self.entry(n)])
        return asset

    def number_of(self, asset_id: str) -> int | None:
        """Return the number of the asset with this id, if there is one."""
        for (n,) in self.database.rows("SELECT n FROM entries WHERE id = ? LIMIT 1", (key_of(asset_id),)):
            assert isinstance(n, int)
            return n
        return None

    def place(self, n: object) -> str:
        """Where an entry is: ``line 7``."""
        [(place,)] = self.database.rows("SELECT place FROM entries WHERE n = ?", (n,))
        return f"{self.unit} {place}"

    def owner_of(self, path: str) -> str | None:
        """Return the id of the asset whose path this is, or is inside it, or above it; None if there is none."""
        key = key_of(part_key(path))
        parts = key.split(key_of(PART_END))
        above = [key_of(PART_END).join(parts[:count]) for count in range(1, len(parts) + 1)]
        marks = ", ".join("?" * len(above))
        below = (key + key_of(PART_END), key + b"\x01")
        found = self.database.rows(
            f"SELECT n FROM paths WHERE key IN ({marks}) OR (key >= ? AND key < ?) LIMIT 1",  # noqa: S608 - marks only
            (*above, *below),
        )
        for (n,) in found:
            assert isinstance(n, int)
            return self.asset(n).id
        return None


# -- judging a whole manifest ------------------------------------------------------------------------------------------


class _Findings:
    """What is wrong with a manifest, up to `MAX_PROBLEMS`."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._places: set[tuple[str, str]] = set()

    @property
    def is_full(self) -> bool:
        """Whether nothing more need be looked for."""
        return len(self.problems) >= MAX_PROBLEMS

    def add(self, problems: Iterable[Problem]) -> None:
        """Note some more. Of one place, only the first: what is wrong alone may well clash."""
        for problem in problems:
            if self.is_full:
                return
            place = (problem.where.partition(",")[0], problem.key)
            if place not in self._places:
                self._places.add(place)
                self.problems.append(problem)


def build_index(
    file: LongFile, source: str, *, go_on: Callable[[], bool] = lambda: True
) -> tuple[ManifestIndex, tuple[str, ...]]:
    """Read and judge a manifest; return its index, and warnings.

    ``go_on`` is asked now and then; where it says no, `InterruptedError` is raised. Blocking: for a thread.

    Raises:
        ManifestError: it cannot be used; with every problem, or the first `MAX_PROBLEMS`.
        StorageError: it cannot be read, or the database cannot be written.
    """
    findings = _Findings()
    try:
        head = MANIFEST.read({**file.head(), "assets": []})
    except ValueError as error:
        place = f"{file.unit} 1" if file.unit == "line" else "top level"
        findings.add(Problem(place, ".".join(map(str, where)), message) for where, message in problems_of(error))
        head = Manifest()
    unknown = UnknownKeys(head.extra)
    index = ManifestIndex(head, source, file.unit)
    try:
        for part in file.parts():
            if not go_on():
                raise InterruptedError
            places = part.places
            assets, wrong = read_entries(part.entries, part.problems, lambda at: f"{file.unit} {places[at]}")  # noqa: B023
            findings.add(wrong)
            unknown.add(assets)
            index.add(part, assets)
            if findings.is_full:
                break
        index.finish()
        for judge in (_taken_ids, _colliding, _wrong_archives, _git_folders):
            findings.add(judge(index))
        if findings.problems:
            more = [Problem("and", "", "maybe more: the rest was not looked at")] if findings.is_full else []
            raise ManifestError(source, findings.problems + more)
    except BaseException:
        index.database.close()
        raise
    return index, unknown.warnings()


def _name(index: ManifestIndex, n: object) -> str:
    [(key,)] = index.database.rows("SELECT id FROM entries WHERE n = ?", (n,))
    asset_id = text_of(key) if key is not None else ""
    is_shown = asset_id.isprintable() and 0 < len(asset_id) <= 200
    return index.place(n) + (f", asset '{asset_id}'" if is_shown else "")


def _taken_ids(index: ManifestIndex) -> Iterator[Problem]:
    first: tuple[object, object] = (None, None)
    for key, n in index.database.each("SELECT id, n FROM entries WHERE id IS NOT NULL ORDER BY id, n"):
        if key == first[0]:
            shown = safe_text(text_of(key), limit=80)
            message = f"is '{shown}', as on {index.place(first[1])}; ids must be distinct"
            yield Problem(index.place(n), "id", message)
        else:
            first = (key, n)


def _colliding(index: ManifestIndex) -> Iterator[Problem]:
    keys = index.database.each("SELECT key, n FROM paths WHERE kind = 0 ORDER BY key, kind, n")
    for other, n, is_equal in sorted_collisions((text_of(key), _number(each)) for key, each in keys):
        first, second = sorted((other, n))
        paths = _shown_path(index, first), _shown_path(index, second)
        # Nested: the one above comes first, wherever it is in the file.
        why = why_equal(*paths) if is_equal else why_nested(_shown_path(index, other), _shown_path(index, n))
        yield Problem(_name(index, second), "localPath", f"clashes with that of {_name(index, first)}: {why}")


def _wrong_archives(index: ManifestIndex) -> Iterator[Problem]:
    """The folder that an archive is unpacked into must belong to that archive alone."""
    if not index.database.rows("SELECT 1 FROM paths WHERE kind = 1 LIMIT 1"):
        return
    # The number and the kind as one number.
    keys = index.database.each("SELECT key, 2 * n + kind FROM paths ORDER BY key, kind, n")
    for other, mine, _ in sorted_collisions((text_of(key), _number(each)) for key, each in keys):
        for one, another in ((mine, other), (other, mine)):
            if one % 2 == _FOLDER:
                message = (
                    f"is true, but the folder '{safe_text(unpacked_path(_shown_path(index, one // 2)))}' that it is "
                    f"unpacked into clashes with '{safe_text(_shown_path(index, another // 2))}' of "
                    f"{_name(index, another // 2)}"
                )
                yield Problem(_name(index, one // 2), "extract", message)
                break


def _git_folders(index: ManifestIndex) -> Iterator[Problem]:
    """Several assets together must not make a folder that git takes for a repository, and whose config it obeys."""
    end = key_of(PART_END)
    head = key_of(HEAD)
    suffix = end + head
    heads = index.database.each(
        "SELECT key, n FROM paths WHERE kind = 0 AND (key = ? OR substr(key, -?) = ?)", (head, len(suffix), suffix)
    )
    for key, n in heads:
        assert isinstance(key, bytes)
        there: dict[str, tuple[object, object]] = {}
        for name in BESIDE_HEAD:
            beside = key[: -len(head)] + key_of(name)
            found = index.database.rows(
                "SELECT n, kind FROM paths WHERE key = ? OR (key >= ? AND key < ?) ORDER BY key LIMIT 1",
                (beside, beside + end, beside + b"\x01"),
            )
            for other, kind in found:
                there[name] = (other, kind)
        needed = needed_of(there)
        parts = [(n, _PATH), *(there[name] for name in needed)] if needed else []
        for mine, kind in parts:
            others = makes_a_repository(_shown_path(index, _number(at)) for at, _ in parts if at != mine)
            place = "extract" if kind == _FOLDER else "localPath"
            yield Problem(_name(index, mine), place, f"{others}; choose another folder")


def _shown_path(index: ManifestIndex, n: int) -> str:
    entry = index.entry(n)
    assert isinstance(entry, dict)
    return str(entry["localPath"])


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value
