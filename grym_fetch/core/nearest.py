"""Which known names a mistyped one was probably meant to be.

Rules: case does not count, since it is what is mistyped most and what looks least wrong. The work is bounded: of very
many names, or very long ones that are much alike, only those are compared that begin and end like the mistyped one.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import nlargest
from itertools import takewhile

CUTOFF_RATIO = 0.6
"""How much alike two names must be, from 0 to 1; as `difflib.get_close_matches` has it."""
MAX_EDGE_CHARS = 40
"""How much of the beginning and the end of a name says which names are compared first."""
MAX_READ_CHARS = 1_000_000
"""How many characters of names are looked at, those most alike first: half a second's work."""
MAX_PAIRS = 500_000
"""How many pairs of characters are compared: half a second's work if all are alike."""


def nearest_names(name: str, known: Iterable[str], *, most: int = 3) -> list[str]:
    """Return the known names most like ``name``, the nearest first."""
    import difflib  # rarely needed

    spellings: dict[str, list[str]] = {}
    for each in known:
        spellings.setdefault(each.casefold(), []).append(each)
    wanted = name.casefold()
    matcher = difflib.SequenceMatcher()
    matcher.set_seq2(wanted)
    found: list[tuple[float, str]] = []
    chars = pairs = 0
    for folded in sorted(spellings, key=lambda each: -_common(wanted, each)):
        chars += len(folded)
        if chars > MAX_READ_CHARS or pairs > MAX_PAIRS:
            break
        matcher.set_seq1(folded)
        if matcher.real_quick_ratio() >= CUTOFF_RATIO and matcher.quick_ratio() >= CUTOFF_RATIO:
            pairs += len(folded) * len(wanted)
            if (likeness := matcher.ratio()) >= CUTOFF_RATIO:
                found.append((likeness, folded))
    near = [folded for _, folded in nlargest(most, found)]
    return [each for folded in near for each in spellings[folded]][:most]


def _common(one: str, other: str) -> int:
    """How many characters two names have in common at their beginning and their end."""
    return _same(one[:MAX_EDGE_CHARS], other) + _same(one[: -MAX_EDGE_CHARS - 1 : -1], other[::-1])


def _same(one: str, other: str) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
