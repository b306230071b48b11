"""``grym-fetch demo``. Its story is in `demo_story`, which is imported only when the demo runs."""

from __future__ import annotations

import click

from grym_fetch.cli.help import Command
from grym_fetch.cli.options import Common, common_options, option


@click.command("demo", cls=Command)
@option("--keep", is_flag=True, help="Keep the folder with the fetched files, and print its path.")
@common_options
def demo_command(common: Common, keep: bool) -> int:
    """Show the main job without a network: servers on loopback, an interruption, a resume.

    Two servers in this process offer the same made-up assets; one of them breaks off half-way. The real command
    fetches them, is killed in the middle, and is run again. Until it ends, it needs some 400 MiB under TMPDIR.
    """
    from grym_fetch.cli.demo_stage import FULL
    from grym_fetch.cli.demo_story import perform

    return perform(FULL, common, keep=keep)
