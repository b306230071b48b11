"""Questions to git, each answered by one process; see `process` for how it is started.

Rules: paths are passed in and out separated by NULs, and keep bytes that are not UTF-8. A folder without a repository
is fine; a git that does not work, or does not answer, is an error. A repository chooses the names of filters;
`Git.uncommitted`, in which git might run one, switches each off by name.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from grym_fetch.core.command_lines import command_line
from grym_fetch.core.text import safe_text
from grym_fetch.disk.repository import is_repository_root
from grym_fetch.repo.complaints import complaint
from grym_fetch.repo.git_files import find_odd_file, find_odd_rules
from grym_fetch.repo.process import (
    PATIENCE_S,
    Ended,
    GitUnusable,
    git_command,
    git_environment,
    name_of,
    pipe,
    run,
    with_settings,
)
from grym_fetch.runtime import system

__all__ = ["GITLINK", "Git", "GitUnusable", "IndexEntry", "split"]

_CHUNK_BYTES = 1 << 20
_SLOWEST_BYTES = 5_000_000
"""Bytes that the slowest disk reads in a second: if git reads files, it may take that much longer."""
_TO_BE_QUOTED = re.compile(rb'["\\\x00-\x1f]')
_FILTER_SETTING = re.compile(rb"filter\.(.*)\.(?:clean|smudge|process|required)", re.DOTALL)
GITLINK = "160000"
"""The mode of a submodule in an index."""


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """What git has staged for a path.

    ``is_skipped``: a sparse checkout leaves it out of the work tree. ``is_unwatched``: git was told to ignore whether
    the file changes (``--assume-unchanged``, ``--skip-worktree``).
    """

    mode: str
    blob: str
    is_skipped: bool
    is_unwatched: bool


class Git:
    """A repository. ``folder`` is its work tree or, if only its history is needed, the repository itself."""

    def __init__(self, folder: Path, *, patience: float = PATIENCE_S) -> None:
        """``patience``: give up on a git that has not written a byte for this many seconds."""
        program = shutil.which("git")
        if program is None:
            raise GitUnusable("git is not installed or not in PATH")
        self._program = program
        self.folder = folder
        self._patience = patience
        self._environ = git_environment(os.environ)
        self._is_checked = False

    @classmethod
    def of(cls, root: Path) -> Self | None:
        """The repository whose work tree has its root at ``root``; None if there is none.

        Raises:
            GitUnusable: there is one, but git is missing, refuses it, or takes another folder for its work tree.
        """
        if not is_repository_root(root):
            return None
        git = cls(root)
        top = git.ask_path("--show-toplevel")
        if not _is_same(top, root):
            shown, other = safe_text(str(root), limit=4000), safe_text(str(top), limit=4000)
            asked = command_line("git", "-C", str(root), "rev-parse", "--show-toplevel")
            raise GitUnusable(
                f"git says that the work tree of {shown} is {other}: its .git is damaged, or core.worktree leads "
                f"elsewhere. Mend that (`{asked}`), or work in {other}"
            )
        return git

    def ask(
        self,
        *command: str,
        given: bytes = b"",
        good: Sequence[int] = (0,),
        settings: Mapping[str, str] | None = None,
        seconds: float = 0,
    ) -> bytes:
        """Run git and return its output. Raises `GitUnusable` with git's own words and what to do.

        ``settings`` are for names that the repository chooses, which may contain any character. ``seconds`` are added
        to the time that it may take, for example to read large files.
        """
        self._check_files()
        return self._run(self.folder, command, given, good, settings or {}, seconds)

    def _run(
        self,
        folder: Path,
        command: Sequence[str],
        given: bytes = b"",
        good: Sequence[int] = (0,),
        settings: Mapping[str, str] | None = None,
        seconds: float = 0,
    ) -> bytes:
        line = git_command(self._program, folder, command)
        done = run(line, given, with_settings(self._environ, settings or {}), self._patience + seconds)
        if done.returncode not in good:
            raise GitUnusable(complaint(name_of(command), done.stderr, self.folder, done.returncode))
        return done.stdout

    def _check_files(self) -> None:
        if not self._is_checked:
            _refuse(find_odd_file(self.folder, os.environ, self._settings_in))
            self._is_checked = True

    def _settings_in(self, file: Path) -> list[tuple[str, str]]:
        """What a configuration file itself sets; nothing if it cannot be read, which git reports if it needs it."""
        try:
            answer = self._run(Path("/"), ("config", "--file", os.fspath(file), "--no-includes", "--list", "-z"))
        except GitUnusable:
            return []
        settings = (os.fsdecode(each).partition("\n") for each in answer.split(b"\0") if each)
        return [(name, value) for name, _, value in settings]

    def has_work_tree(self) -> bool:
        """Whether there is a work tree at all, so that anything here could be committed."""
        return self.ask("rev-parse", "--is-bare-repository") != b"true\n"

    def ask_path(self, option: str) -> Path:
        """A path that ``rev-parse`` knows."""
        answer = self.ask("rev-parse", option)
        return self.folder / os.fsdecode(answer.removesuffix(b"\n"))

    def pipe(self, *commands: Sequence[str], given: Iterable[bytes] | None = None) -> Iterator[bytes]:
        """Run git commands, each reading what the one before writes; yield the last one's output in chunks.

        ``given`` goes to the first command; it must be small enough to be kept in memory.
        """
        self._check_files()
        lines = [git_command(self._program, self.folder, command) for command in commands]
        ended: list[Ended] = []
        yield from pipe(lines, given, self._environ, self._patience, ended)
        failed = [each for each in zip(commands, ended, strict=True) if each[1].code != 0]
        # A command that fails by itself also ends those that write to it.
        for command, (code, stderr) in sorted(failed, key=lambda each: system.lost_its_reader(each[1].code)):
            raise GitUnusable(complaint(name_of(command), stderr, self.folder, code))

    def index(self) -> dict[str, IndexEntry]:
        """What is staged, by path relative to the root; for a conflict, one of its sides."""
        found = {}
        for line in self.ask("ls-files", "-s", "-v", "-z").split(b"\0"):
            if line:
                figures, _, path = line.partition(b"\t")
                tag, mode, blob, _ = figures.decode("ascii").split(" ")
                is_skipped = tag in "Ss"
                found[os.fsdecode(path)] = IndexEntry(mode, blob, is_skipped, is_unwatched=is_skipped or tag.islower())
        return found

    def staged(self) -> dict[str, str]:
        """The blobs that the next commit would add or change, by path relative to the root.

        In a hook, that commit is the one under way: `git commit -a` and `git commit FILE` have an index of their own.
        """
        named = os.path.abspath(os.environ.get("GIT_INDEX_FILE", ""))
        own = Path(named).parent
        if _is_same(own, self.ask_path("--git-dir")) and self._environ.get("GIT_INDEX_FILE") != named:
            git = copy(self)
            git._environ = {**self._environ, "GIT_INDEX_FILE": named}  # noqa: SLF001 - our own kind
            return git.staged()
        index = self.index()
        paths = set(index)
        if self._has_commit():
            options = ("--cached", "--name-only", "--no-renames", "--diff-filter=AMT", "--ignore-submodules=all", "-z")
            paths = _paths(self.ask("diff-index", *options, "HEAD", "--"))
        return {path: index[path].blob for path in paths if path in index and index[path].mode != GITLINK}

    def committed(self) -> set[str]:
        """The paths of the last commit, relative to the root."""
        if not self._has_commit():
            return set()
        return _paths(self.ask("ls-tree", "-r", "-z", "--name-only", "--full-tree", "HEAD"))

    def ignored(self, folder: str, paths: Iterable[str], *, with_index: bool = True) -> set[str]:
        """Which of these paths, relative to ``folder`` below the root, git ignores.

        Tracked files are not ignored, whatever the rules say, unless ``with_index`` is False.
        """
        # With a leading ./ no path can be taken for an option or a magic pathspec.
        asked = [folder + path for path in paths]
        _refuse(find_odd_rules(self.folder, asked))
        given = b"".join(b"./" + os.fsencode(path) + b"\0" for path in asked)
        if not given:
            return set()
        options = () if with_index else ("--no-index",)
        answer = self.ask("check-ignore", "-z", "--stdin", *options, given=given, good=(0, 1))
        skip = len("./" + folder)
        return {os.fsdecode(path)[skip:] for path in answer.split(b"\0") if path}

    def filters(self, paths: Sequence[str]) -> dict[str, str]:
        """The filter attribute of those paths, relative to the root, that have one."""
        _refuse(find_odd_rules(self.folder, paths))
        given = b"".join(os.fsencode(path) + b"\0" for path in paths)
        if not given:
            return {}
        fields = self.ask("check-attr", "-z", "--stdin", "filter", given=given).split(b"\0")
        values = (os.fsdecode(value) for value in fields[2::3])
        unset = ("unspecified", "unset", "set", "")
        return {path: value for path, value in zip(paths, values, strict=True) if value not in unset}

    def blob_sizes(self, blobs: Collection[str]) -> dict[str, int]:
        """The sizes in bytes of those blobs that are here."""
        given = "".join(f"{blob}\n" for blob in blobs).encode("ascii")
        sizes = {}
        for line in self.ask("cat-file", "--batch-check=%(objectname) %(objectsize)", given=given).splitlines():
            name, _, size = line.decode("ascii").partition(" ")
            if size.isdecimal():
                sizes[name] = int(size)
        return sizes

    def uncommitted(self, index: Mapping[str, IndexEntry], paths: Iterable[str]) -> set[str]:
        """Which of these paths, relative to the root, are tracked and differ from the last commit, staged or not.

        If a file only looks touched, or git was told not to check it, its content is compared with the staged one,
        after git's conversions except filters, which are programs. In that case a file with a filter counts as changed,
        and so does whatever is no longer a file.
        """
        tracked = [path for path in paths if path in index]
        if not tracked:
            return set()
        if not self._has_commit():
            return set(tracked)
        _refuse(find_odd_rules(self.folder, index))
        seconds = sum(map(self._size, tracked)) / _SLOWEST_BYTES
        same = ("--name-only", "--no-renames", "--ignore-submodules=all", "-z")
        staged = _paths(self.ask("diff-index", "--cached", *same, "HEAD", "--"))
        # Git reads and compares a file that is as new as the index, and would run its filter for that.
        touched = _paths(self.ask("diff-files", *same, settings=self._no_filters(), seconds=seconds))
        in_doubt = [path for path in tracked if path in touched or index[path].is_unwatched]
        changed = [path for path in in_doubt if not _is_blob(self.folder / path, index[path].blob)]
        # Git would read what a symlink leads to, and wait for a pipe.
        names = self._converted([path for path in changed if not _is_other(self.folder / path)])
        return staged.intersection(tracked) | {path for path in changed if names.get(path) != index[path].blob}

    def _converted(self, paths: Sequence[str]) -> dict[str, str | None]:
        """The names of the blobs that git would make of these files without their filters; None for an unreadable file.

        Line ends, keywords and encodings are converted as the attributes say.
        """
        if not paths:
            return {}
        given = b"".join(_c_quoted(os.fsencode(path)) + b"\n" for path in paths)
        # Otherwise git would compress a file of more than this many bytes, only to discard the result.
        settings = {**self._no_filters(), "core.bigFileThreshold": "1000g"}
        try:
            seconds = sum(map(self._size, paths)) / _SLOWEST_BYTES
            names = (
                self.ask("hash-object", "--stdin-paths", given=given, settings=settings, seconds=seconds)
                .decode("ascii")
                .split()
            )
        except GitUnusable:
            if len(paths) == 1:
                return {paths[0]: None}
            return {path: blob for one in paths for path, blob in self._converted([one]).items()}
        return dict(zip(paths, names, strict=True))

    def _size(self, path: str) -> int:
        try:
            return os.lstat(self.folder / path).st_size
        except OSError:
            return 0

    def _has_commit(self) -> bool:
        """Whether there is a commit. Raises `GitUnusable` if it is missing, or the ref that leads to it is damaged."""
        if self.ask("rev-parse", "--quiet", "--verify", "HEAD^{commit}", good=(0, 1)):
            return True
        if name := self.ask("rev-parse", "--quiet", "--verify", "HEAD", good=(0, 1)).decode("ascii").strip():
            words = f"missing commit {name}, to which HEAD leads".encode()
            raise GitUnusable(complaint("rev-parse", words, self.folder))
        # A branch without commits has no ref; only this command reports a ref that cannot be read.
        line = git_command(self._program, self.folder, ("for-each-ref", "--count=1"))
        stderr = run(line, b"", self._environ, self._patience).stderr
        if b"broken ref" in stderr:
            raise GitUnusable(complaint("for-each-ref", stderr, self.folder))
        return False

    def _no_filters(self) -> dict[str, str]:
        """Settings that switch off every configured filter."""
        off: dict[str, str] = {}
        for name in self.ask("config", "--list", "--name-only", "-z").split(b"\0"):
            if (found := _FILTER_SETTING.fullmatch(name)) is not None:
                driver = f"filter.{os.fsdecode(found[1])}"
                off |= {f"{driver}.clean": "", f"{driver}.smudge": "", f"{driver}.process": ""}
                off |= {f"{driver}.required": "false"}
        return off


def split(chunks: Iterable[bytes], separator: bytes) -> Iterator[bytes]:
    """Yield the parts between separators, however chunked; the last part too if it is not empty."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(separator)
        yield from whole
    if rest:
        yield rest


