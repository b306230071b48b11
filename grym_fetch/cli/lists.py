"""Commands that read and write lists: those of other tools (``import``, ``export``), ours (``convert``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from grym_fetch.cli import streams
from grym_fetch.cli.adding import tell_added
from grym_fetch.cli.help import Command
from grym_fetch.cli.new_manifest import with_manifest
from grym_fetch.cli.options import Common, common_options, ids_argument, option, refuse_password, transfer_options
from grym_fetch.cli.usage import WrongUsage

if TYPE_CHECKING:
    from grym_fetch.manager import AssetManager

READABLE = ("metalink", "sha256sums", "pooch", "dvc", "aria2", "curl")
WRITABLE = ("metalink", "aria2", "curl", "sha256sums", "pooch")


@click.command("import", cls=Command)
@click.argument("file")
@option("--format", "format_name", type=click.Choice(READABLE), help="What it is. [guessed by its name and content]")
@option("--base-url", metavar="URL", help="Where the files are that have no address in the list.")
@option("--id-prefix", metavar="TEXT", help="How each id begins.")
@option("--local-path", metavar="PATH", help="Their folder in the assets folder.")
@option("--tag", "tags", multiple=True, metavar="T", help="Give them this tag (repeatable).")
@option("--required", is_flag=True, help="Mark them as required: a plain sync fetches them.")
@option("--allow-suspicious", is_flag=True, help="Take a web page, a git-lfs pointer or an empty file, too.")
@transfer_options
@common_options
def import_command(
    common: Common,
    file: str,
    format_name: str | None,
    base_url: str | None,
    id_prefix: str | None,
    local_path: str | None,
    tags: tuple[str, ...],
    required: bool,
    allow_suspicious: bool,
    **transfer: Any,
) -> int:
    """Add what another tool has listed: Metalink 4, SHA256SUMS, a pooch registry, a .dvc file, an aria2 or curl list.

    What has no SHA-256, SHA-512 or BLAKE2b there is downloaded, compared with what it has, and measured. All files are
    added, or none.
    """
    from grym_fetch.cli.runner import run
    from grym_fetch.cli.settings import settings_from
    from grym_fetch.manifest_files.project import expand_home, names_file

    listing = expand_home(file)
    if not names_file(listing):
        _refuse_address(file, "import", "the list")
        raise click.UsageError(f"there is no file {file!r}" if not listing.exists() else f"{file!r} is not a file")
    if base_url is not None:
        refuse_password(base_url)

    async def body(manager: AssetManager) -> int:
        added = await manager.import_list(
            listing,
            format=format_name,
            base_url=base_url,
            prefix=id_prefix,
            folder=local_path,
            required=required,
            tags=tags,
            allow_suspicious=allow_suspicious,
        )
        tell_added(manager, added, common)
        return 0

    settings = settings_from(transfer)
    with with_manifest(common):
        return run(common, body, settings=settings, minimal=False, tells="failures")


@click.command("export", cls=Command)
@ids_argument
@option("--format", "format_name", type=click.Choice(WRITABLE), required=True, help="For which tool.")
@common_options
def export_command(common: Common, ids: tuple[str, ...], exclude: tuple[str, ...], format_name: str) -> int:
    """Print assets as another tool reads them: those named, or all. Paths are those in the assets folder.

    An asset that the format cannot express, such as for its kind of checksum, is an error; curl has no checksums.
    """
    from grym_fetch.cli.runner import run

    async def body(manager: AssetManager) -> int:
        text = manager.export_list(format_name, ids or None, exclude=exclude)
        if common.json:
            click.echo(json.dumps({"format": format_name, "text": text}))
        else:
            click.echo(text, nl=False)
        return 0

    return run(common, body, minimal=False)


@click.command("convert", cls=Command)
@click.argument("source", metavar="FROM", type=click.Path())
@click.argument("target", metavar="TO", type=click.Path())
@option("--force", is_flag=True, help="Replace TO if it is there.")
@common_options
def convert_command(common: Common, source: str, target: str, force: bool) -> int:
    """Write a manifest as another kind: .json, .jsonl (an entry a line) or .parquet.

    As a manifest, a .json has at most 100,000 assets and 16 MiB.
    """
    from grym_fetch.cli.runner import run_plain, short_path
    from grym_fetch.manifest_files.project import CANDIDATES, expand_home, names_file

    read, written = expand_home(source), expand_home(target)
    _refuse_address(source, "convert", "the manifest")
    for each in (source, target):
        if Path(each).suffix.lower() not in (".json", ".jsonl", ".parquet"):
            raise click.UsageError(f"the name of {each!r} must end in .json, .jsonl or .parquet")
    if not names_file(read):
        raise click.UsageError(f"there is no file {source!r}" if not read.exists() else f"{source!r} is not a file")
    if written.exists() and not force:
        same = written.samefile(read)
        raise click.UsageError(
            f"FROM and TO are both {source!r}" if same else f"{target!r} is there already; --force replaces it"
        )

    def work() -> int:
        from grym_fetch.manifest_files.conversion import convert

        count = convert(read, written)
        if common.json:
            click.echo(json.dumps({"from": str(read), "to": str(written), "assets": count}))
            return 0
        if not common.quiet:
            click.echo(f"wrote {short_path(written.absolute())}: {count:,} asset{'s' if count != 1 else ''}")
            names = [Path(each).name for each in CANDIDATES]
            if read.name in names and written.name in names and names.index(read.name) < names.index(written.name):
                streams.say(f"{read.name} beside it comes first: remove it, or name the other with --config")
        return 0

    return run_plain(common, work)


def _refuse_address(name: str, command: str, what: str) -> None:
    """Raise a `WrongUsage` that says what to do with an address where a file is meant."""
    if "://" in name:
        from grym_fetch.core.text import redact_url

        hint = f"download {what} first, for example with `curl -O`, and name the file"
        raise WrongUsage(f"{command} takes a file, not an address: {redact_url(name)}", hint=hint)
