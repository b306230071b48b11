"""Large blobs are found wherever in history they are."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from grym_fetch.repo.git import Git, GitUnusable
from grym_fetch.repo.history import LargeBlob, find_large_blobs
from grym_fetch.testing import seeded_bytes
from tests.repo.story import LIMIT, commit, git, repository, write


def find(root: Path) -> dict[tuple[str, ...], LargeBlob]:
    """The large blobs by path."""
    return {blob.paths: blob for blob in find_large_blobs(Git(root), LIMIT).blobs}


def test_where_a_blob_was_last(tmp_path: Path) -> None:
    """A blob that still exists is shown with its newest commit, a deleted one with the last before it went."""
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
    blobs = find_large_blobs(Git(root), LIMIT).blobs
    assert [(blob.size, blob.commit, blob.is_current) for blob in blobs] == [(5000, last, False), (4000, tip, True)]
    assert blobs[0].paths == ("gone.bin",)
    assert set(blobs[1].paths) == {"stays.bin", "renamed.bin"}
    assert blobs[0].committed == datetime(2026, 1, 2, 12, tzinfo=UTC)
    assert all(blob.size <= blob.packed < blob.size + 200 for blob in blobs)  # random bytes do not compress


def with_a_side_branch(root: Path) -> tuple[Path, str]:
    """A repository on a branch with a blob that `main` does not have, and the commit that brought it."""
    repository(root)
    write(root, "a", b"")
    commit(root)
    git(root, "checkout", "-q", "-b", "side")
    write(root, "side.bin", seeded_bytes(3000, seed=3))
    return root, commit(root, day=2)


def test_other_branches_and_tags_count(tmp_path: Path) -> None:
    """A blob that only a branch or a tag has is found, and is current."""
    root, side = with_a_side_branch(tmp_path / "repo")
    git(root, "tag", "-a", "-m", "a tag", "v1")
    git(root, "checkout", "-q", "main")
    git(root, "branch", "-q", "-D", "side")
    blob = find(root)["side.bin",]
    assert (blob.commit, blob.is_current) == (side, True)


def test_what_a_merge_left_out(tmp_path: Path) -> None:
    """A blob that went with a merge was last in the commit that brought it."""
    root, side = with_a_side_branch(tmp_path / "repo")
    git(root, "checkout", "-q", "main")
    git(root, "merge", "-q", "-s", "ours", "-m", "without it", "side")
    git(root, "branch", "-q", "-D", "side")
    blob = find(root)["side.bin",]
    assert (blob.commit, blob.is_current) == (side, False)


def test_what_a_merge_left_out_later(tmp_path: Path) -> None:
    """A blob that went with a merge was last in the merged commit, which need not be the one that brought it."""
    root, _ = with_a_side_branch(tmp_path / "repo")
    write(root, "small", b"small")
    last = commit(root, day=3)
    git(root, "checkout", "-q", "main")
    write(root, "other", b"other")
    commit(root, day=4)
    git(root, "merge", "-q", "-s", "ours", "-m", "without it", "side")
    git(root, "branch", "-q", "-D", "side")
    blob = find(root)["side.bin",]
    assert (blob.commit, blob.is_current) == (last, False)


def test_what_a_deep_folder_still_has(tmp_path: Path) -> None:
    """The newest commit that has a blob is found, however deep the blob is."""
    root = repository(tmp_path / "repo")
    write(root, "a/b/c/deep.bin", seeded_bytes(3000, seed=3))
    commit(root, day=1)
    write(root, "small", b"small")
    tip = commit(root, day=2)
    assert find(root)["a/b/c/deep.bin",].commit == tip


def test_what_compresses_saves_little(tmp_path: Path) -> None:
    """A clean-up would save the packed size, not the file's size."""
    root = repository(tmp_path / "repo")
    write(root, "zeros with ü and space.bin", bytes(500_000))
    commit(root)
    blob = find(root)["zeros with ü and space.bin",]
    assert blob.size == 500_000
    assert blob.packed < 5000


def test_a_repository_without_commits(tmp_path: Path) -> None:
    """Nothing is found if nothing was committed."""
    assert find_large_blobs(Git(repository(tmp_path / "repo")), LIMIT).blobs == ()


