"""Commands that look: ``check``, ``path``, ``list``, ``info``, ``schema``."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from grym_fetch.cli import streams
from grym_fetch.cli.help import Command
from grym_fetch.cli.options import (
    Common,
    common_options,
    complete_ids,
    complete_tags,
    ids_argument,
    minimal_option,
    one_asset,
    option,
    progress_options,
    store_option,
    transfer_options,
)
from grym_fetch.cli.tables import print_table
from grym_fetch.core.text import redact_url

if TYPE_CHECKING:
    from grym_fetch.core.manifest import Asset
    from grym_fetch.engine.reports import AssetState, AssetStatus
    from grym_fetch.manager import AssetManager


PAGE_ROWS = 10_000
"""A longer table is written in pages, each with columns of its own width."""


@click.command("check", cls=Command)
@ids_argument
@option("--full", is_flag=True, help="Also read files that were verified before.")
@minimal_option("Check the small stand-ins of assets that have one.")
@option("--allow-unpinned", is_flag=True, help="Accept files without a checksum, unverified.")
@store_option("Read every byte of the machine's store, instead. [as `store` finds it]", envvar=None)
@progress_options
@common_options
def check_command(
    common: Common,
    ids: tuple[str, ...],
    exclude: tuple[str, ...],
    full: bool,
    minimal: bool | None,
    allow_unpinned: bool,
    store: bool | str,
) -> int:
    """Say whether assets are present and valid: those named, or else all of them.

    A file that was verified before and has not changed since (size, times, inode, device) is trusted. Exit code 3 if
    something is corrupt, 4 if a file cannot be read, else 1 if something is missing, partial or, without
    --allow-unpinned, unverified.
    """
    if store:
        from grym_fetch.cli.store import check_store

        if ids:
            raise click.UsageError("--store checks the whole store; it takes no ids")
        return check_store(common, store)
    from grym_fetch.cli import exit_codes
    from grym_fetch.cli.runner import print_error, run, short_path
    from grym_fetch.core.errors import SyncFailed
    from grym_fetch.core.text import safe_text
    from grym_fetch.engine.reports import AssetState

    async def body(manager: AssetManager) -> int:
        codes = {exit_codes.DONE}
        found: list[tuple[Asset, AssetStatus]] = []
        next_steps = _NextSteps(manager, ids, exclude=exclude, minimal=bool(minimal))

        async def take(status: AssetStatus) -> None:
            is_fine = status.valid or (status.unverified and allow_unpinned)
            if status.state is AssetState.CORRUPT:
                codes.add(exit_codes.INTEGRITY)
            elif not is_fine:
                codes.add(exit_codes.NOT_FETCHED)
            if common.json:
                record = {
                    "id": status.id, "state": status.state, "exists": status.exists, "valid": status.valid,
                    "path": str(status.path), "error": status.error, "stand_in": status.is_stand_in,
                }  # fmt: skip
                click.echo(json.dumps(record))
            elif not common.quiet or not is_fine:
                asset = manager.manifest.get(status.id)
                next_steps.count(asset, status.state)
                found.append((asset, status))
                if len(found) >= PAGE_ROWS:
                    await print_page()

        is_short = streams.sheet(sys.stdout).is_terminal

        async def print_page() -> None:
            for asset, status in found:
                problem = safe_text(_problem(status))
                if is_short:
                    problem = problem.partition(": expected ")[0]  # `info` shows the digests
                note = " ".join(part for part in (problem, "(stand-in)" if status.is_stand_in else "") if part)
                kind = asset.stand_in() if status.is_stand_in else asset
                state = await _state_shown(manager, kind, status.state)
                rows.append((state, safe_text(asset.id), _size_shown(kind), short_path(status.path), note))
            found.clear()
            if len(rows) >= PAGE_ROWS:
                print_rows()

        try:
            await manager.check_assets(ids or None, exclude=exclude, full=full, on_status=take, keep=False)
        except SyncFailed as error:
            codes.add(exit_codes.exit_code(error))
            last.append(partial(print_error, error, manifest=manager.project.manifest_path))
        await print_page()
        if not common.json and not common.quiet and not last:
            last.append(partial(next_steps.tell, is_checked=True))
        return exit_codes.worst(codes - {exit_codes.DONE}) if codes != {exit_codes.DONE} else exit_codes.DONE

    def print_rows() -> None:
        print_table(("STATE", "ID", "SIZE", "PATH", "NOTE"), rows, state=0, right=(2,), note=4)
        rows.clear()

    rows: list[tuple[str, ...]] = []
    last: list[Callable[[], object]] = []
    code = run(common, body, minimal=minimal, tells="news", json_events=False)
    # After the run, so that the table comes below the display, and before what follows from it.
    print_rows()
    for tell in last:
        tell()
    return code


@click.command("path", cls=Command)
@click.argument("asset_id", metavar="ID", shell_complete=complete_ids)
@minimal_option("Use the small stand-in if the asset has one.")
@transfer_options
@common_options
def path_command(common: Common, asset_id: str, minimal: bool | None, **transfer: Any) -> int:
    """Print an asset's path, fetching the asset first if it is not there (never with --offline)."""
    from grym_fetch.cli.runner import run
    from grym_fetch.cli.settings import settings_from

    found: list[tuple[str, str]] = []

    async def body(manager: AssetManager) -> int:
        asset = one_asset(manager, asset_id)
        found.append((asset.id, str(await manager.get_asset_path(asset.id))))
        return 0

    code = run(common, body, settings=settings_from(transfer), minimal=minimal)
    # After the run, so that it comes after the last event of --json.
    for name, path in found:
        # To the byte: a script will open it.
        click.echo(json.dumps({"id": name, "path": path}) if common.json else os.fsencode(path))
    return code


