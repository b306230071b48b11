"""Options that commands share. Each has an environment variable ``GRYM_FETCH_<OPTION>``; the option wins."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from grym_fetch.cli import streams
from grym_fetch.cli.usage import warn_of_variables
from grym_fetch.core.mirror_rules import MODES, MirrorChoices, parse_mirrors
from grym_fetch.core.variables import parse_flag, parse_rate, parse_store
from grym_fetch.settings import RULES

if TYPE_CHECKING:
    from grym_fetch.core.manifest import Asset
    from grym_fetch.manager import AssetManager

F = TypeVar("F", bound=Callable[..., Any])


MAX_COMPLETED_BYTES = 16 * 1024 * 1024
"""A person who presses Tab does not wait for a longer manifest to be read."""


class Rate(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on only
    """A rate in bytes per second, such as ``500K``, ``10M`` or ``1.5MiB/s``; units are powers of 1024."""

    name = "rate"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the text, or fail with what is allowed."""
        if isinstance(value, float):
            return value
        try:
            return parse_rate(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Flag(click.types.BoolParamType):
    """Yes or no in an environment variable; a flag on the command line has no value."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> bool:
        """Read the text as the Python API reads it, or fail with the variable's name and what is allowed."""
        if isinstance(value, bool):
            return value
        try:
            return parse_flag(str(value))
        except ValueError as error:
            self.fail(f"the environment variable {param.envvar if param else '?'}: {error}", param, ctx)


class MirrorWords(click.Choice):  # type: ignore[type-arg]  # as above
    """How to use mirrors; in an environment variable, also rules for mirrors of one's own."""

    def __init__(self) -> None:
        super().__init__(MODES)

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the words as the Python API reads them, or fail with what is allowed."""
        if isinstance(value, MirrorChoices):
            return value
        try:
            return parse_mirrors(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Verbosity(click.IntRange):
    """How often ``-v`` was given; in an environment variable, a number, or yes or no."""

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read a number, or yes as 1."""
        try:
            return int(parse_flag(str(value)))
        except ValueError:
            return int(super().convert(value, param, ctx))  # type: ignore[arg-type]  # it takes any, as its base does


class Option(click.Option):
    """An option whose variable is not set if it is blank: files decide then, as for the Python API."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """Return the variable's text, or None."""
        text = super().resolve_envvar_value(ctx)
        return text if text is not None and text.strip() else None


def option(*names: str, **settings: Any) -> Callable[[F], F]:
    """`click.option` with the environment variable that goes with its long name."""
    long_name = next(name for name in names if name.startswith("--"))
    settings.setdefault("envvar", "GRYM_FETCH_" + long_name.partition("/")[0][2:].replace("-", "_").upper())
    settings.setdefault("show_envvar", True)
    if settings.get("is_flag"):
        settings.setdefault("type", Flag())
    return click.option(*names, cls=Option, **settings)


def minimal_option(text: str) -> Callable[[F], F]:
    """``--minimal``; None if it is not given: then files decide, and then the default."""
    return option("--minimal", is_flag=True, default=None, help=text)


def setting(*names: str, **settings: Any) -> Callable[[F], F]:
    """An `option` for a field of `Settings`, checked by the rule of that field."""
    return option(*names, callback=_checked, **settings)


def _checked(_: click.Context, parameter: click.Parameter, value: Any) -> Any:
    # None: the option was not given, so there is no value to check.
    rule = replace(RULES[str(parameter.name)], none="")
    if value is not None and (problem := rule.problem(value)) is not None:
        raise click.BadParameter(problem)
    return value


PAGES = (".html", ".htm")
REPORTS = (*PAGES, ".jsonl", ".parquet")


def file_option(*names: str, endings: Sequence[str], help: str) -> Callable[[F], F]:  # noqa: A002 - as click has it
    """An `option` that names a file to write, whose name ends in one of these."""
    kind = click.Path(dir_okay=False, path_type=Path)
    return option(*names, type=kind, metavar="FILE", callback=partial(_check_file_name, endings), help=help)


def _check_file_name(
    endings: Sequence[str], context: click.Context, parameter: click.Parameter, value: Path | None
) -> Path | None:
    """Refuse what cannot be written in the end, before anything is done."""
    if value is None:
        return None
    if value.suffix.lower() not in endings:
        *others, last = (each for each in endings if each != ".htm")
        raise click.BadParameter(f"its name must end in {', '.join(others)}{' or ' if others else ''}{last}")
    check_target(context, parameter, value)
    if value.suffix.lower() == ".parquet" and find_spec("pyarrow") is None:
        raise click.BadParameter("Parquet needs an extra: pip install 'grym-fetch[parquet]'")
    return value


def check_target(_: click.Context, __: click.Parameter, value: Path | None) -> Path | None:
    """Refuse a file in a folder that is not there, and a device or a pipe, before anything is done."""
    if value is not None and not value.absolute().parent.is_dir():
        raise click.BadParameter(f"there is no folder {str(value.parent)!r}")
    if value is not None and value.exists() and not value.is_file():
        raise click.BadParameter(f"{str(value)!r} is not a file; it would be replaced by one")
    return value


def is_given(context: click.Context, name: str) -> bool:
    """Whether an option was given, on the command line or in the environment."""
    return context.get_parameter_source(name) in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)


