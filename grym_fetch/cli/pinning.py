"""The command ``pin``: checksums and sizes that are missing."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import click

from grym_fetch.cli import streams
from grym_fetch.cli.help import Command
from grym_fetch.cli.measured import tell_measured
from grym_fetch.cli.options import Common, common_options, ids_argument, option, transfer_options

if TYPE_CHECKING:
    from grym_fetch.manager import AssetManager
    from grym_fetch.project.pinning import Pinned
    from grym_fetch.project.updating import NewerVersion


@click.command("pin", cls=Command)
@ids_argument
@option("--minimal", is_flag=True, help="Pin only the small stand-ins.")
@option("--update", is_flag=True, help="Fetch what the addresses have now, also where there is a checksum or a file.")
@option("--pieces", is_flag=True, help="Also write digests of the pieces, where they are missing.")
@option("--allow-suspicious", is_flag=True, help="Take a web page, a git-lfs pointer or an empty file, too.")
@transfer_options
@common_options
def pin_command(
    common: Common,
    ids: tuple[str, ...],
    exclude: tuple[str, ...],
    minimal: bool,
    update: bool,
    pieces: bool,
    allow_suspicious: bool,
    **transfer: Any,
) -> int:
    """Write checksums and sizes into the manifest: of the assets named, or else of all that have no checksum.

    An existing file is taken as it is; a missing one is fetched. With --update, all are fetched, and all is written or
    nothing. Look at what you pin: from then on, these bytes are the right ones.
    """
    from grym_fetch.cli.runner import run
    from grym_fetch.cli.settings import settings_from

    if update and (minimal or pieces):
        raise click.UsageError("--update goes with neither --minimal nor --pieces: pin these afterwards")

    async def body(manager: AssetManager) -> int:
        pinned: list[Pinned] = []
        known = {asset.id for asset in manager.manifest.pick(ids or None, exclude=exclude) if asset.pinned}
        try:
            await manager.pin(
                ids or None,
                exclude=exclude,
                pieces=pieces,
                update=update,
                allow_suspicious=allow_suspicious,
                on_found=lambda found: _tell_change(found, common),
                on_pinned=pinned.append,
            )
        finally:
            # Report those that are now in the manifest even if others have failed.
            _tell_pinned(pinned, common, known)
        if not pinned and not common.quiet:
            what = "its checksum and pieces" if pieces else "its checksum"
            of_which = "the assets named have theirs" if ids else f"every asset has {what}"
            streams.say(f"nothing to pin: {of_which}")
        return 0

    return run(common, body, settings=settings_from(transfer), minimal=minimal, tells="failures")


def _tell_pinned(pinned: list[Pinned], common: Common, known: Collection[str]) -> None:
    """``known``: the assets that had a checksum before."""
    if common.json:
        for item in pinned:
            record = {
                "id": item.id, "checksum": str(item.checksum), "size": item.size, "path": str(item.path),
                "fetched": item.fetched, "stand_in": item.is_stand_in,
            }  # fmt: skip
            if item.pieces is not None:
                record["pieces"] = item.pieces
            if item.before is not None:
                record["before"] = str(item.before)
            click.echo(json.dumps(record))
    elif not common.quiet:
        tell_measured("pinned", [(item.id, item.size, item.checksum, _note(item, known)) for item in pinned])


def _note(item: Pinned, known: Collection[str]) -> str:
    if item.before is not None:
        return "(unchanged)" if item.before == item.checksum else f"(was {str(item.before)[:19]}…)"
    # Its address may have another version by now, unless a checksum has said otherwise.
    is_taken = not item.fetched and (item.is_stand_in or item.id not in known)
    notes = ["stand-in"] * item.is_stand_in + ["the file that was there"] * is_taken
    return f"({', '.join(notes)})" if notes else ""


def _tell_change(found: NewerVersion, common: Common) -> None:
    """Show a change before it is written."""
    from grym_fetch.core.figures import format_size
    from grym_fetch.core.text import safe_text

    old, new = found.asset, found.newer
    if common.quiet or common.json or old.checksum in (None, new.checksum):
        return
    sizes = ["size unknown" if each.size is None else format_size(each.size) for each in (old, new)]
    streams.say(f"{safe_text(old.id)}: {old.checksum}  {sizes[0]} -> {new.checksum}  {sizes[1]}")
