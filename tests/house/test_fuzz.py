"""Each fuzzing target, briefly: arbitrary bytes, and valid inputs that were damaged."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fuzz.targets import TARGETS, Target
from tests.support.properties import examples

pytestmark = pytest.mark.shows("S11")


@st.composite
def damaged(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """A valid input with parts replaced, doubled or dropped, or with another one's end."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        stop = draw(st.integers(start, min(len(data), start + 40)))
        other = draw(st.sampled_from(seeds))
        new = draw(st.one_of(st.binary(max_size=8), st.just(data[start:stop] * 2), st.just(other[start:])))
        data = data[:start] + new + data[stop:]
    return data


@pytest.mark.parametrize("name", TARGETS)
def test_good_inputs(name: str) -> None:
    """The starting inputs are accepted."""
    for seed in TARGETS[name].seeds:
        TARGETS[name].run(seed)


@pytest.mark.parametrize("name", TARGETS)
def test_any_input(name: str) -> None:
    """No data sent or written makes a reader fail, or accept anything unsafe."""
    target: Target = TARGETS[name]

    @examples(60)
    @given(st.one_of(damaged(target.seeds), st.binary(max_size=300)))
    @example(b"")
    @example(b"\x00" * 100)
    def run(data: bytes) -> None:
        target.run(data)

    run()
