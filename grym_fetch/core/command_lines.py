"""Command lines that a person may paste: whatever characters a name has, the shell reads exactly that name.

Rules: one line of printable characters. Anything that would move a cursor or hide text, or is not UTF-8, is written as
octal bytes in ``$'…'``, as understood by bash, zsh, ksh and POSIX.1-2024. A name that looks like an option comes after
``--``.
"""

from __future__ import annotations

import os
import shlex
import unicodedata

from grym_fetch.core.text import UNSAFE_CATEGORIES


def shell_word(text: str) -> str:
    """Return the text as one word for a shell. Text without unsafe characters is quoted as by `shlex.quote`."""
    if text.isprintable() or not any(unicodedata.category(char) in UNSAFE_CATEGORIES for char in text):
        return shlex.quote(text)
    return "$'" + "".join(map(_escaped, text)) + "'"


def command_line(*words: str, names: tuple[str, ...] = ()) -> str:
    """Return the command of these words, followed by names that the user gave: files, folders, ids."""
    end_of_options = ("--",) if any(name.startswith("-") for name in names) else ()
    return " ".join(map(shell_word, (*words, *end_of_options, *names)))


def _escaped(char: str) -> str:
    if char in "'\\":
        return "\\" + char
    if unicodedata.category(char) not in UNSAFE_CATEGORIES:
        return char
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(char))
