"""A mistyped name suggests what it was meant to be."""

from __future__ import annotations

from itertools import chain, count, islice

import pytest

from grym_fetch.core.nearest import MAX_COMPARED, MAX_KNOWN, Forms, as_key, as_path, as_typed, nearest_names


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


@pytest.mark.parametrize(
    ("forms", "name", "known", "found"),
    [
        (as_key, "NO_PIPELINING", ["no-pipelining"], ["no-pipelining"]),
        (as_key, "fallbackURLs", ["fallback_urls", "url"], ["fallback_urls"]),
        (as_path, "Model.bin", ["deep/below/model.bin", "readme"], ["deep/below/model.bin"]),
        (as_path, "onx/model.bin", ["onnx/model.bin"], ["onnx/model.bin"]),
        (as_path, "other/place/model.bin", ["model.bin"], ["model.bin"]),
        (as_typed, "Model.bin", ["far/below/all/that/model.bin"], []),
    ],
)
def test_what_is_compared(forms: Forms, name: str, known: list[str], found: list[str]) -> None:
    """Of a key neither case nor separators count; of a path the folders may be wrong."""
    assert nearest_names(name, known, forms=forms) == found


def test_only_so_many_are_looked_at() -> None:
    """A list without end takes no time without end."""
    others = (f"{number:040}" for number in count())
    assert nearest_names("zebra", chain(["zebras"], others)) == ["zebras"]
    assert nearest_names("zebra", chain(islice(others, MAX_KNOWN), ["zebras"])) == []


@pytest.mark.shows("C15")
def test_only_so_much_is_compared() -> None:
    """Long names are many characters to compare; those whose length says that they are others cost nothing."""
    name = "m" * 160
    enough = MAX_COMPARED // len(name) ** 2
    others = [f"{number:04}" * 40 for number in range(enough)]
    meant = "o" + name[2:] + "o"
    assert nearest_names(name, [*others[:-1], meant]) == [meant]
    assert nearest_names(name, [*others, meant]) == []
    assert nearest_names(name, ["m" * 40, "m" * 4000, *others[:-1], meant]) == [meant]
    alike = name[:-1] + "o"
    assert nearest_names(name, [*others, alike]) == [alike], "it begins alike, so it is compared first"
