"""Files that together form a git repository: recognised by name, as git would on any file system."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core.archives import Census, Limits, Member
from grym_fetch.core.errors import ManifestError, UnsafeArchive
from grym_fetch.core.git_folders import find_git_folders
from grym_fetch.core.manifest_parser import parse_manifest

REPOSITORIES: list[tuple[str, ...]] = [
    ("x/HEAD", "x/config", "x/objects/a", "x/refs/b"),
    ("HEAD", "objects/a", "refs/b"),
    ("a/b/HEAD", "a/b/objects/pack/p", "a/b/refs/heads/m"),
    ("x/head", "x/Objects/a", "x/REFS/b"),
    ("X/HEAD", "x/objects/a", "x/ref\u017f/b"),
    ("\u00e9/HEAD", "e\u0301/objects/a", "\u00c9/refs/b"),
    ("x/HEAD", "x/objects", "x/refs"),
    ("x/HEAD", "x/commondir", "y/objects/a", "y/refs/b", "y/config"),
    ("refs/refs/HEAD", "refs/refs/objects/a", "refs/refs/refs/b"),
]
NONE: list[tuple[str, ...]] = [
    ("x/objects/a", "x/refs/b", "x/config"),
    ("x/HEAD", "x/objects/a", "y/refs/b"),
    ("HEAD", "x/objects/a", "x/refs/b"),
    ("x/HEAD", "objects/a", "refs/b"),
    ("x/HEAD", "x/objects2/a", "x/refs.txt"),
    ("x/HEAD", "x/y/objects/a", "x/y/refs/b"),
    ("x/HEAD/w", "x/objects/a", "x/refs/b"),
    ("x/overhead", "x/objects/a", "x/refs/b"),
    ("y/HEAD", "xy/objects/a", "xy/refs/b"),
]


def manifest(*paths: str, extract: str = "") -> bytes:
    """A manifest of assets in these places; the named one is unpacked."""
    entries = [
        {"id": f"n{number}", "url": f"https://h/{number}", "localPath": path, "extract": path == extract}
        for number, path in enumerate(paths)
    ]
    return json.dumps({"assets": entries}).encode()


def problems(*paths: str, extract: str = "") -> list[tuple[str, str]]:
    """The places where these assets are refused for forming a repository, each with its key."""
    try:
        parse_manifest(manifest(*paths, extract=extract), "m")
    except ManifestError as error:
        return [(each.where, each.key) for each in error.problems if "git repository" in each.message]
    return []


@pytest.mark.parametrize("paths", REPOSITORIES)
@pytest.mark.shows("M18", "S17")
def test_assets_that_are_a_repository_together(paths: tuple[str, ...]) -> None:
    """They are refused before any network access; each one involved is named, with its key."""
    found = problems(*paths)
    assert ("asset 'n0'", "localPath") in found
    assert len(found) == (2 if any("commondir" in path for path in paths) else 3)


@pytest.mark.parametrize("paths", NONE)
def test_assets_that_are_none(paths: tuple[str, ...]) -> None:
    """If a part is missing or lies elsewhere, or HEAD is a folder, the files are not a repository."""
    assert problems(*paths) == []
    census(*paths)


@pytest.mark.shows("M18", "S17")
def test_a_folder_that_an_archive_is_unpacked_into_is_a_part_too() -> None:
    """The problem is then reported at the key that has the archive unpacked."""
    paths = ("x/HEAD", "x/refs/b", "x/objects.tar")
    assert problems(*paths) == []
    assert problems(*paths, extract="x/objects.tar") == [
        ("asset 'n0'", "localPath"), ("asset 'n1'", "localPath"), ("asset 'n2'", "extract"),
    ]  # fmt: skip


def test_the_message() -> None:
    """The message names the other files, why they are refused, and what to do."""
    with pytest.raises(ManifestError) as caught:
        parse_manifest(manifest("x/HEAD", "x/objects/a", "x/refs/b"), "m")
    assert caught.value.problems[0].message == (
        "makes a git repository together with 'x/objects/a' and 'x/refs/b': git run there would start the programs "
        "that its config names; choose another folder"
    )


def census(*paths: str) -> None:
    """Judge an archive of these files."""
    made = Census("a.tar", 10**6, Limits())
    for path in paths:
        made.admit(Member(path, "file", 1))
    made.close()


@pytest.mark.parametrize("paths", [paths for paths in REPOSITORIES if paths[0][0] not in "X\u00e9"])
@pytest.mark.shows("M18", "S17")
def test_members_that_are_a_repository_together(paths: tuple[str, ...]) -> None:
    """An archive whose members form a repository is refused as a whole."""
    with pytest.raises(UnsafeArchive, match="makes a git repository together with"):
        census(*paths)


@pytest.mark.parametrize(
    "parts",
    [
        (Member("x/HEAD", "symlink", target="refs/heads/m"), Member("x/objects", "folder"), Member("x/refs", "folder")),
        (Member("x/HEAD", "file"), Member("x/objects", "symlink", target="../y"), Member("x/refs", "folder")),
    ],
)
@pytest.mark.shows("S17")
def test_links_and_empty_folders_are_parts_too(parts: tuple[Member, ...]) -> None:
    """git follows links, and takes an empty folder as readily as a full one."""
    made = Census("a.tar", 10**6, Limits())
    for member in parts:
        made.admit(member)
    with pytest.raises(UnsafeArchive, match="makes a git repository together with"):
        made.close()


names = st.sampled_from(["HEAD", "head", "objects", "refs", "Refs", "commondir", "x", "y"])


@given(st.lists(st.lists(names, min_size=1, max_size=4).map("/".join), max_size=12))
@pytest.mark.shows("M18")
def test_finds_what_looking_into_every_folder_finds(paths: list[str]) -> None:
    """The rule of `find_git_folders` spelled out: look into each folder and compare the names in it."""
    inside: dict[str, set[str]] = {}
    heads = set()
    for path in (path.lower() for path in paths):
        parts = path.split("/")
        for depth, name in enumerate(parts):
            inside.setdefault("/".join(parts[:depth]), set()).add(name)
        if parts[-1] == "head":
            heads.add("/".join(parts[:-1]))
    expected = {folder for folder in heads if inside[folder] >= {"objects", "refs"} or "commondir" in inside[folder]}
    found = find_git_folders(paths)
    assert {each.folder.lower() for each in found} == expected
    for each in found:
        assert all(paths[part].lower().startswith(f"{each.folder}/".lower().lstrip("/")) for part in each.parts)


def test_a_file_named_head_costs_no_more_than_looking_at_each_path_once() -> None:
    """However deep the paths and however often the names occur, tens of thousands are judged in a moment."""
    deep = "/".join(["refs"] * 100)
    many = [f"{deep}/{letter}{number}" for letter in string.ascii_letters for number in range(500)]
    assert find_git_folders(["HEAD", *many]) == []
