"""Reports wrong usage like every other error: ``error:`` says what is wrong, ``hint:`` what to do.

A mistyped variable is reported too: nothing else would say that it has no effect.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

import click
from click.core import ParameterSource

from grym_fetch.cli import streams
from grym_fetch.core.buckets import INSTANCE_ROLE
from grym_fetch.core.nearest import nearest_names
from grym_fetch.core.text import redact_text, safe_text
from grym_fetch.core.variables import CLIENT_CERT, CLIENT_KEY

PREFIX = "GRYM_FETCH_"
_PER_HOST = "GRYM_FETCH_TOKEN_"
WITHOUT_OPTION = frozenset({CLIENT_CERT, CLIENT_KEY, INSTANCE_ROLE, "GRYM_FETCH_ENV"})
"""Variables of ours that no option has."""


class WrongUsage(click.UsageError):
    """A usage error with a hint at what was perhaps meant."""

    def __init__(self, message: str, ctx: click.Context | None = None, *, hint: str = "") -> None:
        super().__init__(message, ctx)
        self.hint = hint


def tell_usage(error: click.ClickException) -> None:
    """Write what is wrong, and where to look."""
    message, hint = error.format_message(), ""
    if isinstance(error, WrongUsage):
        hint = error.hint
    elif isinstance(error, click.NoSuchOption):
        message = f"no such option {error.option_name!r}"
        known = error.ctx.command.get_params(error.ctx) if error.ctx is not None else []
        names = [
            name for each in known if not getattr(each, "hidden", False) for name in (*each.opts, *each.secondary_opts)
        ]
        hint = nearest(error.option_name, names, most=1)
    if isinstance(error, click.BadParameter) and error.param is not None and error.ctx is not None:
        name = error.param.name or ""
        if error.ctx.get_parameter_source(name) is not ParameterSource.ENVIRONMENT:
            message = message.replace(f" (env var: '{error.param.envvar}')", "")
    if not hint and isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f"`{error.ctx.command_path} -h` shows what it takes"
    if re.match(r"[A-Z][a-z]", message):  # click's own sentences
        message = message[0].lower() + message[1:]
    message = re.sub(r"\.\s+Choose from:\s+", ": ", message).removesuffix(".")
    message = (
        re.sub(r"\s+", " ", message) if isinstance(error, click.MissingParameter) else message
    )  # one choice a line
    told = "\n".join(safe_text(redact_text(line), limit=1000) for line in message.split("\n"))
    streams.complain(told, hint=safe_text(hint, limit=1000))


def nearest(word: str, known: Iterable[str], *, most: int = 2, likeness: float = 0.6) -> str:
    """A hint with the known words that look like this one; empty if there are none."""
    near = nearest_names(word, known, most=most, likeness=likeness)
    return f"did you mean {' or '.join(near)}?" if near else ""


def no_such_command(name: str, ctx: click.Context, known: Iterable[str]) -> WrongUsage:
    """Return the error for a command that does not exist, with the nearest that do."""
    hint = nearest(name, known) or f"`{ctx.find_root().command_path} -h` lists the commands"
    return WrongUsage(f"no such command {name!r}", ctx, hint=hint)


def warn_of_variables(context: click.Context) -> None:
    """Warn about variables of ours that no command knows but that look like one that a command knows."""
    ours = {name for name in os.environ if name.startswith(PREFIX) and not name.startswith(_PER_HOST)}
    if not (unknown := ours - _variables_of(context.command) - WITHOUT_OPTION):
        return
    known, group = set(WITHOUT_OPTION), context.find_root().command
    for name in group.list_commands(context) if isinstance(group, click.Group) else ():
        # All commands are imported only if something is wrong, or if a variable is set for another command.
        if isinstance(group, click.Group) and (command := group.get_command(context, name)) is not None:
            known |= _variables_of(command)
    for name in sorted(unknown - known):
        rest = name.removeprefix(PREFIX)
        if hint := nearest(rest, (each.removeprefix(PREFIX) for each in known), likeness=0.75):
            hint = hint.replace("did you mean ", f"did you mean {PREFIX}").replace(" or ", f" or {PREFIX}")
            told = f"the environment variable {safe_text(name)} means nothing"
            streams.complain(told, kind="warning", hint=hint)


def _variables_of(command: click.Command) -> set[str]:
    return {str(each.envvar) for each in command.params if each.envvar}
