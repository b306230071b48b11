"""The hooks that .pre-commit-hooks.yaml offers, as git runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repo.story import commit, git, repository, write
from tests.support.sweeps import typical

ROOT = Path(__file__).parents[2]
OFFERED = (ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8")
HOOKS = dict(re.findall(r"^- id: (\S+)\n(?:  .*\n)*?  entry: (.+)$", OFFERED, re.MULTILINE))


def install(root: Path, entry: str) -> None:
    """Let git run a hook before each commit, as pre-commit would: with git's own variables."""
    program = entry.replace("grym-fetch", f"{sys.executable} -m grym_fetch")
    write(root, ".git/hooks/pre-commit", f"#!/bin/sh\nPYTHONPATH={ROOT} exec {program}\n".encode()).chmod(0o755)


def try_to_commit(root: Path, *arguments: str) -> tuple[int, str]:
    """Commit, and return the exit code and what was said."""
    environ = {**os.environ, "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@a", "GIT_COMMITTER_NAME": "a"}
    environ |= {"GIT_COMMITTER_EMAIL": "a@a", "GRYM_FETCH_SIZE": "1KB"}
    command = ["git", "commit", "-q", "-m", "x", *arguments]
    done = subprocess.run(command, cwd=root, env=environ, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("arguments", typical([("-a",), ("a.bin",)], ("a.bin",)))
def test_large_files_stay_out(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """A commit with a large file is refused and names it, whichever way it chooses its files; another one is made."""
    root = repository(tmp_path / "repo")
    write(root, "a.bin", b"small")
    commit(root)
    install(root, HOOKS["large-files"])
    write(root, "a.bin", bytes(2000))
    write(root, "untracked.bin", bytes(5000))
    code, said = try_to_commit(root, *arguments)
    assert code == 1
    assert "a.bin" in said
    assert "untracked" not in said
    write(root, "a.bin", b"smaller")
    git(root, "add", "a.bin")
    assert try_to_commit(root)[0] == 0


def test_a_manifest_with_problems_stays_out(tmp_path: Path) -> None:
    """Every problem is told, and nothing is committed."""
    root = repository(tmp_path / "repo")
    install(root, HOOKS["check-manifest"])
    write(root, "assets.json", b'{"assets": [{"id": "a", "url": "ftp://x", "localPath": "../a"}]}')
    git(root, "add", "-A")
    code, said = try_to_commit(root)
    assert code == 1
    assert "localPath" in said
    assert "url" in said
    write(root, "assets.json", b'{"assets": [{"id": "a", "url": "https://example.org/a", "localPath": "a"}]}')
    git(root, "add", "-A")
    assert try_to_commit(root)[0] == 0
