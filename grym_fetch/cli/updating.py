"""Commands that ask sources for newer versions: ``outdated``, ``update``."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

import click

from grym_fetch.cli import streams
from grym_fetch.cli.help import Command
from grym_fetch.cli.options import (
    Common,
    common_options,
    complete_ids,
    exclude_option,
    ids_argument,
    one_asset,
    option,
    refuse_password,
    transfer_options,
)

if TYPE_CHECKING:
    from grym_fetch.core.manifest import Asset
    from grym_fetch.manager import AssetManager
    from grym_fetch.project.updating import NewerVersion

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:.+")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@click.command("outdated", cls=Command)
@ids_argument
@transfer_options
@common_options
def outdated_command(common: Common, ids: tuple[str, ...], exclude: tuple[str, ...], **transfer: Any) -> int:
    """List the assets whose sources have something newer: of those named, or of all that were added from a source.

    Changes nothing; `grym-fetch update` does.
    """
    from grym_fetch.cli.runner import run
    from grym_fetch.cli.settings import settings_from

    async def body(manager: AssetManager) -> int:
        count = 0

        def tell(found: NewerVersion) -> None:
            nonlocal count
            count += 1
            tell_newer(found, common, is_written=False)

        await manager.outdated(ids or None, exclude=exclude, on_found=tell)
        if not count and not common.quiet:
            streams.say(_nothing_newer(manager, ids))
        return 0

    return run(common, body, settings=settings_from(transfer), minimal=False)


@click.command("update", cls=Command)
@click.argument("ids", nargs=-1, metavar="[ID]... | ID ADDRESS", shell_complete=complete_ids)
@exclude_option
@option("-n", "--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@option("--allow-suspicious", is_flag=True, help="Take a web page, a git-lfs pointer or an empty file, too.")
@transfer_options
@common_options
def update_command(
    common: Common,
    ids: tuple[str, ...],
    exclude: tuple[str, ...],
    dry_run: bool,
    allow_suspicious: bool,
    **transfer: Any,
) -> int:
    """Move assets to what their sources have now: those named, or all that were added from a source.

    With an ID and an ADDRESS, plain or short, the asset moves to what is there. Old and new are shown; all entries
    are written, or none. Files whose source states no SHA-256 are fetched at once, all others by the next sync; an old
    file stays until its new one is there.
    """
    from grym_fetch.cli.runner import run
    from grym_fetch.cli.settings import settings_from
    from grym_fetch.core.errors import SyncFailed

    address = ids[1] if len(ids) == 2 and _ADDRESS.fullmatch(ids[1]) else None
    if address is not None:
        refuse_password(address)
        if exclude:
            raise click.UsageError("--exclude is for assets that are updated from their sources, not for an ADDRESS")

    async def body(manager: AssetManager) -> int:
        if address is not None:
            moved = one_asset(manager, ids[0]).id
            one = await manager.update_asset(
                moved,
                address,
                dry_run=dry_run,
                allow_suspicious=allow_suspicious,
                on_found=_shown_first(common, dry_run=dry_run),
            )
            done: tuple[NewerVersion, ...] = () if one is None else (one,)
        else:
            try:
                done = await manager.update(
                    ids or None,
                    exclude=exclude,
                    dry_run=dry_run,
                    allow_suspicious=allow_suspicious,
                    on_found=_shown_first(common, dry_run=dry_run),
                )
            except SyncFailed:
                if not common.quiet:
                    would_be = "would be" if dry_run else "was"
                    streams.say(f"nothing {would_be} updated, because some failed; --exclude leaves them out")
                raise
        for each in done:
            if common.json and not dry_run:
                tell_newer(each, common, is_written=True)
        if common.quiet or common.json:
            return 0
        if not done:
            streams.say(_nothing_newer(manager, ids))
        elif dry_run:
            streams.say(f"{len(done)} would be updated")
        else:
            missing = sum(
                state in ("missing", "partial", "corrupt") for state in manager.states_of([each.newer for each in done])
            )
            rest = "" if not missing else f"; {missing} to be fetched by the next sync"
            streams.say(f"{len(done)} updated{rest}")
        return 0

    return run(common, body, settings=settings_from(transfer), minimal=False, tells="failures")


def _shown_first(common: Common, *, dry_run: bool) -> Any:
    """What shows each as soon as it is known, unless only the end tells whether it was written."""

    def tell(found: NewerVersion) -> None:
        if dry_run or not common.json:
            tell_newer(found, common, is_written=not dry_run)

    return tell


def _nothing_newer(manager: AssetManager, ids: tuple[str, ...]) -> str:
    if not ids and not any(asset.source for asset in manager.manifest.assets):
        return "no asset was added from a source, so there is nobody to ask"
    return "nothing newer"


def tell_newer(found: NewerVersion, common: Common, *, is_written: bool) -> None:
    """One line: the asset, its version and size, old and new."""
    from grym_fetch.core.text import redact_url, safe_text

    if common.json:
        record = {"id": found.asset.id, "old": _record(found.asset), "new": _record(found.newer), "written": is_written}
        click.echo(json.dumps(record))
    elif not common.quiet:
        old, new = found.asset, found.newer
        versions = f"{_version(old)} -> {_version(new)}"
        sizes = f"{_size(old)} -> {_size(new)}"
        where = safe_text(new.source) if new.source else redact_url(new.url)
        click.echo(streams.sheet(sys.stdout).item(safe_text(old.id), f"{versions}  {sizes}  {where}"))


def _version(asset: Asset) -> str:
    from grym_fetch.core.text import safe_text

    version = asset.version or "?"
    return version[:12] if _COMMIT.fullmatch(version) else safe_text(version, limit=80)


def _size(asset: Asset) -> str:
    from grym_fetch.core.figures import format_size

    return "size unknown" if asset.size is None else format_size(asset.size)


def _record(asset: Asset) -> dict[str, object]:
    from grym_fetch.core.text import redact_url

    return {
        "version": asset.version,
        "url": redact_url(asset.url),
        "checksum": None if asset.checksum is None else str(asset.checksum),
        "size": asset.size,
        "source": asset.source,
    }
