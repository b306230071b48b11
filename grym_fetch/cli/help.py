"""Help: ``-h`` is one screen with examples, ``--help`` explains every option, and both have options in groups.

Options that a command accepts only because every command does, and that have no effect there, are not shown.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click

from grym_fetch.core.cells import wrapped

WIDTH = 80
LEAST_WIDTH_BESIDE = 72
"""From this width on, options and their meanings are side by side."""

CHOOSING = {"everything", "minimal", "tags", "asset_ids", "exclude"}
NETWORK = {
    "parallel", "max_per_host", "mirrors", "limit_rate", "no_pipelining", "no_private_addresses", "offline",
    "allow_stale", "allow_unpinned", "retries", "stall_timeout", "connect_timeout", "patience", "lock_timeout",
    "store", "link_mode", "adopt",
}  # fmt: skip
FOLDERS = {"config", "assets_dir", "external_assets_dir"}
OUTPUT = {"verbose", "quiet", "json", "log_file", "html", "progress", "progress_interval", "report", "metrics"}
GROUPS = ("Choose", "Options", "Network", "Folders", "Output")

_NO_PLACE = FOLDERS
_MEASURES = {"allow_unpinned"}
DOES_NOTHING: Mapping[str, set[str]] = {
    "add": _MEASURES,
    "pin": _MEASURES,
    "import": _MEASURES,
    "update": _MEASURES,
    "outdated": _MEASURES | {"mirrors", "limit_rate", "no_pipelining", "lock_timeout"},
    "identify": _NO_PLACE,
    "store": {"assets_dir", "external_assets_dir"},
    "clean": {"assets_dir"},
    "schema": _NO_PLACE,
    "completion": _NO_PLACE,
    "help": FOLDERS | (OUTPUT - {"json"}),
    "demo": _NO_PLACE,
}

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "": ("setup", "sync", "add https://models.example.org/voices.ckpt --required"),
    "sync": ("sync", "sync 'voice-*' --exclude voice-test", "sync --all --dry-run"),
    "check": ("check", "check --full voices", "check --json"),
    "path": ("path voices", "path voices --offline", "path voices --minimal"),
    "list": ("list", "list --tag audio", "list --json"),
    "info": ("info voices", "info 'voi*'", "info voices --json"),
    "schema": ("schema",),
    "add": (
        "add https://models.example.org/voices.ckpt --required",
        "add hf://facebook/wav2vec2-base --tag speech",
        "add voices.ckpt --url https://models.example.org/voices.ckpt",
    ),
    "pin": ("pin", "pin voices", "pin --exclude 'test-*'"),
    "import": ("import SHA256SUMS --base-url https://models.example.org/v2", "import registry.txt --local-path data"),
    "convert": ("convert assets.json assets.jsonl", "convert assets.jsonl assets.parquet"),
    "export": ("export --format sha256sums", "export 'voice-*' --format metalink", "export --format aria2"),
    "outdated": ("outdated", "outdated voices", "outdated --json"),
    "update": ("update --dry-run", "update voices", "update voices https://models.example.org/voices-2.ckpt"),
    "repair": ("repair", "repair voices --dry-run", "repair voices"),
    "adopt": ("adopt", "adopt ~/Downloads /srv/models", "adopt --asset-id 'voice-*' --store"),
    "remove": ("remove voices", "remove voices --delete-file", "remove voices --delete-file --yes"),
    "prune": ("prune --dry-run", "prune", "prune --store --older-than 30"),
    "store": ("store", "store /srv/grym-store", "store --json"),
    "identify": ("identify", "identify 50 ./src/data", "identify --size 500KB --history"),
    "clean": ("clean --dry-run", "clean --size 5MB ./src/data ../my-assets", "clean --yes --gitignore"),
    "restore": ("restore models/voices.ckpt", "restore --all", "restore --all --offline"),
    "setup": ("setup", "setup --minimal", "setup --skip-assets"),
    "doctor": ("doctor", "doctor voices", "doctor --json"),
    "config": ("config", "config --json"),
    "completion": ("completion bash", "completion bash --install", "completion fish"),
    "help": ("help", "help sync"),
    "demo": ("demo", "demo --keep"),
}


def group_of(command: str, name: str, *, chooses: bool) -> str:
    """The group of an option, by its parameter's name. ``chooses``: the command works on chosen assets."""
    if name in OUTPUT:
        return "Output"
    if name in FOLDERS:
        return "Folders"
    if name in NETWORK:
        return "Network"
    return "Choose" if name in CHOOSING and chooses else "Options"


