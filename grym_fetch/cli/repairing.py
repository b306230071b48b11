"""The command ``repair``: only what is wrong of a file is fetched."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from grym_fetch.cli import streams
from grym_fetch.cli.help import Command
from grym_fetch.cli.options import Common, common_options, ids_argument, option, transfer_options

if TYPE_CHECKING:
    from grym_fetch.engine.reports import RepairReport
    from grym_fetch.manager import AssetManager

_NOT_THERE = {"missing", "unverified"}


@click.command("repair", cls=Command)
@ids_argument
@option("-n", "--dry-run", is_flag=True, help="Say what it would cost, and fetch nothing.")
@transfer_options
@common_options
def repair_command(
    common: Common, ids: tuple[str, ...], exclude: tuple[str, ...], dry_run: bool, **transfer: Any
) -> int:
    """Read files and fetch what is damaged in them: of the assets named, or of all with a
    checksum that are there.

    A damaged file stays until the right one, verified as a whole, takes its place. Which pieces are wrong is known if
    the manifest lists them (`pin --pieces`), and mostly if this content was fetched, adopted or read here before.
    Otherwise they are fetched and compared until the whole is right, which may cost as much as the whole file.
    """
    from grym_fetch.cli.runner import run
    from grym_fetch.cli.settings import settings_from
    from grym_fetch.core.errors import AssetMissing, GrymFetchError, SyncFailed

    async def body(manager: AssetManager) -> int:
        failed: dict[str, GrymFetchError] = {}
        count = 0
        for asset in manager.manifest.pick(ids or None, exclude=exclude):
            state = manager.state_of(asset.stand_in() if manager.minimal else asset)
            if not ids and state in _NOT_THERE:
                continue
            try:
                tell_repaired(await manager.repair_asset(asset.id, dry_run=dry_run), common)
            except GrymFetchError as error:
                if not ids and state == "partial" and isinstance(error, AssetMissing):
                    continue  # of an archive that is not unpacked, the file is there; of a download, only a part
                failed[asset.id] = error
            count += 1
        if not count and not common.quiet:
            streams.say("nothing to repair: no asset with a checksum is there")
        if failed:
            raise SyncFailed(failed)
        return 0

    return run(common, body, settings=settings_from(transfer), tells="failures")


def tell_repaired(report: RepairReport, common: Common) -> None:
    """Say what was found of one asset and done about it."""
    from grym_fetch.core.figures import format_size
    from grym_fetch.core.text import safe_text

    if common.json:
        click.echo(json.dumps({**asdict(report), "path": str(report.path)}))
    elif not common.quiet:
        parts = [safe_text(report.id)]
        if report.fetched > report.bad:
            parts.append(f"{report.fetched:,} of {report.pieces:,} pieces compared with an origin")
        elif report.bad or (report.pieces and not report.is_guess):
            parts.append(f"{report.bad:,} of {report.pieces:,} pieces {'probably ' if report.is_guess else ''}bad")
        if report.outcome == "damaged":
            parts.append(f"a repair would fetch {_cost(report)}")
        elif report.outcome != "intact":
            parts.append(f"{format_size(report.downloaded_bytes)} fetched")
        if report.saved_bytes:
            parts.append(f"{format_size(report.saved_bytes)} saved")
        click.echo(streams.sheet(sys.stdout).item(report.outcome, "  ".join(parts)))


def _cost(report: RepairReport) -> str:
    from grym_fetch.core.figures import format_size

    least, most = format_size(report.bytes_to_fetch), format_size(report.bytes_at_most or 0)
    if not report.is_guess:
        return least
    if report.bad:
        return f"{least}, or up to {most} if more is wrong"
    return f"up to {most}: nothing says which part is wrong, so it compares with an origin until the whole is right"