def test_nothing_in_the_repository_changes(tmp_path: Path) -> None:
    """Looking through history leaves every file of the repository as it was."""
    root = repository(tmp_path / "repo")
    write(root, "a.bin", seeded_bytes(3000, seed=4))
    commit(root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    find_large_blobs(Git(root), LIMIT)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


@pytest.mark.shows("S22")
def test_names_of_several_lines(tmp_path: Path) -> None:
    """A file name with a newline is kept complete, and is current if a branch has it."""
    root = repository(tmp_path / "repo")
    write(root, "odd\nname\t.bin", seeded_bytes(5000, seed=1))
    write(root, "gone\n.bin", seeded_bytes(4000, seed=2))
    commit(root, day=1)
    (root / "gone\n.bin").unlink()
    tip = commit(root, day=2)
    blobs = find(root)
    assert set(blobs) == {("odd\nname\t.bin",), ("gone\n.bin",)}
    assert (blobs["odd\nname\t.bin",].is_current, blobs["odd\nname\t.bin",].commit) == (True, tip)
    assert not blobs["gone\n.bin",].is_current


@pytest.mark.shows("S22")
@pytest.mark.parametrize("name", [":(glob)q\nq.bin", ":!\n", "cr.bin\r", ":(top)x", "*\n"])
def test_names_that_git_reads_otherwise(tmp_path: Path, name: str) -> None:
    """A name that looks like a pattern, or ends the way a line may, is looked up literally."""
    root = repository(tmp_path / "repo")
    write(root, name, seeded_bytes(5000, seed=1))
    write(root, "cr.bin", b"small")
    commit(root, day=1)
    write(root, "x", b"")
    tip = commit(root, day=2)
    (blob,) = find_large_blobs(Git(root), LIMIT).blobs
    assert (blob.paths, blob.is_current, blob.commit) == ((name,), True, tip)


@pytest.mark.shows("S22")
@pytest.mark.parametrize("seconds", ["99999999999999", "-1", "18446744073709551615", "x"])
def test_a_time_that_no_calendar_has(tmp_path: Path, seconds: str) -> None:
    """A commit may claim any time at all; the blob is then shown without a day, and nothing fails."""
    root = repository(tmp_path / "repo")
    write(root, "a.bin", seeded_bytes(5000, seed=1))
    git(root, "add", "-A")
    text = f"tree {git(root, 'write-tree')}\nauthor a <a@b> 1 +0000\ncommitter a <a@b> {seconds} +0000\n\nm\n"
    odd = subprocess.run(
        ["git", "hash-object", "-t", "commit", "-w", "--stdin", "--literally"],
        cwd=root, input=text, text=True, capture_output=True, check=True,
    ).stdout.strip()  # fmt: skip
    git(root, "update-ref", "refs/heads/main", odd)
    (blob,) = find_large_blobs(Git(root), LIMIT).blobs
    assert (blob.commit, blob.is_current) == (odd, True)
    assert blob.committed is None or blob.committed.year < 10_000


@pytest.mark.shows("S22")
def test_what_only_a_tag_has(tmp_path: Path) -> None:
    """A tag may point to a file or a folder itself, without any commit: these are current, too."""
    root = repository(tmp_path / "repo")
    write(root, "small", b"")
    commit(root)
    for name, content in (("file", seeded_bytes(5000, seed=1)), ("folder/inner", seeded_bytes(4000, seed=2))):
        write(root, name, content)
    git(root, "add", "-A")
    git(root, "tag", "the-file", git(root, "rev-parse", ":file"))
    git(root, "tag", "-a", "-m", "a tag", "the-folder", git(root, "write-tree", "--prefix=folder/"))
    git(root, "reset", "-q", "--hard")
    git(root, "rm", "-q", "--cached", "-r", "--ignore-unmatch", "file", "folder")
    assert [(blob.size, blob.is_current, blob.commit) for blob in find_large_blobs(Git(root), LIMIT).blobs] == [
        (5000, True, None),
        (4000, True, None),
    ]


def test_settings_of_how_things_are_shown_change_nothing(tmp_path: Path) -> None:
    """A repository's settings for logs, diffs and replaced objects hide nothing from the history."""
    root = repository(tmp_path / "repo")
    write(root, "sub/a.bin", seeded_bytes(5000, seed=1))
    write(root, "b.bin", seeded_bytes(4000, seed=2))
    last = commit(root)
    before = find_large_blobs(Git(root), LIMIT)
    for setting in ("log.diffMerges=off", "diff.relative=true", "log.follow=true", "diff.renames=copies"):
        git(root, "config", *setting.split("="))
    write(root, "order", b"nothing\n")
    git(root, "config", "diff.orderFile", str(root / "order"))
    empty = git(root, "commit-tree", "-m", "x", git(root, "mktree", "--missing"))
    git(root, "replace", last, empty)
    assert find_large_blobs(Git(root), LIMIT) == before


@pytest.mark.shows("S22")
def test_a_partial_clone_says_what_to_do(tmp_path: Path) -> None:
    """If part of the history is missing, the message says so, with the command that gets the rest and then works."""
    source = repository(tmp_path / "source")
    for day in (1, 2):
        write(source, "a.bin", seeded_bytes(5000, seed=day))
        tip = commit(source, day=day)
    git(source, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "-q", "--filter=blob:none", f"file://{source}", "part")
    found = find_large_blobs(Git(tmp_path / "part"), LIMIT)
    assert [(blob.paths, blob.commit, blob.is_current) for blob in found.blobs] == [(("a.bin",), tip, True)]
    assert found.missing == 1
    assert "partial clone, which lacks 1 object" in found.advice
    assert "`git fetch --refetch --no-filter origin`" in found.advice
    git(tmp_path / "part", "fetch", "-q", "--refetch", "--no-filter", "origin")
    whole = find_large_blobs(Git(tmp_path / "part"), LIMIT)
    assert (len(whole.blobs), whole.missing, whole.advice) == (2, 0, "")


@pytest.mark.shows("S22")
def test_a_clone_without_folders_is_refused(tmp_path: Path) -> None:
    """If the folders of old commits are missing, too, nothing can be said about their contents."""
    source = repository(tmp_path / "source")
    for day in (1, 2):
        write(source, "sub/a.bin", seeded_bytes(5000, seed=day))
        commit(source, day=day)
    git(source, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "-q", "--filter=tree:0", f"file://{source}", "part")
    with pytest.raises(GitUnusable, match=r"partial clone.*`git fetch --refetch --no-filter origin`"):
        find_large_blobs(Git(tmp_path / "part"), LIMIT)


def test_a_damaged_repository_says_so(tmp_path: Path) -> None:
    """An object that is missing without a reason is damage."""
    root = repository(tmp_path / "repo")
    write(root, "a.bin", seeded_bytes(5000, seed=1))
    blob = git(root, "rev-parse", f"{commit(root)}:a.bin")
    (root / ".git/objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(
        GitUnusable, match=r"damaged: it lacks 1 object of its history; `git -C .* fsck --full`.*fetch --refetch"
    ):
        find_large_blobs(Git(root), LIMIT)
