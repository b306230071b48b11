"""What ``doctor`` and ``setup`` say: a line in a pipe, and on a terminal lines that hang below their text."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path

import pytest

from grym_fetch.cli import streams
from grym_fetch.cli.findings import tell_finding
from grym_fetch.display.sheet import Sheet
from tests.display.scripted import FakeTerminal
from tests.end_to_end.command import environment
from tests.support.terminal import Terminal


@pytest.mark.shows("U7")
def test_a_pipe_gets_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The finding and what to do are together, so that `grep` finds both; foreign text is harmless."""
    tell_finding("fail", "token: a: status 401" + " word" * 40, "set \x1b[31mX")
    assert capsys.readouterr().out == "FAIL  token: a: status 401" + " word" * 40 + "  -> set \\x1b[31mX\n"


def test_on_a_terminal_the_advice_has_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines are broken between words, and nothing is said by a colour alone."""
    monkeypatch.setattr(streams, "sheet", lambda _: Sheet(FakeTerminal(), {"NO_COLOR": "1"}, width=40))
    tell_finding("warn", "space: 46.0 MiB to be fetched, 12.0 MiB free", "free some")
    assert capsys.readouterr().out.splitlines() == [
        "warn  space: 46.0 MiB to be fetched,",
        "      12.0 MiB free",
        "      -> free some",
    ]


@pytest.mark.posix
def test_a_narrow_terminal_breaks_no_word(tmp_path: Path) -> None:
    """`setup`, `-h` and a usage error in 40 columns: no row ends within a word that could have begun the next one."""
    words = io.StringIO()
    for arguments in (["setup", "--skip-assets"], ["sync", "-h"], ["sync", "--tag"]):
        with Terminal(tmp_path, *arguments, columns=40, environ=environment()) as terminal:
            rows = terminal.finish()
        for row, following in pairwise(rows):
            # A row that the terminal itself broke is full, and goes on in the first cell of the next.
            # An indented command is left whole, to be copied.
            is_broken = len(row) == 40 and following[:1].strip() != "" and " " in row.strip() and row[:2] != "  "
            words.write(f"{row!r} {following!r}\n" if is_broken else "")
    assert words.getvalue() == ""
