"""From the bytes of ``assets.json`` to a `Manifest`.

Rules: `parse_manifest` returns a manifest without any problem, or raises one `ManifestError` with all of them. Nothing
in a file, however hostile, makes it raise anything else. `manifest_schema` says what each value may be; what concerns
several of them is checked here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from grym_fetch.core.archives import unpacked_path
from grym_fetch.core.digest import DIGESTS_OF_NOTHING, Checksum
from grym_fetch.core.errors import ManifestError, Problem
from grym_fetch.core.git_folders import find_git_folders, makes_a_repository
from grym_fetch.core.manifest import Asset, Manifest, ManifestSource
from grym_fetch.core.manifest_schema import ASSET, ENTRIES, MANIFEST, PIECES, STAND_IN
from grym_fetch.core.paths import MAX_PATH_BYTES, find_collisions
from grym_fetch.core.piece_digests import MAX_PIECE_BYTES, MIN_PIECE_BYTES, piece_count
from grym_fetch.core.schema import Location, nearest_key, problems_of
from grym_fetch.core.strict_json import NotJson, read_json
from grym_fetch.core.text import safe_text

MAX_MANIFEST_BYTES = 16 * 1024 * 1024
MAX_ASSETS = 100_000
MAX_KEYS_IN_WARNING = 5
MAX_UNKNOWN_KEYS = 1000
"""Of so many different unknown keys, it is counted how often each is there; of more, it is not."""
WAY_OUT = "longer lists go into assets.jsonl: `grym-fetch convert assets.json assets.jsonl`"


M = TypeVar("M", bound=ManifestSource, covariant=True)


@dataclass(frozen=True)
class ParsedManifest(Generic[M]):
    """A manifest, and what is odd in its file but not wrong."""

    manifest: M
    warnings: tuple[str, ...] = ()


def parse_manifest(data: bytes, source: str) -> ParsedManifest[Manifest]:
    """Read the bytes of an ``assets.json``. ``source`` names it in errors.

    Raises:
        ManifestError: it cannot be used; with every problem.
    """
    manifest = parse_whole(data, source)
    found = UnknownKeys(manifest.extra)
    found.add(manifest.assets)
    return ParsedManifest(manifest, found.warnings())


def parse_whole(data: bytes, source: str) -> Manifest:
    """`parse_manifest` for who needs the manifest as a whole and no warnings. Raises the same."""
    if len(data) > MAX_MANIFEST_BYTES:
        message = f"is {len(data)} bytes long; at most {MAX_MANIFEST_BYTES} are allowed; {WAY_OUT}"
        raise ManifestError(source, [Problem("top level", "", message)])
    try:
        file = read_json(data, max_bytes=MAX_MANIFEST_BYTES)
    except NotJson as error:
        raise ManifestError(source, [Problem(error.place or "top level", "", str(error))]) from None
    del data  # may be long, and is not needed any more
    entries = file.value.get("assets") if isinstance(file.value, dict) else None
    if not isinstance(entries, list):
        entries = []
    if len(entries) > MAX_ASSETS:
        message = f"has {len(entries)} assets; at most {MAX_ASSETS} are allowed; {WAY_OUT}"
        raise ManifestError(source, [Problem("top level", "", message)])
    problems = _Problems(source, entries)
    problems.add_all(file.problems)
    assets: tuple[Asset, ...] | None = None
    try:
        manifest = MANIFEST.read(file.value)
        assets = manifest.assets
    except ValueError as error:
        problems.add_all(problems_of(error))
    if assets is None or _may_share_a_place(assets):
        _check_ids(entries, problems)
        _check_places(entries, problems)
    _check_contents(entries, _to_check(assets, entries), problems)
    problems.raise_if_any()
    return manifest


def read_entries(
    entries: list[object], found: Iterable[tuple[Location, str]], place: Callable[[int], str]
) -> tuple[tuple[Asset, ...], list[Problem]]:
    """Read some of a longer list of entries. Return the assets, and what is wrong with any: then there are no assets.

    ``found``: problems that are known already. ``place``: where an entry is, by its index here, such as ``line 7``.
    What concerns several entries is for the caller to judge.
    """
    assets: tuple[Asset, ...] | None = None
    problems = _Problems("", entries, place)
    problems.add_all(found)
    try:
        assets = ENTRIES.read(entries)
    except ValueError as error:
        problems.add_all((("assets", *location), message) for location, message in problems_of(error))
    _check_contents(entries, _to_check(assets, entries), problems)
    for index, entry in enumerate(entries):
        if isinstance(entry, dict) and entry.get("extract") and isinstance(path := entry.get("localPath"), str):
            _unpacked_folders(entries, [(index, path)], problems)
    wrong = problems.in_order()
    return (() if wrong else assets or ()), wrong


# --- What concerns several values or assets: judged on the file as it is, so that a bad asset hides no other. If each
# --- asset by itself is good, a quick look at all of them together nearly always says that nothing is wrong


def _may_share_a_place(assets: Sequence[Asset]) -> bool:
    """Whether two of these may have an id or a place in common; rarely true."""
    if len({asset.id for asset in assets}) < len(assets) or any(asset.extract for asset in assets):
        return True
    paths = [asset.local_path for asset in assets]
    return bool(find_collisions(paths) or find_git_folders(paths))


def _to_check(assets: Sequence[Asset] | None, entries: list[object]) -> Iterable[int]:
    """Return which entries have values that may contradict each other: all, if the ``assets`` are not known."""
    if assets is None:
        return range(len(entries))
    return [
        index
        for index, asset in enumerate(assets)
        if asset.size == 0
        or asset.minimal is not None
        or asset.pieces is not None
        or (asset.checksum is not None and asset.checksum.hexdigest in _OF_NOTHING)
    ]


_OF_NOTHING = frozenset(DIGESTS_OF_NOTHING.values())


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
    folders = _unpacked_folders(entries, places, problems)
    _check_unpacked(places, folders, problems)
    _check_git_folders(places, folders, problems)


Places = list[tuple[int, str]]
"""An asset's index, and a path of it."""


