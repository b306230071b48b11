"""The architecture as a test: imports point one way, between rooms and inside them, and the core is pure."""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "grym_fetch"

# The rooms, from the bottom up. A room may import only from lower rows; inside a room, see `ORDER`.
LAYERS: list[set[str]] = [
    {"_version"},
    {"core"},
    {"errors", "manifest", "settings"},
    {"runtime"},
    {"net"},
    {"disk", "display", "transport"},
    {"manifest_files"},
    {"store"},
    {"transfer", "archive", "repo"},
    {"engine"},
    {"sources", "cluster"},
    {"project"},
    {"manager", "events", "reports"},
    {"blocking", "testing"},
    {"filesystem"},
    {"cli"},
]

# The modules of each room, from the bottom up. A module may import only from earlier rows of its room.
ORDER: dict[str, list[set[str]]] = {
    "core": [
        {"text", "nearest", "signatures", "buckets", "cells", "figures", "columns"},
        {"command_lines", "lfs_addresses"},
        {"errors", "validation"},
        {
            "redaction",
            "ranges",
            "digest",
            "paths",
            "events",
            "freshness",
            "progress",
            "speeds",
            "checked_lines",
            "schema",
            "tar_headers",
        },
        {"git_folders", "stated", "piece_digests", "manifest_values", "comparison"},
        {"suspicion"},
        {"http", "addresses", "archives", "strict_json"},
        {"mirror_rules", "lfs"},
        {"variables"},
        {"configuration"},
        {"manifest", "journal", "segments", "policy", "cookies", "challenges"},
        {"mirrors", "content_hasher", "origins", "hosts", "manifest_schema", "world", "fingerprint", "refusals"},
        {"manifest_text", "manifest_parser"},
        {"manifest_line_edits"},
    ],
    "net": [
        {"places", "errors", "tls", "credentials", "profiles", "states", "quiet", "heads"},
        {"parser", "proxies", "buckets"},
        {"settings"},
        {"wire", "session"},
        {"tunnel"},
        {"plain"},
        {"client"},
    ],
    "runtime": [
        {"exchange", "process_start", "windows_folders"},
        {"windows_access"},
        {"system_posix", "system_linux", "system_darwin", "system_windows"},
        {"system"},
        {"waiting", "buffers", "clock", "descriptors", "forks", "loop_file", "server"},
        {"threads"},
        {"bus", "loop_owner"},
        {"loop_thread"},
    ],
    "disk": [
        {"folders", "owner", "repository", "database"},
        {"copying", "damage", "atomic", "configuration", "locks", "state", "moved_files", "stamps"},
        {"verified", "rollback", "log_file", "claims"},
        {"sharing"},
        {"stage"},
        {"piece_sums", "wrong_origins"},
        {"small_files", "local_files"},
        {"assets_folder", "prune"},
    ],
    "manifest_files": [
        {"lines"},
        {"index", "parquet"},
        {"long_manifest"},
        {"project"},
        {"changes", "conversion", "neighbours"},
    ],
    "store": [
        {"stamps", "users"},
        {"machine_store", "care", "elsewhere"},
    ],
    "display": [
        {"model", "report", "bars", "stream"},
        {"lines", "report_rows"},
        {"loop", "plain"},
        {"render", "github", "sheet", "page", "metrics"},
        {"live", "treemap"},
        {"choice"},
    ],
    "transfer": [
        {"answers", "hashing", "outcome", "posting", "result", "openings", "readers"},
        {"lfs", "registry"},
        {"scheduler", "request"},
        {"attempt", "context", "state"},
        {"first_asks", "locking", "pieces", "reporter", "rivals", "small_files", "blame", "second_looks"},
        {"response", "segment_choice", "small_fetcher", "taking"},
        {"lessons"},
        {"transfer"},
        {"fetcher"},
    ],
    "archive": [{"tar", "tree"}, {"reader"}, {"compare"}, {"unpack"}],
    "repo": [
        {"errors", "tree", "moving", "own_folders", "placeholder", "process", "complaints", "git_files", "telling"},
        {"git", "record", "places", "entries"},
        {"target"},
        {"identify", "history"},
        {"clean", "restore"},
    ],
    "engine": [
        {"protocol", "reports", "ledger"},
        {"engine"},
        {"checking", "coordinator"},
        {"adopting", "repairing", "reader"},
    ],
    "cluster": [
        {"protocol", "cutting", "packets", "work_list"},
        {"ends", "shares", "node"},
        {"driver", "dask", "ray"},
        {"opening", "each_node"},
        {"run"},
    ],
    "sources": [
        {"protocol"},
        {"answers"},
        {"choice", "git_pack", "metalink", "registry", "web"},
        {"git"},
        {"git_lfs", "github", "huggingface", "listings", "modelscope", "oci", "zenodo"},
        {"naming"},
        {"__init__"},
    ],
    "project": [
        {"choices", "diagnosis", "entries", "freshness", "orphans"},
        {"setup", "measuring", "removing", "sourced"},
        {"adding", "pinning"},
        {"updating"},
        {"editing"},
    ],
    "testing": [
        {"content"},
        {"answers"},
        {"faults", "stats"},
        {"resource_faults", "wire"},
        {"server", "mock"},
        {"__init__"},
        {"plugin"},
    ],
    "cli": [
        {"exit_codes", "help", "streams", "repository_text", "demo_report"},
        {"findings", "usage"},
        {"options", "demo_stage", "unexpected"},
        {"settings", "logs", "report_file"},
        {"runner", "demo_story", "local_work", "reporting"},
        {"metrics", "tables"},
        {"sync", "measured", "new_manifest", "repository_places", "sizes"},
        {"store"},
        {"adding", "adopting", "pinning", "removing", "repairing", "updating", "clean", "identify", "restore"},
        {"completion", "configuration", "doctor", "inspection", "setup", "demo"},
        {"lists"},
        {"main"},
        {"__init__"},
    ],
}

