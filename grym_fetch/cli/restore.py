"""The command ``restore``: brings back what ``clean`` has moved."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from grym_fetch.cli import streams
from grym_fetch.cli.help import Command
from grym_fetch.cli.options import Common, common_options, option, transfer_options
from grym_fetch.cli.repository_places import external_dirs

if TYPE_CHECKING:
    from grym_fetch.core.events import Event
    from grym_fetch.manager import AssetManager
    from grym_fetch.repo.restore import Fetch, Restored, Restorer, Wanted


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
    from grym_fetch.manifest_files.project import find_project
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
        restorer = _restorer(common, root, manager.emit, fetch)
        return await _restore(common, restorer, paths, everything, force, manager.emit)

    def without_manager() -> int:
        import anyio

        from grym_fetch.cli.local_work import showing

        with showing(common) as emit:
            return anyio.run(_restore, common, _restorer(common, root, emit), paths, everything, force, emit)

    try:
        find_project(config=common.config, assets_dir=common.assets_dir, environ=os.environ, cwd=Path.cwd())
    except (ForeignManifest, ManifestMissing) as error:
        if common.config:
            raise click.UsageError(str(error)) from None
        return run_plain(common, without_manager)
    except GrymFetchError:
        pass  # the manager finds the same, and is told there
    return run(common, with_manager, settings=settings, minimal=False, tells="news", otherwise=without_manager)


def _restorer(common: Common, root: Path, emit: Callable[[Event], None], fetch: Fetch | None = None) -> Restorer:
    from grym_fetch.repo.restore import Restorer

    folders = external_dirs(common, root)
    return Restorer(root, folders, fetch, only_there=bool(common.external_assets_dir), emit=emit)


async def _restore(
    common: Common,
    restorer: Restorer,
    paths: Sequence[str],
    everything: bool,
    force: bool,
    emit: Callable[[Event], None],
) -> int:
    """Restore one file after the other; a failure does not stop the others."""
    from grym_fetch.cli import exit_codes
    from grym_fetch.cli.repository_text import counted, damaged_text, restored_lines, shown
    from grym_fetch.cli.runner import print_error
    from grym_fetch.core.errors import GrymFetchError
    from grym_fetch.core.events import RunStarted

    wanted: dict[str, Wanted] = {}
    for each in [*(found for path in paths for found in restorer.find(path, Path.cwd()))]:
        wanted[each.path] = each
    if everything:
        wanted |= {each.path: each for each in restorer.all()}
    if not wanted and not restorer.damaged and not common.quiet:
        streams.say("there is no placeholder in this repository: nothing to restore")
    if everything and (left_out := restorer.left_out()) and not common.quiet:
        count = counted(len(left_out), "placeholder", "placeholders")
        how = "`git sparse-checkout add FOLDER` brings them here"
        streams.say(f"this sparse checkout leaves out {count}, such as {shown(left_out[0])}; {how}")
    codes, back = set(), []
    if wanted:
        emit(RunStarted(assets=len(wanted), bytes=sum(each.size for each in wanted.values())))
    for path, why in restorer.damaged.items():
        what, hint = damaged_text(path, why)
        streams.complain(what, hint=hint)
        codes.add(exit_codes.NOT_FETCHED)
    for each in wanted.values():
        try:
            _say_restored(common, each, await restorer.restore(each, force=force))
            back.append(each.path)
        except GrymFetchError as error:
            print_error(error)
            codes.add(exit_codes.exit_code(error))
    if back and not common.json and not common.quiet:
        for line in restored_lines(*restorer.left_to_git(back)):
            streams.say(line)
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
        streams.say_result(f"{how}: {shown(wanted.path)}")
