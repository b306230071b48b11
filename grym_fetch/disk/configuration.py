"""Finds and reads the settings files: the project's pyproject.toml, and the user's ``config.toml``.

The project's file is the first pyproject.toml with our table in the project's root or, within its repository, above it.
As with the manifest, a file that another user has written counts only if its project is named. The user's file is
``grym-fetch/config.toml`` in ``XDG_CONFIG_HOME`` (``~/.config``), and must belong to the user or to root,
or under ``sudo`` to its caller.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from grym_fetch.core.configuration import MAX_CONFIGURATION_BYTES, Configuration, parse_configuration
from grym_fetch.core.errors import ConfigurationError, Problem
from grym_fetch.core.text import safe_text
from grym_fetch.disk.folders import storage_errors, user_name
from grym_fetch.disk.repository import repository_root
from grym_fetch.runtime import system

PROJECT_FILE = "pyproject.toml"


def read_configuration(root: Path | None, environ: Mapping[str, str], *, is_named: bool = False) -> Configuration:
    """The settings of the project at ``root`` and of the user; the project's win.

    ``is_named``: the user has named the project, so it may belong to another user. Raises `ConfigurationError`, or
    `StorageError` if a file that is there cannot be read.
    """
    of_project = _read_project(root, environ, is_named=is_named) if root is not None else Configuration()
    return of_project.over(read_user_configuration(environ))


def read_user_configuration(environ: Mapping[str, str]) -> Configuration:
    """The user's settings. Raises like `read_configuration`."""
    path = user_file(environ)
    if path is None or (data := _read(path)) is None:
        return Configuration()
    check_owner(path, environ, "make it yours (chown), or remove it")
    return parse_configuration(data, str(path), "user")


def user_file(environ: Mapping[str, str]) -> Path | None:
    """The path of the user's settings file, whether or not it exists; None without a home folder."""
    named, home = environ.get("XDG_CONFIG_HOME", ""), environ.get("HOME", "")
    if os.path.isabs(named):
        return Path(named) / "grym-fetch" / "config.toml"
    return Path(home) / ".config" / "grym-fetch" / "config.toml" if os.path.isabs(home) else None


def _read_project(root: Path, environ: Mapping[str, str], *, is_named: bool) -> Configuration:
    # Outside a repository, a file further up does not belong to the project: /tmp and / are shared by everybody.
    repository = repository_root(root) or root
    for folder in (root, *(each for each in root.parents if each.is_relative_to(repository))):
        path = folder / PROJECT_FILE
        if (data := _read(path)) is not None:
            found = parse_configuration(data, str(path), "project")
            if found.sources:
                if not is_named:
                    check_owner(path, environ, "if you trust it, name its project's manifest with --config")
                return found
    return Configuration()


def _read(path: Path) -> bytes | None:
    """The file's content; None if there is none."""
    if not os.path.isfile(path):  # unlike Path.is_file, never raises; False for a pipe
        return None
    with storage_errors(path), open(path, "rb") as file:
        return file.read(MAX_CONFIGURATION_BYTES + 1)


def owners(path: Path, environ: Mapping[str, str]) -> set[int]:
    """The users who can change the file that the path leads to and are neither this user nor root.

    As in git (``safe.directory``), root under ``sudo`` also accepts the files of the user who called it.
    """
    trusted = {0, system.user_id()}
    if system.user_id() == 0 and (caller := environ.get("SUDO_UID", "")).isascii() and caller.isdigit():
        trusted.add(int(caller))
    with storage_errors(path):
        return {os.lstat(path).st_uid, os.stat(path).st_uid} - trusted


def check_owner(path: Path, environ: Mapping[str, str], advice: str) -> None:
    """Raise `ConfigurationError` if another user has written a settings file."""
    if strangers := owners(path, environ):
        reason = f"belongs to {user_name(min(strangers))}, who may not be trusted to choose settings; {advice}"
        raise ConfigurationError(safe_text(str(path)), [Problem("owner", "", reason)])
