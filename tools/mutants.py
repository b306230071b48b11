"""Takes guards out, one at a time, and says which of them no test misses: ``make mutants``.

A mutant is one small change of a module: a condition turned round, a comparison that takes one more or less, a flag of
``open`` left out, an error not raised, a call not made, a limit that is none. The tests of its room run against a copy
of the tree, which is thrown away. A survivor is a guard without a test, or one that is none.

Which modules: ``python -m tools.mutants grym_fetch/archive grym_fetch/core/archives.py``. ``--sample 100`` tries a
random hundred (``--seed``), since all of them take hours.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
TREE = ROOT / ".mutants"
COPIED = ("grym_fetch", "tests", "tools", "fuzz", "docs")
FILES = ("pyproject.toml", "README.md", "CHANGELOG.md", "SECURITY.md", "CONTRIBUTING.md", "Makefile", "assets.json")
ROOMS = ("grym_fetch/disk", "grym_fetch/repo", "grym_fetch/archive", "grym_fetch/core/archives.py",
         "grym_fetch/core/tar_headers.py")  # fmt: skip
ENOUGH = 20
"""A mutant that takes so many times as long as the tests do is taken for noticed."""

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


def tests_of(module: Path) -> list[str]:
    """The tests that should notice: those of the module's room, and of what stands on it."""
    match module.parts[1]:
        case "core" if module.stem in ("archives", "tar_headers"):
            return [
                "tests/core/test_tar_headers.py",
                "tests/core/test_archives.py",
                "tests/archive/test_costly_archives.py",
            ]
        case "core":
            return ["tests/core"]
        case room:
            return [f"tests/{room}"]


def run_tests(tests: list[str], seconds: float | None) -> bool:
    """Whether they are green."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not sweep and not alone"]
    command += ["-k", "not test_what_an_archive_costs"]  # it measures, for longer than all others take
    try:
        done = subprocess.run(
            [*command, *tests],
            cwd=TREE,
            env={**os.environ, "PYTHONPATH": str(TREE), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


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
    times: dict[str, float] = {}
    survivors = 0
    for number, mutant in enumerate(sorted(mutants, key=lambda each: (each.module, each.start)), 1):
        tests = tests_of(mutant.module)
        if (key := " ".join(tests)) not in times:
            begun = time.monotonic()
            if not run_tests(tests, None):
                print(f"{key}: not green without any mutant", file=sys.stderr)
                return 2
            times[key] = time.monotonic() - begun
        source = sources[mutant.module]
        (TREE / mutant.module).write_bytes(mutant.apply(source))
        survives = run_tests(tests, ENOUGH * max(times[key], 1.0))
        (TREE / mutant.module).write_bytes(source)
        survivors += survives
        if survives:
            print(f"survives: {mutant.shown(source)}", flush=True)
        elif number % 20 == 0:
            print(f"{number} of {len(mutants)}", file=sys.stderr, flush=True)
    shutil.rmtree(TREE, ignore_errors=True)
    print(f"{len(mutants)} mutants, {survivors} survivors")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
