"""Makes a project ready: its manifest, its folders, and what git ignores.

Rules: each step says what it did, or that nothing was to be done; a second run changes nothing. Nothing that exists is
ever replaced: missing files are created, and lines are added to ``.gitignore``, never changed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from grym_fetch.core.errors import ManifestMissing, StorageError
from grym_fetch.core.paths import MOVED_FILES
from grym_fetch.core.text import safe_text
from grym_fetch.disk.atomic import create_file
from grym_fetch.disk.folders import opened_folder, storage_errors, sync
from grym_fetch.disk.project import CANDIDATES, Project, find_project
from grym_fetch.disk.repository import repository_root
from grym_fetch.project.diagnosis import Finding, environment_findings, permission_findings

State = Literal["ok", "done", "warn", "fail"]

MIN_PYTHON = (3, 11)
IGNORE = ".gitignore"
_EXTERNAL_IGNORE = f"*\n!{IGNORE}\n!{MOVED_FILES}\n"


@dataclass(frozen=True, slots=True)
class Step:
    """One step. ``done``: something was made; ``ok``: it was right already. ``advice`` is what to do next."""

    state: State
    step: str
    what: str
    advice: str = ""
    is_storage: bool = False
    """Whether a failure is the disk's, for the exit code."""

    def as_json(self) -> dict[str, object]:
        """For ``--json``."""
        return {"type": "setup_step", "step": self.step, "state": self.state, "what": self.what, "advice": self.advice}


def system_steps(environ: Mapping[str, str]) -> Iterator[Step]:
    """Python and the network settings."""
    here = ".".join(map(str, sys.version_info[:3]))
    needed = ".".join(map(str, MIN_PYTHON))
    if sys.version_info[:2] >= MIN_PYTHON:
        yield Step("ok", "python", f"Python {here}")
    else:
        yield Step("fail", "python", f"Python {here}", f"grym-fetch needs {needed} or later")
    for finding in environment_findings(environ):
        yield _step(finding)


def manifest_step(
    cwd: Path, environ: Mapping[str, str], now: datetime, *, config: str | None, places: Mapping[str, str | None]
) -> tuple[Step, Project]:
    """Find the manifest or make an empty one, at the root of the repository or else in ``cwd``.

    Raises `ManifestMissing` if one was named and is not there.
    """
    try:
        project = find_project(config=config, environ=environ, cwd=cwd, **places)
    except ManifestMissing:
        if config or environ.get("GRYM_FETCH_CONFIG"):
            raise
    else:
        return Step("ok", "manifest", f"{_shown(project.manifest_path)} is there"), project
    path = (repository_root(cwd) or cwd) / CANDIDATES[0]
    text = json.dumps({"version": "1.0", "updated": _iso(now), "assets": []}, indent=2) + "\n"
    with storage_errors(path):
        _write_new(path, text)
    project = find_project(config=None, environ=environ, cwd=cwd, **places)
    what = f"made {_shown(path)}, with no assets yet"
    return Step("done", "manifest", what, "list assets in it; `grym-fetch schema` prints the format"), project


def folder_steps(project: Project, now: datetime, *, external_is_chosen: bool) -> Iterator[Step]:
    """The assets folder and the external folder, with what belongs into it."""
    yield _made_folder("assets folder", project.assets_dir)
    for finding in permission_findings(project):
        if finding.level != "ok":
            yield _step(finding, is_storage=True)
    external = _made_folder("external folder", project.external_dir)
    if external.state == "fail":
        if not external_is_chosen:
            # Only files that were moved out of the repository need it.
            what = f"{external.what}; it is needed for moved and shared files only"
            external = Step("warn", external.step, what, "name another one with --external-assets-dir")
        yield external
        return
    yield external
    moved = {"version": "1.0", "created": _iso(now), "updated": _iso(now), "assets": []}
    yield _made_file("external record", project.external_dir / MOVED_FILES, json.dumps(moved, indent=2) + "\n")
    if project.external_dir != project.assets_dir:
        yield _made_file("external .gitignore", project.external_dir / IGNORE, _EXTERNAL_IGNORE)


def git_steps(project: Project) -> Iterator[Step]:
    """What git is to ignore: the assets folder and the logs."""
    repository = repository_root(project.root)
    if repository is None:
        yield Step("ok", "git", "no git repository here, so nothing to ignore")
        return
    wanted = [folder for folder in (project.assets_dir, project.root / "logs") if folder.is_relative_to(repository)]
    lines = [f"/{folder.relative_to(repository).as_posix()}/" for folder in wanted if folder != repository]
    missing = [line for line in lines if not _is_ignored(repository, line)]
    path = repository / IGNORE
    if missing:
        with storage_errors(path):
            _append_lines(path, missing)
        yield Step("done", "git", f"added {' and '.join(missing)} to {_shown(path)}")
    else:
        yield Step("ok", "git", f"{' and '.join(lines)} are ignored")
    if project.assets_dir.is_relative_to(repository) and (count := _tracked(repository, project.assets_dir)):
        folder = safe_text(project.assets_dir.relative_to(repository).as_posix())
        what = f"git tracks {count} file{'s' if count != 1 else ''} in {folder} nevertheless"
        yield Step("warn", "git", what, f"git rm -r --cached {folder}, and commit")


def _step(finding: Finding, *, is_storage: bool = False) -> Step:
    return Step(finding.level, finding.check, finding.what, finding.advice, is_storage)


def _made_folder(name: str, folder: Path) -> Step:
    shown = _shown(folder)
    if folder.is_dir():
        return Step("ok", name, f"{shown} is there")
    try:
        with storage_errors(folder):
            folder.mkdir(parents=True)
    except StorageError as error:
        return Step("fail", name, str(error), "create it by hand, or name another folder", is_storage=True)
    return Step("done", name, f"made {shown}")


def _made_file(name: str, path: Path, text: str) -> Step:
    if os.path.lexists(path):
        return Step("ok", name, f"{_shown(path)} is there")
    try:
        with storage_errors(path):
            _write_new(path, text)
    except StorageError as error:
        return Step("warn", name, str(error), "make the folder writable for this user")
    return Step("done", name, f"made {_shown(path)}")


def _write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet, whole or not at all."""
    with opened_folder(path.parent) as folder:
        create_file(folder, path.name, text.encode())


def _append_lines(path: Path, lines: list[str]) -> None:
    with open(path, "a+b") as file:
        file.seek(0)
        before = file.read()
        start = b"\n" if before and not before.endswith(b"\n") else b""
        ending = b"\r\n" if b"\r\n" in before else b"\n"
        file.write(start + b"".join(line.encode() + ending for line in lines))
        file.flush()
        sync(file.fileno())


def _is_ignored(repository: Path, line: str) -> bool:
    done = _git(repository, "check-ignore", "--quiet", "--no-index", line.strip("/") + "/")
    if done is not None and done.returncode in (0, 1):
        return done.returncode == 0
    try:
        known = (repository / IGNORE).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(candidate.strip().strip("/") == line.strip("/") for candidate in known)


def _tracked(repository: Path, folder: Path) -> int:
    done = _git(repository, "ls-files", "-z", "--", str(folder))
    return done.stdout.count(b"\0") if done is not None and done.returncode == 0 else 0


def _git(repository: Path, *arguments: str) -> subprocess.CompletedProcess[bytes] | None:
    program = shutil.which("git")
    if program is None:
        return None
    command = [program, "-C", str(repository), "-c", "core.fsmonitor=false", *arguments]
    return subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)  # noqa: S603 - from PATH


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _shown(path: Path) -> str:
    return safe_text(str(path), limit=1000)