class Command(click.Command):
    """A command whose ``-h`` is one screen, and whose ``--help`` says everything."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        settings["context_settings"] = {"help_option_names": ["--help"], **(settings.get("context_settings") or {})}
        super().__init__(*arguments, **settings)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The parameters, and both options for help."""
        return [*super().get_params(ctx), short_option(lambda context: self.short_help_text(context))]

    def shown(self, ctx: click.Context) -> Iterator[tuple[str, list[click.Option]]]:
        """The options that are shown, by group."""
        name = self.name or ""
        options = [each for each in self.params if isinstance(each, click.Option) and not each.hidden]
        chooses = any(each.name in ("ids", "everything") for each in self.params) or name in ("list", "check")
        for group in GROUPS:
            of_group = [
                each
                for each in options
                if group_of(name, str(each.name), chooses=chooses) == group
                and each.name not in DOES_NOTHING.get(name, ())
            ]
            if of_group:
                yield group, of_group

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """All options with what they mean, by group."""
        for group, options in self.shown(ctx):
            with formatter.section(group):
                _write_options(
                    formatter, [record for each in options if (record := each.get_help_record(ctx)) is not None]
                )
        with formatter.section("Help"):
            _write_options(formatter, [("-h", "Show one screen of help."), ("--help", "Show all of it.")])

    def short_help_text(self, ctx: click.Context) -> str:
        """One screen: what it does, examples, and the names of its options."""
        name = self.name or ""
        what = (self.help or "").partition("\n\n")[0]
        groups = {group: map(_spelled, options) for group, options in self.shown(ctx)}
        return one_screen(ctx.get_usage(), what, EXAMPLES.get(name, ()), groups, f"`{ctx.command_path} --help`")


def _write_options(formatter: click.HelpFormatter, records: list[tuple[str, str]]) -> None:
    """Write options in one column and what they mean in another; or that below, if it would be a narrow column."""
    if formatter.width >= LEAST_WIDTH_BESIDE:
        formatter.write_dl(records)
        return
    beside = " " * formatter.current_indent
    below = beside + " " * 4
    for name, meaning in records:
        lines = [beside + name, *wrapped(below + " ".join(meaning.split()), formatter.width, indent=below)]
        formatter.write("\n".join([*lines, ""]))


def short_option(text: Any) -> click.Option:
    """The option ``-h``."""

    def show(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            click.echo(text(ctx), color=ctx.color)
            ctx.exit()

    return click.Option(["-h"], is_flag=True, is_eager=True, expose_value=False, hidden=True, callback=show)


def screen_width() -> int:
    """Cells to write in: those of the terminal, but no more than can be read at a glance."""
    return max(20, min(WIDTH, shutil.get_terminal_size().columns))


def one_screen(usage: str, what: str, examples: Iterable[str], groups: Mapping[str, Iterable[str]], more: str) -> str:
    """Compose the text of ``-h``."""
    wide = screen_width()
    lines = [usage, "", *textwrap.wrap(" ".join(what.split()), wide), ""]
    lines += [fitted(f"  grym-fetch {example}", wide) for example in examples]
    lines.append("")
    width = max(map(len, groups), default=0) + 2
    for group, words in groups.items():
        # Do not break what belongs together.
        text = " ".join(word.replace(" ", "\N{NO-BREAK SPACE}") for word in words)
        lines += [
            line.replace("\N{NO-BREAK SPACE}", " ")
            for line in textwrap.wrap(
                text,
                wide,
                initial_indent=f"{group + ':':<{width}}",
                subsequent_indent=" " * width,
                break_on_hyphens=False,
            )
        ]
    return "\n".join([*lines, "", *textwrap.wrap(f"{more} explains everything.", wide, break_on_hyphens=False)])


def fitted(example: str, wide: int) -> str:
    """The example; where it is too long, on several lines that a shell takes as one."""
    if len(example) <= wide:
        return example
    return " \\\n".join(wrapped(example, wide - len(" \\"), indent=" " * 4))


def _spelled(option: click.Option) -> str:
    names = ", ".join(sorted(option.opts, key=len))
    if option.is_flag or option.count:
        return f"[{names}]"
    return f"[{names} {option.metavar or 'HOW'}]"
