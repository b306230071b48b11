"""What a run was like, for programs: a row for each asset that was asked for, as JSON lines or as a Parquet table.

Rules: every row has every column, and both forms have the same ones; what is not known is null. No secret gets in.
Rows are written and read some at a time, however many there are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO, Protocol

from grym_fetch.core.text import redact_text
from grym_fetch.display.report import Life

if TYPE_CHECKING:
    import pyarrow as arrow

COLUMNS = {
    "asset": "string", "end": "string", "node": "string", "origin": "string", "size": "int64", "bytes": "int64",
    "resumed_bytes": "int64", "began": "float64", "seconds": "float64", "attempts": "int64", "checksum": "string",
    "path": "string", "error": "string", "message": "string",
}  # fmt: skip
"""The columns and their types. ``began`` is in seconds since the epoch; ``bytes`` are those downloaded."""
GROUP = 10_000
"""So many rows of a Parquet table are held, and lie together in the file."""
MAX_ROW_BYTES = 1024 * 1024
"""No row of ours is a longer line."""
Row = dict[str, str | int | float | None]


class RowWriter(Protocol):
    """Writes rows into a file that is open."""

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows. Raises ``OSError``."""

    def end(self) -> None:
        """Write what is held; nothing can be added after that. Idempotent. Raises ``OSError``."""


class JsonLines:
    """One object per line. What was added is in the file at once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows."""
        self._file.write("".join(f"{json.dumps(row)}\n" for row in rows).encode())
        self._file.flush()

    def end(self) -> None:
        """Do nothing: nothing is held."""


class ParquetRows:
    """A Parquet table. Needs pyarrow, the extra ``parquet``."""

    def __init__(self, file: BinaryIO) -> None:
        from pyarrow import parquet

        self._file = file
        self._schema = _schema()
        self._writer = parquet.ParquetWriter(file, self._schema)
        self._held: list[Row] = []

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows."""
        self._held += rows
        while len(self._held) >= GROUP:
            self._write_group()

    def _write_group(self) -> None:
        import pyarrow as arrow

        rows = [{name: _in_utf8(value) for name, value in row.items()} for row in self._held[:GROUP]]
        self._writer.write_table(arrow.Table.from_pylist(rows, schema=self._schema))
        del self._held[:GROUP]

    def end(self) -> None:
        """Write what is held, and where everything is."""
        try:
            if self._held:
                self._write_group()
            self._writer.close()
            self._file.flush()
        finally:
            self._writer.is_open = False  # if it has failed, its destructor would write again


def writer_for(kind: str, file: BinaryIO) -> RowWriter:
    """Return what writes rows in the form that belongs to a name's ending, ``.jsonl`` or ``.parquet``."""
    return ParquetRows(file) if kind == ".parquet" else JsonLines(file)


def read_rows(file: BinaryIO, kind: str) -> Iterator[Row]:
    """Yield the rows of an earlier report, as far as it can be read; what is no row is left out."""
    try:
        for found in _parquet(file) if kind == ".parquet" else _lines(file):
            if isinstance(found, dict):
                row = {name: found.get(name) for name in COLUMNS}
                if all(_fits(value, COLUMNS[name]) for name, value in row.items()):
                    yield row
    except (ValueError, OSError):  # damaged: pyarrow's errors are among these
        return


def _lines(file: BinaryIO) -> Iterator[object]:
    while line := file.readline(MAX_ROW_BYTES):
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):
            continue


def _parquet(file: BinaryIO) -> Iterator[object]:
    from pyarrow import parquet

    with parquet.ParquetFile(file) as table:
        for batch in table.iter_batches(GROUP):
            yield from batch.to_pylist()


def _fits(value: object, kind: str) -> bool:
    """Whether a value that anybody may have written can be in a column."""
    if value is None or kind == "string":
        return value is None or isinstance(value, str)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return kind == "float64" or (isinstance(value, int) and -(1 << 63) <= value < 1 << 63)


def _schema() -> arrow.Schema:
    import pyarrow as arrow

    return arrow.schema([(name, arrow.type_for_alias(kind)) for name, kind in COLUMNS.items()])


def _in_utf8(value: str | float | None) -> str | float | None:
    """A path may have bytes that are not UTF-8, which Parquet does not take."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def row_of(life: Life) -> Row:
    """Return the row of an asset."""
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
