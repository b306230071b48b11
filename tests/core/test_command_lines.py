"""Commands that are printed work when pasted."""

from __future__ import annotations

import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core.command_lines import command_line, shell_word
from grym_fetch.core.text import safe_text

ODD = [
    "a b",
    "it's",
    'say "x"',
    "a\nb",
    "\t",
    "-lead",
    "$HOME `x` !!",
    "\\",
    "*?[x]",
    "ü",
    "\u202e",
    "\udcff",
    "a'\n\\",
    "",
]


def read_by_bash(line: str) -> list[str]:
    """The words that bash reads from a line."""
    shown = subprocess.run(
        ["bash", "-c", f'set -- {line}; printf "%s\\0" "$@"'],
        capture_output=True,
        check=True,
        env={"LC_ALL": "C.UTF-8"},
    ).stdout
    return [os.fsdecode(word) for word in shown.split(b"\0")[:-1]]


@pytest.mark.posix
@pytest.mark.shows("S10")
def test_a_shell_reads_every_name_as_it_is() -> None:
    """Whatever is in a name, the line can be shown by a terminal and means that name."""
    line = " ".join(map(shell_word, ODD))
    assert safe_text(line, limit=4000) == line
    assert read_by_bash(line) == ODD


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_any_text_is_one_printable_word(text: str) -> None:
    """No text breaks out of its line, and plain text stays unchanged."""
    word = shell_word(text)
    assert safe_text(word, limit=100_000) == word
    assert "\n" not in word


def test_a_name_is_no_option() -> None:
    """Only a name that looks like an option needs to be kept apart from the options."""
    assert command_line("grym-fetch", "restore", names=("a b",)) == "grym-fetch restore 'a b'"
    assert command_line("grym-fetch", "restore", names=("-x", "y")) == "grym-fetch restore -- -x y"
