"""`assets.parquet`: rows as entries, whoever has written them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from grym_fetch.core.errors import ManifestError
from grym_fetch.manifest_files.project import load_manifest
from tests.manifest_files.long_manifests import entry

pytestmark = pytest.mark.package("pyarrow")


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A file as any other program may write it: columns of whatever types, and no head."""
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_reads_what_others_have_written(tmp_path: Path) -> None:
    """Lists and structs of their own, null for a key left out, and columns that mean nothing here."""
    rows = [
        entry("a", tags=["t"], metadata={"licence": "MIT"}, minimal={"url": "https://h/s", "size": 3}, mine=1),
        entry("b", tags=None, metadata=None, minimal=None, mine=None),
    ]
    read = load_manifest(written(tmp_path / "assets.parquet", rows))
    a, b = read.manifest.assets
    assert (a.tags, a.metadata, a.minimal and a.minimal.size, a.extra) == (("t",), {"licence": "MIT"}, 3, {"mine": 1})
    assert (b.tags, b.metadata, b.minimal, b.extra) == ((), {}, None, {})
    assert read.warnings == ("unknown keys, kept but not used: 'mine' (asset 'a')",)


def test_says_in_which_row_what_is(tmp_path: Path) -> None:
    """As for lines; rows are counted from 1."""
    rows = [entry("a"), entry("a", localPath="../x"), entry("c", metadata="{")]
    rows = [{"metadata": None} | row for row in rows]
    with pytest.raises(ManifestError) as caught:
        load_manifest(written(tmp_path / "assets.parquet", rows))
    places = [(each.where, each.key) for each in caught.value.problems]
    assert places == [("row 2, asset 'a'", "localPath"), ("row 3, asset 'c'", "metadata"), ("row 2", "id")]


def test_what_is_no_parquet_is_an_error(tmp_path: Path) -> None:
    """Not a traceback."""
    path = tmp_path / "assets.parquet"
    path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(ManifestError, match="not a Parquet file"):
        load_manifest(path)
