"""The only place where git is started.

A repository belongs to somebody else, so nothing that it configures may run.

- `git_environment` drops every ``GIT_…`` variable (in a hook they name another repository, index or object store)
  except those of the user's own configuration, and forbids fetching, locking, prompting and editing;
- `SWITCHED_OFF` overrides, on the command line, the settings that start programs;
- `COMMANDS` are the only commands used: plumbing, which ignores display settings, changes nothing, and runs no hooks,
  aliases or pagers. None of them writes a patch, so no diff driver is ever run.

Rules: every wait for git has an end, and no git process outlives the question.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import IO, NamedTuple

from grym_fetch.core.errors import RepositoryError
from grym_fetch.runtime import system

PATIENCE_S = 600.0
"""How many seconds git may take for an answer, or in a stream for the next bytes of it."""
_CHUNK_BYTES = 1 << 20
_MOST_STDERR_BYTES = 64 * 1024
COMMANDS = frozenset(
    {
        "cat-file", "check-attr", "check-ignore", "config", "diff-files", "diff-index", "diff-tree", "for-each-ref",
        "hash-object", "ls-files", "ls-tree", "rev-list", "rev-parse",
    }
)  # fmt: skip
"""The only git commands that are ever started."""

SWITCHED_OFF: Mapping[str, str] = {
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "hook.post-index-change.enabled": "false",  # configured hooks are not in a folder
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
"""Settings that start programs, with the values that we use whatever a repository says."""

_ENVIRONMENT: Mapping[str, str] = {
    "GIT_ALLOW_PROTOCOL": "none",  # a list of allowed protocols: none has this name, so nothing is fetched
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
"""The git variables that the user may set. Not GIT_DIR and the like, and no program."""


class GitUnusable(RepositoryError):
    """There is a repository, but git cannot be used on it."""


class Ended(NamedTuple):
    """How a git process ended: its exit code, negative if a signal ended it, and its complaints."""

    code: int
    stderr: bytes


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
    """Return the command line to ask git about ``folder``."""
    if (name := name_of(command)) not in COMMANDS:
        raise ValueError(f"git {name} is not one of the commands that are known to run nothing")
    settings = [word for setting, value in SWITCHED_OFF.items() for word in ("-c", f"{setting}={value}")]
    return [program, "--no-pager", "-C", os.fspath(folder), *settings, *command]


def run(
    line: Sequence[str], given: bytes, environ: Mapping[str, str], seconds: float
) -> subprocess.CompletedProcess[bytes]:
    """Run git to its end. Raises `GitUnusable` if it cannot be started or takes more than ``seconds``."""
    try:
        return subprocess.run(line, input=given, capture_output=True, env=environ, timeout=seconds, check=False)  # noqa: S603 - a program from PATH with arguments of ours
    except subprocess.TimeoutExpired:
        raise _silent([line], seconds) from None
    except OSError as error:  # such as more filters to switch off than fit on a command line
        raise _unstarted(line, error) from error


def pipe(
    lines: Sequence[Sequence[str]],
    given: Iterable[bytes] | None,
    environ: Mapping[str, str],
    seconds: float,
    ended: list[Ended],
) -> Generator[bytes, None, None]:
    """Run git commands, each reading what the one before writes; yield the last one's output, then fill ``ended``.

    ``given`` goes to the first one; it must be small enough to be kept in memory. Raises `GitUnusable` if one cannot
    be started, or if nothing comes for ``seconds``.
    """
    import tempfile

    with ExitStack() as stack:
        source: IO[bytes] | int = subprocess.DEVNULL
        if given is not None:
            source = stack.enter_context(tempfile.TemporaryFile())
            source.writelines(given)
            source.seek(0)
        running: list[subprocess.Popen[bytes]] = []
        complaints: list[IO[bytes]] = []
        for line in lines:
            complaints.append(stack.enter_context(tempfile.TemporaryFile()))
            try:
                process = subprocess.Popen(  # noqa: S603 - as above
                    line, stdin=source, stdout=subprocess.PIPE, stderr=complaints[-1], env=environ
                )
            except OSError as error:
                raise _unstarted(line, error) from error
            stack.callback(_end, process)
            if running and running[-1].stdout is not None:
                running[-1].stdout.close()  # the next process has it; close ours, so that a broken pipe is noticed
            running.append(process)
            assert process.stdout is not None
            source = process.stdout
        output = running[-1].stdout
        assert output is not None
        while True:
            if not system.wait_for_output(output.fileno(), seconds):
                raise _silent(lines, seconds)
            if not (chunk := os.read(output.fileno(), _CHUNK_BYTES)):
                break
            yield chunk
        for process, complaint in zip(running, complaints, strict=True):
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                raise _silent(lines, seconds) from None
            complaint.seek(0)
            ended.append(Ended(code, complaint.read(_MOST_STDERR_BYTES)))


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _silent(lines: Sequence[Sequence[str]], seconds: float) -> GitUnusable:
    names = " | ".join(f"git {_command_in(line)}" for line in lines)
    return GitUnusable(
        f"{names} has not answered for {seconds:g} seconds and was ended: something that it reads may be a pipe, or "
        "lie on a disk that does not answer; `git config --list --show-origin` shows which files are configured"
    )


def _unstarted(line: Sequence[str], error: OSError) -> GitUnusable:
    return GitUnusable(f"git {_command_in(line)} could not be started: {(error.strerror or str(error)).lower()}")


def _command_in(line: Sequence[str]) -> str:
    """The git command in a line made by `git_command`."""
    return next((word for option, word in pairwise(line) if word in COMMANDS and option not in ("-C", "-c")), line[0])


def name_of(command: Sequence[str]) -> str:
    """The name of the command among its words."""
    return next(word for word in command if not word.startswith("-"))


def with_settings(environ: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """Add settings as variables, after existing ones. With ``-c``, a ``=`` in a name would end the name."""
    given = environ.get("GIT_CONFIG_COUNT", "")
    count = int(given) if given.isdecimal() else 0
    result = dict(environ)
    for number, (name, value) in enumerate(settings.items(), count):
        result |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    return result | {"GIT_CONFIG_COUNT": str(count + len(settings))} if settings else result