def _c_quoted(path: bytes) -> bytes:
    """A path, quoted so that git reads it from a line whatever bytes it has."""
    return b'"' + _TO_BE_QUOTED.sub(lambda found: b"\\%03o" % found[0][0], path) + b'"'


def _paths(answer: bytes) -> set[str]:
    return {os.fsdecode(path) for path in answer.split(b"\0") if path}


def _is_same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _is_other(path: Path) -> bool:
    """Whether something other than a file is there."""
    try:
        return not stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def _is_blob(path: Path, blob: str) -> bool:
    """Whether a file has exactly the bytes of a blob."""
    with (
        suppress(OSError),
        open(system.open_descriptor(path, os.O_RDONLY | system.O_NOFOLLOW | system.O_NONBLOCK), "rb") as file,
    ):
        hasher = hashlib.new("sha256" if len(blob) == 64 else "sha1", usedforsecurity=False)
        hasher.update(b"blob %d\0" % os.fstat(file.fileno()).st_size)
        while block := file.read(_CHUNK_BYTES):
            hasher.update(block)
        return hasher.hexdigest() == blob
    return False


def _refuse(file: Path | None) -> None:
    if file is not None:
        shown = safe_text(str(file), limit=4000)
        raise GitUnusable(
            f"{shown} is a pipe or a device, and git would wait for it; put a file in its place, or configure another"
        )
