"""A mistyped name suggests what it was meant to be."""

from __future__ import annotations

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
