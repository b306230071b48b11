"""Large blobs are found wherever in history they are."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from grym_fetch.repo.git import Git
from grym_fetch.repo.history import LargeBlob, find_large_blobs
from grym_fetch.testing import seeded_bytes
from tests.repo.story import LIMIT, commit, git, repository, write


def find(root: Path) -> dict[tuple[str, ...], LargeBlob]:
    """The large blobs by their paths."""
    return {blob.paths: blob for blob in find_large_blobs(Git(root), LIMIT)}


def test_where_a_blob_was_last(tmp_path: Path) -> None:
    """The newest commit that has a blob is a tip for one that is still there, else the last one before it went."""
    root = repository(tmp_path / "repo")
    write(root, "gone.bin", seeded_bytes(5000, seed=1))
    write(root, "stays.bin", seeded_bytes(4000, seed=2))
    write(root, "small", b"small")
    commit(root, day=1)
    write(root, "small", b"other")
    last = commit(root, day=2)
    (root / "gone.bin").unlink()
    commit(root, day=3)
    (root / "stays.bin").rename(root / "renamed.bin")
    tip = commit(root, day=4)
    blobs = find_large_blobs(Git(root), LIMIT)
    assert [(blob.size, blob.commit, blob.is_current) for blob in blobs] == [(5000, last, False), (4000, tip, True)]
    assert blobs[0].paths == ("gone.bin",)
    assert set(blobs[1].paths) == {"stays.bin", "renamed.bin"}
    assert blobs[0].committed == datetime(2026, 1, 2, 12, tzinfo=UTC)
    assert all(blob.size <= blob.packed < blob.size + 200 for blob in blobs)  # random bytes do not shrink


def test_other_branches_and_tags_count(tmp_path: Path) -> None:
    """A blob that only a branch or a tag has is found, and is current."""
    root = repository(tmp_path / "repo")
    write(root, "a", b"")
    commit(root)
    git(root, "checkout", "-q", "-b", "side")
    write(root, "side.bin", seeded_bytes(3000, seed=3))
    side = commit(root, day=2)
    git(root, "tag", "-a", "-m", "a tag", "v1")
    git(root, "checkout", "-q", "main")
    git(root, "branch", "-q", "-D", "side")
    blob = find(root)["side.bin",]
    assert (blob.commit, blob.is_current) == (side, True)


def test_what_compresses_saves_little(tmp_path: Path) -> None:
    """What a clean-up would save is the packed size, not the file's."""
    root = repository(tmp_path / "repo")
    write(root, "zeros with ü and space.bin", bytes(500_000))
    commit(root)
    blob = find(root)["zeros with ü and space.bin",]
    assert blob.size == 500_000
    assert blob.packed < 5000


def test_a_repository_without_commits(tmp_path: Path) -> None:
    """Nothing is found where nothing was committed."""
    assert find_large_blobs(Git(repository(tmp_path / "repo")), LIMIT) == []


def test_nothing_in_the_repository_changes(tmp_path: Path) -> None:
    """Looking through history leaves every file of the repository as it was."""
    root = repository(tmp_path / "repo")
    write(root, "a.bin", seeded_bytes(3000, seed=4))
    commit(root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    find_large_blobs(Git(root), LIMIT)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