def _unpacked_folders(entries: list[object], places: Places, problems: _Problems) -> Places:
    folders: list[tuple[int, str]] = []
    for index, path in places:
        entry = entries[index]
        if isinstance(entry, dict) and entry.get("extract") is True:
            try:
                folders.append((index, unpacked_path(path)))
            except ValueError as error:
                problems.add(("assets", index, "extract"), str(error))
    return folders


def _check_unpacked(places: Places, folders: Places, problems: _Problems) -> None:
    """The folder that an archive is unpacked into must belong to that archive alone."""
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


def _check_git_folders(places: Places, folders: Places, problems: _Problems) -> None:
    """Several assets together must not make a folder that git takes for a repository, and whose config it obeys."""
    both = [*places, *folders]
    for found in find_git_folders([path for _, path in places], [path for _, path in folders]):
        for mine in found.parts:
            key = "localPath" if mine < len(places) else "extract"
            others = (both[other][1] for other in found.parts if other != mine)
            problems.add(("assets", both[mine][0], key), f"{makes_a_repository(others)}; choose another folder")


def _check_contents(entries: list[object], indices: Iterable[int], problems: _Problems) -> None:
    for index in indices:
        if isinstance(entry := entries[index], dict):
            _check_content(entry, ("assets", index), problems)
            _check_pieces(entry, ("assets", index, "pieces"), problems)
            if isinstance(minimal := entry.get("minimal"), dict):
                _check_content(minimal, ("assets", index, "minimal"), problems)


def _check_content(entry: dict[str, object], location: Location, problems: _Problems) -> None:
    """An empty file has the checksum of nothing, and no other file has it."""
    size, checksum = entry.get("size"), entry.get("checksum")
    if type(size) is not int or not isinstance(checksum, str):
        return
    if size != 0 and checksum.rpartition(":")[2].lower() not in _OF_NOTHING:
        return
    try:
        is_of_nothing = Checksum.parse(checksum).is_of_nothing
    except ValueError:
        return
    if size == 0 and not is_of_nothing:
        problems.add((*location, "size"), "is 0 but the checksum is not that of an empty file")
    elif size > 0 and is_of_nothing:
        problems.add((*location, "size"), f"is {size} but the checksum is that of an empty file")


def _check_pieces(entry: dict[str, object], location: Location, problems: _Problems) -> None:
    """The pieces must be as many as the size has, and no others' size is known."""
    pieces, size = entry.get("pieces"), entry.get("size")
    if not isinstance(pieces, dict):
        return
    length, digests = pieces.get("size"), pieces.get("sha256")
    if size is None:
        problems.add(
            location, "needs the size of the asset, which the pieces must add up to; drop it, or give the size"
        )
    if type(size) is not int or type(length) is not int or not isinstance(digests, list):
        return
    if size < 0 or not MIN_PIECE_BYTES <= length <= MAX_PIECE_BYTES:
        return
    if len(digests) != (needed := piece_count(size, length)):
        problems.add(
            (*location, "sha256"), f"has {len(digests)} digests; a size of {size} is {needed} pieces of {length} bytes"
        )


