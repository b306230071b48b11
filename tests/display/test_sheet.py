from __future__ import annotations

import pytest

from grym_fetch.core.cells import cells
from grym_fetch.display.sheet import Sheet, as_sentence
from tests.display.scripted import FakeTerminal

ROWS = [("模型", "missing", "2.0 MiB", ""), ("weights", "verified", "512 B", "")]
PLAIN = {"NO_COLOR": "1"}
HEAD = ("ID", "STATE", "SIZE", "TAGS")


def page(environ: dict[str, str] | None = None, *, is_terminal: bool = True, width: int = 40) -> Sheet:
    stream = FakeTerminal(is_terminal=is_terminal)
    return Sheet(stream, {"TERM": "xterm", **(environ or {})}, width=width if is_terminal else None)


def test_a_table_is_aligned_by_cells() -> None:
    """Wide characters take two cells; numbers are right-aligned; empty columns are left out; a pipe gets no header."""
    table = page(PLAIN).table(HEAD, ROWS, right=(2,))
    assert table == [
        "ID       STATE        SIZE",
        "模型     missing   2.0 MiB",
        "weights  verified    512 B",
    ]
    assert page(is_terminal=False).table(HEAD, ROWS, right=(2,)) == table[1:]


def test_a_table_fits_its_terminal() -> None:
    """The widest column is shortened; in a pipe none is."""
    rows = [("x" * 100, "verified", "2.0 MiB", "a tag")]
    for width in (80, 40, 36):
        assert all(cells(line) <= width for line in page(PLAIN, width=width).table(HEAD, rows))
    assert "x" * 100 in page(is_terminal=False).table(HEAD, rows)[0]


def test_a_note_is_never_shortened() -> None:
    """Beside the others where there is room, else below its row; and a state is a word of ours, which stays whole."""
    head, note = ("STATE", "PATH", "NOTE"), "the checksum does not match"
    rows = [("partial 36%", "x" * 40, ""), ("corrupt", "short", note)]
    wide, narrow = (page(PLAIN, width=width).table(head, rows, styled=0, note=2) for width in (90, 40))
    assert wide[2].endswith(f"  {note}")
    assert narrow[1].startswith("partial 36%  ")
    assert narrow[2:] == ["corrupt      short", f"    {note}"]
    assert all(cells(line) <= 40 for line in narrow)


def test_a_message_is_broken_between_words() -> None:
    """The next line is indented; text that may be copied stays in one piece."""
    text = page(PLAIN, width=30).message("error", "a: could not be fetched at all\n  https://example.org/" + "x" * 30)
    assert text.split("\n") == [
        "error: a: could not be fetched",
        "  at all",
        "  https://example.org/" + "x" * 30,
    ]
    assert "\n" not in page(is_terminal=False).message("error", "word " * 50)


@pytest.mark.shows("U1")
def test_no_message_commands_the_runner() -> None:
    """In a job of GitHub Actions, a key or an id of a stranger's manifest in a warning is no command."""
    in_job = page({"GITHUB_ACTIONS": "true"}, is_terminal=False)
    keys = "unknown: '::add-mask::b' and '##[error]c'"
    told = [in_job.message("warning", keys), in_job.prose(keys), in_job.marked("✗", "x", "red", keys)]
    assert not [text for text in told if "::" in text or "##[" in text]
    assert page(is_terminal=False).prose(keys) == keys


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
    """On a capable terminal, unless NO_COLOR forbids it; elsewhere only if FORCE_COLOR asks for it."""
    text = page(environ, is_terminal=is_terminal).message("hint", "try again")
    assert text == ("\x1b[1mhint:\x1b[0m Try again." if is_coloured else "hint: Try again.")


def test_a_hint_is_a_sentence() -> None:
    """However it comes; a command, a name or an address is left as it is spelled."""
    assert as_sentence("set HF_TOKEN") == "Set HF_TOKEN."
    assert as_sentence("did you mean sync?") == "Did you mean sync?"
    assert as_sentence("`grym-fetch pin` writes it") == "`grym-fetch pin` writes it."
    assert as_sentence("HF_TOKEN is not set.") == "HF_TOKEN is not set."


def test_what_is_to_be_copied_stays_whole() -> None:
    """Sentences are broken between words, and hang below their label; an indented line is not broken."""
    sheet = page({}, is_terminal=True, width=30)
    assert sheet.prose("one two three four five six seven\n  git filter-repo --invert-paths --path=a") == (
        "one two three four five six\n  seven\n  git filter-repo --invert-paths --path=a"
    )
    assert sheet.item("ok  ", "one two three four five six seven") == "ok    one two three four five\n      six seven"
    assert page({}, is_terminal=False).item("ok  ", "word " * 20 + "end") == "ok    " + "word " * 20 + "end"


def test_an_item_without_room_beside_its_label_hangs_below_it() -> None:
    """So does a word that fits only there; it is never broken by the terminal where it need not be."""
    narrow = page(PLAIN, width=30)
    assert narrow.item("external-assets-dir", "one  two three") == "external-assets-dir  one  two\n    three"
    assert narrow.item("path       ", "/home/me/project/assets/") == "path       \n    /home/me/project/assets/"
    assert narrow.item(" " * 11, "/home/me/project/assets/") == "    /home/me/project/assets/"
    assert narrow.item("problem    ", "expected /home/me/project/a") == "problem      expected\n    /home/me/project/a"
    assert page(is_terminal=False).item("path", "x" * 100) == "path  " + "x" * 100


def test_a_mark_is_for_a_person() -> None:
    """A pipe gets only the words."""
    assert page(PLAIN).marked("✓", "+", "green", "added model") == "✓ added model"
    assert page(is_terminal=False).marked("✓", "+", "green", "added model") == "added model"
