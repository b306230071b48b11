"""``grym-fetch adopt``: what is on this machine already is not downloaded."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from grym_fetch.cli import streams
from grym_fetch.cli.help import Command
from grym_fetch.cli.options import (
    Common,
    common_options,
    complete_ids,
    exclude_option,
    minimal_option,
    option,
    progress_options,
    store_option,
)

if TYPE_CHECKING:
    from grym_fetch.engine.reports import Adopted
    from grym_fetch.manager import AssetManager


@click.command("adopt", cls=Command)
@click.argument("places", nargs=-1, metavar="[PATH]...", type=click.Path(path_type=Path))
@option(
    "--asset-id",
    "ids",
    multiple=True,
    metavar="ID",
    shell_complete=complete_ids,
    help="Only this asset; an id or a glob (repeatable).",
)
@exclude_option
@minimal_option("Take the small stand-ins of assets that have one.")
@option(
    "--link-mode",
    type=click.Choice(["auto", "reflink", "hardlink", "copy"]),
    default="auto",
    show_default=True,
    help="How files are taken. auto: as a reflink, hard link or copy.",
)
@store_option("Share files with other projects through the machine's store. [in your cache folder]")
@progress_options
@common_options
def adopt_command(
    common: Common, places: tuple[Path, ...], ids: tuple[str, ...], exclude: tuple[str, ...], minimal: bool | None,
    **sharing: Any,
) -> int:  # fmt: skip
    """Take files that are on this machine already, instead of downloading them. Fetches nothing.

    Looks in the folders and files named, under other names in the assets folder, in the external folder, with --store
    in the store and in your other projects that use it, and in the caches of Hugging Face, torch.hub and pooch, for
    files of the right size; their digest decides. What is found is shared or copied, and stays where it was; a
    file of the assets folder or of the store that is shared as a hard link is read-only from then on.
    """
    from grym_fetch.cli.runner import run, short_path
    from grym_fetch.cli.settings import settings_from
    from grym_fetch.core.text import safe_text

    for place in places:
        if not os.path.lexists(place):
            raise click.UsageError(f"there is nothing at {str(place)!r}")

    async def body(manager: AssetManager) -> int:
        def tell(adopted: Adopted) -> None:
            if common.json:
                record = {"id": adopted.id, "path": str(adopted.path), "source": str(adopted.source)}
                click.echo(json.dumps({**record, "link": adopted.link}))
            elif not common.quiet:
                click.echo(f"{adopted.link:<8}  {safe_text(adopted.id)}  from {short_path(adopted.source)}")

        report = await manager.adopt_assets(places, ids=ids or None, exclude=exclude, on_adopted=tell)
        if not common.json and not common.quiet:
            rest = f", {len(report.missing):,} not on this machine: grym-fetch sync" if report.missing else ""
            there = f", {len(report.present):,} in place already" if report.present else ""
            streams.say(f"{len(report.adopted):,} adopted{there}{rest}")
        return 0

    return run(common, body, settings=settings_from(sharing), minimal=minimal, tells="failures", json_events=False)
