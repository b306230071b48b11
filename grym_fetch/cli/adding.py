"""The command ``add``: an entry for an address, a file, or what a hub has."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import click

from grym_fetch.cli import streams
from grym_fetch.cli.help import Command
from grym_fetch.cli.measured import tell_measured
from grym_fetch.cli.new_manifest import with_manifest
from grym_fetch.cli.options import Common, common_options, option, refuse_password, transfer_options
from grym_fetch.cli.usage import WrongUsage

if TYPE_CHECKING:
    from grym_fetch.core.digest import Checksum
    from grym_fetch.core.manifest import Asset
    from grym_fetch.manager import AssetManager
    from grym_fetch.settings import Settings


@click.command("add", cls=Command)
@click.argument("source", metavar="SOURCE")
@option(
    "--id",
    "asset_id",
    metavar="ID",
    help="Its id; of a repository or folder, how each id begins. [its name, without a file's ending]",
)
@option("--name", metavar="TEXT", help="Its display name. [the id]")
@option(
    "--local-path",
    metavar="PATH",
    help="Its path in the assets folder; of a repository or folder, their folder. "
    "[its name, or its path if it is there]",
)
@option("--tag", "tags", multiple=True, metavar="T", help="Give it this tag (repeatable).")
@option("--required", is_flag=True, help="Mark it as required: a plain sync fetches it.")
@option("--url", metavar="URL", help="For a file: the URL from which others can download it.")
@option(
    "--fallback-url",
    "fallback_urls",
    multiple=True,
    metavar="URL",
    help="A mirror of it (repeatable).",
)
@option("--checksum", metavar="DIGEST", help="The publisher's digest, sha256:… for one: refuse other content.")
@option("--checksums-from", metavar="URL", help="Take the checksum from this list: SHA256SUMS, FILE.sha256.")
@option("--description", metavar="TEXT", help="What it is for.")
@option("--asset-version", metavar="TEXT", help="Its version.")
@option("--pieces", is_flag=True, help="Also write digests of its pieces, so that damage costs a piece.")
@option("--allow-suspicious", is_flag=True, help="Take a web page, a git-lfs pointer or an empty file, too.")
@transfer_options
@common_options
def add_command(
    common: Common,
    source: str,
    asset_id: str | None,
    name: str | None,
    local_path: str | None,
    tags: tuple[str, ...],
    required: bool,
    url: str | None,
    fallback_urls: tuple[str, ...],
    checksum: str | None,
    checksums_from: str | None,
    description: str | None,
    asset_version: str | None,
    pieces: bool,
    allow_suspicious: bool,
    **transfer: Any,
) -> int:
    """Add an asset to the manifest, with its checksum and size.

    A plain URL is downloaded into its place in the assets folder. Of a file, --url says where others can download it. A
    short address such as hf://ORG/REPO/FILE is asked about at its hub, and can lead to several assets. Where no
    manifest is found, assets.json is created in the working folder.
    """
    from grym_fetch.cli.runner import run
    from grym_fetch.cli.settings import settings_from
    from grym_fetch.core.manifest import Asset

    if (short := _as_short_address(source)) is not None:
        if url is not None:
            raise click.UsageError("--url is for a file; name a mirror with --fallback-url")
        if checksum is not None:
            raise click.UsageError("--checksum is for an address or a file; of a hub's files, the hub states it")
        if checksums_from is not None:
            raise click.UsageError("--checksums-from is for an address or a file; the hub itself is asked here")
        if pieces:
            raise click.UsageError(
                "--pieces is for an address or a file; for what a hub has: pin --pieces ID, afterwards"
            )
        refuse_password(*fallback_urls)
        naming: dict[str, Any] = {
            "asset_id": asset_id,
            "local_path": local_path,
            "name": name or "",
            "description": description or "",
            "fallback_urls": fallback_urls,
            "version": asset_version,
            "required": required,
            "tags": tags,
            "allow_suspicious": allow_suspicious,
        }
        return _add_from_source(common, short, naming, settings_from(transfer))
    file = _as_file(source, url)
    address = url if file is not None else source
    digest = None if checksum is None else _as_checksum(checksum)
    assert address is not None, "a file without --url was refused"
    refuse_password(address, *fallback_urls, *([checksums_from] if checksums_from else []))

    async def body(manager: AssetManager) -> int:
        place = local_path or _default_path(manager, file, address)
        asset = Asset(
            id=asset_id or _default_id(place if file is not None and local_path is None else file_name(file, address)),
            url=address,
            local_path=place,
            name=name or "",
            description=description or "",
            fallback_urls=fallback_urls,
            checksum=digest,
            version=asset_version,
            required=required,
            tags=tuple(dict.fromkeys(tags)),
        )
        if not common.quiet and any(map(_is_not_for_all, asset.urls)):
            streams.complain(
                "an address looks signed or holds a token. It is written into the manifest as it is, for everyone to "
                "read, and may stop working; prefer one that lasts",
                kind="warning",
            )
        added = await manager.add_asset(
            asset,
            fetch=file is None,
            file=file,
            checksums_from=checksums_from,
            pieces=pieces,
            allow_suspicious=allow_suspicious,
        )
        tell_added(manager, [added], common)
        return 0

    settings = settings_from(transfer)
    with with_manifest(common):
        return run(common, body, settings=settings, minimal=False, tells="failures")


def _add_from_source(common: Common, address: str, naming: dict[str, Any], settings: Settings) -> int:
    from grym_fetch.cli.runner import run
    from grym_fetch.core.command_lines import command_line

    async def body(manager: AssetManager) -> int:
        added = await manager.add_from_source(address, **naming)
        tell_added(manager, added, common, with_source=True)
        missing = [asset for asset, state in zip(added, manager.states_of(added), strict=True) if state == "missing"]
        if missing and not common.quiet and not common.json:
            are = "is" if len(missing) == 1 else "are"
            count = f"{len(missing)} of {len(added)} {are}" if len(added) > 1 else "it is"
            words, names = (("sync",), (missing[0].id,)) if len(added) == 1 else (("sync", "--all"), ())
            streams.say(f"{count} not fetched yet: {command_line('grym-fetch', *words, names=names)}")
        return 0

    with with_manifest(common):
        return run(common, body, settings=settings, minimal=False, tells="failures")


def _as_checksum(text: str) -> Checksum:
    from grym_fetch.core.digest import Checksum

    try:
        return Checksum.parse(text)
    except ValueError as error:
        raise click.UsageError(f"--checksum: {error}") from None


def _as_short_address(source: str) -> str | None:
    """The short address that is meant, or None for a file or a plain address."""
    from grym_fetch.cli.exit_codes import exit_code
    from grym_fetch.core.errors import UnknownSource
    from grym_fetch.core.text import redact_text, safe_text
    from grym_fetch.manifest_files.project import expand_home, names_file
    from grym_fetch.sources.registry import recognize

    if ":" not in source or names_file(expand_home(source)):
        return None
    try:
        return recognize(source, os.environ)
    except UnknownSource as error:
        streams.complain(safe_text(redact_text(str(error)), limit=2000))
        raise click.exceptions.Exit(exit_code(error)) from error


def _as_file(source: str, url: str | None) -> Path | None:
    """Return the file that ``source`` names; None if it is an address."""
    if "://" in source:
        if url is not None:
            raise click.UsageError("--url is for a file; name the mirrors of an address with --fallback-url")
        return None
    from grym_fetch.manifest_files.project import expand_home

    file = expand_home(source)
    if not file.is_file():
        hint = " (an address begins with https://)" if not file.exists() and "." in source else ""
        raise click.UsageError(
            f"there is no file {source!r}{hint}" if not file.exists() else f"{source!r} is not a file"
        )
    if url is None:
        raise click.UsageError(
            "a manifest entry needs an address, so that others can fetch the asset: upload the file, and say with "
            "--url where it is"
        )
    return file


def _is_not_for_all(address: str) -> bool:
    from grym_fetch.core.addresses import parse_address
    from grym_fetch.core.errors import PolicyRefused
    from grym_fetch.core.signatures import is_not_for_all

    try:
        return is_not_for_all(parse_address(address))
    except PolicyRefused:  # the manifest's own check says what is wrong with it
        return False


def file_name(file: Path | None, address: str) -> str:
    """The last part of the path of a file or an address; empty if there is none."""
    if file is not None:
        return file.name
    try:
        return PurePosixPath(unquote(urlsplit(address).path)).name if not address.endswith("/") else ""
    except ValueError:
        return ""


def _refuse_address(address: str) -> None:
    """Say what is wrong with an address, rather than with the name of its file."""
    from grym_fetch.core.buckets import is_bucket_address
    from grym_fetch.core.manifest_values import check_address
    from grym_fetch.core.text import redact_url
    from grym_fetch.sources.choice import is_pattern

    is_bucket = is_bucket_address(address)
    try:
        check_address(address.rstrip("/") if is_bucket else address)
    except ValueError as error:
        raise click.UsageError(f"{redact_url(address)} {error}") from None
    if is_bucket and (address.endswith("/") or is_pattern(address)):
        hint = "if its name has such characters, say --local-path" if is_pattern(address) else ""
        raise WrongUsage(f"{redact_url(address)}: a bucket is not listed; name one object", hint=hint)


def _default_path(manager: AssetManager, file: Path | None, address: str) -> str:
    """The file's name; for a file in the assets folder, its path there."""
    from grym_fetch.core.paths import check_local_path

    path = file_name(file, address)
    if file is None:
        _refuse_address(address)
    if file is not None:
        with suppress(ValueError):  # raised if it is elsewhere
            path = file.resolve().relative_to(manager.project.assets_dir.resolve()).as_posix()
    try:
        return check_local_path(path)
    except ValueError as error:
        raise click.UsageError(
            f"the file's name cannot be its place, since it {error}; say one with --local-path"
        ) from error


