"""Commands about the git repository: ``identify``, ``clean``, ``restore``. None of them needs a manifest."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from grym_fetch.cli.help import Command
from grym_fetch.cli.options import (
    Common,
    common_options,
    option,
    page_option,
    progress_options,
    refuse_password,
    transfer_options,
)

if TYPE_CHECKING:
    from grym_fetch.core.events import Event
    from grym_fetch.repo.clean import Cleaner, Kept, Moved, Plan
    from grym_fetch.repo.placeholder import Placeholder
    from grym_fetch.repo.restore import Fetch, Restored, Restorer, Wanted

MIB = 1024 * 1024


class Megabytes(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on only
    """A number of MB (1024 * 1024 bytes), which may be a fraction; as bytes."""

    name = "size_mb"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the number, or fail with what is allowed."""
        try:
            size = float(str(value))
        except ValueError:
            size = math.nan
        if not 0 <= size < 2**40:
            self.fail(f"{value!r} is not a size in MB; try 10 or 0.5. The folder comes after it.", param, ctx)
        return int(size * MIB)


class Size(click.ParamType):  # type: ignore[type-arg]  # as above
    """A size such as ``10MB`` or ``500KB``, in bytes; units are powers of 1024, and a bare number is MB."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the size, or fail with what is allowed."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(
            r"(\d{1,12}(?:\.\d{1,12})?) ?([KMGT]?)(?:i?B)?", str(value).strip(), re.ASCII | re.IGNORECASE
        )
        if match is None:
            self.fail(f"{value!r} is not a size; try 10MB, 500KB or 1.5GB", param, ctx)
        unit = match[2].upper() or ("" if str(value).strip()[-1] in "bB" else "M")
        return int(float(match[1]) * 1024 ** " KMGT".index(unit or " "))


size_option = option(
    "--size",
    type=Size(),
    metavar="SIZE",
    help="In the place of SIZE_MB, with its unit: 10MB, 500KB. Then DIR comes first.",
)


def _measured(size: int | None, *words: str | None) -> tuple[int, list[str | None]]:
    """The size, and the words after it: with ``--size``, all of them are. One in the environment is only a default."""
    context = click.get_current_context()
    if size is not None and context.get_parameter_source("size") is ParameterSource.COMMANDLINE:
        if words[-1] is not None:
            raise click.UsageError("with --size there is no SIZE_MB: leave it out")
        return size, [None, *words][1:]
    limit, *others = words
    if limit is None:
        return (10 * MIB if size is None else size), [*others, None]
    parameter = next(each for each in context.command.params if each.name == "limit")
    return Megabytes().convert(limit, parameter, context), [*others, None]


@click.command("identify", cls=Command)
@click.argument("limit", required=False, metavar="[SIZE_MB]")
@click.argument("folder", required=False, metavar="[DIR]")
@size_option
@option("--ignored", is_flag=True, help="Also list files that git ignores.")
@option("--history", is_flag=True, help="Also find large files in git's history, whether still there or not.")
@page_option("--html", help="Also write a page to FILE.html with a treemap of what is large.")
@common_options
def identify_command(
    common: Common,
    limit: str | None,
    folder: str | None,
    size: int | None,
    ignored: bool,
    history: bool,
    html: Path | None,
) -> int:
    """List the files in DIR [.] that are larger than SIZE_MB [10], the largest first.

    Then: how they add up by type and by folder, and lines for .gitignore. Changes nothing.
    """
    from grym_fetch.cli.reporting import write_page
    from grym_fetch.cli.repository_text import history_lines, survey_lines, survey_record, weight_of
    from grym_fetch.cli.runner import run_plain
    from grym_fetch.repo.git import Git, GitUnusable
    from grym_fetch.repo.history import find_large_blobs
    from grym_fetch.repo.identify import survey
    from grym_fetch.repo.tree import below, find_root

    least, [named, *_] = _measured(size, limit, folder)

    def work() -> int:
        place = _existing(Path(named or "."))
        root = find_root(place, Path.cwd())
        found = survey(place, least, root, with_ignored=ignored)
        past = find_large_blobs(Git(root), least) if history else None
        if html is not None:
            write_page(html, weight_of(found, past, below(root, place), least))
        if common.json:
            click.echo(json.dumps(survey_record(found, below(root, place), past)))
        else:
            for line in survey_lines(found, below(root, place), least):
                click.echo(line)
            for line in history_lines(past, least) if past is not None else ():
                click.echo(line)
        if past is not None and past.missing:
            raise GitUnusable(f"not all of the history was searched: {past.advice}")
        return 0

    return run_plain(common, work)


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
    """Move the files in DIR [.] that are larger than SIZE_MB [10] to TARGET [../assets].

    Each is copied, read back and compared, recorded in TARGET/asset-manifest.json, and only then replaced by a small
    text, FILE.asset-ref. Interrupted, it loses nothing; run it again. Git's history is not touched.
    """
    from grym_fetch.cli.repository_text import clean_record, kept_record, plan_lines, plan_records, shown
    from grym_fetch.cli.runner import run_plain
    from grym_fetch.core.manifest_values import check_url
    from grym_fetch.repo.clean import plan_clean
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

    least, [named, to, *_] = _measured(size, limit, folder, target)
    if to is not None and Path(to).is_file():
        raise click.UsageError(f"TARGET: {to!r} is a file")

    def work() -> int:
        place = _existing(Path(named or "."))
        root = find_root(place, Path.cwd())
        manifest = _manifest_path(common, root) if add_to_manifest else None
        if gitignore:
            check_gitignore(root)
        plan = plan_clean(
            root,
            place,
            Path(to) if to is not None else _external_dirs(common, root)[0],
            least,
            allow_dirty=allow_dirty,
            assets_dirs=_assets_dirs(common),
        )
        if not common.json and not (common.quiet and yes):
            for line in plan_lines(plan, least):
                click.echo(line)
        if dry_run:
            if common.json:
                for record in plan_records(plan):
                    click.echo(json.dumps(record))
            elif plan.moves and not common.quiet:
                click.echo("dry run: nothing was moved")
            return _exit_code(plan.kept)
        if plan.moves and not yes:
            if not sys.stdin.isatty():
                raise click.UsageError("there is no terminal to ask on; use -y to move these files without asking")
            click.confirm(f"Move {len(plan.moves)} to {shown(str(plan.target))}?", abort=True, err=True)
        if common.json:
            for kept in plan.kept:
                click.echo(json.dumps(kept_record(kept)))
        if not plan.moves and not gitignore and manifest is None:
            if common.json:
                click.echo(json.dumps(clean_record(plan, [], [])))
            return _exit_code(plan.kept)
        return _clean(common, plan, manifest, base_url or "", gitignore=gitignore)

    return run_plain(common, work)


@click.command("restore", cls=Command)
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@option("--all", "everything", is_flag=True, help="Every file that a placeholder stands for.")
@option("--force", is_flag=True, help="Replace a file with other content that is in the way.")
@transfer_options
@common_options
def restore_command(common: Common, paths: tuple[str, ...], everything: bool, force: bool, **transfer: Any) -> int:
    """Bring files back that `clean` has moved: by path, by placeholder, by folder, or by id.

    They come from the external folder, or are downloaded if the manifest lists the same checksum. Each is verified
    before it takes its place; then its placeholder is removed.
    """
    from grym_fetch.cli.runner import run, run_plain
    from grym_fetch.cli.settings import settings_from
    from grym_fetch.core.errors import ForeignManifest, GrymFetchError, ManifestMissing
    from grym_fetch.disk.project import find_project
    from grym_fetch.manager import AssetManager
    from grym_fetch.repo.restore import fetch_from
    from grym_fetch.repo.tree import find_root

    if not paths and not everything:
        raise click.UsageError("name what to restore, or use --all")
    settings = settings_from(transfer)
    root = find_root(Path.cwd(), Path.cwd())

    async def with_manager(manager: AssetManager) -> int:
        async def get(asset: Any) -> Path:
            return await manager.get_asset_path(asset.id)

        fetch = fetch_from(manager.manifest.assets, get)
        return await _restore(common, _restorer(common, root, manager.emit, fetch), paths, everything, force)

    def without_manager() -> int:
        import anyio

        from grym_fetch.cli.local_work import showing

        with showing(common) as emit:
            return anyio.run(_restore, common, _restorer(common, root, emit), paths, everything, force)

    try:
        find_project(config=common.config, assets_dir=common.assets_dir, environ=os.environ, cwd=Path.cwd())
    except (ForeignManifest, ManifestMissing) as error:
        if common.config:
            raise click.UsageError(str(error)) from None
        return run_plain(common, without_manager)
    except GrymFetchError:
        pass  # the manager finds the same, and is told there
    return run(common, with_manager, settings=settings, minimal=False, tells="news")


def _existing(folder: Path) -> Path:
    """The folder without symlinks on the way."""
    from grym_fetch.cli.repository_text import shown

    if not folder.is_dir():
        raise click.UsageError(f"DIR: there is no folder {shown(str(folder))}")
    return folder.resolve()


def _external_dirs(common: Common, root: Path) -> list[Path]:
    """The folder that was named, or else those of the project or beside the repository, the likeliest first."""
    from grym_fetch.core.errors import ForeignManifest, ManifestMissing
    from grym_fetch.disk.project import expand_home, external_folder, find_project
    from grym_fetch.repo.target import unnamed_folders

    if common.external_assets_dir:
        return [Path.cwd() / expand_home(common.external_assets_dir)]
    try:
        project = find_project(config=common.config, assets_dir=common.assets_dir, environ=os.environ, cwd=root)
    except (ForeignManifest, ManifestMissing):
        project = None
    if project is not None:
        return [project.external_dir] if project.is_external_named else unnamed_folders(root, project)
    named = external_folder(root, os.environ)
    return [named] if named is not None else unnamed_folders(root, None)


def _restorer(common: Common, root: Path, emit: Callable[[Event], None], fetch: Fetch | None = None) -> Restorer:
    from grym_fetch.repo.restore import Restorer

    folders = _external_dirs(common, root)
    return Restorer(root, folders, fetch, only_there=bool(common.external_assets_dir), emit=emit)


def _assets_dirs(common: Common) -> list[Path]:
    """The assets folder of the project here, and the one that was named, with a manifest or without."""
    from grym_fetch.core.errors import GrymFetchError
    from grym_fetch.disk.project import expand_home, find_project

    folders = [Path.cwd() / expand_home(common.assets_dir)] if common.assets_dir else []
    with suppress(GrymFetchError):
        folders.append(find_project(config=common.config, environ=os.environ, cwd=Path.cwd()).assets_dir)
    return folders


def _manifest_path(common: Common, root: Path) -> Path:
    """The manifest to add to: the one that was named or is found, or else a new one at the repository's root."""
    from grym_fetch.core.errors import ManifestMissing
    from grym_fetch.disk.project import CANDIDATES, expand_home, find_project, load_manifest

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


