"""`assets.jsonl`: each line alone, as strictly as a whole file, a part at a time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grym_fetch.core.errors import ManifestError
from grym_fetch.manifest_files.lines import MAX_LINE_BYTES, PART_ENTRIES, LinesFile
from tests.manifest_files.long_manifests import entry, write_lines


def told(path: Path) -> list[str]:
    """The problems of a file, up to where it cannot be read on."""
    file = LinesFile(path, "assets.jsonl")
    with pytest.raises(ManifestError) as caught:
        [file.head(), *file.parts()]
    return [str(problem) for problem in caught.value.problems]


def test_reads_the_entries_in_parts_with_their_lines(tmp_path: Path) -> None:
    """Empty lines count as lines and not as entries; no part is longer than it may be."""
    path = write_lines(tmp_path / "assets.jsonl", [entry(f"a{n}") for n in range(PART_ENTRIES + 2)])
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], "", *lines[3:]]))  # and no end after the last one
    parts = list(LinesFile(path, "assets.jsonl").parts())
    assert [len(part.entries) for part in parts] == [PART_ENTRIES, 2]
    assert parts[0].places[:4] == [2, 3, 5, 6]
    assert parts[1].entries[1] == entry(f"a{PART_ENTRIES + 1}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1: is empty; allowed: a JSON object (column 1)"),
        ("[]\n", "line 1: is not an object; the first line is for the whole list"),
        (json.dumps(entry("a")), "line 1: is an entry; the first line is for the whole list"),
        ('{"assets": []}\n', "line 1: has the key assets; here, each entry has a line of its own"),
        ('{"version": "1", "version": "2"}\n', "line 1: version: is given more than once"),
        ('{"version": ', "line 1: is not valid JSON"),
    ],
)
def test_the_first_line_is_for_the_whole_list(tmp_path: Path, text: str, problem: str) -> None:
    """Whatever else is there is refused with what belongs there."""
    path = tmp_path / "assets.jsonl"
    path.write_text(text)
    assert told(path)[0].startswith(problem)


@pytest.mark.shows("M7")
def test_lines_that_only_together_make_entries_are_wrong(tmp_path: Path) -> None:
    """Two entries on one line and one on two are as many as lines, and are refused all the same."""
    path = tmp_path / "assets.jsonl"
    path.write_text('{}\n{"id": "a", "url": "https://h/a"\n"localPath": "a"}\n{"id": "b"},{"id": "c"}\n')
    [part] = LinesFile(path, "assets.jsonl").parts()
    assert [where for where, _ in part.problems] == [("assets", 0), ("assets", 1), ("assets", 2)]


@pytest.mark.shows("M7")
def test_a_line_without_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    """Memory is bounded by the longest line that is allowed."""
    path = write_lines(tmp_path / "assets.jsonl", [])
    with path.open("r+b") as file:
        file.truncate(3 * MAX_LINE_BYTES)  # a hole: it takes no space on the disk
    assert told(path) == [f"line 2: is longer than {MAX_LINE_BYTES} bytes"]