def _default_id(path: str) -> str:
    """The file's name without its extension."""
    from grym_fetch.core.manifest_values import check_id
    from grym_fetch.sources.naming import stem_of

    try:
        return check_id(stem_of(PurePosixPath(path).name))
    except ValueError as error:
        raise click.UsageError(f"the file's name cannot be the id, since it {error}; say one with --id") from error


def record_of(asset: Asset) -> dict[str, object]:
    """An added asset, for ``--json``."""
    return {
        "id": asset.id,
        "localPath": asset.local_path,
        "checksum": str(asset.checksum) if asset.checksum is not None else None,
        "size": asset.size,
    }


def tell_added(manager: AssetManager, added: Sequence[Asset], common: Common, *, with_source: bool = False) -> None:
    """Say what was added: a line for each asset, with size and checksum."""
    from grym_fetch.core.text import safe_text

    paths = [manager.project.assets_dir / asset.local_path for asset in added]
    if common.json:
        for asset, path in zip(added, paths, strict=True):
            source = {"source": asset.source} if with_source else {}
            click.echo(json.dumps({**record_of(asset), "path": str(path), **source}))
    elif not common.quiet:
        rows = [
            (a.id, a.size, a.checksum, safe_text(str(path), limit=4000)) for a, path in zip(added, paths, strict=True)
        ]
        tell_measured("added", rows)
