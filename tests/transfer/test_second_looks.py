"""Mirrors that are asked together are compared early, so that a wrong one costs little; and it is named in the end."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transfer.test_speed import CONTENT, ONE, RATE, SIZE, SIZES, THREE, TWO, Network, breaks_after, steady

URLS = [ONE, TWO, THREE]


@cache
def flipped(at: int) -> bytes:
    """The content with one byte flipped in each of the shortest segments."""
    wrong = bytearray(CONTENT)
    wrong[at :: SIZES.smallest] = bytes(byte ^ 1 for byte in wrong[at :: SIZES.smallest])
    return bytes(wrong)


def network_of(root: Path, count: int, liars: set[int], rates: list[float], delay: float = 0.0) -> Network:
    """So many mirrors, of which these lie."""
    contents = {url: flipped(100) if number in liars else CONTENT for number, url in enumerate(URLS[:count])}
    return Network(root, steady(dict(zip(URLS, rates, strict=False))), contents=contents, delay=delay)


def check_named(network: Network, liar: int) -> None:
    """The file is right, and events say who was wrong."""
    assert network.path.read_bytes() == CONTENT
    [verified] = network.heard.of("asset_verified")
    assert verified["wrong_origins"] == (URLS[liar],)
    switches = [event for event in network.heard.of("mirror_switched") if event["from"] == URLS[liar]]
    assert [event["reason"] for event in switches] == ["the addresses have different content"]


@pytest.mark.shows("C3")
@settings(max_examples=5)
@given(
    which=st.sampled_from([(2, 1), (3, 0), (3, 1), (3, 2)]),
    rates=st.lists(st.sampled_from([RATE / 3, RATE, 3 * RATE]), min_size=3, max_size=3),
    delay=st.sampled_from([0.0, 0.1]),
)
def test_a_mirror_that_lies_in_every_segment(
    tmp_path_factory: pytest.TempPathFactory, which: tuple[int, int], rates: list[float], delay: float
) -> None:
    """It costs a fifth at most, at whatever speed: the first address decides between two, and two of three."""
    count, liar = which
    network = network_of(tmp_path_factory.mktemp("looks"), count, {liar}, rates, delay)
    network.sync(mirrors="together")
    check_named(network, liar)
    assert network.world.sent <= 1.2 * SIZE


@pytest.mark.shows("C3")
def test_the_first_of_two_lies(tmp_path: Path) -> None:
    """Nothing tells who of two is right before the end: then the other one is asked for what differs, here for all."""
    network = network_of(tmp_path, 2, {0}, [RATE, RATE])
    network.sync(mirrors="together")
    assert network.path.read_bytes() == CONTENT
    [verified] = network.heard.of("asset_verified")
    assert verified["wrong_origins"] == (ONE,)
    assert network.world.sent <= 2.2 * SIZE


@pytest.mark.shows("C3", "S12")
def test_the_one_that_was_believed_fails(tmp_path: Path) -> None:
    """The other one was set aside for its content; now it is asked all the same, and has the right one."""
    networks: list[Network] = []
    speed = breaks_after(steady({ONE: RATE, TWO: RATE}), ONE, SIZE // 2, networks)
    networks.append(Network(tmp_path, speed, contents={ONE: flipped(100), TWO: CONTENT}))
    networks[0].sync(mirrors="together", retries=0)
    assert networks[0].path.read_bytes() == CONTENT
    [verified] = networks[0].heard.of("asset_verified")
    assert verified["wrong_origins"] == (ONE,)


def test_mirrors_that_agree_cost_one_piece(tmp_path: Path) -> None:
    """A look is all that it takes, and everybody goes on."""
    network = network_of(tmp_path, 3, set(), [RATE, RATE, RATE])
    network.sync(mirrors="together")
    assert not network.heard.of("mirror_switched")
    assert network.world.sent <= SIZE + 2 * SIZES.piece + 4 * SIZES.smallest
    assert all(network.given[url] > SIZE / 5 for url in URLS)
