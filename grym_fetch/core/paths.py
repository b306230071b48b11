"""Which paths an asset may have inside the assets folder.

Rules: a path is relative, in POSIX form, and means the same file under POSIX and Windows rules, whatever system this
runs on, so that a manifest that is accepted here is accepted everywhere. A doubtful path is refused, never repaired.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from grym_fetch.core.columns import Column, match_all
from grym_fetch.core.text import UNSAFE_CATEGORIES, safe_text

STATE_FOLDER = ".grym-fetch"
"""The folder in the assets folder that holds our own state."""
STAND_IN_FOLDER = "minimal"
"""The folder in the assets folder that holds the small stand-ins."""
MOVED_FILES = "asset-manifest.json"
"""The file in the external folder that records what was moved there."""
PLACEHOLDER_SUFFIX = ".asset-ref"
"""What the name of a moved file's placeholder ends in."""

MAX_PATH_BYTES = 1024
"""The longest path, relative to the assets folder, in UTF-8."""
MAX_SEGMENT_BYTES = 240
"""The longest file or folder name, in UTF-8: file systems allow 255, and a temporary name is longer."""

# Nearly every path matches this, and no device or reserved name does; any other path is checked part by part.
_COMMON = re.compile(
    r"(?!minimal|asset-)(?:(?!con|prn|aux|nul|com|lpt)[a-z0-9_]++(?:[.-]++[a-z0-9_]++)*+(?:/(?!$)|$))++",
    re.IGNORECASE | re.ASCII,
)
_are_common = match_all(_COMMON, max_characters=MAX_SEGMENT_BYTES)
_DRIVE = re.compile(r"[A-Za-z]:")
_FORBIDDEN = re.compile(r'[<>:"|?*]')
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ENCODED = re.compile(r"%(?:2f|5c|00)", re.IGNORECASE)
_ENCODED_DOT = re.compile(r"%2e", re.IGNORECASE)
# Win32 "Naming Files, Paths, and Namespaces": these are devices in every folder, with any extension.
_DEVICE = re.compile(r"(?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(?:COM|LPT)[0-9¹²³]) *(?:\.|$)", re.IGNORECASE)
# What git refuses on every system (path.c, is_ntfs_dotgit and is_hfs_dotgit): .git in any case, and the short names
# that NTFS may give it. Endings that Windows cuts off, streams and invisible characters are refused in any name.
_GIT = re.compile(r"\.git|git~[0-9]+")


PART_END = "\0"
"""In a `part_key`, what ends each part but the last: no character sorts before it."""


class Collision(NamedTuple):
    """Two paths that cannot both be files: their indices, the earlier first, and why."""

    first: int
    second: int
    why: str


def check_local_path(text: str) -> str:
    """Return ``text`` in Unicode normal form C if it is a safe relative path on every system.

    Raises:
        ValueError: it is not; the message says why and what to write instead.
    """
    if len(text) <= MAX_SEGMENT_BYTES and _COMMON.fullmatch(text):
        return text
    path = text if text.isascii() else unicodedata.normalize("NFC", text)
    if not path:
        raise ValueError("is empty; allowed: a path relative to the assets folder, such as models/base.bin")
    size = len(path.encode("utf-8", "surrogatepass"))
    if size > MAX_PATH_BYTES:
        raise ValueError(f"is {size} bytes long; at most {MAX_PATH_BYTES} are allowed")
    _check_characters(path)
    if _DRIVE.match(path):
        raise ValueError("starts with a drive letter; it must be relative to the assets folder")
    if "\\" in path:
        raise ValueError("has a backslash; separate folders with /")
    if path.startswith("/"):
        raise ValueError("is absolute; it must be relative to the assets folder")
    if path.startswith("~"):
        raise ValueError("starts with ~, which a shell takes for a home folder")
    if found := _FORBIDDEN.search(path):
        raise ValueError(f"has the character {found[0]}, which Windows forbids in file names")
    segments = path.split("/")
    for segment in segments:
        _check_segment(segment)
    _check_reserved(segments)
    return path


def check_all_local_paths(texts: Column) -> Column | None:
    """Return ``texts`` if all are common paths, which are safe."""
    return texts if _are_common(texts) else None


def _check_characters(path: str) -> None:
    if path.isascii():
        if _CONTROL.search(path):
            raise ValueError("has a control character")
        return
    for char in path:
        if found := UNSAFE_CATEGORIES.get(unicodedata.category(char)):
            raise ValueError(f"has {found} ({safe_text(char)})")


