"""A repository that configures a trap for every program that git could start, by git's own list of settings."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from tests.repo.story import git, write

SETTINGS = tomllib.loads(Path(__file__).with_name("git_settings.toml").read_text(encoding="utf-8"))
PROGRAMS: dict[str, str] = {name: why for why, names in SETTINGS["programs"].items() for name in names}
"""Settings that start a program or lead to one, and why none starts from here."""
_SWITCHES = {
    "core.hooksPath", "log.showSignature", "gc.auto", "maintenance.auto", "merge.verifySignatures", "commit.gpgSign",
    "tag.gpgSign", "tag.forceSignAnnotated", "receive.autogc", "remote.<name>.promisor", "add.interactive.useBuiltin",
    "transfer.bundleURI", "extensions.*",
}  # fmt: skip
"""Those whose value is not a program."""
_HOOKS = (
    "fsmonitor-watchman", "post-index-change", "reference-transaction", "post-checkout", "pre-commit", "post-rewrite",
    "pre-auto-gc", "post-merge", "update", "proc-receive",
)  # fmt: skip
ATTRIBUTES = b'*.bin filter=evil diff=evil merge=evil\n*.dat filter=e=vi"l\n'
"""Attributes that send files through the trap."""


@cache
def documented() -> list[str]:
    """Every setting that git documents."""
    lines = subprocess.run(["git", "help", "--config"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if line and " " not in line]


def is_known(name: str) -> bool:
    """Whether a setting is in the table, either as one that starts a program or as one that starts nothing."""
    nothing = SETTINGS["nothing"]
    section, _, rest = name.partition(".")
    if name in PROGRAMS or rest in nothing.get(section, "").split():
        return True
    return any(fnmatchcase(name, family) for family in nothing["families"])


class Trap:
    """A program that leaves a trace when started, whatever the purpose."""

    def __init__(self, folder: Path) -> None:
        self._trace = folder / "it-ran"
        self.program = write(folder, "trap", f'#!/bin/sh\necho "$0 $*" >> {self._trace}\nexit 1\n'.encode())
        self.program.chmod(0o755)

    def ran(self) -> str:
        """What was started since the last call."""
        text = self._trace.read_text() if self._trace.exists() else ""
        self._trace.unlink(missing_ok=True)
        return text


def sign(root: Path) -> None:
    """Sign the last commit, so that ``log.showSignature`` checks the signature."""
    head, _, message = git(root, "cat-file", "commit", "HEAD").partition("\n\n")
    signature = "gpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----"
    signed = subprocess.run(
        ["git", "hash-object", "-t", "commit", "-w", "--stdin"],
        cwd=root, input=f"{head}\n{signature}\n\n{message}\n", capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    git(root, "update-ref", "HEAD", signed)


@contextmanager
def armed(git_dir: Path, trap: Trap) -> Iterator[None]:
    """While the block runs, set the trap for everything, in the repository and in a file that it includes."""
    config, hooks = git_dir / "config", git_dir / "hooks"
    before = config.read_bytes()
    kept = hooks.rename(git_dir / "hooks-before") if hooks.exists() else None
    hooks.mkdir()
    for hook in _HOOKS:
        shutil.copy(trap.program, hooks / hook)
    settings = _settings(trap.program, hooks)
    write(git_dir, "more", settings.encode())
    config.write_bytes(before + settings.encode() + b"[include]\n\tpath = more\n")
    try:
        yield
    finally:
        config.write_bytes(before)
        (git_dir / "more").unlink()
        shutil.rmtree(hooks)
        if kept is not None:
            kept.rename(hooks)


def _settings(program: Path, hooks: Path) -> str:
    named = [
        f"{_section(name)}\n\t{name.rpartition('.')[2].strip('<>*') or 'evil'} = {program}\n"
        for name in PROGRAMS
        if not name.startswith(("include", "protocol.", "submodule.", "fetch.", "push.", "hook.", "promisor."))
        and name not in _SWITCHES
    ]
    return "".join(named) + (
        f'[filter "evil"]\n\tclean = {program}\n\tsmudge = {program}\n\trequired = true\n'
        f'[filter "e=vi\\"l"]\n\tprocess = {program}\n\trequired = true\n'
        f'[filter "lfs"]\n\tclean = {program}\n\tprocess = {program}\n\trequired = true\n'
        f'[diff "evil"]\n\tcommand = {program}\n\ttextconv = {program}\n'
        f'[remote "evil"]\n\turl = ext::{program}\n\tpromisor = true\n'
        f"[alias]\n\tls-files = !{program}\n\trev-list = !{program}\n"
        f'[hook "evil"]\n\tcommand = {program}\n\tevent = post-index-change\n\tevent = reference-transaction\n'
        f"[log]\n\tshowSignature = true\n[submodule]\n\trecurse = true\n[protocol]\n\tallow = always\n"
        f'[protocol "ext"]\n\tallow = always\n[core]\n\thooksPath = {hooks}\n[diff]\n\texternal = {program}\n'
    )


def _section(name: str) -> str:
    first, *middle, _ = name.split(".")
    if not middle:
        return f"[{first}]"
    return f'[{first} "{"evil" if middle[0].startswith("<") else ".".join(middle)}"]'
