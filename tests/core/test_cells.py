"""How wide text is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core.cells import cells, padded, shortened, wrapped


@pytest.mark.parametrize(("text", "width"), [("", 0), ("abc", 3), ("模型", 4), ("e\u0301", 1), ("ｆ", 2), ("ä", 1)])
def test_the_width_of_text(text: str, width: int) -> None:
    """Wide characters take two cells, combining marks none."""
    assert cells(text) == width
    assert cells(padded(text, 10)) == 10
    assert padded(text, 10, right=True).endswith(text)


@given(st.text(alphabet="ab模 é", max_size=60), st.integers(5, 30))
def test_shortened_text_keeps_both_ends(text: str, width: int) -> None:
    """Shortened text never takes more cells than it may, and keeps both ends."""
    short = shortened(text, width)
    assert cells(short) <= width
    assert short == text or (short[0] == text[0] and "…" in short)


@given(st.lists(st.text(alphabet="ab模", min_size=1, max_size=12), min_size=1), st.integers(1, 30))
def test_wrapped_text_loses_no_word(words: list[str], width: int) -> None:
    """No line is wider than allowed, unless a single word is."""
    lines = wrapped(" ".join(words), width, indent="  ")
    assert " ".join(lines).split() == words
    for line in lines:
        assert cells(line) <= width or len(line.split()) == 1


@pytest.mark.parametrize("value", ["1.0 MiB", "900 B", "25 MiB/s", "3 s", "50 %"])
def test_a_number_keeps_its_unit(value: str) -> None:
    """It is not broken from it, in whatever comes before and after."""
    for width in range(len(value) + 1, 30):
        for text in (f"some words, {value} of it", f"more ({value}), and {value}"):
            assert any(value in line for line in wrapped(text, width)), width


def test_what_only_looks_like_a_unit_is_a_word() -> None:
    """A number before another word is one that a line may end with."""
    assert wrapped("plan 9 Books", 8) == ["plan 9", "Books"]