IMPURE = {"asyncio", "anyio", "aiohttp", "aiofiles", "threading", "socket", "time", "random", "subprocess", "tempfile"}
MODULES = sorted(PACKAGE.rglob("*.py"))
UNITS = ("Seconds", "Bytes")
UNIT_SUFFIXES = ("_S", "_NS", "_PX", "_BYTES", "_RATIO", "DECAY", "ROUND_TRIPS")


def module_name(path: Path) -> str:
    """``disk.assets_folder`` for ``grym_fetch/disk/assets_folder.py``, ``disk.__init__`` for the room itself."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


NAMES = {module_name(path) for path in MODULES}


def resolved(name: str) -> str:
    """The module of ours that a dotted name below ``grym_fetch`` is, or belongs to."""
    while name and name not in NAMES:
        if f"{name}.__init__" in NAMES:
            return f"{name}.__init__"
        name = name.rpartition(".")[0]
    return name or "__init__"


def imports_of(tree: ast.AST, module: str) -> set[str]:
    """Every module that a module imports, even inside functions, however the import is written.

    Full names: ``asyncio``, ``grym_fetch.disk.assets_folder``. Our own are resolved to the file that is loaded.
    """
    found: set[str] = set()
    package = f"grym_fetch.{module}".split(".")[:-1]
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module=base, names=names, level=level):
                where = ".".join([*package[: len(package) - level + 1], *([base] if base else [])]) if level else base
                assert where is not None
                found |= {f"{where}.{alias.name}" for alias in names} if is_ours(where) else {where}
            case ast.Call(args=[ast.Constant(value=str(text)), *_]) if ast.unparse(node.func).endswith("import_module"):
                found.add(text)
    return {
        f"grym_fetch.{resolved(name.removeprefix('grym_fetch').lstrip('.'))}" if is_ours(name) else name
        for name in found
    }


def is_ours(name: str) -> bool:
    """Whether a dotted name is in the package."""
    return name == "grym_fetch" or name.startswith("grym_fetch.")


def row_of(name: str, rows: list[set[str]]) -> int:
    """The row that lists a name."""
    for number, row in enumerate(rows):
        if name in row:
            return number
    raise AssertionError(f"{name} has no layer: say where it belongs")


def breaches(tree: ast.AST, module: str) -> list[str]:
    """What a module imports but must not."""
    room, _, inside = module.partition(".")
    found = []
    for imported in sorted(imports_of(tree, module)):
        target = imported.removeprefix("grym_fetch.")
        if not is_ours(imported) or target in (module, "_version"):
            continue
        other, _, other_inside = target.partition(".")
        if other == room:
            if other_inside == "__init__" and room != "testing":
                continue
            is_below = row_of(other_inside, ORDER[room]) < row_of(inside, ORDER[room])
        else:
            is_below = target != "__init__" and row_of(other, LAYERS) < row_of(room, LAYERS)
        if not is_below:
            found.append(f"{module} imports {target}, which is not below it")
    return found


@cache
def tree_of(path: Path) -> ast.Module:
    """A module's syntax tree, read once for all rules."""
    return ast.parse(path.read_text(encoding="utf-8"))


