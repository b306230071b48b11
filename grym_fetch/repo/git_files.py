"""Checks that none of the files that git reads in a repository is a pipe or a device, for which it would wait.

Rules: the files checked are those in git's own folders, those that the configuration names, and the rules next to the
files asked about. Git does not read inner repositories (modules) or other programs' stores for this. Without a
repository there is nothing to check; damage is for git to report.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from grym_fetch.disk.folders import read_regular
from grym_fetch.runtime import system

Settings = Callable[[Path], Iterable[tuple[str, str]]]
"""Returns what one configuration file itself sets, without the files that it includes."""

_ELSEWHERE = frozenset({"modules", "lfs", "annex", "worktrees"})
_RULES = (".gitignore", ".gitattributes")
_MOST_LINK_BYTES = 4096
_MOST_CONFIGURATIONS = 50
_SHARED = frozenset({"objects", "refs"})
"""Names that may be links to another repository's files (git-new-workdir)."""
_MOST_FILES = 500_000
"""Check at most this many, so that a link to anywhere costs little time; the time limit for git covers the rest."""


def find_odd_file(folder: Path, environ: Mapping[str, str], settings: Settings) -> Path | None:
    """The first file that git would wait for, when asked about ``folder``."""
    return next(_odd(folder, environ, settings), None)


def find_odd_rules(root: Path, paths: Iterable[str]) -> Path | None:
    """The first file of rules in the folders of ``paths``, relative to ``root``, that git would wait for."""
    folders = {""}
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    return next((root / folder / name for folder in folders for name in _RULES if _is_odd(root / folder / name)), None)


def _odd(folder: Path, environ: Mapping[str, str], settings: Settings) -> Iterator[Path]:
    # A folder with neither is not a repository, and git will say so.
    own = [
        place for place in _own_folders(folder) if any(os.path.lexists(place / name) for name in ("HEAD", "objects"))
    ]
    for place in own:
        yield from filter(_is_odd, (place / "info" / name for name in ("exclude", "attributes", "grafts")))
        yield from _odd_in(place)
    home = environ.get("HOME", "")
    more = Path(environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")) / "git"
    users = [Path(home, ".gitconfig"), more / "config"]
    if named_one := environ.get("GIT_CONFIG_GLOBAL"):
        users = [Path(named_one)]
    usual = [*users, more / "ignore", more / "attributes", *(folder / name for name in _RULES)]
    yield from filter(_is_odd, usual)
    pending = [*(place / name for place in own for name in ("config", "config.worktree")), *users]
    seen: set[Path] = set()
    while pending and len(seen) < _MOST_CONFIGURATIONS:
        file = pending.pop()
        if file in seen or not os.path.isfile(file):
            continue
        seen.add(file)
        for name, value in settings(file):
            is_included = name == "include.path" or (name.startswith("includeif.") and name.endswith(".path"))
            if is_included or name in ("core.excludesfile", "core.attributesfile"):
                path = (file.parent if is_included else folder) / os.path.expanduser(value)
                if _is_odd(path):
                    yield path
                elif is_included:
                    pending.append(path)


def _own_folders(folder: Path) -> list[Path]:
    """The folder of the repository, and the one that it shares with other work trees."""
    for here in (folder, *folder.parents):
        dot = here / ".git"
        if os.path.lexists(dot):
            own = dot if os.path.isdir(dot) else here / _read_path(dot, "gitdir: ", ".git")
            break
        if all(os.path.lexists(here / name) for name in ("HEAD", "objects", "refs")):
            own = here
            break
    else:
        return []
    return list(dict.fromkeys([own, own / _read_path(own / "commondir", "", "")]))


def _read_path(file: Path, head: str, default: str) -> str:
    """The path written in one of git's files."""
    with suppress(OSError):
        text = os.fsdecode(read_regular(os.path.realpath(file), limit=_MOST_LINK_BYTES)).rstrip("\r\n")
        if text.startswith(head):
            return text.removeprefix(head)
    return default


def _odd_in(top: Path) -> Iterator[Path]:
    pending, left = [os.fspath(top)], _MOST_FILES
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(folder) as listing:
                entries = list(listing)
        except OSError:
            continue
        if (left := left - len(entries)) < 0:
            return
        is_top = folder == os.fspath(top)
        for entry in entries:
            if entry.is_dir(follow_symlinks=is_top and entry.name in _SHARED):
                if not (is_top and entry.name in _ELSEWHERE):
                    pending.append(entry.path)
            elif not entry.is_file(follow_symlinks=False) and _is_odd(entry.path):
                yield Path(entry.path)


def _is_odd(path: str | Path) -> bool:
    """Whether opening or reading it might never end. A socket cannot be opened, and the null device is empty."""
    try:
        figures = os.stat(path)
    except (OSError, ValueError):
        return False
    if stat.S_ISCHR(figures.st_mode):
        return not system.is_null_device(figures)
    return stat.S_ISFIFO(figures.st_mode) or stat.S_ISBLK(figures.st_mode)
