"""The folders that repository commands work in: the one that is named, and those that files are moved to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from grym_fetch.cli.options import Common


def existing_folder(folder: Path) -> Path:
    """The folder without symlinks on the way."""
    from grym_fetch.cli.repository_text import shown

    if not folder.is_dir():
        raise click.UsageError(f"DIR: there is no folder {shown(str(folder))}")
    return folder.resolve()


def external_dirs(common: Common, root: Path) -> list[Path]:
    """The folder that was named, or else those of the project or next to the repository, likeliest first."""
    from grym_fetch.core.errors import ForeignManifest, ManifestMissing
    from grym_fetch.manifest_files.project import expand_home, external_folder, find_project
    from grym_fetch.repo.target import external_folders, unnamed_folders

    if common.external_assets_dir:
        return [Path.cwd() / expand_home(common.external_assets_dir)]
    try:
        project = find_project(config=common.config, assets_dir=common.assets_dir, environ=os.environ, cwd=root)
    except (ForeignManifest, ManifestMissing):
        project = None
    if project is not None:
        return external_folders(root, project)
    named = external_folder(root, os.environ)
    return [named] if named is not None else unnamed_folders(root, None)
