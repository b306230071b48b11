"""What the documents say is true: commands, options, exit codes, events, errors, examples, links, the catalogue."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from grym_fetch import reports
from grym_fetch.cli import exit_codes
from grym_fetch.cli.main import COMMANDS, cli
from grym_fetch.cli.options import common_options, transfer_options
from grym_fetch.core import errors, events
from grym_fetch.core.buckets import INSTANCE_ROLE
from grym_fetch.core.configuration import KEYS, RULES, parse_configuration
from grym_fetch.core.manifest_parser import parse_manifest
from grym_fetch.core.manifest_schema import ASSET, MANIFEST, STAND_IN
from grym_fetch.core.variables import CLIENT_CERT, CLIENT_KEY, VARIABLES
from grym_fetch.manager import AssetManager
from grym_fetch.settings import Settings
from grym_fetch.testing import SeededContent, serve_in_thread
from tests.house.test_layers import LAYERS
from tests.support.example_errors import EXAMPLES

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "grym_fetch"
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
USERS_CHECKSUM = "7a0f6bd3bcc2c0ef10f4c50d960162a1e651f9ca6c3c3e7b9e3feff2c6f31c51"
"""The one checksum of the catalogue that somebody knows: its user's."""

# --- Reading Markdown ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A block of code: its start, its language, its text."""

    path: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


def read(name: str) -> str:
    """The text of a document."""
    return (ROOT / name).read_text(encoding="utf-8")


