"""Metrics of a run: what Prometheus can read, and what they say."""

from __future__ import annotations

import re

from grym_fetch.core import events
from grym_fetch.display.metrics import metrics_text
from grym_fetch.display.report import Report

MIRROR = "https://mirror.example:8443/x?REDACTED"
LINE = re.compile(r'[a-z_]+(?:\{[a-z]+="(?:[^"\\\n]|\\[\\"n])*"\})? -?[0-9.]+(?:e[+-]?[0-9]+)?')


def test_each_asset_and_each_server_is_counted() -> None:
    """Bytes go to the server that sent them; what failed is named, and the run is no success."""
    report = Report({"a": "https://one.example/a", 'b"\n': "https://one.example/b"})
    report.apply(events.RunStarted(time=100.5, assets=3, bytes=30))
    report.apply(events.AssetPlanned(time=101, asset="a", size=10, resumed_bytes=2))
    report.apply(events.ProgressMade(time=102, asset="a", bytes=6, total=10, rate=1.0))
    report.apply(
        events.RetryScheduled(time=102, asset="a", url="https://one.example/a", attempt=1, delay=1, reason="r")
    )
    report.apply(events.MirrorSwitched(
        time=103, asset="a", from_="https://one.example/a", to=MIRROR, reason="r", number=2, count=2))  # fmt: skip
    report.apply(events.ProgressMade(time=104, asset="a", bytes=10, total=10, rate=1.0))
    running = metrics_text(report).splitlines()
    assert 'grym_fetch_assets{state="unfinished"} 3' in running
    assert "grym_fetch_run_finished 0" in running
    report.apply(events.AssetVerified(
        time=105, asset="a", path="/a", checksum="", size=10, seconds=4, downloaded_bytes=8))  # fmt: skip
    report.apply(events.AssetFailed(time=106, asset='b"\n', error="E", message="m"))
    report.apply(events.AssetReused(time=106, asset="c", path="/c"))
    report.apply(events.RunFinished(time=107, verified=1, reused=1, failed=1, downloaded_bytes=8, seconds=7))
    lines = metrics_text(report).splitlines()
    assert {
        "grym_fetch_run_start_time_seconds 100.5",
        "grym_fetch_run_finished 1",
        "grym_fetch_run_success 0",
        'grym_fetch_assets{state="verified"} 1',
        'grym_fetch_assets{state="unfinished"} 0',
        'grym_fetch_downloaded_bytes_total{server="https://one.example"} 4',
        'grym_fetch_downloaded_bytes_total{server="https://mirror.example:8443"} 4',
        'grym_fetch_retries_total{server="https://one.example"} 1',
        'grym_fetch_switches_total{server="https://one.example"} 1',
        'grym_fetch_asset_failed{asset="b\\"\\\\n"} 1',
    } <= set(lines), lines
    assert all(line.startswith(("# HELP ", "# TYPE ")) or LINE.fullmatch(line) for line in lines)


def test_all_well() -> None:
    """A run that ended with everything there is a success; one that was cut off is not."""
    report = Report({"a": "https://one.example/a"})
    report.apply(events.RunStarted(time=1, assets=1, bytes=1))
    report.apply(events.AssetReused(time=2, asset="a", path="/a"))
    assert "grym_fetch_run_success 0\n" in metrics_text(report)
    report.apply(events.RunFinished(time=3, verified=0, reused=1, failed=0, downloaded_bytes=0, seconds=2))
    assert "grym_fetch_run_success 1\n" in metrics_text(report)