@click.command("list", cls=Command)
@option(
    "--tag",
    "tags",
    multiple=True,
    metavar="T",
    shell_complete=complete_tags,
    help="List only assets with this tag (repeatable).",
)
@common_options
def list_command(common: Common, tags: tuple[str, ...]) -> int:
    """List the configured assets: id, state, size, tags. Reads no file's bytes."""
    from grym_fetch.cli.runner import print_data, run
    from grym_fetch.core.manifest import in_batches
    from grym_fetch.core.text import safe_text

    async def body(manager: AssetManager) -> int:
        next_steps = _NextSteps(manager, tags=tags)
        for batch in in_batches(manager.choose(tags=tags, all=not tags)):
            found = list(zip(batch, manager.states_of(batch), strict=True))
            if common.json:
                print_data(json.dumps({**_record(asset), "state": state}) for asset, state in found)
                continue
            rows = []
            for asset, state in found:
                next_steps.count(asset, state)
                row = (
                    safe_text(asset.id),
                    await _state_shown(manager, asset, state),
                    _size_shown(asset),
                    "required" if asset.required else "",
                    ", ".join(map(safe_text, asset.tags)),
                )
                rows.append(row)
            print_table(("ID", "STATE", "SIZE", "REQUIRED", "TAGS"), rows, state=1, right=(2,))
        if not common.json and not common.quiet:
            next_steps.tell(is_checked=False)
        return 0

    return run(common, body)


@click.command("info", cls=Command)
@click.argument("asset_id", metavar="ID", shell_complete=complete_ids)
@common_options
def info_command(common: Common, asset_id: str) -> int:
    """Show what is listed of an asset, and its state."""
    from grym_fetch.cli.runner import run
    from grym_fetch.core.figures import format_size
    from grym_fetch.core.mirrors import addresses_of
    from grym_fetch.core.text import redact_text, safe_text

    async def body(manager: AssetManager) -> int:
        listed = one_asset(manager, asset_id)
        status = await manager.check_asset(listed.id)
        # Describe the file that the state and the path are about.
        asset = listed.stand_in() if status.is_stand_in else listed
        asked = addresses_of(asset, manager.settings.mirror_rules)
        if common.json:
            record = {
                **_record(asset), "asked": [redact_url(url) for url in asked],
                "state": status.state, "path": str(status.path), "error": status.error,
                "stand_in": status.is_stand_in,
                "description": listed.description, "version": listed.version, "extract": listed.extract,
                "source": redact_text(listed.source) if listed.source is not None else None,
                "piece_size": listed.pieces.size if listed.pieces is not None else None,
                "metadata": _redacted(listed.metadata),
            }  # fmt: skip
            click.echo(json.dumps(record))
            return 0
        size = f"{format_size(asset.size)} ({asset.size} bytes)" if asset.size is not None else "unknown"
        shown = await _state_shown(manager, asset, status.state)
        rows = [
            ("id", asset.id),
            ("name", asset.name),
            ("description", asset.description or ""),
            ("version", asset.version or ""),
            ("state", f"{shown}{' (of the stand-in)' if status.is_stand_in else ''}"),
            ("path", str(status.path)),
            ("problem", _problem(status)),
            ("size", size),
            ("checksum", str(asset.checksum) if asset.checksum is not None else "none: `grym-fetch pin` records one"),
            ("required", "yes" if asset.required else "no"),
            ("tags", ", ".join(asset.tags)),
            *_address_rows(asset, asked),
            ("stand-in", redact_url(listed.minimal.url) if listed.minimal is not None else ""),
            ("source", redact_text(listed.source or "")),
            ("archive", "is unpacked beside it" if listed.extract else ""),
            ("pieces", _pieces_text(listed)),
            ("metadata", json.dumps(_redacted(listed.metadata), ensure_ascii=False) if listed.metadata else ""),
        ]
        sheet = streams.sheet(sys.stdout)
        for key, value in rows:
            if value:
                click.echo(sheet.item(f"{key:<11}", safe_text(str(value), limit=4000)))
        return 0

    return run(common, body, tells="news", json_events=False)


@click.command("schema", cls=Command)
@common_options
def schema_command(common: Common) -> int:
    """Print the JSON Schema of the manifest, for editors and for checks of your own."""
    from grym_fetch.cli.runner import run_plain
    from grym_fetch.core.manifest_schema import manifest_json_schema

    def work() -> int:
        click.echo(json.dumps(manifest_json_schema(), indent=None if common.json else 2))
        return 0

    return run_plain(common, work)


