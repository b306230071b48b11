"""Large files are found: all of them, fast, and nothing that is none."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from grym_fetch.repo.git import Git
from grym_fetch.repo.identify import LargeFile, Total, ignore_line, survey, totals
from grym_fetch.repo.tree import find_root
from tests.repo.story import LIMIT, commit, git, repository, write


def found(folder: Path, root: Path | None = None, *, with_ignored: bool = False) -> list[str]:
    """The paths of the large files."""
    return [file.path for file in survey(folder, LIMIT, root or folder, with_ignored=with_ignored).files]


def test_the_largest_comes_first(tmp_path: Path) -> None:
    """Files over the limit are listed by size; one of exactly the limit is not over it."""
    write(tmp_path, "a", bytes(LIMIT + 1))
    write(tmp_path, "deep/er/b.bin", bytes(LIMIT + 2))
    write(tmp_path, "exact", bytes(LIMIT))
    assert found(tmp_path) == ["deep/er/b.bin", "a"]


def test_what_is_skipped(tmp_path: Path) -> None:
    """Neither git's folder nor node_modules is looked into; symlinks and other repositories are reported."""
    for name in (".git/objects/x", "node_modules/x", "sub/node_modules/y/x", "vendor/x", "vendor/.git", "mine"):
        write(tmp_path, name, bytes(LIMIT + 1))
    (tmp_path / "link").symlink_to("mine")
    (tmp_path / "loop").symlink_to(".")
    result = survey(tmp_path / "sub", LIMIT, tmp_path / "sub")
    assert result.files == ()
    (tmp_path / ".git").rename(tmp_path / "moved-away")
    result = survey(tmp_path, LIMIT, tmp_path)
    assert [file.path for file in result.files] == ["mine", "moved-away/objects/x"]
    assert result.symlinks == ("link", "loop")
    assert result.repositories == ("vendor/",)


def test_what_git_ignores_is_left_out(tmp_path: Path) -> None:
    """Ignored files are listed only on demand; what is tracked is not ignored, whatever the rules say."""
    root = repository(tmp_path / "repo")
    names = ["build/a.bin", "b.log", "tracked.log", "plain", "sub/:(magic) ü\n.bin", "sub/c.log"]
    for name in names:
        write(root, name, bytes(LIMIT + 1))
    git(root, "add", "-f", "tracked.log")
    write(root, ".gitignore", b"build/\n*.log\n")
    assert found(root) == ["plain", "sub/:(magic) ü\n.bin", "tracked.log"]
    assert survey(root, LIMIT, root).ignored == 3
    assert sorted(found(root, with_ignored=True)) == sorted(names)
    assert found(root / "sub", root) == [":(magic) ü\n.bin"]


def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    """A file whose name is no text is found and handed to git like any other."""
    root = repository(tmp_path / "repo")
    for name in (b"\xff.bin", b"\xfe.log"):
        Path(os.fsdecode(os.path.join(os.fsencode(root), name))).write_bytes(bytes(LIMIT + 1))
    write(root, ".gitignore", b"*.log\n")
    assert found(root) == [os.fsdecode(b"\xff.bin")]


def test_a_git_that_does_not_work_is_no_obstacle(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where git refuses the repository, everything is listed and it is said why."""
    write(tmp_path, ".git", b"gitdir: /nowhere\n")
    write(tmp_path, "a", bytes(LIMIT + 1))
    assert found(tmp_path) == ["a"]
    assert "what git ignores is listed too" in caplog.text


def test_totals() -> None:
    """Sums by type and by folder, the largest first; case does not make a type."""
    files = [LargeFile("m/a.CKPT", 5), LargeFile("m/b.ckpt", 6), LargeFile("c", 20), LargeFile(".hidden", 1)]
    assert totals(files, lambda file: file.type) == [Total("(none)", 2, 21), Total(".ckpt", 2, 11)]
    assert totals(files, lambda file: file.folder) == [Total(".", 2, 21), Total("m", 2, 11)]


@pytest.mark.parametrize("name", ["a.bin", "#a", "!a", "sub/a b", "a*[1]?", "back\\slash", "end  ", "ü"])
def test_a_line_for_gitignore_ignores_that_file_alone(tmp_path: Path, name: str) -> None:
    """Git itself agrees that the line names this file, and no similar one."""
    root = repository(tmp_path / "repo")
    write(root, ".gitignore", f"{ignore_line(name)}\n".encode())
    for other in (name, f"x/{name}", f"{name}x"):
        done = subprocess.run(["git", "check-ignore", "-q", f"./{other}"], cwd=root, check=False)
        assert (done.returncode == 0) is (other == name)


@pytest.mark.alone
def test_a_big_tree_is_looked_through_quickly(tmp_path: Path) -> None:
    """20,000 files take a fifth of the two seconds that 100,000 may take, with room for a busy machine."""
    for folder in range(100):
        (tmp_path / str(folder)).mkdir()
        for name in range(200):
            os.close(os.open(tmp_path / str(folder) / str(name), os.O_CREAT | os.O_WRONLY))
    began = time.process_time()
    assert found(tmp_path) == []
    assert time.process_time() - began < 0.4


def test_the_root_is_where_git_says(tmp_path: Path) -> None:
    """The repository's root is the nearest folder with .git; without git the working directory is."""
    root = repository(tmp_path / "repo")
    write(root, "sub/a", b"")
    commit(root)
    assert find_root(root / "sub", tmp_path) == root
    plain = write(tmp_path, "plain/sub/a", b"").parent
    assert find_root(plain, plain.parent) == plain.parent
    assert find_root(plain, root) == plain


def test_what_a_repository_would_start_is_not_started(tmp_path: Path) -> None:
    """A repository's own configuration may name a program that git runs at every look (fsmonitor): not for us."""
    root = repository(tmp_path / "root")
    write(root, "a.bin", b"a")
    commit(root)
    program = write(tmp_path, "program", b'#!/bin/sh\ntouch "$(dirname "$0")/started"\n')
    program.chmod(0o755)
    git(root, "config", "core.fsmonitor", str(program))
    git(root, "status")
    started = tmp_path / "started"
    assert started.exists(), "git itself would start it"
    started.unlink()
    asked = Git.of(root)
    assert asked is not None
    asked.ask("status", "--porcelain")
    asked.ask("ls-files", "-o", "--exclude-standard")
    assert not started.exists()