# --- clean ---


def _clean(common: Common, plan: Plan, manifest: Path | None, base_url: str, *, gitignore: bool) -> int:
    from datetime import UTC, datetime

    from grym_fetch.cli.local_work import showing
    from grym_fetch.disk.project import load_manifest
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
            click.echo(f"not moved: {shown(result.path)}: {result.reason}", err=True)
        return
    file = result.placeholder
    if common.json:
        record = {
            "v": 1, "type": "moved", "path": result.path, "id": file.id, "size": file.size,
            "checksum": file.checksum.bare, "stored": str(plan.target / file.storage_path),
        }  # fmt: skip
        click.echo(json.dumps(record))
    elif not common.quiet:
        click.echo(f"moved: {shown(result.path)}", err=True)


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
    """Add what this and interrupted earlier runs have moved to manifest and ``.gitignore``; say what comes next."""
    import time

    from grym_fetch.cli.repository_text import clean_record, counted, shown
    from grym_fetch.repo.entries import add_to_gitignore, add_to_manifest
    from grym_fetch.repo.identify import ignore_line

    files: list[Placeholder] = cleaner.recorded(plan.source)
    added = add_to_manifest(manifest, files, base_url, time.time()) if manifest is not None else []
    lines = [ignore_line(file.original_path) for file in files]
    new = add_to_gitignore(plan.root, lines) if gitignore else []
    if common.json:
        click.echo(json.dumps(clean_record(plan, lines, added)))
        return
    if common.quiet:
        return
    if added:
        click.echo(f"added to {shown(str(manifest))}: {', '.join(map(shown, added))}")
    if gitignore:
        click.echo(f".gitignore: {counted(len(new), 'line', 'lines')} added")
    elif lines and results:
        click.echo("\nLines for .gitignore, so that they are not committed again (--gitignore adds them):")
        for line in lines:
            click.echo(f"  {shown(line)}")
    if results:
        _say_next(plan, files)


