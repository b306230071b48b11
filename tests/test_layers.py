"""The architecture, as a test: imports point one way, and the core is pure."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "grym_fetch"

# From the ground up. A module may import from lower rows only, and within a row of packages from itself.
LAYERS: list[set[str]] = [
    {"_version", "outlast", "buffers"},
    {"core"},
    {"backends.base"},
    {"bus", "exchange", "frontier", "backends", "reports"},
    {"content"},
    {"intake", "telling"},
    {"scheduler", "transfer", "batch"},
    {"delivery"},
    {"engine"},
    {"desk", "editing", "repo"},
    {"manager", "diagnosis"},
    {"blocking"},
    {"display", "testing", "project_setup"},
    {"cli"},
]

# Inside the core, from the ground up.
CORE_LAYERS: list[set[str]] = [
    {"text"},
    {"errors"},
    {"ranges", "digest", "paths", "events", "freshness"},
    {"http", "addresses", "manifest_values", "archives"},
    {"manifest", "manifest_schema", "journal", "segments", "policy", "progress"},
    {"origins", "manifest_plain", "manifest_text"},
    {"manifest_parser"},
]

IMPURE = {"asyncio", "anyio", "aiohttp", "aiofiles", "threading", "socket", "time", "random", "subprocess", "tempfile"}


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def module_name(path: Path) -> str:
    """``backends.disk`` for ``grym_fetch/backends/disk.py``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def level(name: str, layers: list[set[str]]) -> int | None:
    """The layer of a module: of its full name if that is listed, else of its package."""
    for candidate in (name, name.partition(".")[0]):
        for number, layer in enumerate(layers):
            if candidate in layer:
                return number
    return None


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_point_down(path: Path) -> None:
    """A module imports only from layers below its own, or from its own package."""
    name = module_name(path)
    if name in ("", "__main__"):
        return  # the public names, gathered from everywhere
    own = level(name, LAYERS)
    assert own is not None, f"{name} has no layer: say where it belongs"
    for imported in imports_of(path):
        if not imported.startswith("grym_fetch."):
            continue
        target = imported.removeprefix("grym_fetch.")
        if target.partition(".")[0] == name.partition(".")[0]:
            continue
        below = level(target, LAYERS)
        assert below is not None, f"{target} has no layer"
        assert below < own, f"{name} imports {target}, which is not below it"


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").glob("*.py")), ids=module_name)
def test_core_is_pure(path: Path) -> None:
    """The core imports nothing that waits, opens, draws lots or reads a clock, and its own layers point down too."""
    name = path.stem
    if name == "__init__":
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not {imported.partition(".")[0] for imported in imports_of(path)} & IMPURE
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Await | ast.AsyncFunctionDef | ast.AsyncWith)]
    calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert "open" not in calls
    own = level(name, CORE_LAYERS)
    assert own is not None, f"core.{name} has no layer: say where it belongs"
    for imported in imports_of(path):
        if imported.startswith("grym_fetch.core."):
            target = imported.rpartition(".")[2]
            below = level(target, CORE_LAYERS)
            assert below is not None
            assert below <= own, f"core.{name} imports core.{target}, which is above it"


def test_nothing_depends_on_what_lies_outside() -> None:
    """No file of the package reaches outside of the repository."""
    for path in MODULES:
        assert "../shared" not in path.read_text(encoding="utf-8")
