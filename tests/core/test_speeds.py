"""How much to request ahead: what arrives in a round trip, from waits and speeds measured independently."""

from __future__ import annotations

import pytest

from grym_fetch.core.speeds import ROUND_TRIPS, Speeds

HOST = "one.example"


def test_as_much_ahead_as_a_round_trip_costs() -> None:
    """Twice as far or twice as fast means twice as much; one host says nothing about another."""
    speeds = Speeds()
    speeds.waited(HOST, 0.1)
    assert speeds.bytes_ahead(HOST) == 0.0
    speeds.measured(HOST, 1000, 0.5)
    assert speeds.bytes_ahead(HOST) == pytest.approx(2000 * 0.1 * ROUND_TRIPS)
    assert speeds.bytes_ahead(HOST, least=1.0) == pytest.approx(2000)
    assert speeds.bytes_ahead("two.example") == speeds.wait("two.example") == 0.0


def test_what_is_measured_is_soon_forgotten() -> None:
    """A host that has become slower, or nearer, is known as such after a few answers."""
    speeds = Speeds()
    speeds.waited(HOST, 10.0)
    speeds.measured(HOST, 10_000, 0.0)
    for _ in range(20):
        speeds.waited(HOST, 0.1)
        speeds.measured(HOST, 1000, 1.0)
    assert speeds.wait(HOST) == 0.1
    assert speeds.bytes_ahead(HOST, least=1.0) == pytest.approx(1000, rel=0.1)


@pytest.mark.usefixtures("hosts_may_be_far")
def test_a_host_is_far_away_if_every_connection_took_long_to_open() -> None:
    """One that did not shows that the others were held up by us."""
    speeds = Speeds()
    assert not speeds.is_far("h")
    speeds.opened("h", 0.08)
    assert speeds.is_far("h")
    speeds.opened("h", 0.001)
    speeds.opened("h", 0.08)
    assert not speeds.is_far("h")