@dataclass(frozen=True, slots=True)
class Common:
    """The options of every command. Folders that the environment names are None here: `find_project` reads those."""

    config: str | None
    assets_dir: str | None
    external_assets_dir: str | None
    verbose: int
    quiet: bool
    json: bool
    log_file: Path | None
    progress: str = "auto"
    """For a command with `progress_options`: how to show work under way."""
    progress_interval: float = 30.0
    """Seconds between two lines of progress if no bar is shown."""


def common_options(command: F) -> F:
    """Add the options of `Common` to a command, which gets them as one argument ``common``."""

    def gathered(**arguments: Any) -> Any:
        context = click.get_current_context()
        if not arguments["quiet"]:
            warn_of_variables(context)
        for name in ("assets_dir", "external_assets_dir"):
            if context.get_parameter_source(name) is ParameterSource.ENVIRONMENT:
                arguments[name] = None  # relative to the project's root, which is not known yet
        common = {field.name: arguments.pop(field.name) for field in fields(Common) if field.name in arguments}
        if "progress" in common and not common["quiet"]:
            # The work is still to be imported, which is most of the time until it begins.
            streams.announce("starting …")
        try:
            return command(common=Common(**common), **arguments)
        finally:
            streams.settle()

    gathered.__doc__ = command.__doc__
    gathered.__name__ = command.__name__
    # Options given to the command function itself come first in the help.
    gathered.__click_params__ = list(getattr(command, "__click_params__", []))  # type: ignore[attr-defined]
    wrapped: Any = gathered
    path = click.Path(dir_okay=False, path_type=Path)
    for decorate in (
        option(
            "--log-file",
            type=path,
            metavar="PATH",
            help="Also write the log to this file, rotated; as JSON if its name ends in .jsonl or .json.",
        ),
        option("--json", is_flag=True, help="Write JSON to stdout, one object per line."),
        option("-q", "--quiet", is_flag=True, help="Show only errors, and what is asked for."),
        option("-v", "--verbose", count=True, type=Verbosity(), help="Show more: -v what happens, -vv requests, too."),
        option("--external-assets-dir", metavar="DIR", help="Look for files here, too. [<root>/../assets]"),
        option("--assets-dir", metavar="DIR", help="Keep assets here. [<root>/assets]"),
        option(
            "--config", metavar="PATH", help="Use this manifest. [assets.json or config/assets.json, here or above]"
        ),
    ):
        wrapped = decorate(wrapped)
    return wrapped  # type: ignore[no-any-return]  # still the function that was decorated, as click sees it


class StoreChoice(click.ParamType):  # type: ignore[type-arg]  # as above
    """A store: yes, no, or the path of its folder."""

    name = "store"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> bool | str:
        """Read the text, or fail for what is more likely an id."""
        if isinstance(value, bool) or not str(value).strip():
            return bool(value)
        text = str(value)
        if param is not None and ctx is not None and ctx.get_parameter_source("store") is ParameterSource.ENVIRONMENT:
            try:
                return parse_store(text)
            except ValueError as error:
                self.fail(f"the environment variable {param.envvar}: {error}", param, ctx)
        with suppress(ValueError):
            return parse_flag(text)
        if os.sep not in text and not os.path.isdir(text):
            self.fail(f"there is no folder {text!r}; for a new one, write --store=./{text}", param, ctx)
        return text


def store_option(text: str, **settings: Any) -> Callable[[F], F]:
    """``--store [DIR]``. ``envvar=None`` for a command that does something else with it: then no variable gives it."""
    return option(
        "--store",
        type=StoreChoice(),
        is_flag=False,
        flag_value="1",
        default=False,
        metavar="[DIR]",
        help=text,
        **settings,
    )


def progress_options(command: F) -> F:
    """Add the options for how to show work under way; the command gets them in `Common`."""
    for decorate in (
        option("--progress-interval", type=click.FloatRange(min=0, min_open=True), default=30.0, metavar="S",
               show_default=True, help="Where no bar is shown, print a line of progress every so many seconds."),
        option("--progress", type=click.Choice(["auto", "bar", "plain", "none"]), default="auto", show_default=True,
               help="Show a bar, lines, or no progress. auto: a bar on a terminal where no JSON can come, else lines."),
    ):  # fmt: skip
        command = decorate(command)
    return command


