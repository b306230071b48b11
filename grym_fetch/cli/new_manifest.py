"""The manifest that ``add`` and ``import`` make if there is none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from grym_fetch.cli import streams

if TYPE_CHECKING:
    from grym_fetch.cli.options import Common


def _make_manifest(common: Common) -> Path | None:
    """Make an empty manifest if none is found, and return its path; one that is named must exist.

    Raises `ConfigurationError` or `UnsafePath` for what keeps the project from being used; then none is made.
    """
    from grym_fetch.cli.exit_codes import exit_code
    from grym_fetch.core.errors import ForeignManifest, GrymFetchError, ManifestMissing
    from grym_fetch.core.text import safe_text
    from grym_fetch.disk.repository import check_is_not_gits
    from grym_fetch.manifest_files.changes import create_manifest
    from grym_fetch.manifest_files.project import CANDIDATES, find_project, project_of
    from grym_fetch.runtime.clock import SystemClock

    places = {"assets_dir": common.assets_dir, "external_assets_dir": common.external_assets_dir}
    try:
        find_project(config=common.config, environ=os.environ, cwd=Path.cwd(), **places)
    except ForeignManifest:
        return None  # the runner says whom it belongs to
    except ManifestMissing:
        if common.config is not None:
            return None  # the runner says what is wrong with it
        path = Path.cwd() / CANDIDATES[0]
        project_of(path, environ=os.environ, cwd=Path.cwd(), is_named=False, **places)
        try:
            check_is_not_gits(path.parent)
            is_new = create_manifest(path, SystemClock().wall())
        except GrymFetchError as error:
            streams.complain(safe_text(str(error), limit=4000))
            raise click.exceptions.Exit(exit_code(error)) from error
        if is_new and not common.quiet:
            streams.say(f"there was no manifest: created {safe_text(str(path), limit=4000)}")
        return path if is_new else None
    return None


@contextmanager
def with_manifest(common: Common) -> Iterator[None]:
    """Make a manifest if there is none; remove it again if nothing was added to it."""
    made = _make_manifest(common)
    try:
        yield
    finally:
        if made is not None:
            _remove_if_empty(made, common)


def _remove_if_empty(manifest: Path, common: Common) -> None:
    """Remove the manifest made for an asset that could not be added; otherwise a failure would leave it behind.

    Its version is forgotten, too: the next manifest here need not be newer than one that nobody has seen.
    """
    from grym_fetch.core.errors import GrymFetchError
    from grym_fetch.core.text import safe_text
    from grym_fetch.disk.rollback import RollbackGuard
    from grym_fetch.manifest_files.project import find_project, load_manifest

    with suppress(GrymFetchError, OSError):
        if not (made := load_manifest(manifest).manifest).assets:
            project = find_project(config=manifest, assets_dir=common.assets_dir, environ=os.environ, cwd=Path.cwd())
            guard = RollbackGuard(project.assets_dir, project.manifest_path)
            manifest.unlink()
            if guard.read() == made.version:
                guard.write(None)
            if not common.quiet:
                path = safe_text(str(manifest), limit=4000)
                streams.say(f"nothing was added: removed {path} again")
