"""The command in this process: as fast as a function, with the exit code and streams of the real one."""

from __future__ import annotations

from typing import cast

import click
from click.testing import CliRunner, Result

from grym_fetch.cli.main import main


class _Entry:
    """What `CliRunner` calls in place of a click command: the entry point, which ends with an exit code."""

    name = "grym-fetch"

    def main(self, args: tuple[str, ...], prog_name: str, **_: object) -> None:
        main(list(args))


def invoke(*arguments: str, **environ: str | None) -> Result:
    """Run a command; None removes a variable."""
    return CliRunner().invoke(cast(click.Command, _Entry()), arguments, env=environ)
