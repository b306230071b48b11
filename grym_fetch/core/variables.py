"""Environment variables that decide how assets are fetched: one table for both the command line and the Python API.

Rules: each has the name of a command-line option, and means the same everywhere. An empty variable counts as not set.
One that cannot be read is refused by name: a typing error must not allow what an operator wanted to forbid.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from grym_fetch.core.mirror_rules import parse_mirrors
from grym_fetch.core.text import safe_text

MINIMAL = "GRYM_FETCH_MINIMAL"
"""Use the small stand-ins. This decides not how assets are fetched, but which."""
MIRRORS = "GRYM_FETCH_MIRRORS"
"""How to use mirrors, and rules for mirrors of one's own."""
CLIENT_CERT = "GRYM_FETCH_CLIENT_CERT"
CLIENT_KEY = "GRYM_FETCH_CLIENT_KEY"
"""PEM files: the certificate to show to servers that ask for one, and its key. Not settings: they have no option."""
_WORDS = {
    **dict.fromkeys(("1", "true", "yes", "on", "y", "t"), True),
    **dict.fromkeys(("0", "false", "no", "off", "n", "f"), False),
}
_RATE = re.compile(r"\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[KMGT]?)(?:i?B)?(?:/s)?\s*", re.IGNORECASE)
_FACTORS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


class BadVariable(ValueError):
    """An environment variable cannot be read. The text names it, and says what is allowed."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"the environment variable {self.name}: {self.reason}"


def parse_flag(text: str) -> bool:
    """Read yes or no. Raises `ValueError` with the words that are allowed."""
    try:
        return _WORDS[text.strip().lower()]
    except KeyError:
        words = "1 or 0, true or false, yes or no, on or off, y or n, t or f"
        raise ValueError(f"{_shown(text)} is neither yes nor no; allowed: {words}") from None


def parse_rate(text: str) -> float:
    """Read a speed such as ``500K``, ``10M`` or ``1.5MiB/s``, in bytes per second. Raises `ValueError`."""
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError(f"{_shown(text)} is not a speed; try 500K, 10M or 1G (bytes per second)")
    return float(match["number"]) * _FACTORS[match["unit"].upper()]


def _parse_limit(text: str) -> float:
    if (rate := parse_rate(text)) <= 0:
        raise ValueError(f"{_shown(text)} is not a speed above zero; try 500K, 10M or 1G (bytes per second)")
    return rate


def parse_store(text: str) -> bool | str:
    """Read yes, no, or the path of a store. Raises `ValueError` for a mere name: a mistyped word, or an asset's id."""
    try:
        return parse_flag(text)
    except ValueError as error:
        if "/" not in text and not text.startswith("~"):
            raise ValueError(f"{error}; for a folder, write a path: ./{safe_text(text, limit=80)}") from None
        return text


def _parse_link_mode(text: str) -> str:
    word = text.strip().lower()
    if word not in ("auto", "reflink", "hardlink", "copy"):
        raise ValueError(f"{_shown(text)} is none of auto, reflink, hardlink, copy")
    return word


def _whole(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise ValueError(f"{_shown(text)} is not a whole number from {least} up")
        return number

    return parse


def _seconds(*, above_zero: bool) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not (0 < number < math.inf or (number == 0 and not above_zero)):
            raise ValueError(f"{_shown(text)} is not a number of seconds{' above zero' if above_zero else ''}")
        return number

    return parse


def _shown(text: str) -> str:
    return repr(safe_text(text, limit=80))


@dataclass(frozen=True, slots=True)
class Variable:
    """An environment variable, the setting that it gives, and how its text is read; None if it gives none."""

    name: str
    setting: str
    parse: Callable[[str], object]


VARIABLES = (
    Variable("GRYM_FETCH_PARALLEL", "parallel", _whole(1)),
    Variable("GRYM_FETCH_MAX_PER_HOST", "max_per_host", _whole(1)),
    Variable(MIRRORS, "mirrors", lambda text: parse_mirrors(text).mode),
    Variable(MIRRORS, "mirror_rules", lambda text: parse_mirrors(text).rules),
    Variable("GRYM_FETCH_LIMIT_RATE", "limit_rate", _parse_limit),
    Variable("GRYM_FETCH_OFFLINE", "offline", parse_flag),
    Variable("GRYM_FETCH_NO_PRIVATE_ADDRESSES", "allow_private_addresses", lambda text: not parse_flag(text)),
    Variable("GRYM_FETCH_NO_PIPELINING", "pipelining", lambda text: not parse_flag(text)),
    Variable("GRYM_FETCH_ALLOW_STALE", "allow_stale", parse_flag),
    Variable("GRYM_FETCH_ALLOW_UNPINNED", "allow_unpinned", parse_flag),
    Variable("GRYM_FETCH_STORE", "store", parse_store),
    Variable("GRYM_FETCH_LINK_MODE", "link_mode", _parse_link_mode),
    Variable("GRYM_FETCH_ADOPT", "adopt", parse_flag),
    Variable("GRYM_FETCH_RETRIES", "retries", _whole(0)),
    Variable("GRYM_FETCH_STALL_TIMEOUT", "stall_timeout", _seconds(above_zero=True)),
    Variable("GRYM_FETCH_CONNECT_TIMEOUT", "connect_timeout", _seconds(above_zero=True)),
    Variable("GRYM_FETCH_PATIENCE", "patience", _seconds(above_zero=False)),
    Variable("GRYM_FETCH_LOCK_TIMEOUT", "lock_timeout", _seconds(above_zero=False)),
)


def said_in(environ: Mapping[str, str], name: str) -> str:
    """Return the text of a variable; empty if it is blank, which is as if it were not set."""
    text = environ.get(name, "")
    return text if text.strip() else ""


def read_flag(environ: Mapping[str, str], name: str) -> bool:
    """Read a variable that says yes or no; no if it is not set. Raises `BadVariable`."""
    text = environ.get(name, "")
    try:
        return bool(text.strip()) and parse_flag(text)
    except ValueError as error:
        raise BadVariable(name, str(error)) from None


def gives(environ: Mapping[str, str], name: str, setting: str) -> bool:
    """Whether a variable gives this setting. ``GRYM_FETCH_MIRRORS`` may give two, or one of them."""
    text = environ.get(name, "").strip()
    return bool(text) and all(
        each.parse(text) is not None for each in VARIABLES if each.name == name and each.setting == setting
    )


def settings_in(environ: Mapping[str, str], *, without: Collection[str] = ()) -> Iterator[tuple[str, object]]:
    """Yield the settings that the environment gives, by name, except those in ``without``. Raises `BadVariable`."""
    for variable in VARIABLES:
        text = environ.get(variable.name, "")
        if variable.setting in without or not text.strip():
            continue
        try:
            value = variable.parse(text)
        except ValueError as error:
            raise BadVariable(variable.name, str(error)) from None
        if value is not None:
            yield variable.setting, value
