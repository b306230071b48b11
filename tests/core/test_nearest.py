"""A mistyped name suggests what it was meant to be."""

from __future__ import annotations

import difflib

import pytest

from grym_fetch.core.nearest import nearest_names


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("gama", ["gamma"]),
        ("GAMMA", ["gamma"]),
        ("ALPHA", ["Alpha", "alpha"]),
        ("zzz", []),
    ],
)
def test_nearest_names(name: str, found: list[str]) -> None:
    """What looks alike is found, whatever its case, and no more than asked for."""
    known = ["Alpha", "alpha", "gamma", *(f"model-{n}" for n in range(9))]
    assert nearest_names(name, known) == found
    assert len(nearest_names("model", known)) == 3


def test_the_work_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids of a stranger's list may be many, long and much alike: the likeliest are compared, and the rest is left."""
    compared: list[str] = []

    class Counting(difflib.SequenceMatcher[str]):
        def ratio(self) -> float:
            compared.append("".join(vars(self)["a"]))
            return super().ratio()

    monkeypatch.setattr(difflib, "SequenceMatcher", Counting)
    monkeypatch.setattr("grym_fetch.core.nearest.MAX_PAIRS", 5 * 13 * 14)
    known = [f"{'x' * 10}{n:04}" for n in range(50)]
    assert nearest_names(f"{'x' * 9}0049", known)[0] == known[49]
    assert 5 <= len(compared) <= 6
    monkeypatch.setattr("grym_fetch.core.nearest.MAX_READ_CHARS", 3)
    compared.clear()
    assert nearest_names("ab", ["ac", "abc"]) == ["abc"]
    assert compared == ["abc"]
