"""A manifest that is not held answers like one that is."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from grym_fetch.core.errors import UnknownAsset, UnknownTag
from grym_fetch.core.manifest import (
    Asset,
    AssetBatches,
    Manifest,
    ManifestSource,
    as_stand_ins,
    in_batches,
    known_bytes,
)
from grym_fetch.core.manifest_parser import parse_manifest
from grym_fetch.manifest_files.long_manifest import LongManifest
from grym_fetch.manifest_files.project import load_manifest
from tests.manifest_files.long_manifests import entry, long_manifest, write_lines

SMALL = {"url": "https://h.example.org/small", "checksum": None, "size": 3}
ENTRIES = [
    entry("voice-a", tags=["voice"], size=10, required=True),
    entry("voice-b", tags=["voice", "essential"], size=20, minimal=SMALL),
    entry("set-[a]", tags=["set"], size=None),
    entry("set-a", required=True, size=40),
]


@pytest.fixture
def both(tmp_path: Path) -> tuple[Manifest, LongManifest]:
    """The same list, held and not held."""
    held = parse_manifest(json.dumps({"version": "1.0", "assets": ENTRIES}).encode(), "assets.json").manifest
    return held, long_manifest(tmp_path / "assets.jsonl", ENTRIES)


CHOICES: dict[str, Callable[[ManifestSource], Collection[Asset]]] = {
    "all": lambda m: m.select(all=True),
    "usual": lambda m: m.select(),
    "minimal": lambda m: m.select(minimal=True),
    "ids": lambda m: m.select(["set-a", "voice-a"]),
    "glob": lambda m: m.select(["voice-*"], exclude=["*-b"]),
    "id like a glob": lambda m: m.select(["set-[a]"]),
    "tags": lambda m: m.select(tags=["set", "voice"], exclude=["voice-a"]),
    "nothing": lambda m: m.select(["voice-a"], exclude=["voice-*"]),
    "picked": lambda m: m.pick(["set-a", "voice-a", "set-a"]),
    "picked without": lambda m: m.pick(exclude=["set-*"]),
    "required": lambda m: m.required,
    "assets": lambda m: m.assets,
    "stand-ins": lambda m: as_stand_ins(m.assets),
}


@pytest.mark.parametrize(
    "choose",
    [
        lambda m: m.select("voice-a"),
        lambda m: m.select(tags="voice"),
        lambda m: m.select(exclude="voice-a"),
        lambda m: m.pick("voice-a"),
        lambda m: m.pick(exclude="voice-a"),
    ],
)
def test_one_string_is_not_several(
    both: tuple[Manifest, LongManifest], choose: Callable[[ManifestSource], object]
) -> None:
    """A type checker takes a string for a collection of strings, its letters; here it is an error that says so."""
    for manifest in both:
        with pytest.raises(TypeError, match=r"must be a list of strings, not one: \['voice"):
            choose(manifest)


@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_chooses_the_same(
    both: tuple[Manifest, LongManifest], choice: Callable[[ManifestSource], Collection[Asset]]
) -> None:
    """The same assets in the same order, as often as they are asked for; number and bytes without reading them."""
    expected, found = (choice(each) for each in both)
    assert list(found) == list(expected)
    assert [each for batch in in_batches(found) for each in batch] == list(expected)
    assert (len(found), known_bytes(found)) == (len(expected), known_bytes(expected))


@pytest.mark.parametrize("minimal", [False, True])
def test_knows_what_is_usual(both: tuple[Manifest, LongManifest], minimal: bool) -> None:
    """What a sync takes without a choice."""
    held, long = both
    assert long.chooses_all(minimal) == held.chooses_all(minimal)
    assert [long.is_usual(each, minimal) for each in long.assets] == [
        held.is_usual(each, minimal) for each in held.assets
    ]


def test_what_is_usual_is_looked_for_once(tmp_path: Path) -> None:
    """Where nothing is marked, the whole list must be read to know; it is asked of each asset."""
    long = long_manifest(tmp_path / "assets.jsonl", [entry(f"a{n}") for n in range(5000)])
    asset = long.get("a7")
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    assert long.is_usual(asset)
    long._database._connection.set_progress_handler(count, 100)
    assert all(long.is_usual(asset) for _ in range(100))
    assert steps == 0


def test_finds_single_assets(both: tuple[Manifest, LongManifest]) -> None:
    """By id, with the number of the entry, and by path, above and below it."""
    held, long = both
    for each in held.assets:
        assert long.get(each.id) == each
        assert long.number_of(each.id) == held.number_of(each.id)
    for path in ("d", "D/Set-A.bin", "d/set-a.bin/x", "d/set-a", "other"):
        assert (long.owner_of(path) is None) == (held.owner_of(path) is None)
    assert long.number_of("none") is None


def test_names_the_nearest(both: tuple[Manifest, LongManifest]) -> None:
    """An unknown id, a glob and a tag that match nothing are errors with what may have been meant."""
    _, long = both
    with pytest.raises(UnknownAsset, match="voice-a"):
        long.get("voice-")
    with pytest.raises(UnknownAsset):
        long.pick(["none-*"])
    with pytest.raises(UnknownTag, match="essential"):
        long.select(tags=["essentials"])


def test_a_choice_outlives_its_manifest(tmp_path: Path) -> None:
    """Whoever holds it can read it, though the list has been edited and read anew; then all of it goes."""
    chosen = long_manifest(tmp_path / "assets.jsonl", ENTRIES).select(["set-*"])
    (tmp_path / "assets.jsonl").unlink()
    assert isinstance(chosen, AssetBatches)
    assert [each.id for each in chosen] == ["set-[a]", "set-a"]


def test_a_short_list_is_held(tmp_path: Path) -> None:
    """Whatever its kind, everything can be done with it."""
    read = load_manifest(write_lines(tmp_path / "assets.jsonl", ENTRIES))
    assert isinstance(read.manifest, Manifest)
    assert (read.manifest.version, len(read.manifest.assets)) == ("1.0", len(ENTRIES))
