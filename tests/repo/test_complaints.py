"""Each complaint of git comes with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from grym_fetch.repo.clean import plan_clean
from grym_fetch.repo.complaints import complaint
from grym_fetch.repo.git import Git, GitUnusable
from grym_fetch.repo.history import find_large_blobs
from grym_fetch.testing import seeded_bytes
from tests.repo.story import LIMIT, commit, git, repository, write

A, B = seeded_bytes(5000, seed=1), seeded_bytes(3000, seed=2)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with two commits."""
    root = repository(tmp_path / "a repo")
    for day, content in ((1, A), (2, B)):
        write(root, "a.bin", content)
        commit(root, day=day)
    return root


def damage(root: Path, what: str) -> None:
    """Damage a repository."""
    own = root / ".git"
    if what in ("HEAD", "HEAD^"):
        name = git(root, "rev-parse", what)
        (own / "objects" / name[:2] / name[2:]).unlink()
    elif what == "empty object":
        name = git(root, "rev-parse", "HEAD")
        (own / "objects" / name[:2] / name[2:]).unlink()
        write(own, f"objects/{name[:2]}/{name[2:]}", b"")
    elif what == "ref":
        write(own, "refs/heads/main", b"garbage\n")
    elif what == "index":
        write(own, "index", b"x")
    elif what == "index of another version":
        write(own, "index", b"DIRC\0\0\0\x63\0\0\0\0" + bytes(20))
    elif what == "head":
        write(own, "HEAD", b"garbage\n")
    else:
        with open(own / "config", "a", encoding="ascii") as config:
            config.write(what)


@pytest.mark.shows("S22")
@pytest.mark.parametrize(
    ("what", "words", "remedy"),
    [
        # From git 2.46 on, rev-list also says which tips are missing, and then it is we who count them.
        ("HEAD", "bad object|missing commit|lacks 1 object", r"git -C '.*/a repo' fsck --full.*fetch --refetch"),
        ("empty object", "is empty|corrupt|missing commit|lacks 1 object", r"fsck --full.*fetch --refetch"),
        ("ref", "broken ref|bad object|lacks 1 object", r"fsck --full"),
        ("index", "index file smaller", r"remove the file index.*git -C '.*/a repo' reset"),
        ("index of another version", "bad index version", r"remove the file index"),
        ("head", "not a git repository", "ref: refs/heads/BRANCH"),
        ("[[[\n", "bad config line", "Correct that line of the file"),
        ("[core]\n\trepositoryformatversion = 99\n", "found 99", "newer git"),
        ("[core]\n\trepositoryformatversion = 1\n[extensions]\n\tfoo = 1\n", "extension found: foo", "newer git"),
        ("[include]\n\tpath = config\n", "include depth", "take that include.path out"),
    ],
)
def test_damage_is_told_whole(root: Path, tmp_path: Path, what: str, words: str, remedy: str) -> None:
    """Clean refuses, and so does the history; each repeats git's words and the way out."""
    damage(root, what)
    with pytest.raises(GitUnusable, match=remedy) as of_clean:
        plan_clean(root, root, tmp_path / "out", LIMIT)
    assert "nothing was moved" in str(of_clean.value)
    with pytest.raises(GitUnusable, match=remedy) as of_history:
        find_large_blobs(Git(root), LIMIT)
    for error in (of_clean, of_history):
        assert any(word in str(error.value) for word in words.split("|"))
        assert "exit code" not in str(error.value)


@pytest.mark.shows("S22")
def test_a_damaged_index_is_made_anew(root: Path, tmp_path: Path) -> None:
    """The remedy for an index works, and changes no file."""
    damage(root, "index")
    (root / ".git/index").unlink()
    git(root, "reset", "-q")
    assert (root / "a.bin").read_bytes() == B
    assert [move.path for move in plan_clean(root, root, tmp_path / "out", LIMIT).moves] == ["a.bin"]


@pytest.mark.shows("S22")
def test_missing_objects_are_fetched_again(root: Path, tmp_path: Path) -> None:
    """The remedy for missing objects works if the remote has them."""
    git(tmp_path, "clone", "-q", f"file://{root}", "clone")
    clone = tmp_path / "clone"
    pack = next((clone / ".git/objects/pack").glob("*.pack"))
    pack.rename(tmp_path / "pack")
    for other in (clone / ".git/objects/pack").iterdir():
        other.unlink()
    with pytest.raises(GitUnusable, match=r"fetch --refetch"):
        find_large_blobs(Git(clone), LIMIT)
    git(clone, "fetch", "-q", "--refetch")
    assert len(find_large_blobs(Git(clone), LIMIT).blobs) == 2


def test_what_is_not_known_is_passed_on() -> None:
    """Words of git's without a remedy stay as they are, on one line; if there are none, the exit code is shown."""
    assert complaint("ls-files", b"fatal: a\n\tb\x1b[0m\nerror: c\n", Path("/r")) == (
        "git ls-files failed: fatal: a b\\x1b[0m; error: c"
    )
    assert complaint("ls-files", b"\n", Path("/r"), -9) == "git ls-files failed with exit code -9"
