"""What is on this machine already: where it is looked for, and that nothing is changed there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from grym_fetch.core.checked_lines import encode_line
from grym_fetch.core.digest import Checksum
from grym_fetch.store.care import prune_store
from grym_fetch.store.elsewhere import Candidate, FilesElsewhere, cache_folders
from grym_fetch.store.stamps import object_path
from tests.support.other_user import ANNA, needs_root


def names(found: list[Candidate]) -> list[str]:
    """The names of the files."""
    return [each.path.name for each in found]


@pytest.mark.posix
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


def test_a_cache_in_the_assets_folder_is_another_programs(tmp_path: Path) -> None:
    """Its files are not linked, wherever they are."""
    cache = tmp_path / "cache/huggingface/hub"
    cache.mkdir(parents=True)
    (cache / "blob").write_bytes(b"12345")
    (tmp_path / "own").write_bytes(b"123")
    files = FilesElsewhere(tmp_path, tmp_path / "none", environ={"HOME": "", "XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert [each.may_link for each in (*files.of_size(5), *files.of_size(3))] == [False, True]


def user_of_store(store: Path, user: int, *lines: list[object]) -> None:
    """What a user of the store has written there, or has forged."""
    users = store / ".grym-fetch/users"
    users.mkdir(parents=True, exist_ok=True)
    (users / f"{user}.{'0' * 24}").write_bytes(b"".join(encode_line(line) for line in lines))
    os.chown(users / f"{user}.{'0' * 24}", user, -1)


@pytest.mark.posix
@needs_root
def test_nobody_says_where_another_looks(tmp_path: Path) -> None:
    """A folder that another user names is not looked through; one of this user's other projects is."""
    for name in ("mine", "theirs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(name.encode())
    user_of_store(tmp_path / "store", os.geteuid(), [str(tmp_path / "mine"), 1])
    user_of_store(tmp_path / "store", ANNA, [str(tmp_path / "theirs"), 1])
    files = FilesElsewhere(tmp_path / "a", tmp_path / "e", environ={}, store=tmp_path / "store")
    assert [len(files.of_size(size)) for size in (4, 6)] == [1, 0]


@pytest.mark.posix
@pytest.mark.parametrize("place", ["/no\0path", "/\ud800"])
def test_forged_lines_stop_nothing(tmp_path: Path, place: str) -> None:
    """Names that are no paths, and times that no number is as large as."""
    store = tmp_path / "store"
    user_of_store(store, os.geteuid(), [place, 1], [place, object_path(Checksum.of(b"12345")), 10**400])
    stored = store / object_path(Checksum.of(b"12345"))
    stored.parent.mkdir(parents=True)
    stored.write_bytes(b"12345")
    assert FilesElsewhere(tmp_path / "a", tmp_path / "e", environ={}, store=store).of_size(5) == []
    assert [each.kind for each in prune_store(store, older_than_s=0.0, dry_run=True, now=2e9).removed] == ["object"]
