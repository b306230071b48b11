"""Which files of a repository are meant: one, those in a folder, or those that match a pattern; and the nearest names.

Rules: ``*``, ``?`` and ``[…]`` match within a folder, ``**`` matches any number of folders. A literal pattern character
is percent-encoded in a short address.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import quote, unquote

from grym_fetch.core.errors import UnknownSource
from grym_fetch.core.nearest import as_path, nearest_names

_PATTERN = re.compile(r"[*?\[]")
_ENCODED_WILDCARD = re.compile(r"%(?:2a|3f|5b)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The chosen paths, in their order. ``is_whole``: more was asked for than one named file."""

    paths: tuple[str, ...]
    is_whole: bool


def quoted(path: str) -> str:
    """Encode a path for a short or plain address."""
    return quote(path, safe="/+@=,~")


def unquoted(text: str) -> str:
    """Decode a path in an address. Raises `ValueError` if it is not UTF-8."""
    return unquote(text, errors="strict")


def is_pattern(wanted: str) -> bool:
    """Whether this part of a short address is a pattern."""
    return _PATTERN.search(wanted) is not None


def choose_paths(wanted: str, paths: Sequence[str], address: str) -> Chosen:
    """Return the paths meant by ``wanted``, a part of the short ``address``; if it is empty, all of them.

    Raises `UnknownSource` with the nearest names if there are none.
    """
    if not wanted:
        chosen = Chosen(tuple(paths), is_whole=True)
    elif is_pattern(wanted):
        parts = [_unquoted_pattern(part) for part in wanted.strip("/").split("/")]
        chosen = Chosen(tuple(path for path in paths if _matches(path.split("/"), parts)), is_whole=True)
    elif (name := unquoted(wanted)) in paths:
        chosen = Chosen((name,), is_whole=False)
    else:
        folder = f"{name.rstrip('/')}/"
        chosen = Chosen(tuple(path for path in paths if path.startswith(folder)), is_whole=True)
    if chosen.paths:
        return chosen
    if not wanted:
        raise UnknownSource(address, "there are no files")
    reason = "no file matches this pattern" if is_pattern(wanted) else f"there is no file {unquoted(wanted)!r}"
    raise UnknownSource(address, reason, nearest_names(unquoted(wanted), paths, forms=as_path))


def _unquoted_pattern(part: str) -> str:
    """Decode a part of a pattern. What is encoded stands for itself, even if decoded it would be a wildcard."""
    return unquoted(_ENCODED_WILDCARD.sub(lambda found: f"[{unquote(found[0])}]", part) if is_pattern(part) else part)


def nearest_version(name: str, known: Sequence[str]) -> list[str]:
    """Return the known versions that ``name`` was probably meant to be, else the first ones: they have short names."""
    return nearest_names(name, known, forms=as_path) or list(known[:3])


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the folders and the name of a path match a pattern. Takes time in proportion to the product of both."""
    reachable = {0}
    for part in parts:
        reachable = _past_stars(reachable, pattern)
        following = set()
        for at in reachable:
            if at < len(pattern):
                if pattern[at] == "**":
                    following.add(at)
                elif fnmatchcase(part, pattern[at]):
                    following.add(at + 1)
        reachable = following
    return len(pattern) in _past_stars(reachable, pattern)


def _past_stars(places: set[int], pattern: Sequence[str]) -> set[int]:
    """The positions, and those after each ``**`` at one of them, since ``**`` may match nothing."""
    result = set(places)
    for at in sorted(places):
        while at < len(pattern) and pattern[at] == "**":
            at += 1
            result.add(at)
    return result


def numbered(names: Sequence[str]) -> list[str]:
    """The names, in order; repeated ones get a number at the end."""
    taken: dict[str, int] = {}
    for base in names:
        found = base
        while found in taken:
            taken[base] = taken.get(base, 1) + 1
            found = f"{base}-{taken[base]}"
        taken[found] = 1
    return list(taken)
