from __future__ import annotations

import pytest

from grym_fetch.core.cells import cells
from grym_fetch.display.sheet import Sheet
from tests.display.scripted import FakeTerminal

ROWS = [("模型", "missing", "2.0 MiB", ""), ("weights", "verified", "512 B", "")]
PLAIN = {"NO_COLOR": "1"}
HEAD = ("ID", "STATE", "SIZE", "TAGS")


def page(environ: dict[str, str] | None = None, *, is_terminal: bool = True, width: int = 40) -> Sheet:
    stream = FakeTerminal(is_terminal=is_terminal)
    return Sheet(stream, {"TERM": "xterm", **(environ or {})}, width=width if is_terminal else None)


def test_a_table_is_aligned_by_cells() -> None:
    """Wide characters take two; numbers stand on the right; an empty column is left out; a pipe gets no head."""
    table = page(PLAIN).table(HEAD, ROWS, right=(2,))
    assert table == [
        "ID       STATE        SIZE",
        "模型     missing   2.0 MiB",
        "weights  verified    512 B",
    ]
    assert page(is_terminal=False).table(HEAD, ROWS, right=(2,)) == table[1:]


def test_a_table_fits_its_terminal() -> None:
    """The widest column is shortened; in a pipe nothing is."""
    rows = [("x" * 100, "verified", "2.0 MiB", "a tag")]
    for width in (80, 40, 36):
        assert all(cells(line) <= width for line in page(PLAIN, width=width).table(HEAD, rows))
    assert "x" * 100 in page(is_terminal=False).table(HEAD, rows)[0]


def test_a_message_is_broken_between_words() -> None:
    """And goes on indented; what somebody may copy stays whole."""
    text = page(PLAIN, width=30).message("error", "a: could not be fetched at all\n  https://example.org/" + "x" * 30)
    assert text.split("\n") == [
        "error: a: could not be fetched",
        "  at all",
        "  https://example.org/" + "x" * 30,
    ]
    assert "\n" not in page(is_terminal=False).message("error", "word " * 50)


@pytest.mark.shows("U7")
@pytest.mark.parametrize(
    ("is_terminal", "environ", "is_coloured"),
    [
        (True, {}, True),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
        (True, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        (False, {}, False),
        (False, {"FORCE_COLOR": "1"}, True),
        (False, {"FORCE_COLOR": "0"}, False),
    ],
)
def test_colours_are_where_they_are_wanted(is_terminal: bool, environ: dict[str, str], is_coloured: bool) -> None:
    """On a terminal that can, unless NO_COLOR says no; elsewhere only if FORCE_COLOR says so."""
    text = page(environ, is_terminal=is_terminal).message("hint", "try again")
    assert text == ("\x1b[1mhint:\x1b[0m try again" if is_coloured else "hint: try again")


def test_a_mark_is_for_a_person() -> None:
    """A pipe gets the words alone."""
    assert page(PLAIN).marked("✓", "+", "green", "added model") == "✓ added model"
    assert page(is_terminal=False).marked("✓", "+", "green", "added model") == "added model"
