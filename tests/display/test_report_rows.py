"""The rows of a report: one for each asset that was asked for, in two forms that say the same."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest

from grym_fetch.core import events
from grym_fetch.core.events import Event
from grym_fetch.display import report_rows
from grym_fetch.display.report import Report
from grym_fetch.display.report_rows import COLUMNS, Row, read_rows, row_of, writer_for

A, B = "https://one.example/a.bin", "https://two.example/a.bin"
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


def rows() -> list[Row]:
    """Those of a run."""
    report = Report({"a": A, "bad": B, "there": B, "unpinned": B})
    for time, event in HAPPENED:
        report.apply(replace(event, time=time))
    return [row_of(life) for life in report.lives]


def written(kind: str, some: list[Row]) -> bytes:
    """A file with rows, added one by one."""
    file = io.BytesIO()
    writer = writer_for(kind, file)
    for row in some:
        writer.write([row])
    writer.end()
    return file.getvalue()


def test_every_asset_has_a_row() -> None:
    """How it ended, from where, with how many bytes, seconds and attempts, and why it failed."""
    a, there, bad, unpinned = rows()
    assert list(a) == list(COLUMNS)
    assert a == {
        "asset": "a", "end": "verified", "node": None, "origin": B, "size": 1000, "bytes": 800, "resumed_bytes": 200,
        "began": 101.0, "seconds": 10.5, "attempts": 3, "checksum": "c", "path": "/p", "error": None, "message": None,
    }  # fmt: skip
    assert (there["end"], there["origin"], there["attempts"]) == ("reused", None, 0)
    assert (bad["end"], bad["attempts"], bad["error"]) == ("failed", 1, "BadStatus")
    assert "404" in str(bad["message"])
    assert (unpinned["end"], unpinned["attempts"]) == ("failed", 0), "nobody was asked for it"


def test_json_lines_are_the_rows_without_secrets() -> None:
    """One object on each line."""
    text = written(".jsonl", rows()).decode()
    assert [json.loads(line) for line in text.splitlines()] == rows()
    assert "SECRET" not in text


@pytest.mark.package("pyarrow")
@pytest.mark.sweep
def test_parquet_has_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """In groups, with the types that are promised, also where a column is empty; no path is not UTF-8."""
    from pyarrow import parquet

    monkeypatch.setattr(report_rows, "GROUP", 3)
    table = parquet.ParquetFile(io.BytesIO(written(".parquet", rows())))
    types = {field.name: str(field.type).replace("double", "float64") for field in table.schema_arrow}
    assert types == COLUMNS
    expected = rows()
    expected[1]["path"] = "/p/there-\\udcff"
    assert table.read().to_pylist() == expected
    assert [table.metadata.row_group(n).num_rows for n in range(table.num_row_groups)] == [3, 1]


@pytest.mark.package("pyarrow")
@pytest.mark.parametrize("kind", [".jsonl", ".parquet"])
def test_rows_are_read_again(kind: str) -> None:
    """As far as the file is whole: of lines those before the damage, of a table none."""
    data = written(kind, rows())
    assert [row["asset"] for row in read_rows(io.BytesIO(data), kind)] == ["a", "there", "bad", "unpinned"]
    cut = [row["asset"] for row in read_rows(io.BytesIO(data[:-9]), kind)]
    assert cut == (["a", "there", "bad"] if kind == ".jsonl" else [])


@pytest.mark.parametrize(
    "line",
    [
        b"[1, 2]",
        b'{"asset": ["a"]}',
        b'{"asset": "a", "size": "1"}',
        b'{"asset": "a", "size": true}',
        b'{"asset": "a", "size": 1.5}',
        b'{"asset": "a", "size": 9223372036854775808}',
        b'{"asset": ' + b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_what_is_no_row_is_left_out(line: bytes) -> None:
    """Anybody may have written the file; the rows after it count."""
    good = b'{"asset": "b", "end": "verified", "seconds": 1}\n'
    assert [row["asset"] for row in read_rows(io.BytesIO(line + b"\n" + good), ".jsonl")] == ["b"]
