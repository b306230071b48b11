"""``grym-fetch store``, and ``--store`` of the commands that look after it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from grym_fetch.cli import streams
from grym_fetch.cli.help import Command
from grym_fetch.cli.options import Common, common_options

if TYPE_CHECKING:
    from grym_fetch.disk.prune import PruneReport
    from grym_fetch.store.care import StoredFile

DAY_S = 24 * 3600.0
_LEAST_CHECKSUM = 12
"""So much of a digest is shown however narrow the terminal is."""


@click.command("store", cls=Command)
@click.argument("folder", required=False, metavar="[DIR]", type=click.Path(file_okay=False))
@common_options
def store_command(common: Common, folder: str | None) -> int:
    """Show what the machine's store holds, how large it is, and which projects use it.

    DIR is the store's folder, by default the one that is configured, or grym-fetch/store in your cache folder. `check
    --store` reads all of it, and `prune --store` removes what no project uses.
    """
    from grym_fetch.cli.runner import print_data, run_plain
    from grym_fetch.core.figures import format_size
    from grym_fetch.core.text import safe_text
    from grym_fetch.store.care import survey

    def work() -> int:
        place = store_place(common, folder or True)
        stored = survey(place)
        size = sum(each.size for each in stored)
        projects = {use.assets_dir for each in stored for use in each.used_by}
        if common.json:
            print_data(json.dumps(_record(each)) for each in stored)
            total = {"place": str(place), "files": len(stored), "bytes": size, "projects": len(projects)}
            click.echo(json.dumps(total))
            return 0
        for each in stored:
            print_file(f"{format_size(each.size):>10}", each, unused="not used by any project")
        unused = sum(each.size for each in stored if not each.is_used)
        rest = f", {format_size(unused)} unused" if unused else ""
        streams.say(
            f"{safe_text(str(place), limit=4000)}: {_counted(len(stored), 'file')}, {format_size(size)}, "
            f"{_counted(len(projects), 'project')}{rest}"
        )
        return 0

    return run_plain(common, work)


def check_store(common: Common, choice: bool | str) -> int:
    """Read everything in the store; the exit code says whether all of it is right."""
    from grym_fetch.cli import exit_codes
    from grym_fetch.cli.local_work import showing
    from grym_fetch.cli.runner import run_plain
    from grym_fetch.core.events import AssetVerifying
    from grym_fetch.core.figures import format_size
    from grym_fetch.core.text import safe_text
    from grym_fetch.store.care import damaged, survey

    def work() -> int:
        place = store_place(common, choice)
        with showing(common) as tell:

            def on_read(count: int, total: int) -> None:
                tell(AssetVerifying(asset="store", bytes=min(count, total), total=total))

            wrong = list(damaged(place, on_read))
        for each in wrong:
            if common.json:
                click.echo(json.dumps({**_record(each), "state": "corrupt"}))
                continue
            print_file(f"corrupt  {format_size(each.size):>10}", each)
        count = len(survey(place))
        if not common.quiet:
            ending = f"{_counted(len(wrong), 'file')} of {count:,} corrupt" if wrong else f"all {count:,} verified"
            streams.say(f"{safe_text(str(place), limit=4000)}: {ending}")
        return exit_codes.INTEGRITY if wrong else exit_codes.DONE

    return run_plain(common, work)


def prune_the_store(
    common: Common,
    choice: bool | str,
    *,
    dry_run: bool,
    older_than: float,
    max_size: int | None,
    tell: Callable[[PruneReport], None],
) -> int:
    """Remove what no project uses. ``older_than`` is in days, ``max_size`` in bytes. ``tell`` writes what was done."""
    from grym_fetch.cli.runner import run_plain
    from grym_fetch.store.care import prune_store

    def work() -> int:
        place = store_place(common, choice)
        report = prune_store(
            place, older_than_s=older_than * DAY_S, max_bytes=max_size, dry_run=dry_run, now=time.time()
        )
        tell(report)
        return 0

    return run_plain(common, work)


def store_place(common: Common, choice: bool | str) -> Path:
    """The folder of the store: the one named, else the configured one, else the usual one."""
    from grym_fetch.core.errors import ForeignManifest, ManifestMissing
    from grym_fetch.core.text import safe_text
    from grym_fetch.disk.configuration import read_configuration
    from grym_fetch.manifest_files.project import find_project
    from grym_fetch.settings import Settings
    from grym_fetch.store.care import may_be_store
    from grym_fetch.store.stamps import store_at

    is_given = isinstance(choice, str)
    if isinstance(choice, bool):
        root, is_named = None, False
        try:
            project = find_project(config=common.config, environ=os.environ, cwd=Path.cwd())
            root, is_named = project.root, project.is_named
        except (ForeignManifest, ManifestMissing):
            if common.config is not None:
                raise
        configured = read_configuration(root, os.environ, is_named=is_named).fetching
        choice = Settings().with_environment(os.environ, configured=configured, root=root).store or True
    place = store_at(choice, os.environ)
    assert place is not None
    if is_given and not may_be_store(place):
        raise click.UsageError(f"there is no store in {safe_text(str(place), limit=4000)}")
    return place


def print_file(label: str, each: StoredFile, *, unused: str = "") -> None:
    """One file, and below it who uses it. A path is never shortened; ``--json`` has the whole digest."""
    from grym_fetch.core.cells import cells, shortened
    from grym_fetch.core.text import safe_text

    sheet = streams.sheet(sys.stdout)
    checksum = str(each.checksum)
    if sheet.width is not None:
        checksum = shortened(checksum, max(_LEAST_CHECKSUM, sheet.width - len(label) - 2))
    click.echo(f"{label}  {checksum}")
    uses = [safe_text(str(use.assets_dir / use.local_path), limit=4000) for use in each.used_by]
    indent = len(label)
    if sheet.width is not None and max(map(cells, uses), default=0) > sheet.width - indent - 2:
        indent = 2
    for text in uses or ([unused] if unused else []):
        click.echo(sheet.item(" " * indent, text))


def _record(each: StoredFile) -> dict[str, object]:
    return {
        "checksum": str(each.checksum),
        "size": each.size,
        "links": each.links,
        "used_by": [{"assets_dir": str(use.assets_dir), "path": use.local_path} for use in each.used_by],
    }


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