def _say_next(plan: Plan, files: Sequence[Placeholder]) -> None:
    from grym_fetch.cli.repository_text import purge_lines
    from grym_fetch.disk.repository import is_repository_root

    if not is_repository_root(plan.root) or not files:
        return
    click.echo(f"\nNext: commit the placeholders and the removals (git add -A). {_way_back(plan)} brings files back.")
    click.echo("The history still has what was committed; `grym-fetch identify --history` shows how much.")
    for line in purge_lines("--invert-paths", *(f"--path={file.original_path}" for file in files)):
        click.echo(line)


def _way_back(plan: Plan) -> str:
    from grym_fetch.core.command_lines import command_line
    from grym_fetch.repo.target import usual_folders

    where = () if plan.target in usual_folders(plan.root) else ("--external-assets-dir", str(plan.target))
    return f"`{command_line('grym-fetch', 'restore', '--all', *where)}`"


def _exit_code(kept: Iterable[Kept]) -> int:
    from grym_fetch.cli import exit_codes
    from grym_fetch.repo.clean import Why

    codes = {exit_codes.WRONG_USAGE if each.why is Why.UNCOMMITTED else exit_codes.STORAGE for each in kept}
    return exit_codes.worst(codes) if codes else exit_codes.DONE


# --- restore ---