def test_imports_point_down() -> None:
    """A module imports only from rooms below its own, and from modules below it in its own room."""
    public = ("__init__", "__main__")  # names collected from everywhere
    modules = {module_name(path): path for path in MODULES if module_name(path) not in public}
    assert [breach for module, path in modules.items() for breach in breaches(tree_of(path), module)] == []


@pytest.mark.parametrize(
    "spelling",
    [
        "from grym_fetch.engine.engine import Engine",
        "from grym_fetch.engine import engine",
        "from grym_fetch import engine",
        "from grym_fetch import AssetManager",
        "import grym_fetch.engine.engine as e",
        "import grym_fetch",
        "from ..engine import engine",
        "from .. import engine",
        "from . import manifest_parser",
        "from .manifest_parser import parse_manifest",
        "def f():\n    from grym_fetch.disk import folders",
        "import importlib\nimportlib.import_module('grym_fetch.disk.folders')",
    ],
)
def test_no_spelling_passes(spelling: str) -> None:
    """An import that points up is noticed, however it is written."""
    assert breaches(ast.parse(spelling), "core.ranges") != []


@pytest.mark.parametrize(
    "spelling",
    ["from grym_fetch.core.text import plural", "from grym_fetch.core import text", "from . import text", "import os"],
)
def test_what_points_down_passes(spelling: str) -> None:
    """An import that points down is allowed."""
    assert breaches(ast.parse(spelling), "core.ranges") == []


def test_every_module_has_its_place() -> None:
    """The order of a room names each of its modules once, and no others."""
    listed = [f"{room}.{module}" for room, rows in ORDER.items() for row in rows for module in row]
    listed += [module for row in LAYERS for module in row if module not in ORDER]
    assert len(listed) == len(set(listed))
    unlisted = NAMES - set(listed) - {"__init__", "__main__"}
    assert {name for name in unlisted if not name.endswith(".__init__")} == set()
    assert set(listed) - NAMES == set()


def test_one_name_is_one_thing() -> None:
    """No two classes of the package share a name, except the manager and its blocking twin."""
    names = Counter(node.name for path in MODULES for node in tree_of(path).body if isinstance(node, ast.ClassDef))
    assert {name for name, count in names.items() if count > 1} == {"AssetManager"}


def test_a_constant_bears_its_unit() -> None:
    """A fraction says what it is a fraction of; a number documented as seconds or bytes has the unit in its name."""
    found = {module_name(path): unnamed for path in MODULES if (unnamed := without_unit(tree_of(path)))}
    assert found == {}


def without_unit(tree: ast.Module) -> set[str]:
    """The constants of a module that should bear a unit, and do not."""
    unnamed = set()
    for statement, behind in pairwise([*tree.body, ast.Pass()]):
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name.isupper():
                explained = isinstance(behind, ast.Expr) and ast.unparse(behind).strip("'\"").startswith(UNITS)
                is_fraction = isinstance(value, ast.Constant) and isinstance(value.value, float)
                if (explained or is_fraction) and not name.endswith(UNIT_SUFFIXES):
                    unnamed.add(name)
    return unnamed


def test_core_is_pure() -> None:
    """The core imports nothing that waits, opens files, draws random numbers or reads a clock."""
    for path in sorted((PACKAGE / "core").glob("*.py")):
        tree, module = tree_of(path), module_name(path)
        assert not {imported.partition(".")[0] for imported in imports_of(tree, module)} & IMPURE, module
        if path.stem != "world":  # it says what others do
            waits = ast.Await | ast.AsyncFunctionDef | ast.AsyncWith | ast.AsyncFor
            assert not [node for node in ast.walk(tree) if isinstance(node, waits)], module
        called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        assert "open" not in {function.id for function in called if isinstance(function, ast.Name)}, module


def test_nothing_depends_on_what_lies_outside() -> None:
    """No file of the package refers to anything outside the repository."""
    for path in MODULES:
        assert "../shared" not in path.read_text(encoding="utf-8")
