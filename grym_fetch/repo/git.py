"""Questions to git, each answered by one process.

Rules: only commands that change nothing, the index included; paths go in and out with NULs around them and keep bytes
that are no UTF-8. A folder without git is no error, a git that does not work is one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Self

from grym_fetch.core.text import safe_text
from grym_fetch.disk.repository import is_repository_root
from grym_fetch.repo.errors import Refused

_CHUNK = 1 << 20


class GitUnusable(Refused):
    """There is a repository, but git cannot be asked about it."""


class Git:
    """A repository."""

    def __init__(self, root: Path) -> None:
        program = shutil.which("git")
        if program is None:
            raise GitUnusable("git is not installed or not in PATH")
        # What a repository's own configuration could start (fsmonitor) is switched off; nothing is locked or fetched.
        self._command = [program, "-C", os.fspath(root), "-c", "core.fsmonitor=false", "-c", "log.showRoot=true"]
        self._environ = os.environ | {"GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C"}

    @classmethod
    def of(cls, root: Path) -> Self | None:
        """The repository whose work tree begins at ``root``, None if there is none.

        Raises:
            GitUnusable: there is one, but git is missing or refuses it.
        """
        if not is_repository_root(root):
            return None
        git = cls(root)
        git.ask("rev-parse", "--git-dir")
        return git

    def ask(self, *arguments: str, given: bytes = b"", good: Sequence[int] = (0,)) -> bytes:
        """Run git and return what it writes. Raises `GitUnusable` with git's own words."""
        done = subprocess.run(  # noqa: S603 - a program from PATH with arguments of ours
            [*self._command, *arguments], input=given, capture_output=True, env=self._environ, check=False
        )
        if done.returncode not in good:
            raise GitUnusable(_complaint(arguments[0], done.stderr))
        return done.stdout

    def pipe(self, *commands: Sequence[str], given: Iterable[bytes] | None = None) -> Iterator[bytes]:
        """Run git commands, each reading what the one before writes; yield the last one's output in chunks.

        ``given`` goes to the first command; it must be small enough to be kept in memory.
        """
        with ExitStack() as stack:
            source: IO[bytes] | int = subprocess.DEVNULL
            if given is not None:
                import tempfile

                source = stack.enter_context(tempfile.TemporaryFile())
                source.writelines(given)
                source.seek(0)
            running: list[subprocess.Popen[bytes]] = []
            for command in commands:
                process = stack.enter_context(
                    subprocess.Popen(  # noqa: S603 - as above
                        [*self._command, *command],
                        stdin=source,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.DEVNULL,
                        env=self._environ,
                    )
                )
                if running and running[-1].stdout is not None:
                    running[-1].stdout.close()  # the next command has it; so that a broken pipe is noticed
                running.append(process)
                assert process.stdout is not None
                source = process.stdout
            last = running[-1].stdout
            assert last is not None
            while chunk := last.read(_CHUNK):
                yield chunk
            for process, command in zip(running, commands, strict=True):
                if process.wait() != 0:
                    raise GitUnusable(f"git {command[0]} failed with exit code {process.returncode}")

    def ignored(self, folder: str, paths: Iterable[str]) -> set[str]:
        """Which of these paths, relative to ``folder`` below the root, git ignores. Tracked files never are."""
        # With ./ in front no path can be taken for an option or for magic.
        given = b"".join(b"./" + os.fsencode(folder + path) + b"\0" for path in paths)
        if not given:
            return set()
        answer = self.ask("check-ignore", "-z", "--stdin", given=given, good=(0, 1))
        skip = len("./" + folder)
        return {os.fsdecode(path)[skip:] for path in answer.split(b"\0") if path}

    def uncommitted(self) -> set[str]:
        """Tracked files that differ from the last commit, in the index or on disk; relative to the root."""
        answer = self.ask("status", "--porcelain=v1", "-z", "--untracked-files=no", "--ignore-submodules=all")
        found: set[str] = set()
        fields = iter(answer.split(b"\0"))
        for field in fields:
            if field:
                found.add(os.fsdecode(field[3:]))
                if field[:1] in (b"R", b"C"):
                    next(fields, None)  # where it came from
        return found


def split(chunks: Iterable[bytes], separator: bytes) -> Iterator[bytes]:
    """Yield what stands between separators, whatever the chunks; the last one too if it is not empty."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(separator)
        yield from whole
    if rest:
        yield rest


def _complaint(command: str, stderr: bytes) -> str:
    lines = [line for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    return f"git {command} failed: {safe_text(lines[0] if lines else 'no reason given')}"
