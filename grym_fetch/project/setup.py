"""Makes a project ready: its manifest, its folders, and what git ignores.

Rules: each step says what it did, or that there was nothing to do; a second run changes nothing. Nothing that exists is
ever replaced: missing files are created, and lines are added to ``.gitignore``, never changed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from grym_fetch.core.command_lines import command_line
from grym_fetch.core.errors import ManifestMissing, RepositoryError, StorageError, UnsafePath
from grym_fetch.core.figures import format_size
from grym_fetch.core.paths import MOVED_FILES
from grym_fetch.core.text import safe_text
from grym_fetch.core.variables import said_in
from grym_fetch.disk.atomic import create_file
from grym_fetch.disk.folders import opened_folder, storage_errors
from grym_fetch.disk.repository import check_is_not_gits, repository_root
from grym_fetch.manifest_files.project import CANDIDATES, Project, find_project, project_of
from grym_fetch.project.diagnosis import Finding, environment_findings, permission_findings
from grym_fetch.repo.entries import IGNORE_FILE, add_to_gitignore
from grym_fetch.repo.git import Git, GitUnusable
from grym_fetch.repo.identify import ignore_line
from grym_fetch.repo.places import placeholders
from grym_fetch.repo.target import check_named, check_owner
from grym_fetch.repo.tree import below

State = Literal["ok", "done", "warn", "fail"]

MIN_PYTHON = (3, 11)
_FEW = 5
_ONLY_NAMED = "`clean` and `restore` use it only if you name it"
_EXTERNAL_IGNORE = f"*\n!{IGNORE_FILE}\n!{MOVED_FILES}\n"


@dataclass(frozen=True, slots=True)
class Step:
    """One step. ``done``: something was created; ``ok``: nothing to do. ``advice`` is what to do next."""

    state: State
    step: str
    what: str
    advice: str = ""
    is_storage: bool = False
    """Whether a failure is the disk's, for the exit code."""

    def as_json(self) -> dict[str, object]:
        """Return the step for ``--json``."""
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
    """Find the manifest, or make an empty one at the root of the repository or else in ``cwd``.

    Raises `ManifestMissing` if one was named and does not exist; `UnsafePath` if it would lie in git's own folder. What
    else `find_project` raises, it raises before anything is made.
    """
    try:
        project = find_project(config=config, environ=environ, cwd=cwd, **places)
    except ManifestMissing:
        if config or said_in(environ, "GRYM_FETCH_CONFIG"):
            raise
    else:
        return Step("ok", "manifest", f"{_shown(project.manifest_path)} is there"), project
    root = repository_root(cwd) or cwd
    check_is_not_gits(root)
    path = root / CANDIDATES[0]
    project = project_of(path, environ=environ, cwd=cwd, is_named=False, **places)
    text = json.dumps({"version": "1.0", "updated": _iso(now), "assets": []}, indent=2) + "\n"
    with storage_errors(path):
        _write_new(path, text)
    what = f"made {_shown(path)}, with no assets yet"
    return Step("done", "manifest", what, "list assets in it; `grym-fetch schema` prints the format"), project


def folder_steps(project: Project, now: datetime) -> Iterator[Step]:
    """The assets folder, and, if somebody has named it, the external folder with its files.

    Nothing is made outside the project without being asked for.
    """
    yield _made_folder("assets folder", project.assets_dir)
    for finding in permission_findings(project):
        if finding.level != "ok":
            yield _step(finding, is_storage=True)
    external = _external_folder(project)
    yield external
    if external.state == "fail" or not project.is_external_named:
        return
    moved = {"version": "1.0", "created": _iso(now), "updated": _iso(now), "assets": []}
    yield _made_file("external record", project.external_dir / MOVED_FILES, json.dumps(moved, indent=2) + "\n")
    if project.external_dir != project.assets_dir:
        yield _made_file("external .gitignore", project.external_dir / IGNORE_FILE, _EXTERNAL_IGNORE)


