"""The command ``pin``: checksums and sizes that are missing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from grym_fetch.cli.help import Command
from grym_fetch.cli.measured import tell_measured
from grym_fetch.cli.options import Common, common_options, ids_argument, option, transfer_options

if TYPE_CHECKING:
    from grym_fetch.manager import AssetManager
    from grym_fetch.project.pinning import Pinned


@click.command("pin", cls=Command)
@ids_argument
@option("--minimal", is_flag=True, help="Pin only the small stand-ins.")
@option("--pieces", is_flag=True, help="Also write digests of the pieces, where they are missing.")
@option("--allow-suspicious", is_flag=True, help="Take a web page, a git-lfs pointer or an empty file, too.")
@transfer_options
@common_options
def pin_command(
    common: Common,
    ids: tuple[str, ...],
    exclude: tuple[str, ...],
    minimal: bool,
    pieces: bool,
    allow_suspicious: bool,
    **transfer: Any,
) -> int:
    """Write checksums and sizes into the manifest: of the assets named, or else of all that have no checksum.

    An existing file is taken as it is; a missing one is fetched. Look at what you pin: from then on, these bytes are
    the right ones. To resume an interrupted pin, run it again. With digests of the pieces, damage costs a piece and not
    the whole file, for everyone who has this manifest.
    """
    from grym_fetch.cli.runner import run
    from grym_fetch.cli.settings import settings_from

    async def body(manager: AssetManager) -> int:
        pinned: list[Pinned] = []
        try:
            await manager.pin(
                ids or None,
                exclude=exclude,
                pieces=pieces,
                allow_suspicious=allow_suspicious,
                on_pinned=pinned.append,
            )
        finally:
            # Report those that are now in the manifest even if others have failed.
            _tell_pinned(pinned, common)
        if not pinned and not common.quiet:
            what = "its checksum and pieces" if pieces else "its checksum"
            of_which = "the assets named have theirs" if ids else f"every asset has {what}"
            click.echo(f"nothing to pin: {of_which}", err=True)
        return 0

    return run(common, body, settings=settings_from(transfer), minimal=minimal, tells="failures")


def _tell_pinned(pinned: list[Pinned], common: Common) -> None:
    if common.json:
        for item in pinned:
            record = {
                "id": item.id, "checksum": str(item.checksum), "size": item.size, "path": str(item.path),
                "fetched": item.fetched, "stand_in": item.is_stand_in,
            }  # fmt: skip
            click.echo(json.dumps(record if item.pieces is None else {**record, "pieces": item.pieces}))
    elif not common.quiet:
        tell_measured(
            "pinned", [(item.id, item.size, item.checksum, "(stand-in)" if item.is_stand_in else "") for item in pinned]
        )
