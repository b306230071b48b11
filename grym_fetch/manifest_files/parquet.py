"""``assets.parquet``: an entry a row, a column for each key; read and written with pyarrow (the extra ``parquet``).

Rules: lists are lists, ``pieces`` and ``minimal`` are structs. What has no fixed form, ``metadata`` and unknown keys,
is JSON in a text column. The keys of the whole list are JSON in the file's metadata, under `HEAD`. A null is a key left
out. Rows are read in parts of bounded size; row groups are small when we write them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from grym_fetch.core.errors import EditRefused, ManifestError, Problem
from grym_fetch.core.schema import Location
from grym_fetch.core.strict_json import NotJson, read_json
from grym_fetch.disk.folders import storage_errors
from grym_fetch.manifest_files.lines import MAX_LINE_BYTES, PART_ENTRIES, Part

if TYPE_CHECKING:
    import pyarrow as pa

HEAD = b"grym-fetch"
"""The key in the file's metadata."""
REST = "grym_fetch_rest"
"""The column of the keys that have no column of their own."""
_FREE = ("metadata", REST)
_GROUP_ROWS = 20_000
_BUFFER_BYTES = 1024 * 1024


class ParquetFile:
    """An ``assets.parquet``. ``source`` names it in errors."""

    unit = "row"

    def __init__(self, path: Path, source: str) -> None:
        self._path = path
        self._source = source
        _pyarrow(source)

    def _open(self) -> Any:
        import pyarrow as pa
        from pyarrow import parquet

        try:
            with storage_errors(self._path):
                return parquet.ParquetFile(self._path, buffer_size=_BUFFER_BYTES, pre_buffer=False, memory_map=False)
        except pa.ArrowException as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> ManifestError:
        why = str(error).partition("\n")[0]
        return ManifestError(self._source, [Problem("file", "", f"is not a Parquet file that can be read: {why}")])

    def head(self) -> Mapping[str, object]:
        """Return the keys of the whole list. Raises `ManifestError` or `StorageError`."""
        with self._open() as file:
            data = (file.schema_arrow.metadata or {}).get(HEAD)
        if data is None:
            return {}
        try:
            read = read_json(data, max_bytes=MAX_LINE_BYTES)
        except NotJson as error:
            raise ManifestError(self._source, [Problem("top level", "", str(error))]) from None
        if read.problems or not isinstance(read.value, dict):
            message = f"the value of {HEAD.decode()} in the file's metadata must be a JSON object"
            raise ManifestError(self._source, [Problem("top level", "", message)])
        return {key: value for key, value in read.value.items() if key != "assets"}

    def parts(self) -> Iterator[Part]:
        """Yield the entries of all rows, counted from 1. Raises `ManifestError` or `StorageError`."""
        import pyarrow as pa

        row = 1
        try:
            with storage_errors(self._path), self._open() as file:
                for batch in file.iter_batches(batch_size=PART_ENTRIES, use_threads=False):
                    entries, problems = _entries_of(batch.to_pylist())
                    yield Part(entries, list(range(row, row + len(entries))), problems)
                    row += len(entries)
        except pa.ArrowException as error:
            raise self._unreadable(error) from None


def _entries_of(rows: list[dict[str, object]]) -> tuple[list[object], list[tuple[Location, str]]]:
    entries: list[object] = []
    problems: list[tuple[Location, str]] = []
    for index, row in enumerate(rows):
        entry = _without_nulls(row)
        for key in _FREE:
            if not isinstance(text := entry.get(key), str):
                continue
            try:
                read = read_json(text.encode("utf-8", "surrogatepass"), max_bytes=MAX_LINE_BYTES)
            except NotJson as error:
                problems.append((("assets", index, key), str(error)))
                continue
            problems += [(("assets", index, key, *location), message) for location, message in read.problems]
            entry[key] = read.value
        rest = entry.pop(REST, None)
        entries.append((rest if isinstance(rest, dict) else {}) | entry)
    return entries, problems


def _without_nulls(row: Mapping[str, object]) -> dict[str, object]:
    """A struct has all keys in every row."""
    return {
        key: _without_nulls(value) if isinstance(value, dict) else value
        for key, value in row.items()
        if value is not None
    }


def _schema(head: Mapping[str, object]) -> pa.Schema:
    import pyarrow as pa

    text, texts = pa.string(), pa.list_(pa.string())
    stand_in = {"url": text, "checksum": text, "size": pa.int64(), "fallbackUrls": texts}
    columns = {
        "id": text, "name": text, "description": text, "url": text, "fallbackUrls": texts, "localPath": text,
        "checksum": text, "size": pa.int64(), "version": text, "required": pa.bool_(), "tags": texts,
        "extract": pa.bool_(), "metadata": text, "minimal": pa.struct(list(stand_in.items())), "source": text,
        "pieces": pa.struct([("size", pa.int64()), ("sha256", texts)]), REST: text,
    }  # fmt: skip
    return pa.schema(list(columns.items()), metadata={HEAD: json.dumps(head).encode()})


def write_parquet(
    to: BinaryIO, head: Mapping[str, object], parts: Iterable[list[dict[str, object]]], target: str
) -> None:
    """Write entries, which are valid, with an open file. Raises `EditRefused` without pyarrow, or ``OSError``.

    ``target`` is its name, for messages.
    """
    pa = _pyarrow(target, EditRefused)
    from pyarrow import parquet

    schema = _schema(head)
    with parquet.ParquetWriter(to, schema, compression="zstd") as writer:
        held: list[dict[str, object]] = []
        for part in parts:
            held += (_row_of(entry, schema) for entry in part)
            if len(held) >= _GROUP_ROWS:
                writer.write_table(pa.Table.from_pylist(held, schema=schema))
                held = []
        writer.write_table(pa.Table.from_pylist(held, schema=schema))


def _row_of(entry: Mapping[str, object], schema: pa.Schema) -> dict[str, object]:
    row: dict[str, object] = {}
    rest: dict[str, object] = {}
    for key, value in entry.items():
        if key == REST or key not in schema.names:
            rest[key] = value
        elif key == "metadata":
            row[key] = None if value is None else json.dumps(value)
        elif key == "version":
            row[key] = None if value is None else str(value)
        elif key in ("minimal", "pieces") and isinstance(value, dict) and not _fits(value, schema.field(key).type):
            rest[key] = value  # with keys of its own
        else:
            row[key] = value
    return row | {REST: json.dumps(rest)} if rest else row


def _fits(value: Mapping[str, object], kind: pa.StructType) -> bool:
    return all(kind.get_field_index(key) >= 0 for key in value)


def _pyarrow(source: str, refused: type[ManifestError] = ManifestError) -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError:
        message = "needs pyarrow to be read or written: pip install 'grym-fetch[parquet]'"
        raise refused(source, [Problem("file", "", message)]) from None
    return pa
