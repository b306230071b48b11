"""The width of text on a terminal, and text padded, shortened or wrapped to a width.

Rules: wide and full-width characters take two cells (Unicode Standard Annex #11), combining marks none. Lines are
broken between words, but not between a number and its unit; a word that is wider than the line is left whole, since it
may be a path or a checksum that somebody will copy.
"""

from __future__ import annotations

import re
import unicodedata

_GAP = re.compile(r"(?<!\d) | (?!(?:(?:[KMGTP]i?)?B(?:/s)?|s|%)(?!\w))")
"""A space, but not the one in ``1.0 MiB``, ``25 MiB/s``, ``3 s`` or ``50 %``."""


def cells(text: str) -> int:
    """Return how many cells the text takes."""
    if text.isascii():
        return len(text)
    return sum(_cells_of(char) for char in text)


def padded(text: str, width: int, *, right: bool = False) -> str:
    """Return the text padded with spaces to ``width`` cells; ``right`` aligns it to the right."""
    space = " " * max(0, width - cells(text))
    return space + text if right else text + space


def shortened(text: str, width: int) -> str:
    """Return the text in at most ``width`` cells, cut in the middle if need be: the end of a name says more."""
    if cells(text) <= width:
        return text
    if width < 3:
        return _beginning(text, width)
    tail = _beginning(text[::-1], (width - 1) // 2)[::-1]
    return f"{_beginning(text, width - 1 - cells(tail))}…{tail}"


def wrapped(text: str, width: int, *, indent: str = "") -> list[str]:
    """Return the text as lines of at most ``width`` cells where words allow it, all but the first indented."""
    lines = [text[: len(text) - len(text.lstrip(" "))]]
    for word in split_words(text.lstrip(" ")):
        joined = f"{lines[-1]} {word}" if lines[-1].strip() else lines[-1] + word
        if cells(joined) <= width or not lines[-1].strip():
            lines[-1] = joined
        else:
            lines.append(indent + word)
    return lines


def split_words(text: str) -> list[str]:
    """Return the parts of the text between which a line may be broken; there was one space between them."""
    return _GAP.split(text)


def _beginning(text: str, width: int) -> str:
    used = 0
    for index, char in enumerate(text):
        used += _cells_of(char)
        if used > width:
            return text[:index]
    return text


def _cells_of(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
