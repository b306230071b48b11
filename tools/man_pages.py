"""Writes the man pages from the command itself: ``python -m tools.man_pages`` (`make man`).

They lie in ``man/`` and go into the wheel; a test fails while they are stale. ``--check`` only says whether they are.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from grym_fetch._version import __version__
from grym_fetch.cli.exit_codes import (
    DONE,
    INTEGRITY,
    INTERRUPTED,
    LOCKED,
    NOT_FETCHED,
    STORAGE,
    TERMINATED,
    WRONG_USAGE,
)
from grym_fetch.cli.help import EXAMPLES, Command
from grym_fetch.cli.main import SUMMARIES, cli

FOLDER = Path(__file__).parents[1] / "man"
EXIT_CODES = {
    DONE: "Done.",
    NOT_FETCHED: "An asset could not be fetched, or a needed one is missing.",
    WRONG_USAGE: "Wrong usage, or an invalid manifest or file of settings.",
    INTEGRITY: "A checksum or size does not match.",
    STORAGE: "The disk: full, not writable, or an unsafe path.",
    LOCKED: "Another process held what is needed for too long, such as an asset.",
    INTERRUPTED: "Interrupted (SIGINT).",
    TERMINATED: "Ended by SIGTERM.",
}


def pages() -> dict[str, str]:
    """The text of each page by its name."""
    with click.Context(cli, info_name="grym-fetch") as root:
        names = cli.list_commands(root)
        made = {"grym-fetch.1": _main_page(names)}
        for name in names:
            command = cli.get_command(root, name)
            assert isinstance(command, Command), f"{name} has its help in groups"
            made[f"grym-fetch-{name}.1"] = _page(name, command, root)
    return made


def _main_page(names: list[str]) -> str:
    lines = [
        *_head("grym-fetch", cli.get_short_help_str(200)),
        ".SH SYNOPSIS",
        ".B grym-fetch",
        r"\fICOMMAND\fR [\fIOPTION\fR]... [\fIARGUMENT\fR]...",
        ".SH DESCRIPTION",
        *_paragraphs(cli.help or ""),
        ".SH COMMANDS",
    ]
    for name in names:
        lines += [".TP", rf"\fBgrym\-fetch\-{name}\fR(1)", _safe(SUMMARIES[name])]
    return _text([*lines, *_examples(""), *_foot()])


def _page(name: str, command: Command, root: click.Context) -> str:
    with click.Context(command, info_name=name, parent=root) as context:
        lines = [
            *_head(f"grym-fetch-{name}", SUMMARIES[name]),
            ".SH SYNOPSIS",
            f".B {_safe(context.command_path)}",
            _safe(" ".join(command.collect_usage_pieces(context))),
            ".SH DESCRIPTION",
            *_paragraphs(command.help or ""),
        ]
        for group, options in command.shown(context):
            lines.append(f".SH {'OPTIONS' if group == 'Options' else f'OPTIONS: {group.upper()}'}")
            for option in options:
                record = option.get_help_record(context)
                assert record is not None, "hidden options are not shown"
                lines += [".TP", rf"\fB{_safe(record[0])}\fR", _safe(" ".join(record[1].split()))]
    return _text([*lines, *_examples(name), *_foot()])


def _head(name: str, summary: str) -> list[str]:
    title = f'.TH "{name.upper()}" "1" "" "grym-fetch {__version__}" "User Commands"'
    return [title.replace("-", r"\-"), ".SH NAME", rf"{_safe(name)} \- {_safe(summary)}"]


def _examples(name: str) -> list[str]:
    return [
        ".SH EXAMPLES",
        *(line for each in EXAMPLES[name] for line in (".PP", ".nf", _safe(f"grym-fetch {each}"), ".fi")),
    ]


def _foot() -> list[str]:
    lines = [".SH EXIT STATUS"]
    for code, meaning in EXIT_CODES.items():
        lines += [".TP", f".B {code}", _safe(meaning)]
    return lines


def _paragraphs(text: str) -> list[str]:
    return [line for each in text.split("\n\n") for line in (".PP", _safe(" ".join(each.split())))]


def _safe(text: str) -> str:
    """Text for roff: a dash stays one that can be copied, and no line begins with a command."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{text}" if text[:1] in (".", "'") else text


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the pages, or with ``--check`` say which are stale."""
    made = pages()
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.1")}
    if "--check" in sys.argv:
        stale = sorted(name for name in made.keys() | there.keys() if made.get(name) != there.get(name))
        if stale:
            print(f"stale: {', '.join(stale)}; run `make man`", file=sys.stderr)
        return bool(stale)
    FOLDER.mkdir(exist_ok=True)
    for name in there.keys() - made.keys():
        (FOLDER / name).unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
