from __future__ import annotations

import math
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from grym_fetch.display.treemap import MAX_TILES, Rect, Weight, squarify, weight_page

WITHIN = Rect(10.0, 20.0, 600.0, 400.0)


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=30))
@example([1, 88471168])
@example([1, 1, 21362304, 1_699_083_904])
def test_every_size_has_its_share_and_none_overlaps(sizes: list[int]) -> None:
    """The tiles fill the whole, each as large as its size says, and none lies outside or on another."""
    sizes.sort(reverse=True)
    tiles = squarify(sizes, WITHIN)
    whole = WITHIN.width * WITHIN.height
    for size, tile in zip(sizes, tiles, strict=True):
        assert math.isclose(tile.width * tile.height, whole * size / sum(sizes), rel_tol=1e-6, abs_tol=1e-6)
        assert WITHIN.x - 1e-6 <= tile.x <= tile.x + tile.width <= WITHIN.x + WITHIN.width + 1e-6
        assert WITHIN.y - 1e-6 <= tile.y <= tile.y + tile.height <= WITHIN.y + WITHIN.height + 1e-6
    for number, one in enumerate(tiles):
        for other in tiles[:number]:
            wide = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
            high = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
            assert wide <= 1e-6 or high <= 1e-6


def test_tiles_are_as_square_as_in_the_paper() -> None:
    """The example of the paper: 6, 6, 4, 3, 2, 2, 1 in 6 by 4; its first two tiles are 2 high and 3 wide."""
    tiles = squarify([6, 6, 4, 3, 2, 2, 1], Rect(0, 0, 6, 4))
    assert tiles[0] == Rect(0, 0, 3, 2)
    assert tiles[1] == Rect(0, 2, 3, 2)
    assert math.isclose(tiles[2].width, 12 / 7)
    assert math.isclose(tiles[2].height, 7 / 3)


def test_many_files_are_few_tiles() -> None:
    """A page stays small enough to be opened; what is too small is one tile together, and nothing is lost."""
    weights = [Weight(f"data/{number}.bin", 1000 + number) for number in range(5000)]
    text = weight_page("grym-fetch identify", [("Files", weights)])
    assert len(re.findall('class="tile ', text)) == MAX_TILES
    assert "smaller files" in text
    assert "5,000 files" in text


@pytest.mark.parametrize("weights", [[], [Weight("empty", 0)]])
def test_nothing_large_is_a_page_too(weights: list[Weight]) -> None:
    """Without an area there is no tile."""
    text = weight_page("grym-fetch identify", [("Files", weights)])
    assert 'class="tile ' not in text


@pytest.mark.shows("U1")
def test_a_name_is_text() -> None:
    """A file may be called anything."""
    hostile = '<script>alert(1)</script>"\x1b[2J'
    text = weight_page("x", [("y", [Weight(f"d/{hostile}", 10**9, hostile)])])
    assert "<script" not in text
    assert "\x1b" not in text
    assert "&lt;script&gt;" in text
