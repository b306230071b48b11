"""Wrong usage, told as every other error is: ``error:`` says what is wrong, ``hint:`` what to do.

A mistyped variable is told, too: nothing else would say that it has no effect.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

import click
from click.core import ParameterSource

from grym_fetch.cli import streams
from grym_fetch.core.text import redact_text, safe_text

PREFIX = "GRYM_FETCH_"
_FREE = ("GRYM_FETCH_TOKEN_",)
VARIABLES = frozenset(
    PREFIX + name
    for name in [
        "ADD_TO_MANIFEST",
        "ALL",
        "ALLOW_DIRTY",
        "ALLOW_STALE",
        "ALLOW_SUSPICIOUS",
        "ALLOW_UNPINNED",
        "ASSETS_DIR",
        "ASSET_ID",
        "ASSET_VERSION",
        "BASE_URL",
        "CHECKSUMS_FROM",
        "CLIENT_CERT",
        "CLIENT_KEY",
        "COMPLETE",
        "CONFIG",
        "CONNECT_TIMEOUT",
        "DELETE_FILE",
        "DESCRIPTION",
        "DRY_RUN",
        "ENV",
        "EXCLUDE",
        "EXTERNAL_ASSETS_DIR",
        "FALLBACK_URL",
        "FORCE",
        "FORMAT",
        "FULL",
        "GITIGNORE",
        "HISTORY",
        "ID",
        "IDS",
        "ID_PREFIX",
        "IGNORED",
        "INSTALL",
        "JSON",
        "KEEP",
        "LIMIT_RATE",
        "LOCAL_PATH",
        "LOCK_TIMEOUT",
        "LOG_FILE",
        "MAX_PER_HOST",
        "MINIMAL",
        "MIRRORS",
        "NAME",
        "NO_PIPELINING",
        "NO_PRIVATE_ADDRESSES",
        "OFFLINE",
        "PARALLEL",
        "PATIENCE",
        "QUIET",
        "REQUIRED",
        "RETRIES",
        "SIZE",
        "SKIP_ASSETS",
        "STALL_TIMEOUT",
        "TAG",
        "URL",
        "VERBOSE",
        "YES",
    ]
)
"""Every variable that means something, so that one that means nothing is told without importing every command."""


class WrongUsage(click.UsageError):
    """A usage error that knows what was perhaps meant."""

    def __init__(self, message: str, ctx: click.Context | None = None, *, hint: str = "") -> None:
        super().__init__(message, ctx)
        self.hint = hint


def tell_usage(error: click.ClickException) -> None:
    """Write what is wrong, and where to look."""
    message, hint = error.format_message(), ""
    if isinstance(error, WrongUsage):
        hint = error.hint
    elif isinstance(error, click.NoSuchOption):
        message = error.message
        hint = f"did you mean {error.possibilities[0]}?" if error.possibilities else ""
    if isinstance(error, click.BadParameter) and error.param is not None and error.ctx is not None:
        name = error.param.name or ""
        if error.ctx.get_parameter_source(name) is not ParameterSource.ENVIRONMENT:
            message = message.replace(f" (env var: '{error.param.envvar}')", "")
    if not hint and isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f"`{error.ctx.command_path} -h` shows what it takes"
    if re.match(r"[A-Z][a-z]", message):  # click's own sentences
        message = message[0].lower() + message[1:]
    message = message.removesuffix(".")
    streams.tell("error: " + "\n".join(safe_text(redact_text(line), limit=1000) for line in message.split("\n")))
    if hint:
        streams.tell(f"hint: {safe_text(hint, limit=1000)}")


def nearest(word: str, known: Iterable[str], *, likeness: float = 0.6) -> str:
    """A hint with the words that look like this one; empty if there are none."""
    import difflib

    near = difflib.get_close_matches(word, list(known), n=2, cutoff=likeness)
    return f"did you mean {' or '.join(near)}?" if near else ""


def warn_of_variables(environ: Mapping[str, str] = os.environ) -> None:
    """Tell of variables of ours that mean nothing and look like one that does."""
    for name in environ:
        if name.startswith(PREFIX) and name not in VARIABLES and not name.startswith(_FREE):
            rest = name.removeprefix(PREFIX)
            if hint := nearest(rest, (each.removeprefix(PREFIX) for each in VARIABLES), likeness=0.8):
                hint = hint.replace("did you mean ", f"did you mean {PREFIX}").replace(" or ", f" or {PREFIX}")
                streams.tell(f"warning: the environment variable {safe_text(name)} means nothing\nhint: {hint}")
