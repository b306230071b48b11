"""Rows that are written while the run goes on: each asset has one, and few are held."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from grym_fetch.cli import report_file
from grym_fetch.cli.report_file import ReportFile
from grym_fetch.core import events
from grym_fetch.core.events import Event
from grym_fetch.core.manifest import Asset
from grym_fetch.display import report_rows
from grym_fetch.display.report_rows import read_rows

KINDS = [".jsonl", pytest.param(".parquet", marks=[pytest.mark.sweep, pytest.mark.package("pyarrow")])]


@contextmanager
def opened(path: Path, *, goes_on: bool = False, each_node: bool = False, asked: int = 3) -> Iterator[ReportFile]:
    """A report about so many assets, closed in the end."""
    report = ReportFile(path, path.suffix, goes_on=goes_on, each_node=each_node)
    try:
        report.ask_for([Asset(f"a{n}", f"https://h/{n}?token=SECRET", f"{n}.bin") for n in range(asked)])
        yield report
    finally:
        report.close()


def fetched(number: int, node: str | None = None) -> list[Event]:
    """What happens with an asset."""
    name = f"a{number}"
    happened = (
        events.AssetPlanned(asset=name, size=5, resumed_bytes=0, node=node, time=1.0),
        events.ProgressMade(asset=name, bytes=5, total=5, rate=1.0, node=node, time=2.0),
        events.AssetVerified(
            asset=name, path=f"/{number}", checksum="c", size=5, seconds=1.0, downloaded_bytes=5, node=node, time=3.0
        ),
    )
    return list(happened)


def rows_of(path: Path) -> list[dict[str, object]]:
    """The rows of a file."""
    with path.open("rb") as file:
        return [dict(row) for row in read_rows(file, path.suffix)]


@pytest.mark.shows("P20")
def test_rows_come_as_assets_end(tmp_path: Path) -> None:
    """They are in the new file at once, and under the name in the end; then those that did not end, and the rest."""
    path = tmp_path / "run.jsonl"
    path.write_text("old\n")
    with opened(path, asked=4) as report:
        report.apply([*fetched(2), *fetched(3)[:2]])
        (new,) = tmp_path.glob(".run.jsonl.*.tmp")
        assert [json.loads(line)["asset"] for line in new.read_text().splitlines()] == ["a2"]
        assert path.read_text() == "old\n"
        report.apply(fetched(0))
        report.finish()
    rows = rows_of(path)
    assert [(row["asset"], row["end"]) for row in rows] == [
        ("a2", "verified"),
        ("a0", "verified"),
        ("a3", "unfinished"),
        ("a1", "unfinished"),
    ]
    assert [row["origin"] for row in rows] == [f"https://h/{n}" if n != 1 else None for n in (2, 0, 3, 1)]
    assert os.listdir(tmp_path) == ["run.jsonl"]


@pytest.mark.shows("P20")
@pytest.mark.parametrize("kind", KINDS)
def test_memory_does_not_grow_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Of what has ended nothing is kept: three times as many assets take as much memory."""
    monkeypatch.setattr(report_rows, "GROUP", 50)
    with opened(tmp_path / f"run{kind}") as report:
        tracemalloc.start()
        try:
            for number in range(300):
                report.apply(fetched(number))
                if number == 99:
                    before, _ = tracemalloc.get_traced_memory()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert after - before < 200 * 100, "a life and its row are ten times as much"


@pytest.mark.shows("P20")
def test_an_asset_has_one_row(tmp_path: Path) -> None:
    """Whatever comes of it after its end, at once or later, in this report's memory or not."""
    late = events.AssetReused(asset="a1", path="/1", time=9.0)
    with opened(tmp_path / "run.jsonl", asked=2) as report:
        report.apply([*fetched(1), late])
        report.apply([late])
        report.apply(fetched(1)[1:2])
        report.finish()
    assert [(row["asset"], row["end"]) for row in rows_of(tmp_path / "run.jsonl")] == [
        ("a1", "verified"),
        ("a0", "unfinished"),
    ]


def test_each_nodes_copy_has_a_row(tmp_path: Path) -> None:
    """Where nodes share nothing, an asset is fetched by each."""
    with opened(tmp_path / "run.jsonl", each_node=True, asked=2) as report:
        report.apply([*fetched(0, "one"), *fetched(0, "two"), *fetched(0, "two")])
        report.finish()
    rows = rows_of(tmp_path / "run.jsonl")
    assert [(row["asset"], row["node"]) for row in rows] == [("a0", "one"), ("a0", "two"), ("a1", None)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_that_goes_on_keeps_what_was_fetched_before(tmp_path: Path, kind: str) -> None:
    """What is there by now is told as the earlier run has fetched it; all else as it is now."""
    path = tmp_path / f"run{kind}"
    with opened(path) as report:
        report.apply(fetched(0, "one"))
        report.finish()
    there: list[Event] = [events.AssetReused(asset=f"a{n}", path=f"/{n}", time=9.0) for n in range(2)]
    for goes_on in (True, True, False):
        with opened(path, goes_on=goes_on) as report:
            report.apply(there)
            report.finish()
        a, b, c = rows_of(path)
        assert (a["end"], a["node"]) == (("verified", "one") if goes_on else ("reused", None))
        assert (b["end"], c["end"]) == ("reused", "unfinished")


@pytest.mark.shows("P20")
def test_without_its_end_the_older_report_stays(tmp_path: Path) -> None:
    """And no new file is left."""
    path = tmp_path / "run.jsonl"
    path.write_text("old\n")
    with opened(path) as report:
        report.apply(fetched(0))
    assert path.read_text() == "old\n"
    assert os.listdir(tmp_path) == ["run.jsonl"]


def test_an_interruption_waits_for_no_long_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of very many assets, those that had not begun have no row then; of few, and otherwise, all have one."""
    monkeypatch.setattr(report_file, "MAX_UNBEGUN", 3)
    for asked, is_hurried, count in ((3, True, 3), (4, True, 1), (4, False, 4)):
        with opened(tmp_path / "run.jsonl", asked=asked) as report:
            report.apply(fetched(0))
            report.finish(is_hurried=is_hurried)
        assert len(rows_of(tmp_path / "run.jsonl")) == count