def transfer_options(command: F) -> F:
    """Add the options for how to fetch assets; the command gets them as keywords of `Settings`.

    Also adds those of `progress_options`.
    """
    wrapped: Any = progress_options(command)
    for decorate in (
        setting("--lock-timeout", type=float, default=3600.0, metavar="S", show_default=True,
               help="Wait this many seconds for another process that is fetching the same asset."),
        setting("--patience", type=float, default=120.0, metavar="S", show_default=True,
               help="Wait this many seconds for a server that has served bytes in this run and is away."),
        setting("--connect-timeout", type=float, default=10.0, metavar="S", show_default=True,
               help="Give up on connecting after this many seconds."),
        setting("--stall-timeout", type=float, default=30.0, metavar="S", show_default=True,
               help="Give up on a connection after this many seconds without data."),
        setting("--retries", type=int, default=5, metavar="N", show_default=True,
               help="How often to try a server again that fails; progress starts the count anew."),
        option("--allow-unpinned", is_flag=True, help="Also fetch assets without a checksum, unverified."),
        option("--allow-stale", is_flag=True,
               help="Also use a manifest that has expired or is older than the last one used."),
        option("--no-pipelining", is_flag=True, help="Send a request only after the last answer has come."),
        option("--no-private-addresses", is_flag=True, help="Refuse servers with private addresses."),
        option("--offline", is_flag=True, help="Fetch nothing; fail if something is missing."),
        option("--link-mode", type=click.Choice(["auto", "reflink", "hardlink", "copy"]), default="auto",
               show_default=True, help="How files are shared or taken. auto: as a reflink, hard link or copy."),
        option("--adopt", is_flag=True,
               help="Take what is elsewhere on this machine, as in Hugging Face's cache, instead of fetching it, if "
               "the manifest has its checksum and size."),
        store_option("Share files with other projects through the machine's store. [in your cache folder]"),
        setting("--limit-rate", type=Rate(), metavar="RATE",
               help="Receive at most this many bytes of assets per second in all: 500K, 10M."),
        option("--mirrors", type=MirrorWords(), default="fallback", show_default=True,
               help="Use an asset's addresses one after the other, or at the same time."),
        setting("--max-per-host", type=int, metavar="N", help="Open at most this many of them to one host. [all]"),
        setting("-j", "--parallel", type=int, default=4, metavar="N", show_default=True,
               help="Open at most this many connections at once, over all assets."),
    ):  # fmt: skip
        wrapped = decorate(wrapped)
    return wrapped  # type: ignore[no-any-return]  # as above


def _listed(ctx: click.Context) -> tuple[Asset, ...]:
    """The assets that a shell can complete: those in the manifest; none if it cannot be read, or would take long."""
    from grym_fetch.core.errors import GrymFetchError
    from grym_fetch.manifest_files.project import find_project, load_manifest

    try:
        project = find_project(config=ctx.params.get("config"), environ=os.environ, cwd=Path.cwd())
        if project.manifest_path.stat().st_size > MAX_COMPLETED_BYTES:
            return ()
        return tuple(load_manifest(project.manifest_path).manifest.assets)
    except (GrymFetchError, OSError):
        return ()


def complete_ids(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The ids that begin like this, with their names, except those given already."""
    named = ctx.params.get("ids") or ()
    return [
        CompletionItem(asset.id, help=asset.name if asset.name != asset.id else None)
        for asset in _listed(ctx)
        if asset.id.startswith(incomplete) and asset.id not in named
    ]


def complete_tags(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The tags that begin like this."""
    tags = sorted({tag for asset in _listed(ctx) for tag in asset.tags})
    return [CompletionItem(tag) for tag in tags if tag.startswith(incomplete)]


def exclude_option(command: F) -> F:
    """Add ``--exclude``."""
    wrapped: Any = option(
        "--exclude",
        multiple=True,
        metavar="ID",
        shell_complete=complete_ids,
        help="Leave this asset out; an id or a glob (repeatable).",
    )(command)
    return wrapped  # type: ignore[no-any-return]  # as above


def ids_argument(command: F) -> F:
    """Add the ids that a command takes, and ``--exclude``."""
    wrapped: Any = click.argument("ids", nargs=-1, metavar="[ID]...", shell_complete=complete_ids)(
        exclude_option(command)
    )
    return wrapped  # type: ignore[no-any-return]  # as above


def one_asset(manager: AssetManager, text: str) -> Asset:
    """Return the asset with this id, or the only one that this glob matches. Raises `UnknownAsset` or a usage error."""
    first, *others = manager.manifest.pick([text])
    if others:
        from grym_fetch.core.text import safe_text

        names = ", ".join(safe_text(each.id) for each in (first, *others)[:5])
        more = f" and {len(others) - 4} more" if len(others) > 4 else ""
        raise click.UsageError(f"{text!r} matches {1 + len(others)} assets ({names}{more}); name one")
    return first


def refuse_password(*addresses: str) -> None:
    """Raise a usage error for an address that would make a password public."""
    from grym_fetch.core.manifest_values import has_login

    if any(map(has_login, addresses)):
        raise click.UsageError(
            "an address with a user or password in it would be written into the manifest, for everyone to read. "
            "Leave it out, and put it into GRYM_FETCH_TOKEN_<HOST> or ~/.netrc"
        )
