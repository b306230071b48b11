"""Help: one screen that can be taken in at a glance, and a page that has everything."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

import click
import pytest

from grym_fetch.cli.help import CHOOSING, DOES_NOTHING, EXAMPLES, FOLDERS, NETWORK, OUTPUT, WIDTH, fitted
from grym_fetch.cli.main import COMMANDS, GROUPS, SUMMARIES, cli
from grym_fetch.cli.options import common_options, transfer_options
from tests.cli.running import invoke

LINES = 24
"""The size of a terminal that nobody has enlarged."""


def command_of(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_short_help_is_one_screen(name: str) -> None:
    """With `-h`, no line is cut, and the prompt after it is still on the screen."""
    done = invoke(*name.split(), "-h")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert len(lines) < LINES
    assert max(map(len, lines)) <= WIDTH
    assert lines[0].startswith(f"Usage: grym-fetch {name}".rstrip())
    examples = [line.split(maxsplit=1)[1] for line in lines if line.startswith("  grym-fetch ")]
    assert examples == list(EXAMPLES[name])
    assert 1 <= len(examples) <= 3


@pytest.mark.parametrize("width", [20, 40, 80])
def test_an_example_on_several_lines_is_the_same_command(width: int) -> None:
    """A shell takes them as one, and none is wider than the terminal, unless a word is."""
    for example in (example for examples in EXAMPLES.values() for example in examples):
        shown = fitted(f"  grym-fetch {example}", width)
        assert shlex.split(shown.replace("\\\n", "")) == ["grym-fetch", *shlex.split(example)]
        for line in shown.split("\n"):
            assert len(line) <= width or len(line.removesuffix("\\").split()) == 1


@pytest.mark.shows("U7")
@pytest.mark.parametrize("name", ["sync", "prune"])
def test_all_of_the_help_can_be_read_on_a_narrow_terminal(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but an option with all that it takes is wider, and no word is broken."""
    monkeypatch.setenv("COLUMNS", "40")
    narrow = invoke(name, "--help").stdout
    monkeypatch.setenv("COLUMNS", "100")
    assert all(len(line) <= 40 or line.startswith("  --") for line in narrow.splitlines())
    assert narrow.split() == invoke(name, "--help").stdout.split()


@pytest.mark.parametrize("examples", EXAMPLES.values(), ids=list(EXAMPLES))
def test_the_examples_parse(examples: Sequence[str]) -> None:
    """A user who types what the help shows gets no usage error."""
    for name, *arguments in map(shlex.split, examples):
        command_of(name).make_context(name, arguments)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_that_does_something_is_in_both(name: str) -> None:
    """Each in its group, in the long help with its variable; an option without effect is in neither, yet accepted."""
    command = command_of(name)
    short, long = invoke(name, "-h").stdout, invoke(name, "--help").stdout
    assert invoke("help", name).stdout == long
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            is_shown = option.name not in DOES_NOTHING.get(name, ())
            longest = max(option.opts, key=len)
            for text in (short, long):
                assert (f"{longest}]" in text or f"{longest} " in text or f"{longest}\n" in text) is is_shown, longest
            has_variable = is_shown and option.envvar is not None
            assert (f"env var: {option.envvar}" in " ".join(long.split())) is has_variable
    assert "-h" in long.split()
    assert "--help" in long.split()


def test_options_have_groups() -> None:
    """Every shared option belongs to a group, and groups name only existing options."""
    names = {str(each.name) for name in COMMANDS for each in command_of(name).params}
    later = {"progress", "progress_interval", "report"}
    assert names | later >= CHOOSING | NETWORK | FOLDERS | OUTPUT

    @click.command()
    @transfer_options
    @common_options
    def shared(**options: object) -> None:
        """Only the shared options."""

    assert {each.name for each in shared.params} <= NETWORK | FOLDERS | OUTPUT
    assert DOES_NOTHING.keys() <= COMMANDS.keys()


def test_every_command_is_in_one_group() -> None:
    """Each is listed in the help of the group, with a sentence on what it does."""
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(COMMANDS)
    assert COMMANDS.keys() == SUMMARIES.keys()
    text = " ".join(invoke("--help").stdout.split())
    for name, summary in SUMMARIES.items():
        assert f"{name} {summary}" in text
    assert invoke("help").stdout == invoke("--help").stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_the_common_options(name: str) -> None:
    """So that a script, or a variable, can set them for all."""
    taken = {parameter.name for parameter in command_of(name).params}
    assert taken >= FOLDERS | {"verbose", "quiet", "json", "log_file"}


@pytest.mark.parametrize(
    ("line", "as_text"),
    [("help", "--help"), ("help sync", "sync --help"), ("completion zsh", "completion zsh"), ("schema", "schema")],
)
def test_texts_for_programs(line: str, as_text: str) -> None:
    """Of each text, one object in one line."""
    (told,) = map(json.loads, invoke(*line.split(), "--json").stdout.splitlines())
    text = invoke(*as_text.split()).stdout
    assert told == json.loads(text) if line == "schema" else told["text"].rstrip("\n") == text.rstrip("\n")


def test_the_version_is_shown() -> None:
    """Either name shows the version."""
    assert invoke("-V").stdout == invoke("--version").stdout != ""
