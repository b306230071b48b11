"""What a run was like, for programs: a row for each asset that was asked for, as JSON lines or as a Parquet table.

Rules: every row has every column, and both forms have the same ones; what is not known is null. No secret gets in.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator

from grym_fetch.core.text import redact_text
from grym_fetch.display.report import Life, Report

COLUMNS = {
    "asset": "string", "end": "string", "node": "string", "origin": "string", "size": "int64", "bytes": "int64",
    "resumed_bytes": "int64", "began": "float64", "seconds": "float64", "attempts": "int64", "checksum": "string",
    "path": "string", "error": "string", "message": "string",
}  # fmt: skip
"""The columns and their types. ``began`` is in seconds since the epoch; ``bytes`` are those downloaded."""
Row = dict[str, str | int | float | None]


def report_rows(report: Report, earlier: Iterable[Row] = ()) -> Iterator[Row]:
    """Yield the rows: assets in the order in which they began, then those that never did.

    ``earlier``: the rows of a run that this one continues. What was there by now is told as that run has fetched it.
    """
    fetched = {_place(row): row for row in earlier if row.get("end") in ("verified", "unverified")}
    for life in report.everyone:
        row = _row(life)
        yield fetched.get(_place(row), row) if life.end == "reused" else row


def _place(row: Row) -> tuple[object, ...]:
    return row.get("asset"), row.get("path")


def as_json_lines(report: Report, earlier: Iterable[Row] = ()) -> bytes:
    """Return the rows as JSON, one object per line."""
    return "".join(f"{json.dumps(row)}\n" for row in report_rows(report, earlier)).encode()


def read_rows(data: bytes, kind: str) -> list[Row]:
    """Return the rows of an earlier report, ``.jsonl`` or ``.parquet``; none of anything else."""
    rows: list[object]
    try:
        if kind == ".parquet":
            from pyarrow import parquet

            rows = parquet.read_table(io.BytesIO(data)).to_pylist()
        else:
            rows = [json.loads(line) for line in data.splitlines()]
    except (ValueError, OSError, RecursionError):
        return []
    return [{name: row.get(name) for name in COLUMNS} for row in rows if isinstance(row, dict)]


def as_parquet(report: Report, earlier: Iterable[Row] = ()) -> bytes:
    """Return the rows as a Parquet file. Needs pyarrow, the extra ``parquet``."""
    import pyarrow as arrow
    from pyarrow import parquet

    schema = arrow.schema([(name, arrow.type_for_alias(kind)) for name, kind in COLUMNS.items()])
    rows = [{name: _in_utf8(value) for name, value in row.items()} for row in report_rows(report, earlier)]
    out = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist(rows, schema=schema), out)
    return out.getvalue()


def _in_utf8(value: str | float | None) -> str | float | None:
    """A path may have bytes that are not UTF-8, which Parquet does not take."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def _row(life: Life) -> Row:
    is_refused = life.end == "failed" and life.is_planned
    was_asked = life.downloaded > 0 or life.retries > 0 or life.switches > 0 or is_refused
    return {
        "asset": life.asset,
        "end": life.end,
        "node": life.node or None,
        "origin": life.origin if life.downloaded else None,
        "size": life.size,
        "bytes": life.downloaded,
        "resumed_bytes": life.resumed,
        "began": round(life.began, 3) or None,
        "seconds": round(life.ended - life.began, 3) if life.began else None,
        "attempts": 1 + life.retries + life.switches if was_asked else 0,
        "checksum": life.checksum or None,
        "path": life.path or None,
        "error": life.error or None,
        "message": redact_text(life.trouble) or None,
    }
