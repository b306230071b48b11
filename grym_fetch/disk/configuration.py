"""Finds and reads the files of settings: the project's pyproject.toml, and the user's ``config.toml``.

The project's is the first pyproject.toml with our table in the project's root or, within its repository, above it. As
with the manifest, one that another user has written counts only if its project is named. The user's is
``grym-fetch/config.toml`` in ``XDG_CONFIG_HOME`` (``~/.config``), and must be the user's own, or root's.
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

PROJECT_FILE = "pyproject.toml"


def read_configuration(root: Path | None, environ: Mapping[str, str], *, is_named: bool = False) -> Configuration:
    """What the project at ``root`` and the user have chosen; the project wins.

    ``is_named``: the user has named the project, so it may be another user's. Raises `ConfigurationError`, or
    `StorageError` if a file that is there cannot be read.
    """
    of_project = _read_project(root, environ, is_named=is_named) if root is not None else Configuration()
    return of_project.over(read_user_configuration(environ))


def read_user_configuration(environ: Mapping[str, str]) -> Configuration:
    """What the user has chosen. Raises like `read_configuration`."""
    path = user_file(environ)
    if path is None or (data := _read(path)) is None:
        return Configuration()
    check_owner(path, environ, "make it yours (chown), or remove it")
    return parse_configuration(data, str(path), "user")


def user_file(environ: Mapping[str, str]) -> Path | None:
    """Where the user's settings are, if there; None without a home folder."""
    named, home = environ.get("XDG_CONFIG_HOME", ""), environ.get("HOME", "")
    if os.path.isabs(named):
        return Path(named) / "grym-fetch" / "config.toml"
    return Path(home) / ".config" / "grym-fetch" / "config.toml" if os.path.isabs(home) else None


def _read_project(root: Path, environ: Mapping[str, str], *, is_named: bool) -> Configuration:
    # Outside of a repository a file further up is not the project's: /tmp and / are everybody's.
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
    if not os.path.isfile(path):  # unlike Path.is_file, never raises; a pipe is none
        return None
    with storage_errors(path), open(path, "rb") as file:
        return file.read(MAX_CONFIGURATION_BYTES + 1)


def owners(path: Path, environ: Mapping[str, str]) -> set[int]:
    """Those who can change what the path leads to, and are neither this user nor root.

    As git does (``safe.directory``), root in ``sudo`` also takes the files of the user who called it.
    """
    trusted = {0, os.geteuid()}
    if os.geteuid() == 0 and (caller := environ.get("SUDO_UID", "")).isascii() and caller.isdigit():
        trusted.add(int(caller))
    with storage_errors(path):
        return {os.lstat(path).st_uid, os.stat(path).st_uid} - trusted


def check_owner(path: Path, environ: Mapping[str, str], advice: str) -> None:
    """Raise `ConfigurationError` if another user has written a file of settings."""
    if strangers := owners(path, environ):
        reason = f"belongs to {user_name(min(strangers))}, who may not be trusted to choose settings; {advice}"
        raise ConfigurationError(safe_text(str(path)), [Problem("owner", "", reason)])
