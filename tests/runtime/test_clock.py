"""The real clock and random numbers, and the virtual ones that replace them in tests."""

from __future__ import annotations

import time

import pytest

from grym_fetch.core.world import Clock
from grym_fetch.runtime.clock import SystemClock
from tests.support.fakes import VirtualClock


@pytest.mark.parametrize("clock", [SystemClock(), VirtualClock()], ids=["system", "virtual"])
async def test_a_clock_never_goes_back_and_sleeping_takes_time(clock: Clock) -> None:
    """After a sleep at least that much time has passed."""
    before = clock.monotonic()
    await clock.sleep(1 / 512)
    assert clock.monotonic() - before >= 1 / 512
    await clock.sleep(0)
    assert clock.monotonic() - before >= 1 / 512


@pytest.mark.parametrize("clock", [SystemClock(), VirtualClock()], ids=["system", "virtual"])
def test_jitter_is_a_share(clock: Clock) -> None:
    """Jitter is in [0, 1)."""
    assert all(0 <= clock.jitter() < 1 for _ in range(1000))


def test_the_dice_fall_differently() -> None:
    """Clients that fail together do not come back together."""
    assert len({SystemClock().jitter() for _ in range(100)}) > 90


def test_wall_time_is_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wall time follows the system's clock wherever it is set; monotonic time does not."""
    monkeypatch.setattr(time, "time", lambda: 5.0)
    clock = SystemClock()
    assert clock.wall() == 5.0
    assert clock.monotonic() != 5.0


async def test_virtual_time_costs_none() -> None:
    """Sleeping for a year takes no time, and is recorded."""
    clock = VirtualClock(start=10.0)
    await clock.sleep(31_536_000.0)
    assert clock.monotonic() == 31_536_010.0
    assert clock.slept == [31_536_000.0]
