"""The rows of a report: one for each asset that was asked for, in two forms that say the same."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest

from grym_fetch.core import events
from grym_fetch.core.events import Event
from grym_fetch.display.report import Report
from grym_fetch.display.report_rows import COLUMNS, as_json_lines, as_parquet, read_rows, report_rows

A, B = "https://one.example/a.bin", "https://two.example/a.bin"
REPORT = Report({"a": A, "bad": B, "late": B, "there": B, "unpinned": B})
HAPPENED: tuple[tuple[float, Event], ...] = (
    (100.0, events.RunStarted(assets=5, bytes=1000)),
    (101.0, events.AssetPlanned(asset="a", size=1000, resumed_bytes=200)),
    (102.0, events.AssetReused(asset="there", path="/p/there-\udcff")),
    (105.0, events.RetryScheduled(asset="a", url=A, attempt=1, delay=1.0, reason="503")),
    (106.0, events.MirrorSwitched(asset="a", from_=A, to=B, reason="503", number=2, count=2)),
    (109.0, events.ProgressMade(asset="a", bytes=1000, total=1000, rate=1.0)),
    (111.5, events.AssetVerified(asset="a", path="/p", checksum="c", size=1000, seconds=10.0, downloaded_bytes=800)),
    (112.0, events.AssetPlanned(asset="bad", size=None, resumed_bytes=0)),
    (112.0, events.AssetFailed(asset="bad", error="BadStatus", message=f"{B}?token=SECRET: status 404", attempts=())),
    (112.0, events.AssetFailed(asset="unpinned", error="UnpinnedAsset", message="no checksum", attempts=())),
)
for time, event in HAPPENED:
    REPORT.apply(replace(event, time=time))


def test_every_asset_has_a_row() -> None:
    """How it ended, from where, with how many bytes, seconds and attempts, and why it failed."""
    a, there, bad, unpinned, late = report_rows(REPORT)
    assert list(a) == list(COLUMNS)
    assert a == {
        "asset": "a", "end": "verified", "node": None, "origin": B, "size": 1000, "bytes": 800, "resumed_bytes": 200,
        "began": 101.0, "seconds": 10.5, "attempts": 3, "checksum": "c", "path": "/p", "error": None, "message": None,
    }  # fmt: skip
    assert (there["end"], there["origin"], there["attempts"]) == ("reused", None, 0)
    assert (bad["end"], bad["attempts"], bad["error"]) == ("failed", 1, "BadStatus")
    assert "404" in str(bad["message"])
    assert (unpinned["end"], unpinned["attempts"]) == ("failed", 0), "nobody was asked for it"
    assert (late["asset"], late["end"], late["began"], late["seconds"]) == ("late", "unfinished", None, None)


def test_json_lines_are_the_rows_without_secrets() -> None:
    """One object on each line."""
    text = as_json_lines(REPORT).decode()
    assert [json.loads(line) for line in text.splitlines()] == list(report_rows(REPORT))
    assert "SECRET" not in text


@pytest.mark.package("pyarrow")
@pytest.mark.sweep
def test_parquet_has_the_same_rows() -> None:
    """With the types that are promised, also where a column is empty; a path that is not UTF-8 is escaped."""
    from pyarrow import parquet

    table = parquet.read_table(io.BytesIO(as_parquet(REPORT)))
    assert {field.name: str(field.type).replace("double", "float64") for field in table.schema} == COLUMNS
    expected = list(report_rows(REPORT))
    expected[1]["path"] = "/p/there-\\udcff"
    assert table.to_pylist() == expected


@pytest.mark.package("pyarrow")
@pytest.mark.parametrize("kind", [".jsonl", ".parquet"])
def test_a_report_that_goes_on_keeps_what_was_fetched_before(kind: str) -> None:
    """What is there by now is told as the earlier run has fetched it; all else as it is now. Damage says nothing."""
    data = as_parquet(REPORT) if kind == ".parquet" else as_json_lines(REPORT)
    earlier = read_rows(data, kind)
    assert len(earlier) == 5
    again = Report({"a": A, "bad": B})
    again.apply(events.AssetReused(asset="a", path="/p"))
    again.apply(events.AssetReused(asset="bad", path="/bad"))
    a, bad = report_rows(again, earlier)
    assert a == next(report_rows(REPORT))
    assert bad["end"] == "reused"
    assert read_rows(data[:-9], kind) == []
    assert read_rows(b"[1, 2]", ".jsonl") == []


def test_each_nodes_copy_has_a_row() -> None:
    """Where nodes share nothing, an asset is fetched by each."""
    report = Report({"a": A, "b": B}, each_node=True)
    for node in ("one", "two"):
        report.apply(events.AssetReused(asset="a", path="/p", node=node))
    assert [(row["asset"], row["node"]) for row in report_rows(report)] == [("a", "one"), ("a", "two"), ("b", None)]