@cache
def blocks(path: Path) -> list[Block]:
    """Every block of code in a document."""
    text = path.read_text(encoding="utf-8")
    return [
        Block(path, text.count("\n", 0, match.start()) + 1, match[1], match[2])
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


def all_blocks(*languages: str) -> list[Block]:
    """The blocks of all documents in these languages."""
    return [block for path in DOCUMENTS for block in blocks(path) if block.language in languages]


def without_code(text: str) -> str:
    """A document's text without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def prose(path: Path) -> str:
    """A document without its blocks of code."""
    return without_code(path.read_text(encoding="utf-8"))


def section(text: str, heading: str) -> str:
    """The text below a heading, up to the next heading of any level, without blocks of code."""
    match = re.search(rf"^#+ `?{re.escape(heading)}`?\n(.*?)(?=^#|\Z)", without_code(text), re.MULTILINE | re.DOTALL)
    assert match is not None, f"no section {heading!r}"
    return match[1]


def rows(text: str) -> list[list[str]]:
    """The cells of every row of the tables in ``text``, without headers."""
    lines = [line.strip() for line in text.splitlines()]
    table = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines if line.startswith("|")]
    heads = {index for index, line in enumerate(table) if set("".join(line)) <= {"-"}}
    return [row for index, row in enumerate(table) if index not in heads and index + 1 not in heads]


def ticked(cell: str) -> list[str]:
    """The text in back-ticks."""
    return re.findall(r"`([^`]+)`", cell)


def first_cells(text: str) -> list[str]:
    """The text in back-ticks in the first column of the tables."""
    return [word for row in rows(text) for word in ticked(row[0])]


# --- The command line ---------------------------------------------------------------------------------------


def command_of(name: str) -> click.Command:
    """A command by its name."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None, f"no command {name!r}"
    return command


def options_of(command: click.Command) -> set[str]:
    """The names of a command's options, without the hidden ones."""
    shown = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    return {name for option in shown for name in (*option.opts, *option.secondary_opts)}


@click.command()
@common_options
def only_common(common: object) -> None:
    """A command with only the common options."""


@click.command()
@transfer_options
def only_transfer(**options: object) -> None:
    """A command with only the options for fetching."""


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Every call of grym-fetch in the documents' blocks of shell code: its place and its arguments."""
    for block in all_blocks("sh", "console", "text", "yaml", "dockerfile", "ini"):
        for number, line in enumerate(block.text.splitlines(), block.line + 1):
            if block.language == "text" and not line.startswith("$ "):
                continue
            for match in re.finditer(r"(?<![\w=-])grym-fetch(?= )([^|;&<>()#]*)", line):
                if not match[1].strip():
                    continue  # what is installed, not what is run
                arguments = match[1] if line[: match.start()].count('"') % 2 == 0 else match[1].replace('"', "")
                yield f"{block.path.relative_to(ROOT)}:{number}", shlex.split(arguments)


def test_every_command_line_that_is_shown_parses() -> None:
    """A user who types what a document shows gets no usage error."""
    refused = {}
    for place, arguments in command_lines():
        name, *rest = arguments
        try:
            if name in COMMANDS:
                command_of(name).make_context(name, rest)
            else:
                cli.make_context("grym-fetch", arguments)
        except click.exceptions.Exit:
            pass  # --help and --version
        except click.UsageError as error:
            refused[place] = error.format_message()
    assert refused == {}


def test_a_command_in_prose_exists() -> None:
    """A command named in a sentence exists."""
    for path in DOCUMENTS:
        for match in re.finditer(r"`grym-fetch ([a-z]\S*?)[ `]", prose(path)):
            assert match[1] in COMMANDS, f"{path.name} speaks of {match[0]}"


@pytest.mark.parametrize("name", COMMANDS)
def test_options_and_their_documentation_agree(name: str) -> None:
    """A command's section lists exactly its own options, and says which shared ones it takes."""
    text = read("docs/command-line.md")
    own = section(text, name)
    actual = options_of(command_of(name))
    documented = {word.split()[0] for word in first_cells(own) if word.startswith("-")}
    if "(#common-options)" in own:
        documented |= options_of(only_common)
    if "(#options-for-fetching)" in own:
        documented |= options_of(only_transfer)
    assert documented == actual


@pytest.mark.parametrize(
    ("heading", "command"), [("Common options", only_common), ("Options for fetching", only_transfer)]
)
def test_shared_options_and_their_documentation_agree(heading: str, command: click.Command) -> None:
    """The two tables of shared options list all of them and no others."""
    documented = {word.split()[0] for word in first_cells(section(read("docs/command-line.md"), heading))}
    assert documented == options_of(command)


def test_which_options_for_fetching_hold_for_programs() -> None:
    """Their variables do, but those of the two about progress, as both pages say."""
    given = {str(p.envvar) for p in only_transfer.params} - {variable.name for variable in VARIABLES}
    assert given == {"GRYM_FETCH_PROGRESS", "GRYM_FETCH_PROGRESS_INTERVAL"}


def test_who_takes_the_options_for_fetching_is_said() -> None:
    """The sentence above their table names every command that has them, and no others."""
    sentence = section(read("docs/command-line.md"), "Options for fetching").strip().split(" take these.")[0]
    assert set(ticked(sentence)) == {
        name for name in COMMANDS if options_of(only_transfer) <= options_of(command_of(name))
    }


def test_the_defaults_of_options_are_the_documented_ones() -> None:
    """The table of options for fetching gives the true defaults."""
    defaults = {name: p.default for p in only_transfer.params for name in p.opts}
    for row in rows(section(read("docs/command-line.md"), "Options for fetching")):
        name = ticked(row[0])[-1].split()[0]
        if re.fullmatch(r"\d+", row[1]):
            assert defaults[name] == int(row[1]), name


def test_every_command_is_in_the_table_of_commands() -> None:
    """The table at the top of the page has every command and no others."""
    assert set(first_cells(section(read("docs/command-line.md"), "The command line"))) == set(COMMANDS)


def test_exit_codes_are_those_of_the_program() -> None:
    """The table of exit codes has every code of the program and no others."""
    actual = {value for name, value in vars(exit_codes).items() if name.isupper() and isinstance(value, int)}
    documented = [int(word) for word in first_cells(section(read("docs/command-line.md"), "Exit codes"))]
    assert sorted(documented) == sorted(actual)


def test_the_keys_of_files_are_documented() -> None:
    """The page on settings lists every key and no others, and its examples are valid."""
    text = read("docs/configuration.md")
    assert sorted(first_cells(section(text, "The keys"))) == sorted(key.name for key in KEYS if key is not RULES)
    of_project, of_user = (block for block in all_blocks("toml") if block.path.name == "configuration.md")
    assert parse_configuration(of_project.text.encode(), str(of_project), "project").choices
    assert parse_configuration(of_user.text.encode(), str(of_user), "user").choices


def test_environment_variables_exist() -> None:
    """The program reads every variable that a document names, and every option has one.

    Except `check --store` and `prune --store`: that variable chooses a store for fetching.
    """
    options = [
        parameter
        for name in COMMANDS
        for parameter in command_of(name).params
        if isinstance(parameter, click.Option)
        and not parameter.hidden
        and not (name in ("check", "prune") and parameter.name == "store")
    ]
    for option in options:
        assert option.envvar == "GRYM_FETCH_" + max(option.opts, key=len)[2:].replace("-", "_").upper()
    known = {str(option.envvar) for option in options} | {"GRYM_FETCH_ENV", "GRYM_FETCH_COMPLETE"}
    known |= {CLIENT_CERT, CLIENT_KEY, INSTANCE_ROLE}
    for path in DOCUMENTS:
        for name in re.findall(r"GRYM_FETCH_[A-Z_]*[A-Z]", path.read_text(encoding="utf-8")):
            assert name in known or name.startswith("GRYM_FETCH_TOKEN"), f"{path.name} names {name}"
    sources = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    for name in first_cells(section(read("docs/command-line.md"), "Environment variables")):
        # The standard library reads the proxies, and Rich the colours.
        if not name.startswith("GRYM_FETCH_") and not name.endswith(("_PROXY", "_COLOR")):
            assert name in sources, f"nothing reads {name}"


# --- The Python API -----------------------------------------------------------------------------------------


def event_fields(kind: type[events.Event]) -> list[str]:
    """The names of an event's own fields in JSON."""
    return [field.name.rstrip("_") for field in dataclasses.fields(kind) if field.name not in ("time", "asset", "node")]


def test_events_are_those_of_the_program() -> None:
    """The table of events has every type with every field, in the right order, and no others."""
    documented = {ticked(row[0])[0]: ticked(row[1]) for row in rows(section(read("docs/python-api.md"), "Events"))}
    assert documented == {kind.type: event_fields(kind) for kind in events.Event.__subclasses__()}


def error_tree() -> Iterator[tuple[str, str | None, str]]:
    """Each documented error, its base class, and its exit code."""
    tree = next(b for b in blocks(ROOT / "docs/python-api.md") if b.text.startswith("GrymFetchError"))
    above: list[str] = []
    for line in tree.text.splitlines():
        match = re.match(r"([│├└─ ]*)(\w+) +(\w+)", line)
        assert match is not None, line
        del above[len(match[1]) // 4 :]
        yield match[2], above[-1] if above else None, match[3]
        above.append(match[2])


def actual_errors(base: type[errors.GrymFetchError] = errors.GrymFetchError) -> Iterator[type[errors.GrymFetchError]]:
    """Every error of the package."""
    yield base
    for derived in base.__subclasses__():
        if derived.__module__ == errors.__name__:
            yield from actual_errors(derived)


def test_errors_are_those_of_the_program() -> None:
    """The tree of errors has every error, in its place."""
    documented = {(name, parent) for name, parent, _ in error_tree()}
    bases = {
        kind: [base for base in kind.__bases__ if issubclass(base, errors.GrymFetchError)] for kind in actual_errors()
    }
    assert documented == {(kind.__name__, b[0].__name__ if b else None) for kind, b in bases.items()}


def test_errors_have_the_documented_exit_codes() -> None:
    """The exit code that the tree gives for an error is the one that the command line returns."""
    for name, _, code in error_tree():
        error = EXAMPLES[getattr(errors, name)]
        if code == "worst":
            assert name in ("MirrorsExhausted", "SyncFailed")
        else:
            assert exit_codes.exit_code(error) == int(code), name


def test_the_methods_of_the_manager_are_documented_and_exist() -> None:
    """The page on the API names every public method and property of `AssetManager`, and no others."""
    used = set(re.findall(r"\bmanager\.(\w+)", read("docs/python-api.md")))
    public = {name for name in vars(AssetManager) if not name.startswith("_")}
    assert used == public | {"settings", "minimal", "warnings"}


def test_the_signature_of_the_manager_is_the_documented_one() -> None:
    """Every argument with its default, in order; not those that only tests pass."""
    arguments = inspect.signature(AssetManager).parameters.values()
    first, *rest = (f"{each.name}={each.default}" for each in arguments if each.name not in ("environ", "clock"))
    assert f"`AssetManager({first}, *, {', '.join(rest)})`" in read("docs/python-api.md")


@pytest.mark.parametrize(
    ("kind", "heading"),
    [
        (reports.AssetStatus, "AssetStatus"),
        (reports.SyncReport, "SyncReport"),
        (reports.SyncPlan, "SyncPlan"),
        (reports.AssetProgress, "AssetProgress"),
        (reports.Pinned, "PinReport` and `Pinned"),
        (reports.Pruned, "PruneReport` and `Pruned"),
        (reports.NewerVersion, "NewerVersion"),
        (reports.Project, "Project"),
        (Settings, "Settings"),
    ],
)
def test_the_fields_of_values_are_documented(kind: type[DataclassInstance], heading: str) -> None:
    """The table of a value has its fields and then its properties, in order."""
    fields = [field.name for field in dataclasses.fields(kind)]
    fields += [each for each, what in vars(kind).items() if isinstance(what, property)]
    table = [row for row in first_cells(section(read("docs/python-api.md"), heading)) if row != kind.__name__]
    assert table == fields


def test_the_states_of_an_asset_are_documented() -> None:
    """The table of states has each of them and no others."""
    assert first_cells(section(read("docs/python-api.md"), "AssetState")) == list(reports.AssetState)


@pytest.mark.parametrize("block", all_blocks("python"), ids=str)
def test_python_examples_compile(block: Block) -> None:
    """Each Python example compiles and imports only what exists."""
    tree = compile(textwrap.dedent(block.text), str(block), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("grym_fetch"):
            module = __import__(node.module, fromlist=[alias.name for alias in node.names])
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_the_example_of_the_readme_runs(tmp_path: Path) -> None:
    """The asyncio program of the README, exactly as printed, fetches its asset and prints the path."""
    program = next(block.text for block in blocks(ROOT / "README.md") if block.language == "python")
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    asset_id, local_path = "audioldm-s-full", "models/model.ckpt"
    with serve_in_thread() as server:
        file = server.add("/model.ckpt", SeededContent(300_000, seed=1))
        entry = {"id": asset_id, "url": file.url, "localPath": local_path, "checksum": file.sha256, "size": file.size}
        (tmp_path / "assets.json").write_text(json.dumps({"assets": [entry]}), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "program.py"],
            cwd=tmp_path,
            env={**os.environ, "NO_PROXY": "127.0.0.1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    path = tmp_path / "assets" / local_path
    # The callback prints from a thread of its own, so its last line may come before or after this one.
    assert f"ready: {path}" in done.stdout
    assert f"{asset_id}: 100%" in done.stdout
    assert path.read_bytes() == file.content


# --- The manifest -------------------------------------------------------------------------------------------


def test_the_keys_of_the_manifest_are_documented() -> None:
    """The page on the manifest has exactly the keys of the table, at each level."""
    documented = iter(first_cells(section(read("docs/manifest.md"), "Keys")))
    for part in (MANIFEST, ASSET, STAND_IN):
        assert sorted(islice(documented, len(part.keys))) == sorted(key.name for key in part.keys)
    assert list(documented) == []


@pytest.mark.parametrize("block", all_blocks("json"), ids=str)
def test_examples_of_manifests_are_good_ones(block: Block) -> None:
    """A manifest shown in a document is accepted without a warning."""
    assert parse_manifest(block.text.encode(), str(block)).warnings == ()


def test_the_catalogue_is_a_good_manifest() -> None:
    """The catalogue is accepted without a warning, and uses only https."""
    parsed = parse_manifest((ROOT / "assets.json").read_bytes(), "assets.json")
    assert parsed.warnings == ()
    assert all(url.startswith("https://") for asset in parsed.manifest.assets for url in asset.urls)


def test_the_catalogue_invents_no_checksum() -> None:
    """Only the asset whose checksum its user provided is pinned, and only pinned assets are required."""
    assets = parse_manifest((ROOT / "assets.json").read_bytes(), "assets.json").manifest.assets
    pinned = {asset.id: asset.checksum.hexdigest for asset in assets if asset.checksum is not None}
    assert pinned == {"audioldm-s-full": USERS_CHECKSUM}
    assert [asset.id for asset in assets if asset.size is not None] == ["audioldm-s-full"]
    assert [asset.id for asset in assets if asset.required] == ["audioldm-s-full"]


def test_the_catalogue_says_where_its_facts_are_from() -> None:
    """Each entry names an origin for each of its facts, and for no others."""
    for asset in parse_manifest((ROOT / "assets.json").read_bytes(), "assets.json").manifest.assets:
        facts = {
            "url": asset.url,
            "fallbackUrls": asset.fallback_urls,
            "version": asset.version,
            "checksum": asset.checksum,
            "size": asset.size,
        }
        origins = asset.metadata["from"]
        assert isinstance(origins, dict)
        assert set(origins) == {name for name, value in facts.items() if value}, asset.id
        assert all(origins.values())


def test_the_catalogue_is_documented() -> None:
    """The page on the catalogue lists its assets in order."""
    assets = parse_manifest((ROOT / "assets.json").read_bytes(), "assets.json").manifest.assets
    documented = rows(read("docs/catalogue.md"))
    assert [ticked(row[0])[0] for row in documented] == [asset.id for asset in assets]
    for row, asset in zip(documented, assets, strict=True):
        assert ("not known" in row[2]) is (asset.checksum is None)


# --- The repository -----------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """The anchors that a forge makes from a document's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere() -> None:
    """Every relative link has a file, and every anchor a heading."""
    links = [(path, link) for path in DOCUMENTS for link in re.findall(r"\]\(([^)\s]+)\)", prose(path))]
    for path, link in links:
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), (path, link)
        assert target.is_relative_to(ROOT), (path, link)
        if anchor:
            assert anchor in anchors(target), (path, link)


def test_the_commands_of_make_exist() -> None:
    """Every make target named in a document is in the Makefile, above all the two in the README."""
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    shown = {name for block in all_blocks("sh") for name in re.findall(r"^make ([a-z]+)", block.text, re.MULTILINE)}
    of_readme = re.findall(r"^make ([a-z]+)", read("README.md"), re.MULTILINE)
    assert of_readme == ["demo", "test"]
    assert shown <= targets


def test_the_layers_are_those_of_the_program() -> None:
    """The picture of the layers names every module of the package, each above what it may import."""
    picture = next(b for b in blocks(ROOT / "docs/architecture.md") if b.text.startswith("cli"))
    drawn = [line[:40].split() for line in picture.text.splitlines()]
    modules = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert {name for row in drawn for name in row} == modules - {"__init__", "__main__"}
    assert [set(row) for row in reversed(drawn)] == LAYERS


def test_the_words_are_short() -> None:
    """The README stays short enough to read, and each decision fits on a page."""
    assert len(read("README.md").splitlines()) <= 135
    for path in (ROOT / "docs" / "decisions").glob("*.md"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 40, path.name


def files_of_the_repository() -> Iterator[Path]:
    """Every file that was not generated by a tool."""
    made = {"__pycache__", "build", "dist", "assets", "logs"}
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in made and (not name.startswith(".") or name == ".ci")]
        yield from (Path(folder) / name for name in names if name != ".git")


def test_nothing_speaks_of_the_place_where_it_was_written() -> None:
    """No file names a path, a document or a tool of the machine it was written on."""
    # Written in parts, so that this file can be searched as well.
    halves = ["/wo rk/", "sha red/", "contract .md", "design .md", "style .md", "/tmp /v/", "sub agent", "hand off"]
    strange = [half.replace(" ", "") for half in halves]
    for path in files_of_the_repository():
        text = path.read_bytes().decode("utf-8", "replace")
        assert [word for word in strange if word in text] == [], path.relative_to(ROOT)
