"""Where a project keeps its manifest and its files.

The manifest is the one that the user names, else the first of ``assets.json`` and ``config/assets.json`` in the working
directory or its parents, not above the repository's root; there, ``.jsonl`` comes after ``.json``, and ``.parquet``
last. The project's root is the manifest's folder, or its parent if that folder is named ``config``. A manifest that is
found rather than named must belong to this user or to root, or under ``sudo`` to its caller.

A relative folder in an argument is relative to the working directory, which is what a shell completes; one in the
environment or a file is relative to the project's root, so that it means the same everywhere.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import aiofiles

from grym_fetch.core.configuration import ASSETS_DIR, EXTERNAL_DIR, Configuration, SettingKey
from grym_fetch.core.errors import ForeignManifest, ManifestMissing, UnsafePath
from grym_fetch.core.manifest import ManifestSource
from grym_fetch.core.manifest_parser import ParsedManifest, parse_manifest
from grym_fetch.core.text import safe_text
from grym_fetch.core.variables import said_in
from grym_fetch.disk.configuration import owners, read_configuration
from grym_fetch.disk.folders import storage_errors, user_name
from grym_fetch.disk.repository import check_is_not_gits, is_repository_root

if TYPE_CHECKING:
    from grym_fetch.manifest_files.lines import LongFile

CANDIDATES = (
    "assets.json", "config/assets.json", "assets.jsonl", "config/assets.jsonl", "assets.parquet",
    "config/assets.parquet",
)  # fmt: skip
ASSETS_NAME = "assets"
"""The assets folder, below the project's root."""
EXTERNAL_NAME = "assets"
"""The external folder, beside the project's root."""
MAX_MANIFEST_BYTES = 16 * 1024 * 1024 + 1


@dataclass(frozen=True, slots=True)
class Project:
    """The paths of one project, all absolute."""

    manifest_path: Path
    root: Path
    assets_dir: Path
    external_dir: Path
    is_external_named: bool = field(default=False, compare=False)
    """Whether the user has named the external folder: in an argument, the environment or their own settings."""
    is_named: bool = field(default=False, compare=False)
    """Whether the user has named the manifest."""


def find_project(
    *,
    config: str | Path | None = None,
    assets_dir: str | Path | None = None,
    external_assets_dir: str | Path | None = None,
    environ: Mapping[str, str],
    cwd: Path,
) -> Project:
    """Find the project. Arguments override the environment, which overrides files, which override what is found.

    Raises `ManifestMissing` if there is no manifest, `ForeignManifest` if it was found rather than named and belongs to
    another user, `ConfigurationError` for a settings file that cannot be used, and `UnsafePath` if the assets folder is
    git's own, or a symlink that the user has not named: it came with the repository, and may lead anywhere.
    """
    named = config or said_in(environ, "GRYM_FETCH_CONFIG")
    manifest = _resolved(cwd, named) if named else _search(cwd)
    if manifest is None or not manifest.is_file():
        raise ManifestMissing(
            safe_text(str(named)) if named else f"{' or '.join(CANDIDATES[:2])} in {safe_text(str(cwd))} or above"
        )
    if not named:
        _check_owner(manifest, environ)
    return project_of(
        manifest,
        assets_dir=assets_dir,
        external_assets_dir=external_assets_dir,
        environ=environ,
        cwd=cwd,
        is_named=bool(named),
    )


def project_of(
    manifest: Path,
    *,
    assets_dir: str | Path | None = None,
    external_assets_dir: str | Path | None = None,
    environ: Mapping[str, str],
    cwd: Path,
    is_named: bool = False,
) -> Project:
    """The project of a manifest, which need not be there yet. Raises `ConfigurationError` or `UnsafePath` as above."""
    root = project_root(manifest)
    configuration = read_configuration(root, environ, is_named=is_named)
    local = _named_folder(assets_dir, ASSETS_DIR, environ, configuration, cwd=cwd, root=root)
    external = _named_folder(external_assets_dir, EXTERNAL_DIR, environ, configuration, cwd=cwd, root=root)
    folder = local or _no_symlink(root, ASSETS_NAME)
    check_is_not_gits(folder)
    return Project(
        manifest_path=manifest.absolute(),
        root=root,
        assets_dir=folder,
        external_dir=external or root.parent / EXTERNAL_NAME,
        is_external_named=external is not None,
        is_named=is_named,
    )


def project_root(manifest: Path) -> Path:
    """The root of the project whose manifest this is."""
    folder = manifest.parent.absolute()
    return folder.parent if folder.name == "config" else folder


