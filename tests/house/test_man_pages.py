"""The man pages match the command's help, and are part of the wheel."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from grym_fetch.cli.help import DOES_NOTHING
from grym_fetch.cli.main import COMMANDS
from tests.house.test_documentation import command_of, options_of
from tools.man_pages import EXIT_CODES, FOLDER, pages

ROOT = Path(__file__).parents[2]


def test_they_are_up_to_date() -> None:
    """They are up to date: after changing a command's help, run `make man`."""
    assert {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*")} == pages()


def test_each_command_has_one_with_its_options() -> None:
    """The main page names all commands."""
    made = pages()
    assert made.keys() == {"grym-fetch.1", *(f"grym-fetch-{name}.1" for name in COMMANDS)}
    for name in COMMANDS:
        told = set(re.findall(r"--?[a-zA-Z][a-z-]*", made[f"grym-fetch-{name}.1"].replace(r"\-", "-")))
        idle = {f"--{each.replace('_', '-')}" for each in DOES_NOTHING.get(name, ())}
        assert options_of(command_of(name)) - idle - {"-v", "-q"} <= told, name
        assert rf"grym\-fetch\-{name}" in made["grym-fetch.1"]


def test_no_line_is_taken_for_a_command_of_roff() -> None:
    """Only lines that are meant as roff commands begin with a dot."""
    known = re.compile(r"\.(TH|SH|PP|TP|B|nf|fi)( .*)?")
    lines = [line for text in pages().values() for line in text.splitlines() if line[:1] in (".", "'")]
    assert [line for line in lines if not known.fullmatch(line)] == []


def test_they_go_into_the_wheel() -> None:
    """They are installed where `man` finds them from the program's folder."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
    assert settings["wheel"]["shared-data"] == {"man": "share/man/man1"}
    assert "man" in settings["sdist"]["include"]
    assert sorted(EXIT_CODES) == list(EXIT_CODES)
