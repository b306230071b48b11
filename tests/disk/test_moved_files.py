"""Reading asset-manifest.json: which entries can be used, and why the others cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grym_fetch.core.digest import Checksum
from grym_fetch.disk import moved_files
from grym_fetch.disk.moved_files import MovedFile, parse_storage, read_document

CHECKSUM = Checksum.of(b"content")
ENTRY = {
    "originalPath": "models/a.bin",
    "storagePath": "store/a.bin",
    "size": 7,
    "checksum": CHECKSUM.bare,
    "movedOn": "2026-01-01T00:00:00.000Z",
    "required": True,
}


def test_an_entry_is_read_as_it_was_written() -> None:
    """An entry reads back as it was written."""
    moved = MovedFile.parse(ENTRY)
    assert (moved.original_path, moved.storage_path, moved.checksum) == ("models/a.bin", "store/a.bin", CHECKSUM)
    assert moved.as_json() == ENTRY


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"size": -1}, "size is not a number"),
        ({"size": None}, "size is not a number"),
        ({"originalPath": 5}, "originalPath is not text"),
        ({"originalPath": ".git/config"}, "git takes for its own"),
        ({"storagePath": "../a"}, r"\.\."),
        ({"storagePath": None}, "storagePath is not text"),
        ({"checksum": "5"}, "hex digits"),
    ],
)
def test_an_unusable_entry(change: dict[str, object], why: str) -> None:
    """An entry that does not name a safe place is refused with the reason."""
    with pytest.raises(ValueError, match=why):
        MovedFile.parse(ENTRY | change)


def test_who_looks_for_a_content_needs_less() -> None:
    """An entry that does not say where its file came from still tells where it lies and what it is."""
    assert parse_storage({"storagePath": "a", "checksum": CHECKSUM.bare}) == ("a", CHECKSUM)
    with pytest.raises(ValueError, match="not an object"):
        parse_storage(5)


def test_no_document(tmp_path: Path) -> None:
    """A missing file is no document, not an error."""
    assert read_document(tmp_path / "asset-manifest.json") is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"assets": 5}', '{"assets": ' + "[" * 100_000], ids=lambda text: text[:20]
)
def test_an_unreadable_document(tmp_path: Path, text: str) -> None:
    """Anything but an object with a list of entries is refused."""
    path = tmp_path / "asset-manifest.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"."):
        read_document(path)


@pytest.mark.shows("S4")
def test_a_document_is_read_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file over the limit is refused before it is parsed."""
    path = tmp_path / "asset-manifest.json"
    text = json.dumps({"assets": [ENTRY]})
    path.write_text(text)
    monkeypatch.setattr(moved_files, "MAX_RECORD_BYTES", len(text) - 1)
    with pytest.raises(ValueError, match="longer than"):
        read_document(path)
    monkeypatch.setattr(moved_files, "MAX_RECORD_BYTES", len(text))
    assert read_document(path) == ({"assets": [ENTRY]}, [ENTRY])
