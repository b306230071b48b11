"""`grym-fetch convert`: each kind of manifest as each other, without loss."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from grym_fetch.core.errors import EditRefused, ManifestError
from grym_fetch.core.manifest_parser import MAX_ASSETS, MAX_MANIFEST_BYTES
from grym_fetch.manifest_files.conversion import convert
from grym_fetch.manifest_files.project import load_manifest
from tests.manifest_files.long_manifests import entry, write_lines

HEAD = {"version": "1.0", "updated": "2026-01-01T00:00:00Z", "note": {"x": 1}}
ENTRIES = [
    entry("a", metadata={"licence": None, "n": [1, {}]}, minimal={"url": "https://h/s", "size": 3, "mine": 1}),
    entry("b", size=70_000, pieces={"size": 65536, "sha256": ["ab" * 32, "cd" * 32]}, tags=["t", "u"], x=[None]),
    entry("ü", required=True, checksum="ab" * 32, fallbackUrls=["https://h/2"], description="ß"),
]


@pytest.mark.parametrize("kind", ["jsonl", "json", pytest.param("parquet", marks=pytest.mark.package("pyarrow"))])
def test_nothing_is_lost_on_the_way(tmp_path: Path, kind: str) -> None:
    """Every key, also unknown ones, there and back."""
    first = write_lines(tmp_path / "assets.jsonl", ENTRIES, HEAD)
    middle, last = tmp_path / f"middle.{kind}", tmp_path / "last.jsonl"
    assert convert(first, middle) == convert(middle, last) == len(ENTRIES)
    assert [json.loads(line) for line in last.read_text().splitlines()] == [HEAD, *ENTRIES]
    assert load_manifest(middle).manifest == load_manifest(first).manifest


@pytest.mark.sweep
def test_a_json_that_is_too_long_has_a_way_out(tmp_path: Path) -> None:
    """The command that its refusal names works on it."""
    long = tmp_path / "assets.json"
    long.write_text(json.dumps({"assets": [entry("a", description="x" * MAX_MANIFEST_BYTES)]}))
    with pytest.raises(ManifestError, match=r"grym-fetch convert assets\.json assets\.jsonl"):
        load_manifest(long)
    with pytest.raises(ManifestError, match="longer than"):
        load_manifest_after(long)
    long.write_text(json.dumps({"assets": [entry(f"a{n}", description="x" * 9_000_000) for n in range(2)]}))
    assert convert(long, tmp_path / "assets.jsonl") == 2
    with pytest.raises(EditRefused, match="16777216"):
        convert(tmp_path / "assets.jsonl", tmp_path / "again.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["assets.json", "assets.jsonl"]


def load_manifest_after(long: Path) -> None:
    target = long.with_name("wrong.jsonl")
    try:
        convert(long, target)
        load_manifest(target)
    finally:
        target.unlink(missing_ok=True)


def test_what_cannot_be_written_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pyarrow, the file that needs it is named, and not the one that was read."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "assets.json").write_text('{"assets": []}')
    with pytest.raises(EditRefused, match=r"assets\.parquet was not changed\n  file: needs pyarrow"):
        convert(tmp_path / "assets.json", tmp_path / "assets.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["assets.json"]


def test_what_is_wrong_is_not_converted(tmp_path: Path) -> None:
    """With every problem, and the place of each; the file that was there stays."""
    target = tmp_path / "assets.jsonl"
    target.write_text("before")
    source = tmp_path / "assets.json"
    source.write_text('{"assets": [{"id": "a"}, {"id": "a", "id": "b", "url": "https://h/b", "localPath": "b"}]}')
    with pytest.raises(ManifestError) as caught:
        convert(source, target)
    assert [str(each).partition(":")[0] for each in caught.value.problems][::2] == ["entry 0, asset 'a'", "entry 1"]
    assert target.read_text() == "before"
    assert MAX_ASSETS == 100_000
