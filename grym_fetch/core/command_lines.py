"""Command lines that a person may paste: whatever a name has in it, the shell reads exactly that name.

Rules: one line of printable characters. What would move a cursor, hide text or is no UTF-8 is written as octal bytes in
``$'…'``, which bash, zsh and ksh read, and POSIX.1-2024 has. A name that looks like an option comes after ``--``.
"""

from __future__ import annotations

import os
import shlex
import unicodedata

from grym_fetch.core.text import UNSAFE_CATEGORIES


def shell_word(text: str) -> str:
    """Return the text as one word for a shell. What has no unsafe character is quoted as `shlex.quote` does it."""
    if text.isprintable() or not any(unicodedata.category(char) in UNSAFE_CATEGORIES for char in text):
        return shlex.quote(text)
    return "$'" + "".join(map(_escaped, text)) + "'"


def command_line(*words: str, names: tuple[str, ...] = ()) -> str:
    """Return the command of these words, followed by what the user has named: files, folders, ids."""
    end_of_options = ("--",) if any(name.startswith("-") for name in names) else ()
    return " ".join(map(shell_word, (*words, *end_of_options, *names)))


def _escaped(char: str) -> str:
    if char in "'\\":
        return "\\" + char
    if unicodedata.category(char) not in UNSAFE_CATEGORIES:
        return char
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(char))