def _redacted(value: object) -> object:
    """The same JSON value without the secrets of addresses in it."""
    from grym_fetch.core.text import redact_text

    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, Mapping):
        return {redact_text(key): _redacted(each) for key, each in value.items()}
    return [_redacted(each) for each in value] if isinstance(value, list | tuple) else value


def _pieces_text(asset: Asset) -> str:
    from grym_fetch.core.figures import format_size

    if asset.pieces is None:
        return ""
    return f"{len(asset.pieces.sha256):,} of {format_size(asset.pieces.size)} have digests"


def _address_rows(asset: Asset, asked: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The addresses to ask for an asset, in order, and those that the user's own mirrors replace."""
    listed = {url: "url" if number == 0 else f"mirror {number + 1}" for number, url in enumerate(asset.urls)}
    for url in dict.fromkeys((*asked, *listed)):
        note = "" if url in asked else "  (not asked: your mirrors take its place)"
        yield listed.get(url, "own mirror"), redact_url(url) + note


def _record(asset: Asset) -> dict[str, object]:
    return {
        "id": asset.id,
        "name": asset.name,
        "size": asset.size,
        "checksum": str(asset.checksum) if asset.checksum is not None else None,
        "required": asset.required,
        "tags": list(asset.tags),
        "localPath": asset.local_path,
        "urls": [redact_url(url) for url in asset.urls],
    }


async def _state_shown(manager: AssetManager, asset: Asset, state: AssetState) -> str:
    """The state, with the share that is there of a partial asset: ``partial 36%``."""
    from grym_fetch.core.errors import StaleManifest
    from grym_fetch.engine.reports import AssetState

    if state is AssetState.PARTIAL and asset.size:
        with suppress(StaleManifest):  # the manifest is only looked at, not used for fetching
            if staged := (await manager.plan([asset])).bytes_staged:
                return f"{state} {int(100 * staged / asset.size)}%"
    return str(state)


def _problem(status: AssetStatus) -> str:
    """What the state does not say already."""
    from grym_fetch.engine.checking import SAID_BY_STATE

    return "" if status.error is None or status.error in SAID_BY_STATE else status.error


def _size_shown(asset: Asset) -> str:
    from grym_fetch.core.figures import format_size

    return format_size(asset.size) if asset.size is not None else "?"


class _NextSteps:
    """Counts the states of assets, to end with what to do next, if anything: ``6 missing: grym-fetch sync``."""

    def __init__(
        self,
        manager: AssetManager,
        ids: Sequence[str] = (),
        *,
        exclude: Sequence[str] = (),
        tags: Sequence[str] = (),
        minimal: bool = False,
    ) -> None:
        self._manager = manager
        self._options = [word for tag in tags for word in ("--tag", tag)]
        self._options += [word for each in exclude for word in ("--exclude", each)]
        self._ids = tuple(ids)
        self._kind = ["--minimal"] if minimal else []
        self._counts: Counter[AssetState] = Counter()
        self._is_usual = True

    def count(self, asset: Asset, state: AssetState) -> None:
        """Note an asset's state."""
        from grym_fetch.engine.reports import AssetState

        self._counts[state] += 1
        if self._is_usual and state in (AssetState.MISSING, AssetState.PARTIAL, AssetState.CORRUPT):
            self._is_usual = self._manager.manifest.is_usual(asset, self._manager.minimal)

    def _command(self, name: str) -> str:
        """The command about the assets that were asked for; only `sync` takes tags, and the others then all assets."""
        from grym_fetch.core.command_lines import command_line

        options = () if "--tag" in self._options and name != "sync" else self._options
        return command_line("grym-fetch", name, *options, *self._kind, names=self._ids)

    def tell(self, *, is_checked: bool) -> None:
        """Say it on stderr."""
        from grym_fetch.core.command_lines import command_line
        from grym_fetch.engine.reports import AssetState

        is_chosen = bool(self._ids or self._options)
        everything = command_line("grym-fetch", "sync", "--all", *self._kind)
        sync = self._command("sync") if is_chosen or self._is_usual else everything
        steps = [
            (AssetState.MISSING, "missing", sync),
            (AssetState.PARTIAL, "partly there", sync),
            (AssetState.CORRUPT, "corrupt", sync),
            (AssetState.UNVERIFIED, "without a checksum", self._command("pin")),
            (AssetState.PRESENT, "not verified yet", self._command("check")),
        ]
        by_command: dict[str, list[str]] = {}
        for kind, what, command in steps:
            if number := self._counts[kind]:
                by_command.setdefault(command, []).append(f"{number:,} {what}")
        for command, parts in by_command.items():
            streams.say(f"{', '.join(parts)}: {command}")
        total = self._counts.total()
        if not total and not is_chosen:
            streams.say("the manifest lists no assets; `grym-fetch add URL` adds one")
        if is_checked and total and not by_command:
            streams.say(f"all {total:,} verified" if total > 1 else "verified")
