"""Reads the JSON answer of a hub, checking each value that is used.

Rule: a wrong value raises a `ValueError` that names its place and never repeats the value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from grym_fetch.core.manifest_values import MAX_SIZE_BYTES, check_label, check_url


class HubRefusal(ValueError):
    """What a hub says, in its own words, instead of an answer. They may hold what it was sent."""


class HubAnswer:
    """An object in a hub's JSON. ``place`` says where it is."""

    def __init__(self, value: object, place: str = "the answer") -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{place} is not a JSON object")  # noqa: TRY004 - the data is wrong, not the program
        self._value = value
        self._place = place

    def _get(self, key: str) -> tuple[object, str]:
        return self._value.get(key), f"{self._place}: {key}"

    def has(self, key: str) -> bool:
        """Whether there is a value other than null or false."""
        return self._value.get(key) not in (None, False)

    def text(self, key: str, pattern: str = r"[^\0]{1,4096}") -> str:
        """Return a string that matches ``pattern`` and can be shown."""
        value, place = self._get(key)
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError(f"{place} is not what it should be")
        try:
            return check_label(value)
        except ValueError as error:
            raise ValueError(f"{place} {error}") from None

    def url(self, key: str) -> str:
        """Return an address that is allowed in a manifest."""
        value, place = self._get(key)
        if not isinstance(value, str):
            raise ValueError(f"{place} is not an address")  # noqa: TRY004 - as above
        try:
            return check_url(value)
        except ValueError as error:
            raise ValueError(f"{place} {error}") from None

    def size(self, key: str) -> int:
        """Return a number of bytes."""
        value, place = self._get(key)
        if type(value) is not int or not 0 <= value <= MAX_SIZE_BYTES:
            raise ValueError(f"{place} is not a number of bytes")
        return value

    def number(self, key: str) -> int:
        """Return a whole number above zero, which a hub may write as a string."""
        value, place = self._get(key)
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value, re.ASCII):
            value = int(value)
        if type(value) is not int or not 0 < value <= MAX_SIZE_BYTES:
            raise ValueError(f"{place} is not a number")
        return value

    def inner(self, key: str) -> HubAnswer:
        """Return the object under a key."""
        return HubAnswer(*self._get(key))

    def each(self, key: str, *, most: int) -> Iterator[HubAnswer]:
        """Yield the objects of the list under a key. Raises `ValueError` if it has more than ``most``."""
        yield from items(*self._get(key), most=most)


def items(value: object, place: str = "the answer", *, most: int) -> Iterator[HubAnswer]:
    """Yield the objects of a list. Raises `ValueError` if it has more than ``most``."""
    if not isinstance(value, list):
        raise ValueError(f"{place} is not a list")  # noqa: TRY004 - as above
    if len(value) > most:
        raise ValueError(f"{place} has {len(value)} items; at most {most} are allowed")
    for index, each in enumerate(value):
        yield HubAnswer(each, f"{place}[{index}]")
