"""What is added to ``assets.json`` and ``.gitignore``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import ManifestError, UnsafePath
from grym_fetch.manifest_files.project import load_manifest
from grym_fetch.repo.entries import add_to_gitignore, add_to_manifest, check_gitignore
from grym_fetch.repo.placeholder import Placeholder
from tests.support.system import descriptors

NOW = 1_773_000_000.0


def moved(path: str, content: bytes, name: str = "model") -> Placeholder:
    """A moved file."""
    return Placeholder(
        id=name, original_path=path, storage_path=path, size=len(content), checksum=Checksum.of(content), moved_on=""
    )


def test_a_new_manifest(tmp_path: Path) -> None:
    """If there is no manifest, one is made, with every file and an address for each."""
    path = tmp_path / "assets.json"
    assert add_to_manifest(path, [moved("a b/ü.bin", b"1")], "https://example.org/x/", NOW) == ["model"]
    asset = load_manifest(path).manifest.get("model")
    assert asset.url == "https://example.org/x/a%20b/%C3%BC.bin"
    assert (asset.local_path, asset.size, asset.checksum, asset.required) == ("a b/ü.bin", 1, Checksum.of(b"1"), True)


def test_what_is_listed_already_is_not_added(tmp_path: Path) -> None:
    """Each content is listed once, and an id that is already taken is changed."""
    path = tmp_path / "assets.json"
    add_to_manifest(path, [moved("a/model.bin", b"1")], "https://example.org", NOW)
    before = path.read_text()
    assert add_to_manifest(path, [moved("a/model.bin", b"1")], "https://example.org", NOW + 60) == []
    assert path.read_text() == before
    added = add_to_manifest(path, [moved("b/model.bin", b"2"), moved("c.bin", b"1")], "https://example.org", NOW)
    assert added == ["b-model"]


def test_files_of_one_name_that_are_moved_together(tmp_path: Path) -> None:
    """Each gets an id of its own, and content that two of them share is listed once."""
    files = [moved("a/model.bin", b"1"), moved("b/model.bin", b"2"), moved("c/model.bin", b"1")]
    assert add_to_manifest(tmp_path / "assets.json", files, "https://example.org", NOW) == ["model", "b-model"]


def test_a_manifest_that_would_not_be_good_is_not_written(tmp_path: Path) -> None:
    """Two contents for one place are refused, and the file stays as it was."""
    path = tmp_path / "assets.json"
    add_to_manifest(path, [moved("model.bin", b"1")], "https://example.org", NOW)
    before = path.read_text()
    with pytest.raises(ManifestError):
        add_to_manifest(path, [moved("model.bin", b"2", name="other")], "https://example.org", NOW)
    assert path.read_text() == before


def test_lines_are_added_once(tmp_path: Path) -> None:
    """New lines are added at the end, each once; existing lines stay, and so does the mode."""
    path = tmp_path / ".gitignore"
    path.write_bytes(b"*.log\n/a\nlast without end")
    path.chmod(0o640)
    before = descriptors()
    assert add_to_gitignore(tmp_path, ["/a", "/b", "/b"]) == ["/b"]
    assert path.read_bytes() == b"*.log\n/a\nlast without end\n/b\n"
    assert path.stat().st_mode & 0o777 == 0o640
    assert add_to_gitignore(tmp_path, ["/a", "/b"]) == []
    assert descriptors() == before


def test_lines_end_as_those_that_are_there(tmp_path: Path) -> None:
    """A file with Windows line ends keeps them."""
    (tmp_path / ".gitignore").write_bytes(b"/a\r\n/b")
    assert add_to_gitignore(tmp_path, ["/b", "/c"]) == ["/c"]
    assert (tmp_path / ".gitignore").read_bytes() == b"/a\r\n/b\r\n/c\r\n"


@pytest.mark.shows("S19")
def test_no_line_is_written_through_a_symlink(tmp_path: Path) -> None:
    """A .gitignore that leads to a file run by a shell gets no line, even if a moved file's name is a command."""
    profile = tmp_path / ".bashrc"
    profile.write_bytes(b"")
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo/.gitignore").symlink_to("../.bashrc")
    with pytest.raises(UnsafePath, match="symlink"):
        add_to_gitignore(tmp_path / "repo", ["/x;touch pwned;big.bin"])
    assert profile.read_bytes() == b""
    assert (tmp_path / "repo/.gitignore").is_symlink()


@pytest.mark.shows("S19")
@pytest.mark.parametrize("kind", ["symlink", "folder", "pipe"])
def test_a_gitignore_that_is_a_symlink_is_refused_before_anything_is_moved(tmp_path: Path, kind: str) -> None:
    """Anything but a file is refused with what to do, before a line is to be written."""
    path = tmp_path / ".gitignore"
    if kind == "symlink":
        path.symlink_to("elsewhere")
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(UnsafePath, match="put a file in its place"):
        check_gitignore(tmp_path)
