"""Commands about the command itself: ``completion`` and ``help``; and what a shell may complete.

Completing asks no server and writes nothing. If something is wrong, such as an unreadable manifest, it offers less.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

from grym_fetch.cli import streams
from grym_fetch.cli.help import Command
from grym_fetch.cli.options import Common, common_options, option
from grym_fetch.cli.usage import WrongUsage, no_such_command

SHELLS = ("bash", "zsh", "fish")
_COMMAND = "grym-fetch"
_VARIABLE = "_GRYM_FETCH_COMPLETE"


@click.command("completion", cls=Command)
@click.argument("shell", metavar="SHELL", type=click.Choice(SHELLS))
@option("--install", is_flag=True, help="Write it to where the shell looks for it, in your home.")
@common_options
def completion_command(common: Common, shell: str, install: bool) -> int:
    """Print the completion of commands, options, ids and tags for a shell: bash, zsh or fish.

    Try it with: eval "$(grym-fetch completion bash)". With --install it is there in every new shell;
    zsh needs a line in ~/.zshrc for that, which is printed, and bash the package bash-completion.
    """
    from grym_fetch.cli.runner import run_plain
    from grym_fetch.core.text import safe_text
    from grym_fetch.disk.folders import opened_folder, storage_errors

    def work() -> int:
        text = script(shell)
        if not install:
            if common.json:
                click.echo(json.dumps({"shell": shell, "text": text}))
            else:
                click.echo(text, nl=False)
            return 0
        from grym_fetch.disk.atomic import replace_file

        path = place(shell)
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with opened_folder(path.parent) as folder:
                replace_file(folder, path.name, text.encode())
        if common.json:
            click.echo(json.dumps({"shell": shell, "installed": str(path)}))
        if not common.quiet:
            streams.say(f"wrote {safe_text(str(path), limit=4000)}")
            if shell == "zsh":
                line = f"fpath+=({path.parent}); autoload -Uz compinit; compinit"
                click.echo(f"hint: add to ~/.zshrc: {safe_text(line, limit=4000)}", err=True)
        return 0

    return run_plain(common, work)


def _complete_commands(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    group = ctx.find_root().command
    names = group.list_commands(ctx) if isinstance(group, click.Group) else []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


@click.command("help", cls=Command)
@click.argument("command", required=False, shell_complete=_complete_commands)
@common_options
def help_command(common: Common, command: str | None) -> int:
    """Explain a command, or list all of them."""
    ctx = click.get_current_context()
    root = ctx.find_root()
    group = root.command
    assert isinstance(group, click.Group), "the entry point is a group"
    if command is None:
        text = group.get_help(root)
    elif (found := group.get_command(root, command)) is None:
        raise no_such_command(command, ctx, group.list_commands(root))
    else:
        with click.Context(found, info_name=command, parent=root) as context:
            text = found.get_help(context)
    click.echo(json.dumps({"command": command, "text": text}) if common.json else text)
    return 0


def script(shell: str) -> str:
    """The shell's completion script: click's, but without asking for the version of bash."""
    kind = get_completion_class(shell)
    assert kind is not None, f"click knows {shell}"
    completion = kind(click.Command(_COMMAND), {}, _COMMAND, _VARIABLE)  # which command it is does not matter here
    return str(completion.source_template % completion.source_vars())


def place(shell: str) -> Path:
    """The file where the shell looks for the user's completions. Raises a usage error without a home folder."""
    base = {"fish": ("XDG_CONFIG_HOME", ".config")}.get(shell, ("XDG_DATA_HOME", ".local/share"))
    named, home = os.environ.get(base[0], ""), os.environ.get("HOME", "")
    if os.path.isabs(named):
        folder = Path(named)
    elif os.path.isabs(home):
        folder = Path(home) / base[1]
    else:
        raise WrongUsage("there is no home folder to install it in", hint="print it, and put it where it belongs")
    match shell:
        case "bash":
            return folder / "bash-completion/completions" / _COMMAND
        case "zsh":
            return folder / "zsh/site-functions" / f"_{_COMMAND}"
        case _:
            return folder / "fish/completions" / f"{_COMMAND}.fish"
