"""No git is waited for endlessly, and none outlives the question."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from grym_fetch.repo.git import Git, GitUnusable
from grym_fetch.repo.process import Ended, pipe, run
from grym_fetch.testing import seeded_bytes
from tests.repo.story import commit, git, repository, write


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """A pipe that nobody writes to."""
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


ENVIRON: Mapping[str, str] = {"PATH": os.environ["PATH"]}


@pytest.mark.shows("S22")
def test_a_git_that_does_not_answer_is_ended(tmp_path: Path, fifo: Path) -> None:
    """Each question has a time limit, and the error says what to look for."""
    root = repository(tmp_path / "repo")
    write(root, "a.bin", b"a")
    blob = git(root, "rev-parse", f"{commit(root)}:a.bin")
    loose = root / ".git/objects" / blob[:2] / blob[2:]
    quiet = Git(root, patience=0.3)
    assert quiet.blob_sizes([blob]) == {blob: 1}
    loose.unlink()
    os.link(fifo, loose)  # it was added after git's files were checked
    with pytest.raises(GitUnusable, match=r"^git cat-file has not answered for 0\.3 seconds and was ended"):
        quiet.blob_sizes([blob])
    with pytest.raises(GitUnusable, match=r"^git rev-list \| git cat-file has not answered"):
        list(quiet.pipe(["rev-list", "--objects", "--no-object-names", "--all"], ["cat-file", "--batch"]))


def ids(folder: Path) -> list[int]:
    """The processes recorded by a script."""
    return [int(name.name) for name in folder.iterdir()]


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.shows("S22")
@pytest.mark.parametrize("end", ["patience", "consumer"])
def test_nothing_outlives_a_question(tmp_path: Path, fifo: Path, end: str) -> None:
    """Whether time is up or the rest is not wanted, every process is ended."""
    pids = tmp_path / "pids"
    pids.mkdir()
    waiting = ["sh", "-c", f": > {pids}/$$; echo one; exec cat {fifo}", "cat-file"]
    ended: list[Ended] = []
    answer = pipe([waiting, ["sh", "-c", f": > {pids}/$$; exec cat", "cat-file"]], None, ENVIRON, 0.3, ended)
    assert next(answer) == b"one\n"
    if end == "patience":
        with pytest.raises(GitUnusable, match=r"0\.3 seconds"):
            next(answer)
    else:
        answer.close()
    assert len(ids(pids)) == 2
    assert not any(map(is_alive, ids(pids)))
    assert ended == []


def test_more_words_than_a_pipe_holds() -> None:
    """Complaints of any length block nothing, and the way each process ended is known."""
    ended: list[Ended] = []
    loud = "yes complaint | head -c 300000 >&2; echo x; exit 3"
    lines = [["sh", "-c", loud, "cat-file"], ["cat"]]
    assert b"".join(pipe(lines, None, ENVIRON, 60, ended)) == b"x\n"
    assert [each.code for each in ended] == [3, 0]
    assert ended[0].stderr.startswith(b"complaint\n")
    content = seeded_bytes(300_000, seed=1)
    assert b"".join(pipe([["cat"]], [content], ENVIRON, 60, [])) == content
    assert run(["cat"], content, ENVIRON, 60).stdout == content


def test_who_fails_for_himself_is_named(tmp_path: Path) -> None:
    """If one git fails and takes another with it, the error has the words of the first."""
    root = repository(tmp_path / "repo")
    write(root, "a.bin", b"a")
    commit(root)
    listing = ["rev-list", "--all", "--format=" + "%<(16000)%s" * 10]  # more than a pipe holds, so that it is cut off
    with pytest.raises(GitUnusable, match=r"^git diff-tree failed: .*usage"):
        list(Git(root).pipe(listing, ["diff-tree", "--no-such-option"]))
    with pytest.raises(GitUnusable, match=r"^git rev-list failed: .*nothing"):
        list(Git(root).pipe(["rev-list", "nothing"], ["cat-file", "--batch-check"]))