async def _restore(common: Common, restorer: Restorer, paths: Sequence[str], everything: bool, force: bool) -> int:
    """Restore one after the other; a failure does not keep the others from being restored."""
    from grym_fetch.cli import exit_codes
    from grym_fetch.cli.repository_text import counted, restored_lines, shown
    from grym_fetch.cli.runner import print_error
    from grym_fetch.core.errors import GrymFetchError

    wanted: dict[str, Wanted] = {}
    for each in [*(found for path in paths for found in restorer.find(path, Path.cwd()))]:
        wanted[each.path] = each
    if everything:
        wanted |= {each.path: each for each in restorer.all()}
    if not wanted and not common.quiet:
        click.echo("there is no placeholder in this repository: nothing to restore", err=True)
    if everything and (left_out := restorer.left_out()) and not common.quiet:
        count = counted(len(left_out), "placeholder", "placeholders")
        advice = "`git sparse-checkout add FOLDER` brings them here"
        click.echo(f"this sparse checkout leaves out {count}, such as {shown(left_out[0])}; {advice}", err=True)
    codes, back = set(), []
    for each in wanted.values():
        try:
            _say_restored(common, each, await restorer.restore(each, force=force))
            back.append(each.path)
        except GrymFetchError as error:
            print_error(error)
            codes.add(exit_codes.exit_code(error))
    if back and not common.json and not common.quiet:
        for line in restored_lines(*restorer.left_to_git(back)):
            click.echo(line, err=True)
    return exit_codes.worst(codes) if codes else exit_codes.DONE


def _say_restored(common: Common, wanted: Wanted, restored: Restored) -> None:
    from grym_fetch.cli.repository_text import shown

    if common.json:
        record = {
            "v": 1, "type": "restored", "path": wanted.path, "id": wanted.id, "checksum": wanted.checksum.bare,
            "source": restored.source,
        }  # fmt: skip
        click.echo(json.dumps(record))
    elif not common.quiet:
        how = {"there": "already there", "external": "restored", "download": "restored, downloaded"}[restored.source]
        click.echo(f"{how}: {shown(wanted.path)}")
