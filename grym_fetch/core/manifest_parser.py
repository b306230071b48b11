"""From the bytes of ``assets.json`` to a `Manifest`.

Rules: `parse_manifest` returns a manifest without any problem or raises one `ManifestError` with all of them; nothing
in a file, however hostile, makes it raise anything else. What is allowed stands in `grym_fetch.core.manifest_schema`.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import TYPE_CHECKING

from grym_fetch.core.archives import unpacked_path
from grym_fetch.core.digest import DIGESTS_OF_NOTHING, Checksum
from grym_fetch.core.errors import ManifestError, Problem
from grym_fetch.core.manifest import Asset, Manifest, StandIn
from grym_fetch.core.manifest_plain import read_plain_asset, read_plain_head
from grym_fetch.core.paths import MAX_PATH_BYTES, find_collisions
from grym_fetch.core.text import safe_text

if TYPE_CHECKING:
    from pydantic import BaseModel

    from grym_fetch.core.manifest_schema import AssetEntry, Location, StandInEntry

MAX_MANIFEST_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 32
"""Most lists and objects inside each other."""
MAX_ASSETS = 100_000
MAX_INTEGER_DIGITS = 20
WARNED_KEYS = 5
"""How many unknown keys the warning names."""


@dataclass(frozen=True, slots=True)
class ParsedManifest:
    """A manifest and what is odd about its file without being wrong."""

    manifest: Manifest
    warnings: tuple[str, ...] = ()


def parse_manifest(data: bytes, source: str) -> ParsedManifest:
    """Read the bytes of an ``assets.json``. ``source`` names it in errors.

    Raises:
        ManifestError: it cannot be used; with every problem.
    """
    text = _decode(data, source)
    raw, marks = _read_json(text, source)
    problems = _Problems(source, raw)
    if marks.any or _SURROGATE_ESCAPE.search(text):
        _report_marks(raw, marks, problems)
    manifest = _validate(raw, problems)
    if isinstance(raw, dict) and isinstance(entries := raw.get("assets"), list):
        _check_ids(entries, problems)
        _check_places(entries, problems)
        _check_contents(entries, problems)
    problems.raise_if_any()
    assert manifest is not None, "a file that cannot be read has problems"
    return ParsedManifest(manifest, _warnings(manifest))


# --- From bytes to JSON values: what would overwhelm or mislead the JSON parser is refused before it runs ---

_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # as signed bytes: one down, one up


@dataclass(frozen=True, slots=True)
class _Refused:
    """Stands in the parsed file for a number that is refused."""

    why: str


@dataclass(slots=True)
class _Marks:
    """What the JSON parser came across that needs a report, once it is known where in the file it is."""

    refused: bool = False
    twice: list[tuple[dict[str, object], list[str]]] = field(default_factory=list)

    @property
    def any(self) -> bool:
        return self.refused or bool(self.twice)

    def refuse(self, why: str) -> _Refused:
        self.refused = True
        return _Refused(why)


def _refuse_file(source: str, message: str, where: str = "top level") -> ManifestError:
    return ManifestError(source, [Problem(where, "", message)])


def _decode(data: bytes, source: str) -> str:
    if len(data) > MAX_MANIFEST_BYTES:
        raise _refuse_file(source, f"is {len(data)} bytes long; at most {MAX_MANIFEST_BYTES} are allowed")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:4]:
        raise _refuse_file(source, "is not UTF-8 but looks like UTF-16 or UTF-32; save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refuse_file(source, f"is not UTF-8 (at byte {error.start}); save it as UTF-8") from None
    if _depth(data) > MAX_DEPTH:
        raise _refuse_file(source, f"has lists or objects nested more than {MAX_DEPTH} deep")
    return text


def _depth(data: bytes) -> int:
    """Return how deep lists and objects are nested, exactly so up to the first fault in ``data``."""
    # A run of backslashes is read in pairs from its left, so what is left of it escapes the next character.
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside_strings = b"".join(data.split(b'"')[::2])
    return max(accumulate(memoryview(outside_strings.translate(_STEPS, _NOT_BRACKETS)).cast("b")), default=0)


def _read_json(text: str, source: str) -> tuple[object, _Marks]:
    marks = _Marks()

    def read_object(pairs: list[tuple[str, object]]) -> dict[str, object]:
        result = dict(pairs)
        if len(result) != len(pairs):
            marks.twice.append((result, [key for key, n in Counter(key for key, _ in pairs).items() if n > 1]))
        return result

    def read_integer(digits: str) -> int | _Refused:
        count = len(digits.removeprefix("-"))
        if count <= MAX_INTEGER_DIGITS:
            return int(digits)
        return marks.refuse(f"is a number of {count} digits; at most {MAX_INTEGER_DIGITS} are allowed")

    def read_float(digits: str) -> float | _Refused:
        number = float(digits)
        return number if math.isfinite(number) else marks.refuse("is a number too large to be read")

    try:
        raw = json.loads(
            text,
            object_pairs_hook=read_object,
            parse_int=read_integer,
            parse_float=read_float,
            parse_constant=lambda name: marks.refuse(f"is {name}, which is no JSON value"),
        )
    except json.JSONDecodeError as error:
        found = f"is no valid JSON: {error.msg}" if text.strip() else "is empty; allowed: a JSON object"
        raise _refuse_file(source, found, f"line {error.lineno}, column {error.colno}") from None
    if isinstance(raw, dict) and isinstance(entries := raw.get("assets"), list) and len(entries) > MAX_ASSETS:
        raise _refuse_file(source, f"has {len(entries)} assets; at most {MAX_ASSETS} are allowed")
    return raw, marks


def _report_marks(raw: object, marks: _Marks, problems: _Problems) -> None:
    """Find where in the file the refused values are. Walks all of it, so it is called only in need."""
    twice = {id(node): keys for node, keys in marks.twice}

    def walk(value: object, location: Location) -> None:
        if isinstance(value, _Refused):
            problems.add(location, value.why)
        elif isinstance(value, str):
            report_surrogate(value, location)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                walk(item, (*location, index))
        elif isinstance(value, dict):
            for key in twice.get(id(value), ()):
                problems.add((*location, key), "is given more than once; each key is allowed once")
            for key, item in value.items():
                report_surrogate(key, (*location, key))
                walk(item, (*location, key))

    def report_surrogate(text: str, location: Location) -> None:
        if found := _SURROGATE.search(text):
            problems.add(location, f"has half of a surrogate pair ({safe_text(found[0])}), which is no character")

    walk(raw, ())


# --- What concerns one value: the models judge what is not plainly right -------------------------------------


def _validate(raw: object, problems: _Problems) -> Manifest | None:
    entries: list[object] = []
    if isinstance(raw, dict) and isinstance(listed := raw.get("assets"), list):
        entries, raw = listed, {**raw, "assets": []}
        head = read_plain_head(raw) or _head_by_model(raw, problems)
    else:
        head = _head_by_model(raw, problems)
    # One by one: a model that becomes an asset at once leaves the garbage collector nothing to look through.
    assets = [
        asset
        for index, entry in enumerate(entries)
        if (asset := read_plain_asset(entry) or _asset_by_model(entry, index, problems))
    ]
    return None if head is None else replace(head, assets=tuple(assets))


def _head_by_model(raw: object, problems: _Problems) -> Manifest | None:
    from grym_fetch.core.manifest_schema import ManifestFile, read_model

    file = read_model(ManifestFile, raw, (), problems.add)
    return None if file is None else Manifest(file.version, file.updated, file.expires, extra=file.model_extra or {})


def _asset_by_model(value: object, index: int, problems: _Problems) -> Asset | None:
    from grym_fetch.core.manifest_schema import AssetEntry, read_model

    entry = read_model(AssetEntry, value, ("assets", index), problems.add)
    return None if entry is None else _asset_from_entry(entry)


# --- What concerns several values or assets: judged on the file as it is, so that a bad asset hides no other


def _check_ids(entries: list[object], problems: _Problems) -> None:
    first: dict[str, int] = {}
    for index, entry in enumerate(entries):
        if isinstance(entry, dict) and isinstance(asset_id := entry.get("id"), str):
            earlier = first.setdefault(asset_id, index)
            if earlier != index:
                problems.has_taken_id(index)
                shown = safe_text(asset_id, limit=80)
                problems.add(("assets", index, "id"), f"is '{shown}', as in assets[{earlier}]; ids must be distinct")


def _check_places(entries: list[object], problems: _Problems) -> None:
    places: list[tuple[int, str]] = []
    for index, entry in enumerate(entries):
        if isinstance(entry, dict) and isinstance(path := entry.get("localPath"), str) and len(path) <= MAX_PATH_BYTES:
            places.append((index, path))
    for collision in find_collisions([path for _, path in places]):
        earlier, later = places[collision.first][0], places[collision.second][0]
        other = problems.name_of(earlier)
        problems.add(("assets", later, "localPath"), f"clashes with that of {other}: {collision.why}")
    _check_unpacked(entries, places, problems)


def _check_unpacked(entries: list[object], places: list[tuple[int, str]], problems: _Problems) -> None:
    """A folder that an archive is unpacked into belongs to that archive alone."""
    folders: list[tuple[int, str]] = []
    for index, path in places:
        entry = entries[index]
        if isinstance(entry, dict) and entry.get("extract") is True:
            try:
                folders.append((index, unpacked_path(path)))
            except ValueError as error:
                problems.add(("assets", index, "extract"), str(error))
    if not folders:
        return
    both = [*places, *folders]
    for collision in find_collisions([path for _, path in both]):
        for mine, other in ((collision.second, collision.first), (collision.first, collision.second)):
            if mine >= len(places):
                index, folder = both[mine]
                problems.add(
                    ("assets", index, "extract"),
                    f"is true, but the folder '{safe_text(folder)}' that it is unpacked into clashes with "
                    f"'{safe_text(both[other][1])}' of {problems.name_of(both[other][0])}",
                )
                break


def _check_contents(entries: list[object], problems: _Problems) -> None:
    for index, entry in enumerate(entries):
        if isinstance(entry, dict):
            _check_content(entry, ("assets", index), problems)
            if isinstance(minimal := entry.get("minimal"), dict):
                _check_content(minimal, ("assets", index, "minimal"), problems)


def _check_content(entry: dict[str, object], location: Location, problems: _Problems) -> None:
    """An empty file has the checksum of nothing, and no other file has it."""
    size, checksum = entry.get("size"), entry.get("checksum")
    if type(size) is not int or not isinstance(checksum, str):
        return
    if size != 0 and checksum.rpartition(":")[2].lower() not in DIGESTS_OF_NOTHING.values():
        return
    try:
        is_of_nothing = Checksum.parse(checksum).is_of_nothing
    except ValueError:
        return
    if size == 0 and not is_of_nothing:
        problems.add((*location, "size"), "is 0 but the checksum is not that of an empty file")
    elif size > 0 and is_of_nothing:
        problems.add((*location, "size"), f"is {size} but the checksum is that of an empty file")


# --- Problems: one a place, in the order of the assets ------------------------------------------------------


class _Problems:
    def __init__(self, source: str, raw: object) -> None:
        entries = raw.get("assets") if isinstance(raw, dict) else None
        self._entries: list[object] = entries if isinstance(entries, list) else []
        self._source = source
        self._nameless: set[int] = set()
        self._found: dict[Location, str] = {}

    def add(self, location: Location, message: str) -> None:
        """Take note of a problem, unless there is one for the same place."""
        self._found.setdefault(location, message)

    def raise_if_any(self) -> None:
        """Raise everything found as one error."""
        if self._found:
            in_order = sorted(self._found.items(), key=lambda item: _asset_index(item[0]))
            raise ManifestError(self._source, [self._problem(*item) for item in in_order])

    def has_taken_id(self, index: int) -> None:
        """Take note that the id of this asset names another one."""
        self._nameless.add(index)

    def name_of(self, index: int) -> str:
        """Name an asset: by its id where that names it and can be shown, else by its index."""
        entry = self._entries[index]
        asset_id = entry.get("id") if isinstance(entry, dict) else None
        can_be_shown = isinstance(asset_id, str) and asset_id.isprintable() and 0 < len(asset_id) <= 200
        if can_be_shown and index not in self._nameless:
            return f"asset '{asset_id}'"
        return f"assets[{index}]"

    def _problem(self, location: Location, message: str) -> Problem:
        index = _asset_index(location)
        if index < 0:
            return Problem("top level", _key_of(location), message)
        key = _key_of(location[2:])
        # An id that is wrong names nothing.
        return Problem(f"assets[{index}]" if key == "id" else self.name_of(index), key, message)


def _asset_index(location: Location) -> int:
    if len(location) > 1 and location[0] == "assets" and isinstance(location[1], int):
        return location[1]
    return -1


def _key_of(location: Location) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{safe_text(part, limit=80)}" for part in location)
    return "".join(parts).removeprefix(".")


# --- From the models to values ------------------------------------------------------------------------------


def _asset_from_entry(entry: AssetEntry) -> Asset:
    return Asset(
        id=entry.id,
        url=entry.url,
        local_path=entry.local_path,
        name=entry.name or entry.id,
        description=entry.description or "",
        fallback_urls=tuple(entry.fallback_urls or ()),
        checksum=entry.checksum,
        size=entry.size,
        version=entry.version,
        required=bool(entry.required),
        tags=tuple(dict.fromkeys(entry.tags or ())),
        metadata=entry.metadata or {},
        minimal=None if entry.minimal is None else _stand_in_from_entry(entry.minimal),
        extract=bool(entry.extract),
        extra=entry.model_extra or {},
    )


def _stand_in_from_entry(entry: StandInEntry) -> StandIn:
    return StandIn(
        url=entry.url,
        checksum=entry.checksum,
        size=entry.size,
        fallback_urls=tuple(entry.fallback_urls or ()),
        extra=entry.model_extra or {},
    )


# --- Unknown keys: most often a typo ------------------------------------------------------------------------


def _warnings(manifest: Manifest) -> tuple[str, ...]:
    # Each unknown key with where it is; editors put $schema at the top.
    found: dict[tuple[str, str], list[str]] = {}
    for key in manifest.extra:
        if key != "$schema":
            found.setdefault(("", key), []).append("top level")
    for asset in manifest.assets:
        for key in asset.extra:
            found.setdefault(("assets", key), []).append(f"asset '{asset.id}'")
        for key in asset.minimal.extra if asset.minimal else ():
            found.setdefault(("minimal", key), []).append(f"asset '{asset.id}'")
    if not found:
        return ()
    from grym_fetch.core.manifest_schema import AssetEntry, ManifestFile, StandInEntry, nearest_key

    models: dict[str, type[BaseModel]] = {"": ManifestFile, "assets": AssetEntry, "minimal": StandInEntry}
    shown: list[str] = []
    for (level, key), places in list(found.items())[:WARNED_KEYS]:
        known = [field.alias or name for name, field in models[level].model_fields.items()]
        meant = nearest_key(key, known)
        name = safe_text(f"minimal.{key}" if level == "minimal" else key, limit=80)
        where = places[0] + (f" and {len(places) - 1} more" if len(places) > 1 else "")
        shown.append(f"'{name}' ({where}" + (f"; did you mean '{meant}'?)" if meant else ")"))
    more = f", and {len(found) - WARNED_KEYS} more" if len(found) > WARNED_KEYS else ""
    return (f"unknown keys, kept but not used: {', '.join(shown)}{more}",)
