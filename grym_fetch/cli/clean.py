"""The command ``clean``: moves large files out of the repository, and says what comes next."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from grym_fetch.cli import streams
from grym_fetch.cli.help import Command
from grym_fetch.cli.options import Common, common_options, option, progress_options, refuse_password
from grym_fetch.cli.repository_places import existing_folder, external_dirs
from grym_fetch.cli.sizes import chosen_size, size_option

if TYPE_CHECKING:
    from grym_fetch.repo.clean import Cleaner, Kept, Moved, Plan
    from grym_fetch.repo.placeholder import Placeholder


@click.command("clean", cls=Command)
@click.argument("limit", required=False, metavar="[SIZE_MB]")
@click.argument("folder", required=False, metavar="[DIR]")
@click.argument("target", required=False, metavar="[TARGET]")
@size_option
@option("-y", "--yes", is_flag=True, help="Do not ask.")
@option("-n", "--dry-run", is_flag=True, help="Say what would be moved, and move nothing.")
@option("--allow-dirty", is_flag=True, help="Also move files with changes that are not committed.")
@option("--gitignore", is_flag=True, help="Add the lines to .gitignore, instead of only printing them.")
@option("--add-to-manifest", is_flag=True, help="Add what was moved to the manifest. Needs --base-url.")
@option("--base-url", metavar="URL", help="Where the files of TARGET can be fetched.")
@progress_options
@common_options
def clean_command(
    common: Common,
    limit: str | None,
    folder: str | None,
    target: str | None,
    size: int | None,
    yes: bool,
    dry_run: bool,
    allow_dirty: bool,
    gitignore: bool,
    add_to_manifest: bool,
    base_url: str | None,
) -> int:
    """Move large files in DIR [.], those of more than SIZE_MB [10], to TARGET [../assets].

    Each is copied, read back and compared, recorded in TARGET/asset-manifest.json, and only then replaced by a small
    text, FILE.asset-ref. Interrupted, it loses nothing; run it again. Git's history is not touched.
    """
    from grym_fetch.cli.exit_codes import NOT_FETCHED
    from grym_fetch.cli.repository_text import (
        clean_record,
        counted,
        kept_record,
        plan_lines,
        plan_records,
        shown,
    )
    from grym_fetch.cli.runner import run_plain
    from grym_fetch.core.manifest_values import check_url
    from grym_fetch.repo.clean import Why, plan_clean
    from grym_fetch.repo.entries import check_gitignore
    from grym_fetch.repo.tree import find_root

    if add_to_manifest != (base_url is not None):
        raise click.UsageError("--add-to-manifest and --base-url go together")
    if base_url is not None:
        try:
            check_url(base_url)
        except ValueError as error:
            raise click.UsageError(f"--base-url {error}") from None
        refuse_password(base_url)

    least, [named, to, *_] = chosen_size(size, limit, folder, target)
    if to is not None and Path(to).is_file():
        raise click.UsageError(f"TARGET: {to!r} is a file")

    def work() -> int:
        place = existing_folder(Path(named or "."))
        root = find_root(place, Path.cwd())
        manifest = _manifest_path(common, root) if add_to_manifest else None
        if gitignore:
            check_gitignore(root)
        plan = plan_clean(
            root,
            place,
            Path(to) if to is not None else external_dirs(common, root)[0],
            least,
            allow_dirty=allow_dirty,
            needed=_needed(common),
        )
        if not common.json and not (common.quiet and yes):
            for line in plan_lines(plan, least):
                streams.say_result(line)
        elif not common.json:
            for kept in plan.kept:
                if kept.why is not Why.NEEDED:
                    streams.say(f"not moved: {shown(kept.path)}: {kept.reason}")
        if dry_run:
            if common.json:
                for record in plan_records(plan):
                    click.echo(json.dumps(record))
            elif plan.moves and not common.quiet:
                streams.say_result("dry run: nothing was moved")
            return _exit_code(plan.kept)
        if plan.moves and not yes:
            if not sys.stdin.isatty():
                raise click.UsageError("there is no terminal to ask on; use -y to move these files without asking")
            files = counted(len(plan.moves), "file", "files")
            if not click.confirm(f"Move {files} to {shown(str(plan.target))}?", err=True):
                streams.say("nothing was moved")
                return NOT_FETCHED
        if common.json:
            for kept in plan.kept:
                click.echo(json.dumps(kept_record(kept)))
        if not plan.moves and not gitignore and manifest is None:
            if common.json:
                click.echo(json.dumps(clean_record(plan, [], [])))
            return _exit_code(plan.kept)
        return _clean(common, plan, manifest, base_url or "", gitignore=gitignore)

    return run_plain(common, work)


def _needed(common: Common) -> list[Path]:
    """The manifest, and the assets folders: the project's, and the one that was named, with or without a manifest.

    Raises `ConfigurationError` or `StorageError` for a settings file that cannot be used: it may name another folder.
    """
    from grym_fetch.core.errors import ForeignManifest, ManifestMissing, UnsafePath
    from grym_fetch.manifest_files.project import expand_home, find_project

    needed = [Path.cwd() / expand_home(common.assets_dir)] if common.assets_dir else []
    with suppress(ForeignManifest, ManifestMissing, UnsafePath):
        project = find_project(config=common.config, environ=os.environ, cwd=Path.cwd())
        needed += [project.assets_dir, project.manifest_path]
    return needed


def _manifest_path(common: Common, root: Path) -> Path:
    """The manifest to add to: the one named or found, or else a new one at the repository's root."""
    from grym_fetch.core.errors import ManifestMissing
    from grym_fetch.manifest_files.project import CANDIDATES, expand_home, find_project, load_manifest

    if common.config and not (named := Path.cwd() / expand_home(common.config)).exists():
        return named
    try:
        path = find_project(
            config=common.config, assets_dir=common.assets_dir, environ=os.environ, cwd=Path.cwd()
        ).manifest_path
    except ManifestMissing:
        return root / CANDIDATES[0]
    load_manifest(path)  # if it is invalid, say so before anything is moved
    return path


