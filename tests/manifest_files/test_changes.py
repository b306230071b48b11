"""Changing assets.json on disk: all or nothing, and never over somebody else's change."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from grym_fetch.core.errors import EditRefused, ManifestError, NotWritable, StorageError, UnknownAsset
from grym_fetch.core.manifest import Asset, Manifest
from grym_fetch.core.manifest_parser import parse_manifest
from grym_fetch.core.manifest_text import ManifestText
from grym_fetch.manifest_files.changes import check_editable, create_manifest, edit_manifest
from tests.support.system import folder_descriptor
from tests.support.system_calls import fail_at

OLD = b'{\n  "x": 1.50,\n  "assets": [\n    {"id": "a", "url": "https://h/a", "localPath": "a"}\n  ]\n}\n'
NOW = 1_800_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "project" / "assets.json"
    made.parent.mkdir()
    made.write_bytes(OLD)
    return made


def adding(asset_id: str = "b", local_path: str = "b") -> Callable[[ManifestText, Manifest], ManifestText]:
    """A change that adds an asset."""
    return lambda text, manifest: text.add(Asset(asset_id, "https://h/b", local_path))


def ids(path: Path) -> list[str]:
    return [asset.id for asset in parse_manifest(path.read_bytes(), "it").manifest.assets]


def test_a_change(path: Path) -> None:
    """The file is changed, the new content is returned, and nothing is left beside it."""
    parsed = edit_manifest(path, adding())
    assert parsed is not None
    assert [asset.id for asset in parsed.manifest.assets] == ids(path) == ["a", "b"]
    assert path.read_bytes().startswith(OLD[:40])
    assert os.listdir(path.parent) == ["assets.json"]


STEPS = ["open", "stat", "write", "fchmod", "fsync", "close", "rename"]


@pytest.mark.posix
@pytest.mark.parametrize("error", [OSError(5, "broken"), KeyboardInterrupt()], ids=["error", "interrupt"])
@pytest.mark.parametrize("name", STEPS)
def test_a_crash_at_each_step_leaves_a_whole_file(path: Path, name: str, error: BaseException) -> None:
    """Whichever call fails, the file is the old or the new one, and nothing is in the way of the next change."""
    new = ManifestText.read(OLD).add(Asset("b", "https://h/b", "b")).encode()
    for number in range(1, 20):
        path.write_bytes(OLD)
        with pytest.MonkeyPatch.context() as patch:
            calls = fail_at(patch, name, number, error)
            with suppress(StorageError, KeyboardInterrupt):
                edit_manifest(path, adding())
            assert calls[0] > 0
        assert path.read_bytes() in (OLD, new)
        assert os.listdir(path.parent) == ["assets.json"]
        if calls[0] < number:
            assert path.read_bytes() == new
            return
    raise AssertionError("it never came to its end")


def test_a_write_in_parts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes a few bytes at a time gets all of them."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:7]))
    edit_manifest(path, adding())
    assert ids(path) == ["a", "b"]


@pytest.mark.posix
def test_a_symlink_stays_one(path: Path, tmp_path: Path) -> None:
    """The file that a symlink leads to is written, and the symlink itself stays."""
    link = tmp_path / "assets.json"
    link.symlink_to("project/assets.json")
    edit_manifest(link, adding())
    assert os.readlink(link) == "project/assets.json"
    assert ids(path) == ["a", "b"]


@pytest.mark.posix
def test_permissions_are_kept(path: Path) -> None:
    """Whoever could read and write the file still can, and nobody else."""
    path.chmod(0o640)
    edit_manifest(path, adding())
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("asset_id", "local_path", "key"), [("a", "b", "id"), ("b", "A", "localPath"), ("b", "../b", "..")]
)
def test_a_manifest_that_would_not_parse_is_not_written(path: Path, asset_id: str, local_path: str, key: str) -> None:
    """A change that would break the manifest is refused with the reason, and the file stays as it was."""
    with pytest.raises(EditRefused, match="was not changed") as caught:
        edit_manifest(path, adding(asset_id, local_path))
    assert key in str(caught.value)
    assert path.read_bytes() == OLD


def test_a_bad_manifest_is_not_touched(path: Path) -> None:
    """An invalid manifest is reported, not repaired."""
    path.write_bytes(b'{"assets": [}')
    with pytest.raises(ManifestError, match="JSON"):
        edit_manifest(path, adding())
    assert path.read_bytes() == b'{"assets": [}'


def test_an_error_of_the_change_is_the_callers(path: Path) -> None:
    """An error raised by the change is passed on, and the file stays as it was."""

    def change(text: ManifestText, manifest: Manifest) -> ManifestText:
        return text.remove(manifest.assets.index(manifest.get("z")))

    with pytest.raises(UnknownAsset):
        edit_manifest(path, change)
    assert path.read_bytes() == OLD


def test_a_change_by_somebody_else_is_not_lost(path: Path) -> None:
    """If somebody writes the file between our look and our rename, we make our change again on top of theirs."""
    theirs = OLD.replace(b'"a"', b'"theirs"', 1)

    def change(text: ManifestText, manifest: Manifest) -> ManifestText:
        if manifest.assets[0].id == "a":
            path.write_bytes(theirs)
        return text.add(Asset("b", "https://h/b", "b"))

    edit_manifest(path, change)
    assert ids(path) == ["theirs", "b"]
    assert os.listdir(path.parent) == ["assets.json"]


def test_who_never_stops_writing_is_given_way(path: Path) -> None:
    """If the file has changed at every look, we give up and say so."""
    count = 0

    def change(text: ManifestText, manifest: Manifest) -> ManifestText:
        nonlocal count
        count += 1
        path.write_bytes(OLD + b" " * count)
        return text.add(Asset("b", "https://h/b", "b"))

    with pytest.raises(EditRefused, match="keeps writing"):
        edit_manifest(path, change)
    assert ids(path) == ["a"]


@pytest.mark.posix
def test_two_of_us_take_turns(path: Path) -> None:
    """While one process changes the manifest, the other is told to come back later."""
    folder = folder_descriptor(path.parent)
    fcntl.flock(folder, fcntl.LOCK_EX)
    assert edit_manifest(path, adding()) is None
    assert path.read_bytes() == OLD
    os.close(folder)
    assert edit_manifest(path, adding()) is not None


@pytest.mark.posix
def test_without_locks_it_still_works(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks is not a reason to refuse."""

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(37, "no locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    edit_manifest(path, adding())
    assert ids(path) == ["a", "b"]


def test_a_file_that_has_gone(path: Path) -> None:
    """A manifest that no longer exists is an error that names its path."""
    path.unlink()
    with pytest.raises(NotWritable, match=r"assets\.json"):
        edit_manifest(path, adding())


def test_a_new_manifest(tmp_path: Path) -> None:
    """A new manifest is empty and valid; an existing one is left alone."""
    path = tmp_path / "assets.json"
    assert create_manifest(path, NOW)
    assert json.loads(path.read_bytes()) == {"version": "1.0", "updated": "2027-01-15T08:00:00Z", "assets": []}
    edit_manifest(path, adding())
    assert not create_manifest(path, NOW)
    assert ids(path) == ["b"]
    assert os.listdir(tmp_path) == ["assets.json"]


def test_a_new_manifest_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system without hard links the manifest is created by a rename."""

    def link(*arguments: object, **more: object) -> None:
        raise OSError(1, "not permitted")

    monkeypatch.setattr(os, "link", link)
    assert create_manifest(tmp_path / "assets.json", NOW)
    assert os.listdir(tmp_path) == ["assets.json"]


def test_parquet_is_not_edited(tmp_path: Path) -> None:
    """The error has the command that makes it editable, ready to be pasted."""
    with pytest.raises(EditRefused, match=r"`grym-fetch convert 'my list\.parquet' 'my list\.jsonl'`"):
        check_editable(tmp_path / "my list.parquet")