def _named_folder(
    argument: str | Path | None,
    key: SettingKey,
    environ: Mapping[str, str],
    configuration: Configuration,
    *,
    cwd: Path,
    root: Path,
) -> Path | None:
    """The folder that was named in an argument, the environment or a file; None if none was."""
    if argument:
        return _resolved(cwd, argument)
    if text := said_in(environ, key.variable):
        return _resolved(root, text)
    if (choice := configuration.choices.get(key.setting)) is None:
        return None
    if choice.origin == "project":
        return _no_symlink(Path(choice.source).parent, str(choice.value))
    return _resolved(root, str(choice.value))


def external_folder(root: Path, environ: Mapping[str, str]) -> Path | None:
    """The external folder that the user has named for all projects; None if they have not named one.

    ``root`` is the root of a repository without a manifest. Raises like `find_project`.
    """
    return _named_folder(None, EXTERNAL_DIR, environ, read_configuration(None, environ), cwd=root, root=root)


def _no_symlink(above: Path, below: str) -> Path:
    """The path of a folder that the repository has chosen: no part of it may be a symlink."""
    assets_dir = above / below
    if any(
        os.path.islink(each) for each in (assets_dir, *assets_dir.parents) if each != above and above in each.parents
    ):
        shown = safe_text(str(assets_dir), limit=1000)
        advice = "if it is yours, name the folder with --assets-dir or GRYM_FETCH_ASSETS_DIR; else remove it"
        raise UnsafePath(shown, f"the assets folder is a symlink, which counts only where you name it; {advice}")
    return assets_dir


def expand_home(text: str | Path) -> Path:
    """Replace ``~`` with the home folder; if there is none, ``~`` is a name like any other."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def names_file(path: Path) -> bool:
    """Whether there is a file, or a link to one. No file has a name that is too long for the system."""
    try:
        return path.is_file()
    except OSError:
        return False


def _resolved(cwd: Path, text: str | Path) -> Path:
    return (cwd / expand_home(text)).absolute()


def _search(cwd: Path) -> Path | None:
    for folder in (cwd, *cwd.parents):
        for candidate in CANDIDATES:
            if os.path.isfile(folder / candidate):  # unlike Path.is_file, never raises
                return folder / candidate
        if is_repository_root(folder):
            return None
    return None


def _check_owner(manifest: Path, environ: Mapping[str, str]) -> None:
    """Refuse another user's manifest: its author decides what is fetched and where it goes."""
    if strangers := owners(manifest, environ):
        raise ForeignManifest(safe_text(str(manifest)), user_name(min(strangers)))


async def read_manifest(path: Path) -> ParsedManifest[ManifestSource]:
    """`load_manifest` without blocking the event loop: the file may be on a slow network disk, or long."""
    if is_long_kind(path):
        stopped = threading.Event()
        try:
            return await asyncio.to_thread(_load_long, path, safe_text(str(path)), lambda: not stopped.is_set())
        finally:
            stopped.set()
    with storage_errors(path):
        async with aiofiles.open(path, "rb") as file:
            data = [await file.read(MAX_MANIFEST_BYTES)]
    return parse_manifest(data.pop(), safe_text(str(path)))  # not kept while they are read


def load_manifest(path: Path, source: str = "", *, is_lines: bool = False) -> ParsedManifest[ManifestSource]:
    """Read and parse the manifest. Raises `ManifestError` or `StorageError`.

    ``source`` names it in errors, by default its path; ``is_lines``: it is an ``assets.jsonl``, whatever its name.
    """
    source = source or safe_text(str(path))
    if is_lines or is_long_kind(path):
        return _load_long(path, source, lambda: True)
    with storage_errors(path), open(path, "rb") as file:
        data = file.read(MAX_MANIFEST_BYTES)
    return parse_manifest(data, source)


def is_long_kind(path: Path) -> bool:
    """Whether a manifest with this name is read part by part: ``assets.jsonl`` or ``assets.parquet``."""
    return path.suffix.lower() in (".jsonl", ".parquet")


def _load_long(path: Path, source: str, go_on: Callable[[], bool]) -> ParsedManifest[ManifestSource]:
    from grym_fetch.manifest_files.index import build_index
    from grym_fetch.manifest_files.long_manifest import (
        held_or_long,  # most projects have none, and SQLite takes a while
    )

    index, warnings = build_index(open_long(path, source), source, go_on=go_on)
    return ParsedManifest(held_or_long(index), warnings)


def open_long(path: Path, source: str) -> LongFile:
    """Return what reads a manifest of a long kind. Raises `ManifestError` if what reads Parquet is not installed."""
    if path.suffix.lower() == ".parquet":
        from grym_fetch.manifest_files.parquet import ParquetFile

        return ParquetFile(path, source)
    from grym_fetch.manifest_files.lines import LinesFile

    return LinesFile(path, source)
