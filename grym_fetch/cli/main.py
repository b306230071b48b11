"""The group, and how every command ends: an exit code, and an error that reads well."""

from __future__ import annotations

import atexit
import gc
import importlib
import re
import sys
from contextlib import suppress
from typing import NoReturn

import click

from grym_fetch._version import __version__
from grym_fetch.cli import streams
from grym_fetch.cli.help import EXAMPLES, one_screen, screen_width, short_option
from grym_fetch.cli.usage import no_such_command, tell_usage
from grym_fetch.core.errors import GrymFetchError
from grym_fetch.core.text import redact_text, safe_text

# Command to module: a command's module is imported when the command is run or its help is shown.
COMMANDS = {
    "sync": "sync",
    "check": "inspection",
    "path": "inspection",
    "list": "inspection",
    "info": "inspection",
    "schema": "inspection",
    "add": "adding",
    "pin": "pinning",
    "import": "lists",
    "export": "lists",
    "convert": "lists",
    "outdated": "updating",
    "update": "updating",
    "repair": "repairing",
    "adopt": "adopting",
    "remove": "removing",
    "prune": "removing",
    "store": "store",
    "identify": "identify",
    "clean": "clean",
    "restore": "restore",
    "setup": "setup",
    "doctor": "doctor",
    "config": "configuration",
    "completion": "completion",
    "help": "completion",
    "demo": "demo",
}
SUMMARIES = {
    "sync": "Make assets present and verified.",
    "check": "Say whether assets are present and valid.",
    "path": "Print an asset's path, fetching it if needed.",
    "list": "List the configured assets and their states.",
    "info": "Show what is listed of an asset, and its state.",
    "schema": "Print the JSON Schema of the manifest.",
    "add": "Add assets to the manifest: from a URL, a file, or a hub (hf://ORG/REPO).",
    "pin": "Write missing checksums and sizes into the manifest.",
    "import": "Add what another tool has listed: Metalink, SHA256SUMS, pooch, DVC, aria2, curl.",
    "export": "Print assets as another tool reads them.",
    "convert": "Write the manifest as another kind: .json, .jsonl or .parquet.",
    "outdated": "List what has a newer version at its source.",
    "update": "Move assets to what their sources have now.",
    "repair": "Fetch what is damaged in a file.",
    "adopt": "Take what is on this machine already, instead of downloading it.",
    "remove": "Drop an asset from the manifest.",
    "prune": "Remove abandoned partial downloads and stale state.",
    "store": "Show what the machine's store holds, and who uses it.",
    "identify": "List large files, in the folder or in git's history.",
    "clean": "Move large files out of the repository.",
    "restore": "Bring moved files back, verified.",
    "setup": "Check the system, create folders and manifests, then sync.",
    "doctor": "Find out why assets cannot be fetched.",
    "config": "Show each setting, its value and where it is from.",
    "completion": "Print the completion for bash, zsh or fish, or install it.",
    "help": "Explain a command.",
    "demo": "Show the main job without a network: servers on loopback, an interruption, a resume.",
}


COLLECT_AFTER = 50_000
"""Look for garbage after so many more objects. 60,000 assets are a million of them, and none is garbage."""


LEAST_CLICK_WIDTH = 52
"""On a narrower terminal, click would write lines that are broken in the middle of a word."""


GROUPS = {
    "Assets": ("sync", "check", "repair", "adopt", "path", "list", "info"),
    "Manifest": ("add", "pin", "import", "export", "convert", "outdated", "update", "remove", "schema"),
    "Repository": ("identify", "clean", "restore"),
    "Project": ("setup", "doctor", "prune", "store", "config"),
    "Other": ("completion", "help", "demo"),
}
VALUED = "--(?:config|assets-dir|external-assets-dir|log-file)"
COMMON_OPTION = re.compile(VALUED)
COMMON_WORD = re.compile(rf"-[vq]+|--(?:verbose|quiet|json)|{VALUED}=.*", re.DOTALL)


def behind_the_command(arguments: list[str]) -> list[str]:
    """Move common options that come before the command to after it: every command takes them."""
    at = 0
    while at < len(arguments):
        if COMMON_WORD.fullmatch(arguments[at]):
            at += 1
        elif COMMON_OPTION.fullmatch(arguments[at]):
            at += 2
        elif arguments[at].startswith("-"):
            return arguments[at:]  # the group's own, or not one of ours
        else:
            return [arguments[at], *arguments[:at], *arguments[at + 1 :]]
    return []


class LazyGroup(click.Group):
    """A group that knows its commands' names and summaries, and imports a command only to run it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As in click, but common options may also come before the command, and a terminal may be narrow."""
        if (width := screen_width()) < LEAST_CLICK_WIDTH:
            ctx.terminal_width = width - 1
        return super().parse_args(ctx, behind_the_command(args))

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"grym_fetch.cli.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the summaries without importing anything."""
        for group, names in GROUPS.items():
            with formatter.section(group):
                formatter.write_dl([(name, SUMMARIES[name]) for name in names])

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The parameters, and both options for help."""
        return [*super().get_params(ctx), short_option(_one_screen)]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As in click, but an unknown command gets the nearest names."""
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in COMMANDS:
            raise no_such_command(name, ctx, COMMANDS)
        return super().resolve_command(ctx, args)


def _one_screen(ctx: click.Context) -> str:
    what = (ctx.command.help or "").partition("\n\n")[0]
    return one_screen(ctx.get_usage(), what, EXAMPLES[""], GROUPS, "`grym-fetch COMMAND --help`")


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["--help"], "max_content_width": 100},
    epilog="Options can be set in the environment as GRYM_FETCH_<OPTION>. "
    "Exit codes: 0 done, 1 not fetched or missing, 2 usage or manifest, 3 checksum or size, 4 disk, "
    "5 held by another process, 130 and 143 interrupted.",
)
@click.version_option(__version__, "-V", "--version", prog_name="grym-fetch")
def cli() -> None:
    """Make the big files a project needs present and verified.

    They are listed in assets.json. Downloads are parallel, go on after an interruption, fall back to mirrors, and
    appear under their final name only once they are complete.
    """


def main(arguments: list[str] | None = None) -> NoReturn:
    """The entry point. Never lets a traceback out. ``arguments``: those of the process, if not given."""
    streams.prepare()
    gc.set_threshold(COLLECT_AFTER)
    atexit.register(gc.freeze)  # or Python would look through all objects once more as it ends
    try:
        code = cli.main(arguments, prog_name="grym-fetch", standalone_mode=False)
    except click.exceptions.Exit as done:
        code = done.exit_code
    except click.ClickException as error:
        if isinstance(error, click.exceptions.NoArgsIsHelpError):
            with suppress(OSError):
                error.show(sys.stderr)
        else:
            tell_usage(error)
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        code = 130
    except streams.OutputLost as error:
        streams.complain(f"the output could not be written: {(error.strerror or '').lower()}")
        code = 4
    except GrymFetchError as error:  # before a command's own work began
        from grym_fetch.cli.exit_codes import exit_code

        lines = redact_text(str(error)).split("\n")
        streams.complain("\n".join(safe_text(line, limit=1000) for line in lines))
        code = exit_code(error)
    except Exception as error:  # noqa: BLE001 - the last catch: what happens before or beside a command
        from grym_fetch.cli.unexpected import tell_unexpected

        code = tell_unexpected(error, more_is_shown=False)
    sys.exit(code if isinstance(code, int) else 0)
