"""Which known names a mistyped one was probably meant to be.

Rules: case does not count, since it is what is mistyped most and what looks least wrong. Lists come from strangers, so
what is compared is bounded: neither many names nor long ones take more than a second or two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

Forms = Callable[[str], tuple[str, ...]]
"""What of a name is compared."""

MAX_KNOWN = 10_000
"""Known names after this many are not looked at."""
MAX_COMPARED = 4_000_000
"""The most work: the characters of the name times those of the known names that are as long, or nearly. If there are
more of these, those come first that begin and end like the name.
"""
_ENDS = 16


def as_typed(name: str) -> tuple[str, ...]:
    """A name without its case."""
    return (name.casefold(),)


def as_key(name: str) -> tuple[str, ...]:
    """The name of a key or an option: neither case nor separators count."""
    return (name.casefold().replace("_", "").replace("-", ""),)


def as_path(name: str) -> tuple[str, ...]:
    """A path, or else what follows its last slash: the folders may be what is wrong."""
    folded = name.casefold()
    return (folded, folded.rpartition("/")[2]) if "/" in folded else (folded,)


def nearest_names(
    name: str, known: Iterable[str], *, most: int = 3, likeness: float = 0.6, forms: Forms = as_typed
) -> list[str]:
    """Return the known names most like ``name``, the nearest first. ``likeness``: from 0 for anything to 1."""
    import difflib  # rarely needed

    spellings: dict[str, list[str]] = {}
    for each in islice(known, MAX_KNOWN):
        for form in forms(each):
            spellings.setdefault(form, []).append(each)
    found: list[str] = []
    for form in forms(name):
        near = difflib.get_close_matches(form, _comparable(form, spellings, likeness), n=most, cutoff=likeness)
        found += [each for spelling in near for each in spellings[spelling]]
    return list(dict.fromkeys(found))[:most]


def _comparable(form: str, spellings: Iterable[str], likeness: float) -> Iterator[str]:
    """The spellings that are long enough to be alike, and not too long; not more than can be compared."""
    fitting = [each for each in spellings if 2 * min(len(each), len(form)) >= likeness * (len(each) + len(form))]
    if len(form) * sum(map(len, fitting)) > MAX_COMPARED:
        fitting.sort(key=lambda each: -_same_at_the_ends(form, each))
    left = MAX_COMPARED
    for each in fitting:
        left -= len(each) * len(form)
        if left < 0:
            return
        yield each


def _same_at_the_ends(one: str, other: str) -> int:
    """How many characters are the same from the start, and how many from the end, as far as that is looked at."""
    return _same(one[:_ENDS], other[:_ENDS]) + _same(one[: -_ENDS - 1 : -1], other[: -_ENDS - 1 : -1])


def _same(one: str, other: str) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
