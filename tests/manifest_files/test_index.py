"""A long manifest is judged by the rules of a short one, in bounded memory."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from grym_fetch.core.errors import ManifestError
from grym_fetch.core.manifest_parser import parse_manifest
from grym_fetch.manifest_files.index import MAX_PROBLEMS, build_index
from grym_fetch.manifest_files.lines import LinesFile
from tests.manifest_files.long_manifests import entry, write_lines

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def problems_of_lines(path: Path) -> list[tuple[str, str]]:
    with pytest.raises(ManifestError) as caught:
        build_index(LinesFile(path, "assets.jsonl"), "assets.jsonl")
    return [(problem.key, problem.message) for problem in caught.value.problems]


def problems_of_json(entries: list[Any]) -> list[tuple[str, str]]:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(json.dumps({"assets": entries}).encode(), "assets.json")
    return [(problem.key, problem.message) for problem in caught.value.problems]


def comparable(problems: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Without the words that say in which file something is."""
    return sorted((key, message.partition(" of asset")[0].partition(" of line")[0]) for key, message in problems)


@pytest.mark.shows("M4")
@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([entry("a"), 3, entry("b", size="1", tags=3), {"id": 1}, None], id="values"),
        pytest.param([entry("a", size=0, checksum="ab" * 32), entry("b", size=5, checksum=EMPTY)], id="nothing"),
        pytest.param([entry("a", pieces={"size": 65536, "sha256": ["ab" * 32]})], id="pieces"),
        pytest.param([entry("a", extract=True)], id="no archive"),
        pytest.param([entry("a", localPath="x/y"), entry("b", localPath="X/Y"), entry("c", localPath="x")], id="paths"),
        pytest.param([entry("a", localPath="e\u0301"), entry("b", localPath="\xe9")], id="unicode"),
        pytest.param(
            [entry("a", localPath="x/f"), entry("b", localPath="x/f/g"), entry("c", localPath="x/f.g")], id="in"
        ),
        pytest.param([entry("a", localPath="r/HEAD"), entry("b", localPath="r/commondir")], id="git"),
        pytest.param(
            [entry("a", localPath="\ud800"), entry("b", localPath="../c"), entry("c", localPath="../c")], id="bad"
        ),
    ],
)
def test_finds_what_is_found_in_a_short_one(tmp_path: Path, entries: list[Any]) -> None:
    """The same keys with the same messages."""
    path = write_lines(tmp_path / "assets.jsonl", entries)
    found = problems_of_lines(path)
    assert found
    assert comparable(found) == comparable(problems_of_json(entries))


def test_says_on_which_line_what_is(tmp_path: Path) -> None:
    """With the other line, where there is one; whatever part of the file each is in."""
    entries = [entry(f"a{n:04}") for n in range(2500)]
    entries[2100] = entry("a0007", localPath="D/A0008.bin")
    path = write_lines(tmp_path / "assets.jsonl", entries)
    with pytest.raises(ManifestError) as caught:
        build_index(LinesFile(path, "assets.jsonl"), "assets.jsonl")
    why = "'d/a0008.bin' and 'D/A0008.bin' are one file where case or Unicode form is not told apart"
    assert [str(problem) for problem in caught.value.problems] == [
        "line 2102: id: is 'a0007', as on line 9; ids must be distinct",
        f"line 2102, asset 'a0007': localPath: clashes with that of line 10, asset 'a0008': {why}",
    ]


@pytest.mark.shows("M4")
def test_what_archives_are_unpacked_into_is_theirs_alone(tmp_path: Path) -> None:
    """An archive's folder and another asset's path: a clash, as in a short manifest."""
    path = write_lines(
        tmp_path / "assets.jsonl", [entry("z", localPath="a.zip", extract=True), entry("b", localPath="a/c")]
    )
    [(key, message)] = problems_of_lines(path)
    assert key == "extract"
    assert message == "is true, but the folder 'a' that it is unpacked into clashes with 'a/c' of line 3, asset 'b'"


def test_many_problems_are_not_all_looked_for(tmp_path: Path) -> None:
    """A file that is wrong on every line does not fill the memory with what is wrong."""
    path = write_lines(tmp_path / "assets.jsonl", [entry("same", size=-1)] * (3 * MAX_PROBLEMS))
    assert len(problems_of_lines(path)) == MAX_PROBLEMS + 1


def held_while_reading(path: Path) -> int:
    tracemalloc.start()
    try:
        index, _ = build_index(LinesFile(path, "assets.jsonl"), "assets.jsonl")
        for _, assets in index.assets():
            assert assets
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        index.database.close()


@pytest.mark.sweep
def test_what_is_held_does_not_grow_with_the_list(tmp_path: Path) -> None:
    """Four times as many entries, hardly more memory at any time."""
    few = write_lines(tmp_path / "few.jsonl", [entry(f"a{n}", tags=["t"]) for n in range(2000)])
    many = write_lines(tmp_path / "many.jsonl", [entry(f"a{n}", tags=["t"]) for n in range(8000)])
    held_while_reading(few)  # what is made once
    assert held_while_reading(many) < 1.3 * held_while_reading(few)


def test_reading_ends_where_nobody_waits_for_it(tmp_path: Path) -> None:
    """Asked between two parts."""
    path = write_lines(tmp_path / "assets.jsonl", [entry("a")])
    with pytest.raises(InterruptedError):
        build_index(LinesFile(path, "assets.jsonl"), "assets.jsonl", go_on=lambda: False)
