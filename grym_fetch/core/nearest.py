"""Which known names a mistyped one was probably meant to be.

Rule: case does not count, since it is what is mistyped most and what looks least wrong.
"""

from __future__ import annotations

from collections.abc import Iterable


def nearest_names(name: str, known: Iterable[str], *, most: int = 3) -> list[str]:
    """Return the known names most like ``name``, the nearest first."""
    import difflib  # rarely needed

    spellings: dict[str, list[str]] = {}
    for each in known:
        spellings.setdefault(each.casefold(), []).append(each)
    near = difflib.get_close_matches(name.casefold(), spellings, n=most)
    return [each for folded in near for each in spellings[folded]][:most]
