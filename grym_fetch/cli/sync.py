"""``grym-fetch sync``."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from grym_fetch.cli import streams
from grym_fetch.cli.help import Command
from grym_fetch.cli.options import (
    REPORTS,
    Common,
    check_target,
    common_options,
    complete_ids,
    complete_tags,
    file_option,
    ids_argument,
    minimal_option,
    option,
    transfer_options,
)

if TYPE_CHECKING:
    from grym_fetch.core.manifest import Asset
    from grym_fetch.engine.reports import SyncPlan
    from grym_fetch.manager import AssetManager


def refuse_header(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> None:
    """Refuse ``--header``: it may hold a secret, and every user of the machine can see a command line."""
    if value:
        raise click.UsageError(
            "--header is not accepted: others can read a command line. Put a token into GRYM_FETCH_TOKEN_<HOST> "
            "(a dot as _, a dash as __), HF_TOKEN, or ~/.netrc.",
            ctx,
        )


def check_cluster(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Refuse what is not the name of a cluster."""
    if not value:
        return None
    from grym_fetch.cluster.opening import problem_of

    if (problem := problem_of(value)) is not None:
        raise click.BadParameter(problem, ctx, param)
    return value


@click.command("sync", cls=Command)
@ids_argument
@option("--all", "everything", is_flag=True, help="Choose every asset, not only the required ones.")
@minimal_option("Choose assets tagged essential, if any is, as small stand-ins where they have one.")
@option(
    "--tag",
    "tags",
    multiple=True,
    metavar="T",
    shell_complete=complete_tags,
    help="Choose assets with this tag (repeatable).",
)
@option(
    "--asset-id",
    "asset_ids",
    multiple=True,
    metavar="ID",
    shell_complete=complete_ids,
    help="Choose this asset, as naming it does (repeatable).",
)
@option("--force", is_flag=True, help="Fetch again even if valid; the old file stays until the new one is complete.")
@option("-n", "--dry-run", is_flag=True, help="Print the plan and fetch nothing.")
@file_option(
    "--report",
    endings=REPORTS,
    help="Write what came from where, when and how fast: FILE.html, a page; FILE.jsonl or FILE.parquet, rows.",
)
@option(
    "--metrics",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    callback=check_target,
    help="Keep metrics of the run in FILE, in Prometheus' text format.",
)
@option(
    "--on",
    metavar="CLUSTER",
    callback=check_cluster,
    help="Fetch on a cluster: dask or ray, a process for each core; dask://HOST:PORT, ray://HOST:PORT, elsewhere.",
)
@option("--each-node", is_flag=True, help="With --on: give each machine a copy of its own; they share no folder.")
@click.option("--header", multiple=True, hidden=True, expose_value=False, callback=refuse_header)
@transfer_options
@common_options
def sync_command(
    common: Common,
    ids: tuple[str, ...],
    exclude: tuple[str, ...],
    everything: bool,
    minimal: bool | None,
    tags: tuple[str, ...],
    asset_ids: tuple[str, ...],
    force: bool,
    dry_run: bool,
    report: Path | None,
    metrics: Path | None,
    on: str | None,
    each_node: bool,
    **transfer: Any,
) -> int:
    """Make assets present and verified: those chosen, or else all required ones (all, if none is required).

    An ID may be a glob in quotes: 'voice-*'. Exit code 0 means that everything asked for is there, and right as far as
    it has a checksum (but not with -n). To resume an interrupted sync, run it again.
    """
    from grym_fetch.cli.runner import run
    from grym_fetch.cli.settings import settings_from

    if each_node and on is None:
        from grym_fetch.cluster.opening import WORDS

        raise click.UsageError(f"--each-node needs --on with a cluster: {WORDS}")

    async def body(manager: AssetManager) -> int:
        assets = manager.choose(ids + asset_ids, tags=tags, all=everything, exclude=exclude)
        if not (ids or asset_ids or tags or everything):
            say_default(manager, common, exclude=exclude)
        if exclude and not assets and not common.quiet:
            streams.say("nothing to fetch: everything chosen is excluded")
        if dry_run:
            await print_plan(manager, assets, common, force=force)
            return 0
        async with AsyncExitStack() as stack:
            if report is not None:
                from grym_fetch.cli.reporting import reporting

                await stack.enter_async_context(
                    reporting(manager, assets, report, goes_on=on is not None, each_node=each_node)
                )
            if metrics is not None:
                from grym_fetch.cli.metrics import metering

                await stack.enter_async_context(metering(manager, assets, metrics))
            if on is None:
                await manager.sync_assets(assets, force=force)
            else:
                await manager.sync_assets_on(on, assets, force=force, each_node=each_node)
        return 0

    return run(common, body, settings=settings_from(transfer), minimal=minimal)


