"""Takes guards out, one at a time, and says which of them no test misses: ``make mutants``.

A mutant is one small change of a module: a condition turned round, a comparison that takes one more or less, a flag of
``open`` left out, an error not raised, a call not made, a limit that is none. Tests run against a copy of the tree,
which is thrown away: first those of the module's own test file, in a forked process; then, if none of them has noticed,
those that reach the line. A survivor is a guard without a test, or one that is none.

Which modules: ``python -m tools.mutants grym_fetch/archive grym_fetch/core/archives.py``. ``--sample 100`` tries a
random hundred (``--seed``), since all of them take hours. ``--own`` leaves out the second step, and with it the map of
tests to lines, which takes minutes, and the modules without such a file.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import os
import random
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import coverage
import pytest

from tests.house.guard_runner import SLOW_TO_IMPORT

ROOT = Path(__file__).parents[1]
TREE = ROOT / ".mutants"
COPIED = ("grym_fetch", "tests", "tools", "fuzz", "docs")
FILES = ("pyproject.toml", "README.md", "CHANGELOG.md", "SECURITY.md", "CONTRIBUTING.md", "Makefile", "assets.json")
ROOMS = ("grym_fetch/disk", "grym_fetch/repo", "grym_fetch/archive", "grym_fetch/net", "grym_fetch/core/http.py",
         "grym_fetch/core/archives.py", "grym_fetch/core/tar_headers.py")  # fmt: skip
SLOW = ("end_to_end", "house", "torture", "support", "__init__.py", "__pycache__", "conftest.py")
MOST_TESTS = 200
MOST_MEMORY_BYTES = 4 * 1024**3
"""A test of a limit makes something a little larger than the limit, and a mutant may have none."""
HANGS_S = 20
"""A test of a module's own that takes longer hangs."""
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
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=ast.expr() as value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ) if name.lstrip("_").startswith("MAX_"):
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


def own_tests(module: Path) -> list[str]:
    """The test file named after the module, if there is one."""
    found = Path("tests", *module.parts[1:-1], f"test_{module.stem}.py")
    return [str(found)] if (ROOT / found).is_file() else []


def lives_among_own(tests: list[str]) -> bool:
    """Whether there are none, or they pass, in a process forked from here, which saves importing pytest each time."""
    if not tests:
        return True
    child = os.fork()
    if not child:
        try:
            _become_pytest(tests)
        finally:
            os._exit(1)
    watched = os.pidfd_open(child)
    select.select([watched], [], [], ENOUGH_S)
    os.close(watched)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # including what its tests have started
    return os.waitpid(child, 0)[1] == 0


def _become_pytest(tests: list[str]) -> None:
    os.setsid()
    os.chdir(TREE)
    sys.path[:] = [str(TREE), *(place for place in sys.path if place not in ("", str(ROOT)))]
    for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "tools")]:
        del sys.modules[name]
    os.environ.update(PYTHONPATH=str(TREE), HYPOTHESIS_PROFILE="guards")
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:xdist.looponfail"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning", "-m", "not sweep and not alone"]
    options += [f"--timeout={HANGS_S}"]
    os._exit(pytest.main([*options, *tests]))


def write(module: Path, source: bytes) -> None:
    """Change the copy's module. Two mutants can have one size and one second, by which Python tells stale bytecode."""
    (TREE / module).write_bytes(source)
    Path(importlib.util.cache_from_source(str(TREE / module))).unlink(missing_ok=True)


def survives(tests: list[str]) -> bool:
    """Whether no test misses what the mutant has taken out."""
    try:
        return run_tests(tests, ENOUGH_S).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def tried(
    mutants: Sequence[Mutant], sources: Mapping[Path, bytes], lives: Callable[[Mutant], bool], *, shown: bool
) -> list[Mutant]:
    """Apply each in turn to the copy, and return those that live there."""
    survivors = []
    for number, mutant in enumerate(mutants, 1):
        source = sources[mutant.module]
        write(mutant.module, mutant.apply(source))
        if lives(mutant):
            survivors.append(mutant)
            if shown:
                print(f"survives: {mutant.shown(source)}", flush=True)
        write(mutant.module, source)
        if number % 20 == 0:
            print(f"{number} of {len(mutants)}, {len(survivors)} live", file=sys.stderr, flush=True)
    return survivors


def main() -> int:
    """Try them, and print who survives; 1 if anybody does."""
    asked = argparse.ArgumentParser(prog="python -m tools.mutants", description=__doc__)
    asked.add_argument("modules", nargs="*", default=list(ROOMS))
    asked.add_argument("--sample", type=int)
    asked.add_argument("--seed", type=int, default=1)
    asked.add_argument("--own", action="store_true")
    options = asked.parse_args()

    paths = [ROOT / name for name in options.modules]
    modules = sorted(found for path in paths for found in ([path] if path.is_file() else path.rglob("*.py")))
    sources = {module.relative_to(ROOT): module.read_bytes() for module in modules}
    if options.own:
        sources = {module: source for module, source in sources.items() if own_tests(module)}
    mutants = [mutant for module, source in sources.items() for mutant in mutants_of(module, source)]
    if options.sample is not None and options.sample < len(mutants):
        mutants = random.Random(options.seed).sample(mutants, options.sample)
    shutil.rmtree(TREE, ignore_errors=True)
    for name in COPIED:
        shutil.copytree(ROOT / name, TREE / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, TREE / name)
    for name in SLOW_TO_IMPORT:
        with suppress(ImportError):
            import_module(name)
    survivors = tried(mutants, sources, lambda mutant: lives_among_own(own_tests(mutant.module)), shown=options.own)
    if survivors and not options.own:
        reached = Reached()
        survivors = tried(survivors, sources, lambda mutant: survives(reached.tests_of(mutant)), shown=True)
    shutil.rmtree(TREE, ignore_errors=True)
    print(f"{len(mutants)} mutants, {len(survivors)} survivors")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
