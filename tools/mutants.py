"""Takes guards out, one at a time, and says which of them no test misses: ``make mutants``.

A mutant is one small change of a module: a condition turned round, a comparison that takes one more or less, a flag of
``open`` left out, an error not raised, a call not made, a limit that is none. Those tests that reach its line run
against a copy of the tree, which is thrown away. A survivor is a guard without a test, or one that is none.

Which modules: ``python -m tools.mutants grym_fetch/archive grym_fetch/core/archives.py``. ``--sample 100`` tries a
random hundred (``--seed``), since all of them take hours.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import coverage
import pytest

ROOT = Path(__file__).parents[1]
TREE = ROOT / ".mutants"
COPIED = ("grym_fetch", "tests", "tools", "fuzz", "docs")
FILES = ("pyproject.toml", "README.md", "CHANGELOG.md", "SECURITY.md", "CONTRIBUTING.md", "Makefile", "assets.json")
ROOMS = ("grym_fetch/disk", "grym_fetch/repo", "grym_fetch/archive", "grym_fetch/core/archives.py",
         "grym_fetch/core/tar_headers.py")  # fmt: skip
SLOW = ("end_to_end", "house", "torture", "support", "__init__.py", "__pycache__", "conftest.py")
MOST_TESTS = 200
ENOUGH_S = 120
"""A mutant whose tests take longer is taken for noticed."""

_OTHERS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.In: "not in", ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: the bytes from ``start`` to ``stop`` become ``text``."""

    module: Path
    line: int
    start: int
    stop: int
    text: str

    def apply(self, source: bytes) -> bytes:
        """The module with it."""
        return source[: self.start] + self.text.encode() + source[self.stop :]

    def shown(self, source: bytes) -> str:
        """It in one line."""
        before = " ".join(source[self.start : self.stop].decode().split())
        return f"{self.module}:{self.line}: {before[:90]}  ->  {' '.join(self.text.split())[:90]}"


def mutants_of(module: Path, source: bytes) -> Iterator[Mutant]:
    """Every change of a module."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def change(node: ast.expr | ast.stmt, text: str) -> Mutant:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start, stop = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
        return Mutant(module, node.lineno, start, stop, text)

    tree = ast.parse(source)
    for node in ast.walk(tree):
        match node:
            case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test) if not _is_typing(test):
                yield change(test, f"(not ({ast.unparse(test)}))")
            case ast.Compare(ops=[operator], left=left, comparators=[right]):
                yield change(node, f"({ast.unparse(left)} {_OTHERS[type(operator)]} {ast.unparse(right)})")
            case ast.BoolOp(op=operator, values=values):
                word = " or " if isinstance(operator, ast.And) else " and "
                yield change(node, "(" + word.join(f"({ast.unparse(value)})" for value in values) + ")")
            case ast.BinOp(op=ast.BitOr(), left=left, right=ast.Attribute(attr=name)) if name.startswith("O_"):
                yield change(node, ast.unparse(left))
            case ast.Raise(exc=exc) if exc is not None:
                yield change(node, "pass")
            case ast.Expr(value=ast.Call()):
                yield change(node, "pass")
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name.lstrip("_").startswith("MAX_"):
                yield change(value, f"({ast.unparse(value)}) * 10**6")


def _is_typing(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    """With ``-p tools.mutants`` under coverage: remember which test reaches a line."""
    if (running := coverage.Coverage.current()) is not None:
        running.switch_context(item.nodeid)


class Reached:
    """Which tests reach a line. They run once, under coverage; those that start processes of their own are left out."""

    def __init__(self) -> None:
        data = TREE / ".coverage"
        under_coverage = ["-m", "coverage", "run", f"--data-file={data}", "--parallel-mode"]
        here = [f"tests/{name}" for name in sorted(os.listdir(TREE / "tests")) if name not in SLOW]
        asked = [name for name in here if (TREE / name).is_dir() or Path(name).name.startswith("test_")]
        mapping = run_tests(asked, None, under_coverage, ["-p", "tools.mutants", "-n", "auto", "--maxfail=1000"])
        self._failing = set(re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", mapping.stdout, re.MULTILINE))
        """Those that coverage makes too slow."""
        combine = [sys.executable, "-m", "coverage", "combine", f"--data-file={data}", "-q"]
        subprocess.run(combine, cwd=TREE, check=False)
        self._data = coverage.CoverageData(str(data))
        self._data.read()

    def tests_of(self, mutant: Mutant) -> list[str]:
        """Those that reach the mutant's line, its own room's first; its room's for a line that importing runs."""
        room = f"tests/{mutant.module.parts[1]}/"
        found = self._data.contexts_by_lineno(str(TREE / mutant.module)).get(mutant.line, [])
        reached = sorted(set(found) - {""} - self._failing, key=lambda test: (not test.startswith(room), test))
        return reached[:MOST_TESTS] or [room]


def run_tests(
    tests: list[str], seconds: float | None, before: Sequence[str] = (), options: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run them. Raises `subprocess.TimeoutExpired`."""
    command = [sys.executable, *before, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *options]
    command += ["-m", "not sweep and not alone"]
    command += ["-k", "not test_what_an_archive_costs"]  # it measures, for longer than all others take
    environment = {**os.environ, "PYTHONPATH": str(TREE)}
    return subprocess.run(
        [*command, *tests], cwd=TREE, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )


def survives(tests: list[str]) -> bool:
    """Whether no test misses what the mutant has taken out."""
    try:
        return run_tests(tests, ENOUGH_S).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def main() -> int:
    """Try them, and print who survives; 1 if anybody does."""
    asked = argparse.ArgumentParser(prog="python -m tools.mutants", description=__doc__)
    asked.add_argument("modules", nargs="*", default=list(ROOMS))
    asked.add_argument("--sample", type=int)
    asked.add_argument("--seed", type=int, default=1)
    options = asked.parse_args()

    paths = [ROOT / name for name in options.modules]
    modules = sorted(found for path in paths for found in ([path] if path.is_file() else path.rglob("*.py")))
    sources = {module.relative_to(ROOT): module.read_bytes() for module in modules}
    mutants = [mutant for module, source in sources.items() for mutant in mutants_of(module, source)]
    if options.sample is not None and options.sample < len(mutants):
        mutants = random.Random(options.seed).sample(mutants, options.sample)
    shutil.rmtree(TREE, ignore_errors=True)
    for name in COPIED:
        shutil.copytree(ROOT / name, TREE / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, TREE / name)
    reached = Reached()
    survivors = 0
    for number, mutant in enumerate(sorted(mutants, key=lambda each: (each.module, each.start)), 1):
        source = sources[mutant.module]
        (TREE / mutant.module).write_bytes(mutant.apply(source))
        lives = survives(reached.tests_of(mutant))
        (TREE / mutant.module).write_bytes(source)
        survivors += lives
        if lives:
            print(f"survives: {mutant.shown(source)}", flush=True)
        elif number % 20 == 0:
            print(f"{number} of {len(mutants)}", file=sys.stderr, flush=True)
    shutil.rmtree(TREE, ignore_errors=True)
    print(f"{len(mutants)} mutants, {survivors} survivors")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