def say_default(manager: AssetManager, common: Common, *, exclude: tuple[str, ...] = ()) -> None:
    """Say what is used if nothing was chosen and nothing is marked."""
    if common.quiet:
        return
    if not manager.manifest.assets:
        streams.say("nothing to fetch: the manifest lists no assets; `grym-fetch add URL` adds one")
    elif manager.manifest.chooses_all(manager.minimal):
        count = len(manager.choose(exclude=exclude))
        but = f" but {len(manager.manifest.assets) - count} excluded" if exclude else ""
        streams.say(f"no asset is marked as required: taking all {len(manager.manifest.assets)}{but}")


async def print_plan(manager: Any, assets: Any, common: Common, *, force: bool) -> None:
    """Print what a sync would do: files, bytes, space. JSON is one line, or one for each part of a long list."""
    from grym_fetch.cli.runner import print_data
    from grym_fetch.cli.tables import print_table
    from grym_fetch.core.figures import format_size
    from grym_fetch.core.mirrors import addresses_of
    from grym_fetch.core.text import redact_url, safe_text

    fetched = taken = kept = unpacked = 0

    def first(asset: Asset) -> str:
        return addresses_of(asset, manager.settings.mirror_rules)[0]

    def record(plan: SyncPlan) -> dict[str, object]:
        return {
            "fetch": [
                {
                    "id": a.id,
                    "path": str(manager.project.assets_dir / a.local_path),
                    "size": a.size,
                    "pinned": a.pinned,
                    "from": redact_url(first(a)),
                }
                for a in plan.to_fetch
            ],
            "present": [a.id for a in plan.present],
            "to_take": [a.id for a in plan.to_take],
            "unread": [a.id for a in plan.unread],
            "to_unpack": [a.id for a in plan.to_unpack],
            "bytes_to_fetch": plan.bytes_to_fetch,
            "bytes_staged": plan.bytes_staged,
            "unknown_sizes": plan.unknown_sizes,
            "space_needed": plan.space_needed,
            "space_free": plan.space_free,
        }

    def print_part(plan: SyncPlan) -> None:
        nonlocal fetched, taken, kept, unpacked
        if common.json:
            print_data([json.dumps(record(plan))])
            return
        rows = []
        for asset in plan.to_fetch:
            size = format_size(asset.size) if asset.size is not None else "size unknown"
            note = "" if asset.pinned else "(no checksum: refused without --allow-unpinned)"
            if first(asset) != asset.url:
                note = f"(at your mirror first: {redact_url(first(asset))})"
            place = f"-> {safe_text(asset.local_path, limit=1100)}"
            rows.append(("fetch", safe_text(asset.id), size, place, note))
        rows += [("take ", safe_text(asset.id), "", "", "from the store") for asset in plan.to_take]
        unread = {asset.id for asset in plan.unread}
        for asset in plan.present:
            is_read = asset.id in unread
            note = "(there but not verified yet: read first, and repaired if it is wrong)" if is_read else ""
            if not asset.pinned:
                note = "(no checksum: refused without --allow-unpinned)"
            rows.append(("read " if is_read else "keep ", safe_text(asset.id), "", "", note))
        print_table(("PLAN", "ID", "SIZE", "PATH", "NOTE"), rows, right=(2,), note=4, piped="  ")
        fetched, taken, kept = fetched + len(plan.to_fetch), taken + len(plan.to_take), kept + len(plan.present)
        unpacked += len(plan.to_unpack)

    plan = await manager.plan(assets, force=force, on_part=print_part)
    if common.json:
        return
    resumed = f", {format_size(plan.bytes_staged)} there from an earlier run" if plan.bytes_staged else ""
    unknown = f", {plan.unknown_sizes} of unknown size" if plan.unknown_sizes else ""
    from_store = f"{taken} to take from the store, " if taken else ""
    streams.say_result(f"{fetched} to fetch, {from_store}{kept} already there{unknown}")
    streams.say_result(f"{format_size(plan.bytes_to_fetch)} to download{resumed}")
    fits = "" if plan.space_needed <= plan.space_free else ": NOT ENOUGH"
    archives = f", and what is in {unpacked} to be unpacked" if unpacked else ""
    needed, free = format_size(plan.space_needed), format_size(plan.space_free)
    streams.say_result(f"space needed {needed}{archives}, free {free}{fits}")
