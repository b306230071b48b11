"""What a value chosen by a user may be, in words that also refuse any other.

A rule is data, so that a constructor and the command line refuse the same values and say the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from grym_fetch.core.text import safe_text


@dataclass(frozen=True, slots=True)
class Rule:
    """``words`` complete the sentence "must be …"; ``none`` says what None means, if it is allowed."""

    words: str
    is_met: Callable[[object], bool]
    none: str = ""

    def problem(self, value: object) -> str | None:
        """Say what is allowed instead of ``value``; None if it is allowed."""
        if self.is_met(value) or (value is None and self.none):
            return None
        none = f", or None for {self.none}" if self.none else ""
        return f"must be {self.words}{none}, not {safe_text(repr(value), limit=80)}"

    def or_none(self, meaning: str) -> Rule:
        """The same rule with None allowed."""
        return replace(self, none=meaning)


def refuse_one_text(**given: object) -> None:
    """Raise `TypeError` for a string that was given where several are meant: it would be read as its letters."""
    for name, value in given.items():
        if isinstance(value, str):
            raise TypeError(f"{name} must be a list of strings, not one: [{safe_text(repr(value), limit=80)}]")


def whole_number(least: int) -> Rule:
    """An ``int`` that is not a ``bool``."""
    return Rule(
        f"a whole number of at least {least}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least,
    )


def number(*, above: float | None = None, least: float | None = None) -> Rule:
    """A finite ``int`` or ``float`` above a bound, or not below one."""

    def is_met(value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or not -math.inf < value < math.inf:
            return False
        return (above is None or value > above) and (least is None or value >= least)

    bounds = [f"above {above:g}"] if above is not None else []
    bounds += [f"of at least {least:g}"] if least is not None else []
    return Rule(" ".join(["a finite number", *bounds]), is_met)


def one_of(*words: str) -> Rule:
    """One of a few words."""
    return Rule(f"one of {', '.join(map(repr, words))}", lambda value: isinstance(value, str) and value in words)


def instance_of(kind: type) -> Rule:
    """A value of this class, such as ``bool``, which excludes 1 and ``"yes"``."""
    words = "True or False" if kind is bool else f"a {kind.__name__}"
    return Rule(words, lambda value: isinstance(value, kind))


def refuse_nonsense(chosen: object, rules: Mapping[str, Rule]) -> None:
    """Raise ValueError for the first attribute that breaks its rule, with its name and what is allowed."""
    for name, rule in rules.items():
        if (problem := rule.problem(getattr(chosen, name))) is not None:
            raise ValueError(f"{name} {problem}")
