"""Where a project keeps its manifest and its files.

The manifest is the one that is named, else the first of ``assets.json`` and ``config/assets.json`` in the working
directory or its parents, not above the repository's root. The project's root is the manifest's folder, or its parent
where that folder is named ``config``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aiofiles

from grym_fetch.core.errors import ManifestMissing
from grym_fetch.core.manifest_parser import ParsedManifest, parse_manifest
from grym_fetch.core.text import safe_text
from grym_fetch.disk.folders import storage_errors
from grym_fetch.disk.repository import is_repository_root

CANDIDATES = ("assets.json", "config/assets.json")
MAX_MANIFEST_BYTES = 16 * 1024 * 1024 + 1


@dataclass(frozen=True, slots=True)
class Project:
    """The paths of one project, all absolute."""

    manifest_path: Path
    root: Path
    assets_dir: Path
    external_dir: Path


def find_project(
    *,
    config: str | Path | None = None,
    assets_dir: str | Path | None = None,
    external_assets_dir: str | Path | None = None,
    environ: Mapping[str, str],
    cwd: Path,
) -> Project:
    """Find the project. Arguments win over the environment, and the environment over what is found.

    Raises `ManifestMissing` if there is no manifest.
    """
    named = config or environ.get("GRYM_FETCH_CONFIG")
    manifest = _resolved(cwd, named) if named else _search(cwd)
    if manifest is None or not manifest.is_file():
        raise ManifestMissing(
            safe_text(str(named)) if named else f"{' or '.join(CANDIDATES)} in {safe_text(str(cwd))} or above"
        )
    folder = manifest.parent.absolute()
    root = folder.parent if folder.name == "config" else folder
    local = assets_dir or environ.get("GRYM_FETCH_ASSETS_DIR")
    external = external_assets_dir or environ.get("GRYM_FETCH_EXTERNAL_ASSETS_DIR")
    return Project(
        manifest_path=manifest.absolute(),
        root=root,
        assets_dir=_resolved(cwd, local) if local else root / "assets",
        external_dir=_resolved(cwd, external) if external else root.parent / "assets",
    )


def expand_home(text: str | Path) -> Path:
    """Put the home folder in the place of ``~``, where there is one. A name like any other where there is none."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def _resolved(cwd: Path, text: str | Path) -> Path:
    return (cwd / expand_home(text)).absolute()


def _search(cwd: Path) -> Path | None:
    for folder in (cwd, *cwd.parents):
        for candidate in CANDIDATES:
            if (folder / candidate).is_file():
                return folder / candidate
        if is_repository_root(folder):
            return None
    return None


async def read_manifest(path: Path) -> ParsedManifest:
    """`load_manifest` without blocking the event loop: the file may be on a slow network disk."""
    with storage_errors(path):
        async with aiofiles.open(path, "rb") as file:
            data = await file.read(MAX_MANIFEST_BYTES)
    return parse_manifest(data, safe_text(str(path)))


def load_manifest(path: Path) -> ParsedManifest:
    """Read and parse the manifest. Raises `ManifestError` or `StorageError`."""
    with storage_errors(path), open(path, "rb") as file:
        data = file.read(MAX_MANIFEST_BYTES)
    return parse_manifest(data, safe_text(str(path)))
