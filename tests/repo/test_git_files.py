"""Git is not asked if it would wait for a pipe."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from grym_fetch.repo.clean import plan_clean
from grym_fetch.repo.git import Git, GitUnusable
from grym_fetch.repo.git_files import find_odd_file
from grym_fetch.repo.history import find_large_blobs
from grym_fetch.repo.identify import survey
from grym_fetch.testing import seeded_bytes
from tests.repo.story import LIMIT, commit, git, repository, write

A = seeded_bytes(5000, seed=1)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a committed large file, without any user configuration."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(Git.__init__, "__kwdefaults__", {"patience": 10.0})  # a pipe that is not seen is noticed soon
    root = repository(tmp_path / "repo")
    write(root, "sub/a.bin", A)
    commit(root)
    return root


def pipe(path: Path) -> Path:
    """A pipe in place of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


def refused(root: Path, target: Path, file: Path, files: int = 1) -> None:
    """Clean refuses and names the file; a listing continues without git."""
    with pytest.raises(GitUnusable, match="is a pipe or a device") as error:
        plan_clean(root, root, target, LIMIT)
    named = Path(str(error.value).partition(" is a pipe")[0])
    assert os.path.samefile(named, file)
    assert len(survey(root, LIMIT, root).files) == files


@pytest.mark.shows("S22")
@pytest.mark.parametrize(
    "name",
    [
        ".git/index", ".git/HEAD", ".git/config", ".git/config.worktree", ".git/packed-refs", ".git/shallow",
        ".git/info/exclude", ".git/info/attributes", ".git/objects/info/alternates", ".git/refs/heads/other",
        ".gitattributes", "sub/.gitattributes", ".gitignore", "sub/.gitignore",
        "../home/.gitconfig", "../home/.config/git/config", "../home/.config/git/ignore",
    ],
)  # fmt: skip
def test_a_pipe_in_the_place_of_a_file_of_git_s(root: Path, tmp_path: Path, name: str) -> None:
    """Everything git would read is a file, or git is not asked; the error says which one is not."""
    refused(root, tmp_path / "out", pipe(root / name))


@pytest.mark.shows("S22")
@pytest.mark.parametrize("setting", ["core.excludesFile", "core.attributesFile", "include.path"])
@pytest.mark.parametrize("form", ["absolute", "relative", "by a link", "included"])
def test_a_pipe_that_is_configured(root: Path, tmp_path: Path, setting: str, form: str) -> None:
    """Paths named in a configuration are checked, too, even in a file that it includes."""
    fifo = pipe(tmp_path / "fifo")
    path = "../../fifo" if setting == "include.path" else "../fifo"
    if form == "by a link":
        (tmp_path / "link").symlink_to(fifo)
        fifo = tmp_path / "link"
    if form != "relative":
        path = str(fifo)
    file = root / ".git/config"
    if form == "included":
        file = root / ".git/more"
        git(root, "config", "includeIf.gitdir:**.path", "more")
    git(root, "config", "--file", str(file), setting, path)
    refused(root, tmp_path / "out", fifo)


@pytest.mark.shows("S22")
def test_a_pipe_where_only_one_question_leads(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each question checks the rules that it makes git read, also beside files that nobody asked about."""
    write(root, "new/b.bin", A)
    fifo = pipe(root / "new/.gitignore")
    refused(root, tmp_path / "out", fifo, files=2)
    fifo.unlink()
    fifo = pipe(root / "new/.gitattributes")
    caplog.clear()
    assert len(survey(root, LIMIT, root, with_ignored=True).files) == 2
    assert "is a pipe or a device" in caplog.text
    fifo.unlink()
    write(root, "small/c", b"c")
    commit(root)
    pipe(root / "small/.gitattributes")
    os.utime(root / "small/c", (1, 1))
    asked = Git(root)
    with pytest.raises(GitUnusable, match=r"small/\.gitattributes is a pipe or a device"):
        asked.uncommitted(asked.index(), ["sub/a.bin"])


@pytest.mark.shows("S22")
def test_the_history_waits_for_no_pipe(root: Path) -> None:
    """Refs are checked before all of them are read."""
    pipe(root / ".git/refs/tags/v1")
    with pytest.raises(GitUnusable, match=r"refs/tags/v1 is a pipe"):
        find_large_blobs(Git(root), LIMIT)
    with pytest.raises(GitUnusable, match=r"refs/tags/v1 is a pipe"):
        list(Git(root).pipe(("rev-list", "--all")))


@pytest.mark.shows("S22")
def test_a_bare_repository(root: Path, tmp_path: Path) -> None:
    """Its folder is git's own, whatever its name; another folder is nobody's."""
    git(tmp_path, "clone", "-q", "--bare", str(root), "bare")
    for place in (tmp_path / "bare", tmp_path / "bare/refs"):
        assert find_odd_file(place, {}, lambda _: []) is None
        pipe(tmp_path / "bare/info/exclude")
        assert find_odd_file(place, {}, lambda _: []) == tmp_path / "bare/info/exclude"
        (tmp_path / "bare/info/exclude").unlink()


def test_a_linked_work_tree(root: Path, tmp_path: Path) -> None:
    """Both what it shares with the main one and what is its own is checked."""
    git(root, "worktree", "add", "-q", "--detach", str(tmp_path / "linked"))
    assert Git.of(tmp_path / "linked") is not None
    fifo = pipe(root / ".git/worktrees/linked/index")
    refused(tmp_path / "linked", tmp_path / "out", fifo)
    assert Git.of(root) is not None
    fifo.unlink()
    refused(tmp_path / "linked", tmp_path / "out", pipe(root / ".git/info/exclude"))


def test_what_harms_nobody(root: Path, tmp_path: Path) -> None:
    """The null device, a monitor's socket, and a circle of includes or links are not reasons to refuse."""
    git(root, "config", "core.excludesFile", os.devnull)
    git(root, "config", "--add", "include.path", "gone")
    git(root, "config", "some.path", str(pipe(tmp_path / "fifo")))
    git(root, "config", "includeIf.some.thing", str(tmp_path / "fifo"))
    git(root, "config", "--file", str(root / ".git/gone"), "include.path", "gone")
    with socket.socket(socket.AF_UNIX) as monitor:
        before = Path.cwd()
        os.chdir(root / ".git")
        try:
            monitor.bind("fsmonitor--daemon.ipc")
        finally:
            os.chdir(before)
    (root / ".git/loop").symlink_to(root)
    with pytest.raises(GitUnusable, match="include depth"):  # git's own words: it was asked
        plan_clean(root, root, tmp_path / "out", LIMIT)
    (root / ".git/gone").unlink()
    assert len(plan_clean(root, root, tmp_path / "out", LIMIT).moves) == 1


def test_a_link_to_anywhere_is_not_followed(root: Path, tmp_path: Path) -> None:
    """Only git's own files are walked through: neither what is behind a link nor a store that a .git names."""
    pipe(tmp_path / "elsewhere/deep/fifo")
    (root / ".git/link").symlink_to(tmp_path / "elsewhere")
    assert len(plan_clean(root, root, tmp_path / "out", LIMIT).moves) == 1
    write(tmp_path, "other/a.bin", A)
    write(tmp_path, "other/.git", f"gitdir: {tmp_path}/elsewhere\n".encode())
    with pytest.raises(GitUnusable, match=r"not a git repository.*Mend it"):
        plan_clean(tmp_path / "other", tmp_path / "other", tmp_path / "out", LIMIT)