def _check_segment(segment: str) -> None:
    if not segment:
        raise ValueError("has an empty part (// or a / at the end)")
    if (_ENCODED_DOT.sub(".", segment) if "%" in segment else segment) in (".", ".."):
        raise ValueError(f"has the part {segment}; write the path without . and .. parts")
    if segment[-1] in ". ":
        raise ValueError(f"has a part that ends in a dot or a space ({segment!r}), which Windows cuts off")
    if _GIT.fullmatch(collision_key(unicodedata.normalize("NFKC", segment))):
        raise ValueError(f"has the part {segment}, which git takes for its own folder on some system")
    if _DEVICE.match(segment):
        raise ValueError(f"has the part {segment}, which is a device on Windows; choose another name")
    if found := _ENCODED.search(segment):
        raise ValueError(f"has {found[0]}, an encoded separator; write the file's plain name")
    if len(segment) * 4 > MAX_SEGMENT_BYTES and (size := len(segment.encode())) > MAX_SEGMENT_BYTES:
        raise ValueError(f"has a part of {size} bytes; at most {MAX_SEGMENT_BYTES} are allowed for one name")


def _check_reserved(segments: list[str]) -> None:
    top = collision_key(segments[0])
    if top == STATE_FOLDER:
        raise ValueError(f"lies in {STATE_FOLDER}, where grym-fetch keeps its own state; choose another folder")
    if top == STAND_IN_FOLDER:
        raise ValueError(
            f"lies in {STAND_IN_FOLDER}, which is kept for the small stand-ins, so that none of them can be "
            "taken for the full file; choose another folder"
        )
    if top == MOVED_FILES:
        raise ValueError(f"is {MOVED_FILES}, grym-fetch's own record of moved files; choose another name")


def collision_key(path: str) -> str:
    """Return a key that is the same for two paths if some file system takes them for one.

    Canonical caseless matching (Unicode 3.13, D145): Linux, macOS and Windows differ in whether they distinguish case,
    and composed from decomposed letters.
    """
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())


def part_key(path: str) -> str:
    """Return a key that sorts like the parts of the path's `collision_key`: a folder right before everything in it."""
    return collision_key(path).replace("/", PART_END)


class SortedCollision(NamedTuple):
    """A path that clashes with ``other``, an earlier one of a sorted list: it is the same, or would be inside it."""

    other: int
    mine: int
    is_equal: bool


def sorted_collisions(keys: Iterable[tuple[str, int]]) -> Iterator[SortedCollision]:
    """Yield what clashes in a list sorted by `part_key`, each key with its path's index. Holds one path's parents."""
    above: list[tuple[str, int]] = []
    for key, index in keys:
        while above and key != above[-1][0] and not key.startswith(above[-1][0] + PART_END):
            above.pop()
        if above:
            yield SortedCollision(above[-1][1], index, is_equal := key == above[-1][0])
            if is_equal:
                continue
        above.append((key, index))


def find_collisions(paths: Sequence[str]) -> list[Collision]:
    """Return which of ``paths`` cannot exist together, each with the nearest one it clashes with.

    Two paths clash if their `collision_key` is the same, or if one would have to be a folder for the other. A path is
    reported with the first one equal to it, else with the closest file above it that would have to be a folder; so
    there are at most as many collisions as paths, found with O(n log n) string comparisons.
    """
    joined = "\n".join(paths)
    keys = joined.lower().split("\n") if joined.isascii() and joined.count("\n") == len(paths) - 1 else []
    keys = keys or [collision_key(path) for path in paths]
    if not _may_clash(keys):
        return []
    keys = [key.replace("/", PART_END) for key in keys]
    # Sorting is stable, so the earliest of equal paths comes first.
    collisions: list[Collision] = []
    order = sorted(range(len(keys)), key=keys.__getitem__)
    for other, index, is_equal in sorted_collisions((keys[each], each) for each in order):
        first, second = sorted((other, index))
        why = why_equal(paths[first], paths[second]) if is_equal else why_nested(paths[other], paths[index])
        collisions.append(Collision(first, second, why))
    return sorted(collisions, key=lambda collision: (collision.second, collision.first))


def _may_clash(keys: Sequence[str]) -> bool:
    """Whether two are the same, or one is a folder of another: nearly never, so nothing is sorted for it."""
    names = set(keys)
    above = {key.rpartition("/")[0] for key in keys}
    folders = set(above)
    while above := {folder.rpartition("/")[0] for folder in above} - folders:
        folders |= above
    return len(names) < len(keys) or not names.isdisjoint(folders - {""})


def why_equal(first: str, second: str) -> str:
    """Say why two paths that are the same somewhere clash."""
    if first == second:
        return f"{_shown(first)} is used twice"
    return f"{_shown(first)} and {_shown(second)} are one file where case or Unicode form is not told apart"


def why_nested(file: str, inside: str) -> str:
    """Say why two paths clash, of which one is inside the other."""
    return f"{_shown(file)} would have to be a file and, for {_shown(inside)}, a folder"


def _shown(path: str) -> str:
    return f"'{safe_text(path)}'"
