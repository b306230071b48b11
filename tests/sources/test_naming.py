"""How files of a hub are named here: distinct and safe ids and places."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core.manifest_parser import parse_manifest
from grym_fetch.core.manifest_text import ManifestText
from grym_fetch.errors import ManifestError
from grym_fetch.sources import Resolved, SourceFile
from grym_fetch.sources.naming import Naming, as_assets, stem_of


def resolved(*paths: str, is_whole: bool = True) -> Resolved:
    """Files with these paths."""
    files = tuple(SourceFile(path, f"https://h.example/{n}", f"hf://o/r@main/{n}") for n, path in enumerate(paths))
    return Resolved("r", "c" * 40, files, is_whole)


def test_one_file() -> None:
    """It is named like a file added by its address."""
    [asset] = as_assets(resolved("onnx/model.tar.gz", is_whole=False), Naming(tags=("t", "t")))
    assert (asset.id, asset.local_path, asset.version, asset.tags) == ("model", "model.tar.gz", "c" * 40, ("t",))
    [asset] = as_assets(resolved("a.bin", is_whole=False), Naming(id="x", local_path="y/z", version="7", name="N"))
    assert (asset.id, asset.local_path, asset.version, asset.name) == ("x", "y/z", "7", "N")


def test_many_files() -> None:
    """Each is below the repository's name, or the chosen folder; ids say where they were."""
    found = resolved("a.bin", "b/a.bin")
    assert [(a.id, a.local_path) for a in as_assets(found, Naming())] == [
        ("r-a.bin", "r/a.bin"),
        ("r-b-a.bin", "r/b/a.bin"),
    ]
    chosen = as_assets(found, Naming(id="m", local_path="models/m/"))
    assert [(a.id, a.local_path) for a in chosen] == [("m-a.bin", "models/m/a.bin"), ("m-b-a.bin", "models/m/b/a.bin")]
    for some in (found, resolved("a.bin")):  # a repository of one file may have more another day
        with pytest.raises(ValueError, match="are for a single file: name it in the address"):
            as_assets(some, Naming(name="one name"))


@pytest.mark.shows("C15", "S5")
@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "a\\b", ".git/config", "con", "a\nb", "a//b"])
def test_names_that_are_no_safe_paths(path: str) -> None:
    """A hub's name that would lead elsewhere, or could not be a file on some system, is refused."""
    with pytest.raises(ValueError, match=r".+"):
        as_assets(resolved(path), Naming())


def test_ids_that_would_be_the_same() -> None:
    """Ids that would be equal after replacing forbidden characters get a number."""
    ids = [asset.id for asset in as_assets(resolved("a/b", "a-b", "a-b-2"), Naming())]
    assert ids == ["r-a-b", "r-a-b-2", "r-a-b-2-2"]


@given(st.lists(st.text("ab/-", min_size=1, max_size=300), min_size=1, max_size=8, unique=True))
def test_all_that_is_named_can_be_listed(paths: list[str]) -> None:
    """Whatever the paths, the result is entries that a manifest accepts, or a ValueError."""
    try:
        assets = as_assets(resolved(*paths), Naming())
    except ValueError:
        return
    assert len({asset.id for asset in assets}) == len(paths)
    text = ManifestText.read(b'{"assets": []}').add(*assets).encode()
    try:
        listed = parse_manifest(text, "here").manifest.assets
    except ManifestError as error:
        listed = ()
        clashes = all("clashes" in problem.message for problem in error.problems)
    else:
        clashes = False
    assert clashes or [asset.source for asset in listed] == [asset.source for asset in assets]


@pytest.mark.parametrize(("name", "stem"), [("a.tar.gz", "a"), ("a.B.TAR.ZST", "a.B"), ("a.b.c", "a.b"), (".x", ".x")])
def test_the_stem_of_a_name(name: str, stem: str) -> None:
    """An archive's ending may have two parts."""
    assert stem_of(name) == stem
