"""Tests of what tests ask of the operating system."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.system import Stopwatch


def test_a_stopwatch_leaves_out_what_others_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds, in four of which somebody waited for a processor, and in one for the disk, are five."""
    now = 100.0
    monkeypatch.setattr("tests.support.system.PRESSURE", tmp_path)
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def press(cpu: int, io: int) -> None:
        for name, total in (("cpu", cpu), ("io", io)):
            text = f"some avg10=9.50 avg60=0.00 avg300=0.00 total={total}\nfull avg10=0.00 avg60=0.00 total=77\n"
            (tmp_path / name).write_text(text, "ascii")

    press(7_000_000, 0)
    watch = Stopwatch()
    now += 10.0
    assert watch.seconds == 10.0
    press(11_000_000, 1_000_000)
    assert watch.seconds == 5.0


def test_a_stopwatch_counts_everything_where_the_kernel_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There it is an ordinary one."""
    now = 100.0
    monkeypatch.setattr("tests.support.system.PRESSURE", tmp_path)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    watch = Stopwatch()
    now += 10.0
    assert watch.seconds == 10.0