def _clean(common: Common, plan: Plan, manifest: Path | None, base_url: str, *, gitignore: bool) -> int:
    from datetime import UTC, datetime

    from grym_fetch.cli.local_work import showing
    from grym_fetch.manifest_files.project import load_manifest
    from grym_fetch.repo.clean import Cleaner

    listed = load_manifest(manifest).manifest.assets if manifest is not None and manifest.exists() else ()
    known = {asset.checksum.hexdigest: asset.id for asset in listed if asset.checksum is not None}
    results: list[Moved | Kept] = []
    ids = [asset.id for asset in listed]
    with showing(common) as emit, Cleaner(plan, lambda: datetime.now(UTC), ids=ids, known=known, emit=emit) as cleaner:
        try:
            for result in cleaner.moves():
                results.append(result)
                _say_moved(common, plan, result)
        finally:
            # Report everything that was moved, even if the disk ended the run.
            _afterwards(common, plan, cleaner, manifest, base_url, results, gitignore=gitignore)
    from grym_fetch.repo.clean import Kept

    return _exit_code([*plan.kept, *(result for result in results if isinstance(result, Kept))])


def _say_moved(common: Common, plan: Plan, result: Moved | Kept) -> None:
    from grym_fetch.cli.repository_text import kept_record, shown
    from grym_fetch.repo.clean import Kept

    if isinstance(result, Kept):
        if common.json:
            click.echo(json.dumps(kept_record(result)))
        else:
            streams.say(f"not moved: {shown(result.path)}: {result.reason}")
        return
    file = result.placeholder
    if common.json:
        record = {
            "v": 1, "type": "moved", "path": result.path, "id": file.id, "size": file.size,
            "checksum": file.checksum.bare, "stored": str(plan.target / file.storage_path),
        }  # fmt: skip
        click.echo(json.dumps(record))
    elif not common.quiet:
        streams.say(f"moved: {shown(result.path)}")


def _afterwards(
    common: Common,
    plan: Plan,
    cleaner: Cleaner,
    manifest: Path | None,
    base_url: str,
    results: Sequence[Moved | Kept],
    *,
    gitignore: bool,
) -> None:
    """Add the files moved by this and interrupted earlier runs to manifest and ``.gitignore``; say what comes next."""
    import time

    from grym_fetch.cli.repository_text import clean_record, counted, shown
    from grym_fetch.repo.entries import add_to_gitignore, add_to_manifest
    from grym_fetch.repo.identify import ignore_line

    files: list[Placeholder] = cleaner.recorded(plan.source)
    added: list[str] = []
    if manifest is not None:
        is_held = cleaner.holds_folder_of(manifest)
        added = add_to_manifest(manifest, files, base_url, time.time(), is_held=is_held)
    lines = [ignore_line(file.original_path) for file in files]
    new = add_to_gitignore(plan.root, lines) if gitignore else []
    if common.json:
        click.echo(json.dumps(clean_record(plan, lines, added)))
        return
    if common.quiet:
        return
    if added:
        streams.say_result(f"added to {shown(str(manifest))}: {', '.join(map(shown, added))}")
    if gitignore:
        streams.say_result(f".gitignore: {counted(len(new), 'line', 'lines')} added")
    elif lines and results:
        streams.say_result("\nLines for .gitignore, so that they are not committed again (--gitignore adds them):")
        for line in lines:
            streams.say_result(f"  {shown(line)}")
    if results:
        _say_next(plan, files)


def _say_next(plan: Plan, files: Sequence[Placeholder]) -> None:
    from grym_fetch.cli.repository_text import purge_lines
    from grym_fetch.disk.repository import is_repository_root

    if not is_repository_root(plan.root) or not files:
        return
    streams.say_result(
        f"\nNext: commit the placeholders and the removals (git add -A). {_way_back(plan)} brings files back."
    )
    streams.say_result("The history still has what was committed; `grym-fetch identify --history` shows how much.")
    for line in purge_lines("--invert-paths", *(f"--path={file.original_path}" for file in files)):
        streams.say_result(line)


def _way_back(plan: Plan) -> str:
    from grym_fetch.core.command_lines import command_line
    from grym_fetch.repo.target import usual_folders

    where = () if plan.target in usual_folders(plan.root) else ("--external-assets-dir", str(plan.target))
    return f"`{command_line('grym-fetch', 'restore', '--all', *where)}`"


def _exit_code(kept: Iterable[Kept]) -> int:
    from grym_fetch.cli import exit_codes
    from grym_fetch.repo.clean import Why

    failed = [each.why for each in kept if each.why is not Why.NEEDED]
    codes = {exit_codes.WRONG_USAGE if why is Why.UNCOMMITTED else exit_codes.STORAGE for why in failed}
    return exit_codes.worst(codes) if codes else exit_codes.DONE
