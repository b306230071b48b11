"""Commands that remove something: ``remove`` an asset, ``prune`` what earlier runs left behind."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from grym_fetch.cli import streams
from grym_fetch.cli.help import Command
from grym_fetch.cli.options import Common, common_options, complete_ids, one_asset, option, store_option
from grym_fetch.cli.sizes import Size

if TYPE_CHECKING:
    from grym_fetch.disk.prune import Pruned, PruneReport
    from grym_fetch.manager import AssetManager

_ALIKE = {"lock": "files", "pieces": "files", "project": "folders"}
"""What is named by a hash, and told in one line: its names mean nothing to anybody."""


@click.command("remove", cls=Command)
@click.argument("asset_id", metavar="ID", shell_complete=complete_ids)
@option(
    "--delete-file", is_flag=True, help="Also delete its file, its stand-in and what was unpacked and is unchanged."
)
@option("-y", "--yes", is_flag=True, help="Delete the file without asking.")
@common_options
def remove_command(common: Common, asset_id: str, delete_file: bool, yes: bool) -> int:
    """Drop an asset from the manifest. Its file stays, unless --delete-file is given."""
    from grym_fetch.cli.runner import run
    from grym_fetch.core.text import safe_text
    from grym_fetch.project.removing import deletable

    async def body(manager: AssetManager) -> int:
        asset = one_asset(manager, asset_id)
        if delete_file and not yes and not await _agreed(deletable(manager.project.assets_dir, asset)):
            streams.say("nothing was removed")
            return 1
        deleted = await manager.remove_asset(asset.id, delete_file=delete_file)
        if common.json:
            click.echo(json.dumps({"id": asset.id, "deleted": [str(path) for path in deleted]}))
        elif not common.quiet:
            click.echo(f"removed  {safe_text(asset.id)}")
            for path in deleted:
                click.echo(f"deleted  {safe_text(str(path), limit=4000)}")
        return 0

    return run(common, body, minimal=False)


@click.command("prune", cls=Command)
@option("-n", "--dry-run", is_flag=True, help="Print what would be removed, and remove nothing.")
@option("--orphans", is_flag=True, help="Also delete your files in the assets folder that no asset names.")
@option("-y", "--yes", is_flag=True, help="Delete them without asking.")
@store_option("Remove from the machine's store what no project uses, instead. [as `store` finds it]", envvar=None)
@option(
    "--older-than",
    type=click.FloatRange(min=0),
    metavar="DAYS",
    help="With --store: only what was not taken for so many days.",
)
@option(
    "--max-size",
    type=Size(),
    metavar="SIZE",
    help="With --store: only until it is no larger than this, longest unused first: 50GB.",
)
@common_options
def prune_command(
    common: Common, dry_run: bool, orphans: bool, yes: bool, store: bool | str, older_than: float | None,
    max_size: int | None,
) -> int:  # fmt: skip
    """Remove abandoned partial downloads, unused lock files and other stale state.

    Also removes what your own state folder kept for projects that are gone. What a running process of this machine is
    downloading is left alone. An interrupted download counts as abandoned, too: the next sync starts it over. Files
    that no asset names are listed with --dry-run; only --orphans deletes them.
    """
    from grym_fetch.cli.runner import run

    if store:
        from grym_fetch.cli.store import prune_the_store

        return prune_the_store(
            common,
            store,
            dry_run=dry_run,
            older_than=older_than or 0.0,
            max_size=max_size,
            tell=partial(tell_pruned, common, dry_run=dry_run),
        )
    if older_than is not None or max_size is not None:
        raise click.UsageError("--older-than and --max-size go with --store")

    async def body(manager: AssetManager) -> int:
        wanted: bool | list[str] = orphans
        if orphans and not yes and not dry_run:
            wanted = [each.name for each in (await manager.prune(dry_run=True)).orphans]
            if not await _agreed([manager.project.assets_dir / name for name in wanted]):
                streams.say("nothing was removed")
                return 1
        tell_pruned(common, await manager.prune(dry_run=dry_run, orphans=wanted), dry_run=dry_run)
        return 0

    return run(common, body)


def tell_pruned(common: Common, report: PruneReport, *, dry_run: bool) -> None:
    """Write what was removed, or would be."""
    from grym_fetch.cli.tables import print_table
    from grym_fetch.core.figures import format_size
    from grym_fetch.core.text import safe_text

    items = tuple(dict.fromkeys((*report.removed, *report.orphans)))
    if common.json:
        for item in items:
            record = {"kind": item.kind, "id": item.asset, "name": item.name, "reason": item.reason}
            click.echo(json.dumps({**record, "bytes": item.bytes}))
        click.echo(json.dumps({"bytes": report.bytes, "in_use": report.in_use, "dry_run": dry_run}))
        return
    if common.quiet:
        return
    alike: dict[str, list[Pruned]] = {}
    for item in items:
        alike.setdefault(item.kind if item.kind in _ALIKE else f"{item.kind} {item.name}", []).append(item)
    rows = []
    for first, *others in alike.values():
        what = safe_text(first.asset if first.asset is not None else first.name, limit=4000)
        if others:
            what = f"{1 + len(others):,} {_ALIKE[first.kind]}"
        size = format_size(sum(item.bytes for item in (first, *others)))
        rows.append((f"{first.kind:<8}", what, size, first.reason))
    print_table(("KIND", "WHAT", "SIZE", "WHY"), rows, right=(2,), note=3, piped="  ")
    left = f"{report.in_use} partial download{'' if report.in_use == 1 else 's'} in use left"
    in_use = f", {left}" if report.in_use else ""
    if report.orphans and report.orphans[0] not in report.removed:
        count = f"{len(report.orphans):,} file{'' if len(report.orphans) == 1 else 's'}"
        streams.say(f"{count} that no asset names: grym-fetch prune --orphans deletes them")
    streams.say_result(f"{format_size(report.bytes)} {'would be freed' if dry_run else 'freed'}{in_use}")


async def _agreed(places: list[Path]) -> bool:
    """Ask whether these may be deleted, if there are any. In a thread, so that Ctrl-C works."""
    import anyio.to_thread

    from grym_fetch.core.text import safe_text

    if not places:
        return True
    if not sys.stdin.isatty():
        raise click.UsageError(
            "cannot ask whether to delete the file, since stdin is not a terminal; pass --yes to delete it"
        )
    question = f"Delete {' and '.join(safe_text(str(place), limit=4000) for place in places)}?"
    try:
        return await anyio.to_thread.run_sync(lambda: click.confirm(question, err=True), abandon_on_cancel=True)
    except click.Abort:
        return False
