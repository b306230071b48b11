"""Questions to git, each answered by one process.

A repository is somebody else's: what it configures must not run. So there is one place that says how git is started:

- `git_environment` drops every ``GIT_…`` variable (in a hook they name another repository, index or object store) but
  those of the user's own configuration, and forbids to fetch, to lock, to ask and to edit;
- `SWITCHED_OFF` overrides, on the command line, the settings that start programs;
- `COMMANDS` are the only commands there are: plumbing, which reads no setting of how things are shown, changes
  nothing, and runs neither hooks, aliases nor pagers. None of them writes a patch, so no diff driver is ever asked.
- filters have names that a repository chooses; `Git.uncommitted`, where git might run one, empties them by name.

Rules: paths go in and out with NULs around them and keep bytes that are not UTF-8. A folder without git is fine; a
git that does not work is an error.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from grym_fetch.core.errors import RepositoryError
from grym_fetch.core.text import safe_text
from grym_fetch.disk.repository import is_repository_root

COMMANDS = frozenset(
    {
        "cat-file", "check-attr", "check-ignore", "config", "diff-files", "diff-index", "diff-tree", "hash-object",
        "ls-files", "ls-tree", "rev-list", "rev-parse",
    }
)  # fmt: skip
"""The only git commands that are ever started."""

SWITCHED_OFF: Mapping[str, str] = {
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "hook.post-index-change.enabled": "false",  # hooks that are configured lie in no folder
    "hook.reference-transaction.enabled": "false",
    "hook.pre-auto-gc.enabled": "false",
    "core.pager": "cat",
    "core.editor": ":",
    "sequence.editor": ":",
    "core.askPass": "",
    "core.sshCommand": "false",
    "core.alternateRefsCommand": ":",
    "credential.helper": "",
    "diff.external": "",
    "interactive.diffFilter": "cat",
    "log.showSignature": "false",
    "gpg.program": "false",
    "gpg.openpgp.program": "false",
    "gpg.x509.program": "false",
    "gpg.ssh.program": "false",
    "gpg.ssh.defaultKeyCommand": "false",
    "protocol.allow": "never",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
}
"""Settings that start programs, and what they are for us, whatever a repository says."""

_ENVIRONMENT: Mapping[str, str] = {
    "GIT_ALLOW_PROTOCOL": "none",  # a list of what is allowed: nothing has this name, so nothing is fetched
    "GIT_ASKPASS": "",
    "GIT_EDITOR": ":",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_PAGER": "cat",
    "GIT_SEQUENCE_EDITOR": ":",
    "GIT_SSH_COMMAND": "false",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}
_KEPT = frozenset({"GIT_EXEC_PATH", "GIT_CEILING_DIRECTORIES", "GIT_DISCOVERY_ACROSS_FILESYSTEM"})
"""What else the user may say of git. Not GIT_DIR and its like, and no program."""

_CHUNK_BYTES = 1 << 20
_TO_BE_QUOTED = re.compile(rb'["\\\x00-\x1f]')
_FILTER_SETTING = re.compile(rb"filter\.(.*)\.(?:clean|smudge|process|required)", re.DOTALL)
GITLINK = "160000"
"""The mode of a submodule in an index."""


class GitUnusable(RepositoryError):
    """There is a repository, but git cannot be used on it."""


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """What git has staged for a path.

    ``is_skipped``: a sparse checkout leaves it out of the work tree. ``is_unwatched``: git was told not to look whether
    the file changes (``--assume-unchanged``, ``--skip-worktree``).
    """

    mode: str
    blob: str
    is_skipped: bool
    is_unwatched: bool


def git_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return git's environment: ``environ`` without the variables that name another repository or a program.

    ``GIT_CONFIG_…`` stays: it is the user's own configuration, such as safe.directory.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith("GIT_") or name.startswith("GIT_CONFIG_") or name in _KEPT
    }
    return {**kept, **_ENVIRONMENT}


def git_command(program: str, folder: Path, command: Sequence[str]) -> list[str]:
    """Return the command line of a git that is asked about ``folder``."""
    if (name := _name(command)) not in COMMANDS:
        raise ValueError(f"git {name} is not one of the commands that are known to run nothing")
    settings = [word for setting, value in SWITCHED_OFF.items() for word in ("-c", f"{setting}={value}")]
    return [program, "--no-pager", "-C", os.fspath(folder), *settings, *command]


class Git:
    """A repository. ``folder`` is its work tree, or, for its history alone, the repository itself."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("git")
        if program is None:
            raise GitUnusable("git is not installed or not in PATH")
        self._program = program
        self._folder = folder
        self._environ = git_environment(os.environ)

    @classmethod
    def of(cls, root: Path) -> Self | None:
        """The repository whose work tree begins at ``root``, None if there is none.

        Raises:
            GitUnusable: there is one, but git is missing, refuses it, or takes another folder for its work tree.
        """
        if not is_repository_root(root):
            return None
        git = cls(root)
        top = git.ask_path("--show-toplevel")
        if not _is_same(top, root):
            shown, other = safe_text(str(root), limit=4000), safe_text(str(top), limit=4000)
            raise GitUnusable(
                f"git says that the work tree of {shown} is {other}: its .git is damaged, or core.worktree leads "
                f"elsewhere. Mend that (`git -C {shown} rev-parse --show-toplevel`), or work in {other}"
            )
        return git

    def ask(
        self,
        *command: str,
        given: bytes = b"",
        good: Sequence[int] = (0,),
        settings: Mapping[str, str] | None = None,
    ) -> bytes:
        """Run git and return what it writes. Raises `GitUnusable` with git's own words.

        ``settings`` are for names that the repository chooses, which may have any character.
        """
        line = git_command(self._program, self._folder, command)
        environ = _with_settings(self._environ, settings or {})
        try:
            done = subprocess.run(line, input=given, capture_output=True, env=environ, check=False)  # noqa: S603 - a program from PATH with arguments of ours
        except OSError as error:  # such as more filters to be switched off than a command line holds
            why = (error.strerror or str(error)).lower()
            raise GitUnusable(f"git {_name(command)} could not be started: {why}") from error
        if done.returncode not in good:
            raise GitUnusable(complaint(_name(command), done.stderr, self._folder))
        return done.stdout

    def has_work_tree(self) -> bool:
        """Whether there is a work tree at all, so that anything here could be committed."""
        return self.ask("rev-parse", "--is-bare-repository") != b"true\n"

    def ask_path(self, option: str) -> Path:
        """A path that ``rev-parse`` knows."""
        answer = self.ask("rev-parse", option)
        return self._folder / os.fsdecode(answer.removesuffix(b"\n"))

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
                        git_command(self._program, self._folder, command),
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
            while chunk := last.read(_CHUNK_BYTES):
                yield chunk
            for process, command in zip(running, commands, strict=True):
                if process.wait() != 0:
                    raise GitUnusable(f"git {_name(command)} failed with exit code {process.returncode}")

    def index(self) -> dict[str, IndexEntry]:
        """What is staged, by path relative to the root; of a conflict, one of its sides."""
        found = {}
        for line in self.ask("ls-files", "-s", "-v", "-z").split(b"\0"):
            if line:
                figures, _, path = line.partition(b"\t")
                tag, mode, blob, _ = figures.decode("ascii").split(" ")
                is_skipped = tag in "Ss"
                found[os.fsdecode(path)] = IndexEntry(mode, blob, is_skipped, is_unwatched=is_skipped or tag.islower())
        return found

    def committed(self) -> set[str]:
        """The paths of the last commit, relative to the root."""
        if not self._has_commit():
            return set()
        return _paths(self.ask("ls-tree", "-r", "-z", "--name-only", "--full-tree", "HEAD"))

    def ignored(self, folder: str, paths: Iterable[str], *, with_index: bool = True) -> set[str]:
        """Which of these paths, relative to ``folder`` below the root, git ignores.

        Tracked files are not ignored, whatever the rules say, unless ``with_index`` is False.
        """
        # With ./ in front no path can be taken for an option or for magic.
        given = b"".join(b"./" + os.fsencode(folder + path) + b"\0" for path in paths)
        if not given:
            return set()
        options = () if with_index else ("--no-index",)
        answer = self.ask("check-ignore", "-z", "--stdin", *options, given=given, good=(0, 1))
        skip = len("./" + folder)
        return {os.fsdecode(path)[skip:] for path in answer.split(b"\0") if path}

    def filters(self, paths: Sequence[str]) -> dict[str, str]:
        """The filter attribute of each path, relative to the root, that has one."""
        given = b"".join(os.fsencode(path) + b"\0" for path in paths)
        if not given:
            return {}
        fields = self.ask("check-attr", "-z", "--stdin", "filter", given=given).split(b"\0")
        values = (os.fsdecode(value) for value in fields[2::3])
        unset = ("unspecified", "unset", "set", "")
        return {path: value for path, value in zip(paths, values, strict=True) if value not in unset}

    def blob_sizes(self, blobs: Collection[str]) -> dict[str, int]:
        """The sizes of blobs in bytes, of those that are here."""
        given = "".join(f"{blob}\n" for blob in blobs).encode("ascii")
        sizes = {}
        for line in self.ask("cat-file", "--batch-check=%(objectname) %(objectsize)", given=given).splitlines():
            name, _, size = line.decode("ascii").partition(" ")
            if size.isdecimal():
                sizes[name] = int(size)
        return sizes

    def uncommitted(self, index: Mapping[str, IndexEntry], paths: Iterable[str]) -> set[str]:
        """Which of these paths, relative to the root, are tracked and not as in the last commit, staged or not.

        Where a file only looks touched, or git was told not to look, its content is compared with the staged one:
        converted as git would, but for filters, which are programs. A file that has one counts as changed then.
        """
        tracked = [path for path in paths if path in index]
        if not tracked:
            return set()
        if not self._has_commit():
            return set(tracked)
        same = ("--name-only", "--no-renames", "--ignore-submodules=all", "-z")
        staged = _paths(self.ask("diff-index", "--cached", *same, "HEAD", "--"))
        # A file as young as the index is read and compared, and would go through its filter for that.
        touched = _paths(self.ask("diff-files", *same, settings=self._no_filters()))
        in_doubt = [path for path in tracked if path in touched or index[path].is_unwatched]
        changed = [path for path in in_doubt if not _is_blob(self._folder / path, index[path].blob)]
        return staged.intersection(tracked) | {
            path for path, blob in self._converted(changed).items() if blob != index[path].blob
        }

    def _converted(self, paths: Sequence[str]) -> dict[str, str | None]:
        """The names of the blobs that git would make of these files without their filters; None of one it cannot read.

        Line ends, keywords and encodings are converted as the attributes say.
        """
        if not paths:
            return {}
        given = b"".join(_c_quoted(os.fsencode(path)) + b"\n" for path in paths)
        # Else git would compress a file of more than this many bytes, only to forget the result.
        settings = {**self._no_filters(), "core.bigFileThreshold": "1000g"}
        try:
            names = self.ask("hash-object", "--stdin-paths", given=given, settings=settings).decode("ascii").split()
        except GitUnusable:
            if len(paths) == 1:
                return {paths[0]: None}
            return {path: blob for one in paths for path, blob in self._converted([one]).items()}
        return dict(zip(paths, names, strict=True))

    def _has_commit(self) -> bool:
        return self.ask("rev-parse", "--quiet", "--verify", "HEAD^{commit}", good=(0, 1)) != b""

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
    """Yield what stands between separators, whatever the chunks; the last one too if it is not empty."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(separator)
        yield from whole
    if rest:
        yield rest


def complaint(command: str, stderr: bytes, folder: Path) -> str:
    """Explain a failure of git: in its own words and, if it does not trust the folder, with the whole remedy."""
    lines = [line for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    text = f"git {command} failed: {safe_text(lines[0] if lines else 'no reason given')}"
    if any("safe.directory" in line for line in lines):
        shown = safe_text(str(folder), limit=4000)
        remedy = next((line.strip() for line in lines if "--add safe.directory" in line), "")
        remedy = safe_text(remedy, limit=4000) or f"git config --global --add safe.directory {shown}"
        text += f". It belongs to another user; if you trust whoever that is: `{remedy}`"
    return text


def _name(command: Sequence[str]) -> str:
    return next(word for word in command if not word.startswith("-"))


def _with_settings(environ: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """Add settings as variables, behind those that are there; the value of ``-c`` ends at any ``=`` of a name."""
    given = environ.get("GIT_CONFIG_COUNT", "")
    count = int(given) if given.isdecimal() else 0
    result = dict(environ)
    for number, (name, value) in enumerate(settings.items(), count):
        result |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    return result | {"GIT_CONFIG_COUNT": str(count + len(settings))} if settings else result


def _c_quoted(path: bytes) -> bytes:
    """A path as git reads it from a line, whatever bytes it has."""
    return b'"' + _TO_BE_QUOTED.sub(lambda found: b"\\%03o" % found[0][0], path) + b'"'


def _paths(answer: bytes) -> set[str]:
    return {os.fsdecode(path) for path in answer.split(b"\0") if path}


def _is_same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _is_blob(path: Path, blob: str) -> bool:
    """Whether a file has exactly the bytes of a blob."""
    with suppress(OSError), open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        hasher = hashlib.new("sha256" if len(blob) == 64 else "sha1", usedforsecurity=False)
        hasher.update(b"blob %d\0" % os.fstat(file.fileno()).st_size)
        while block := file.read(_CHUNK_BYTES):
            hasher.update(block)
        return hasher.hexdigest() == blob
    return False
