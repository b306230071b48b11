"""What is on this machine already: where it is looked for, and that nothing is changed there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from grym_fetch.disk.elsewhere import Candidate, FilesElsewhere, cache_folders


def names(found: list[Candidate]) -> list[str]:
    """The names of the files."""
    return [each.path.name for each in found]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HOME": "/h"}, ["/h/.cache/huggingface/hub", "/h/.cache/torch/hub", "/h/.cache/pooch"]),
        ({"HOME": "/h", "XDG_CACHE_HOME": "/c"}, ["/c/huggingface/hub", "/c/torch/hub", "/c/pooch"]),
        ({"HOME": "/h", "HF_HOME": "/hf", "TORCH_HOME": "/t"}, ["/hf/hub", "/t/hub", "/h/.cache/pooch"]),
        ({"HOME": "/h", "HF_HUB_CACHE": "/hub"}, ["/hub", "/h/.cache/torch/hub", "/h/.cache/pooch"]),
    ],
)
def test_where_other_programs_keep_their_files(environ: dict[str, str], expected: list[str]) -> None:
    """As each of them documents it."""
    assert [str(each) for each in cache_folders(environ)][:3] == expected


def test_without_a_home_there_are_no_caches() -> None:
    """Nor is anything guessed."""
    assert cache_folders({}) == []


def test_files_are_found_by_size(tmp_path: Path) -> None:
    """In all places, each file once; no symlink is followed, and our own state and git's are no place to look."""
    assets, external = tmp_path / "assets", tmp_path / "external"
    for place, name in ((assets, "old/a"), (external, "b"), (external, ".git/c"), (assets, ".grym-fetch/d")):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b"12345")
    os.link(external / "b", external / "b2")
    (external / "e").symlink_to(assets / "old/a")
    (tmp_path / "named").write_bytes(b"12345")
    files = FilesElsewhere(assets, external, environ={}, named=[tmp_path / "named", tmp_path / "missing"])
    found = files.of_size(5)
    assert names(found)[:2] == ["named", "a"]
    assert names(found)[2:] in (["b"], ["b2"])
    assert [each.may_link for each in found] == [False, True, False]
    assert files.of_size(6) == []