# --- Problems: one a place, in the order of the assets ------------------------------------------------------


class _Problems:
    def __init__(self, source: str, entries: list[object], place: Callable[[int], str] | None = None) -> None:
        self._source = source
        self._entries = entries
        self._place = place
        self._nameless: set[int] = set()
        self._found: dict[Location, str] = {}

    def add(self, location: Location, message: str) -> None:
        """Note a problem, unless its place already has one."""
        self._found.setdefault(location, message)

    def add_all(self, problems: Iterable[tuple[Location, str]]) -> None:
        """Note several problems."""
        for location, message in problems:
            self.add(location, message)

    def raise_if_any(self) -> None:
        """Raise one error with all problems found."""
        if self._found:
            raise ManifestError(self._source, self.in_order())

    def in_order(self) -> list[Problem]:
        """All problems found, in the order of the assets."""
        return [self._problem(*item) for item in sorted(self._found.items(), key=lambda item: _asset_index(item[0]))]

    def has_taken_id(self, index: int) -> None:
        """Note that the id of this asset belongs to an earlier one."""
        self._nameless.add(index)

    def name_of(self, index: int) -> str:
        """Name an asset by its id if that is its own and can be shown, else by its index."""
        entry = self._entries[index]
        asset_id = entry.get("id") if isinstance(entry, dict) else None
        can_be_shown = isinstance(asset_id, str) and asset_id.isprintable() and 0 < len(asset_id) <= 200
        name = f"asset '{asset_id}'" if can_be_shown and index not in self._nameless else ""
        if self._place is not None:
            return ", ".join(filter(None, (self._place(index), name)))
        return name or f"assets[{index}]"

    def _index_of(self, index: int) -> str:
        return f"assets[{index}]" if self._place is None else self._place(index)

    def _problem(self, location: Location, message: str) -> Problem:
        index = _asset_index(location)
        if index < 0:
            return Problem("top level", _key_of(location), message)
        key = _key_of(location[2:])
        # An id that is wrong names nothing.
        return Problem(self._index_of(index) if key == "id" else self.name_of(index), key, message)


def _asset_index(location: Location) -> int:
    if len(location) > 1 and location[0] == "assets" and isinstance(location[1], int):
        return location[1]
    return -1


def _key_of(location: Location) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{safe_text(part, limit=80)}" for part in location)
    return "".join(parts).removeprefix(".")


# --- Unknown keys: most often a typo ------------------------------------------------------------------------


class UnknownKeys:
    """The keys of a manifest that have no meaning here: where each was first, and how often it is there."""

    def __init__(self, top: Iterable[str]) -> None:
        self._found: dict[tuple[str, str], tuple[str, int]] = {}
        for key in top:
            if key != "$schema":  # which editors put there
                self._note("", key, "top level")

    def add(self, assets: Iterable[Asset]) -> None:
        """Note those of these assets."""
        for asset in [each for each in assets if each.extra or each.minimal or each.pieces]:
            for key in asset.extra:
                self._note("assets", key, f"asset '{asset.id}'")
            for key in asset.minimal.extra if asset.minimal else ():
                self._note("minimal", key, f"asset '{asset.id}'")
            for key in asset.pieces.extra if asset.pieces else ():
                self._note("pieces", key, f"asset '{asset.id}'")

    def _note(self, level: str, key: str, where: str) -> None:
        known = self._found.get((level, key))
        if known is not None:
            self._found[level, key] = (known[0], known[1] + 1)
        elif len(self._found) < MAX_UNKNOWN_KEYS:
            self._found[level, key] = (where, 1)

    def warnings(self) -> tuple[str, ...]:
        """Say all of it in one warning; none if there is none."""
        if not self._found:
            return ()
        known = {"": MANIFEST.keys, "assets": ASSET.keys, "minimal": STAND_IN.keys, "pieces": PIECES.keys}
        shown: list[str] = []
        for (level, key), (first, count) in list(self._found.items())[:MAX_KEYS_IN_WARNING]:
            meant = nearest_key(key, (each.name for each in known[level]))
            name = safe_text(f"{level}.{key}" if level in ("minimal", "pieces") else key, limit=80)
            where = first + (f" and {count - 1} more" if count > 1 else "")
            shown.append(f"'{name}' ({where}" + (f"; did you mean '{meant}'?)" if meant else ")"))
        rest = len(self._found) - MAX_KEYS_IN_WARNING
        more = f", and {rest} more" if rest > 0 else ""
        return (f"unknown keys, kept but not used: {', '.join(shown)}{more}",)