def git_steps(project: Project) -> Iterator[Step]:
    """Make git ignore the assets folder and the logs. Raises `StorageError`, also if ``.gitignore`` is a symlink."""
    repository = repository_root(project.root)
    if repository is None:
        yield Step("ok", "git", "no git repository here, so nothing to ignore")
        return
    assets_dir, logs = (Path(os.path.normpath(each)) for each in (project.assets_dir, project.root / "logs"))
    wanted = [each for each in (assets_dir, logs) if each != repository and each.is_relative_to(repository)]
    lines = {folder: f"{ignore_line(below(repository, folder)[:-1])}/" for folder in wanted}
    git = _git(repository)
    missing = [line for folder, line in lines.items() if not _is_ignored(git, repository, folder, line)]
    if missing:
        add_to_gitignore(repository, missing)
        added = " and ".join(map(safe_text, missing))
        yield Step("done", "git", f"added {added} to {_shown(repository / IGNORE_FILE)}")
    else:
        yield Step("ok", "git", f"{' and '.join(map(safe_text, lines.values()))} are ignored")
    if assets_dir in lines and (count := _tracked(git, repository, assets_dir)):
        folder = assets_dir.relative_to(repository).as_posix()
        what = f"git tracks {count} file{'s' if count != 1 else ''} in {safe_text(folder)} nevertheless"
        yield Step("warn", "git", what, f"{command_line('git', 'rm', '-r', '--cached', names=(folder,))}, and commit")
    manifest = project.manifest_path
    with suppress(GitUnusable):
        if git is not None and manifest.is_relative_to(repository):
            path = manifest.relative_to(repository).as_posix()
            if git.ignored("", [path]):
                asked = command_line("git", "check-ignore", "-v", names=(path,))
                what = f"git ignores {safe_text(path)}, so that others do not get the manifest"
                yield Step("warn", "git", what, f"`{asked}` names the line of .gitignore to be changed")


def moved_steps(project: Project) -> Iterator[Step]:
    """Name the files that were moved out of the repository and are not here: a clone has only their placeholders."""
    repository = repository_root(project.root)
    missing = [place for place in placeholders(repository) if not place.path.exists()] if repository else []
    if missing:
        count, size = len(missing), sum(place.placeholder.size for place in missing)
        names = ", ".join(_shown(place.path.relative_to(repository or project.root)) for place in missing[:_FEW])
        more = f" and {count - _FEW} more" if count > _FEW else ""
        files = f"{count} files of {format_size(size)} were" if count > 1 else f"1 file of {format_size(size)} was"
        what = f"{files} moved out of git: {names}{more}"
        yield Step("warn", "moved files", what, "grym-fetch restore --all brings them back")


def _step(finding: Finding, *, is_storage: bool = False) -> Step:
    return Step(finding.level, finding.check, finding.what, finding.advice, is_storage)


def _external_folder(project: Project) -> Step:
    """The external folder. Unless it was named, it is not made, and must not be a symlink or another user's."""
    folder, advice = project.external_dir, "name another one with --external-assets-dir"
    is_named = project.is_external_named
    if not is_named and folder.is_symlink():
        what = f"{_shown(folder)} is a symlink; {_ONLY_NAMED}"
        return Step("warn", "external folder", f"{what}; it is needed for moved and shared files only", advice)
    try:
        check_is_not_gits(folder)
        if is_named:
            check_named(folder)
        else:
            check_owner(folder, _ONLY_NAMED)
    except (RepositoryError, UnsafePath) as error:
        if is_named:
            return Step("fail", "external folder", str(error), is_storage=True)
        return Step("warn", "external folder", f"{error}; it is needed for moved and shared files only", advice)
    if not is_named and not folder.is_dir():
        what = f"there is no {_shown(folder)}; it is needed for moved and shared files only"
        return Step("ok", "external folder", what, "--external-assets-dir DIR makes one")
    return _made_folder("external folder", folder)


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
    """Write a new file, completely or not at all."""
    with opened_folder(path.parent) as folder:
        create_file(folder, path.name, text.encode())


def _git(repository: Path) -> Git | None:
    """Git for this repository; None if it cannot be asked."""
    try:
        return Git.of(repository)
    except GitUnusable:
        return None


def _is_ignored(git: Git | None, repository: Path, folder: Path, line: str) -> bool:
    if git is not None:
        with suppress(GitUnusable):
            path = below(repository, folder)
            return path in git.ignored("", [path], with_index=False)
    try:
        known = (repository / IGNORE_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(candidate.strip().strip("/") == line.strip("/") for candidate in known)


def _tracked(git: Git | None, repository: Path, folder: Path) -> int:
    prefix = below(repository, folder)
    with suppress(GitUnusable):
        return sum(path.startswith(prefix) for path in git.index()) if git is not None else 0
    return 0


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _shown(path: Path) -> str:
    return safe_text(str(path), limit=1000)
