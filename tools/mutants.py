"""Takes guards out, one at a time, and says which of them no test misses: ``make mutants``.

A mutant is one small change of a module: a condition turned round, a comparison that takes one more or less, a flag of
``open`` left out, an error not raised, a call not made, a limit that is none. Tests run against a copy of the tree,
which is thrown away: first those of the module's own test file; then, if none of them has noticed, those that reach
the line. A survivor is a guard without a test, or one that is none.

A module's tests are collected once. For each mutant that process forks, and there the changed function gets its new
code: whoever has imported the function has the mutant, too. What no test notices in the end, and what is not in a
function, is tried in a process that has imported nothing of the program: only what lives there is a survivor. A test
is believed only if it passes without the mutant.

Which modules: ``python -m tools.mutants grym_fetch/archive grym_fetch/core/archives.py``. ``--sample 100`` tries a
random hundred (``--seed``). ``--own`` leaves out the second step, and with it the map of tests to lines, which takes
minutes, and the modules without such a file.
"""

from __future__ import annotations

import argparse
import ast
import ctypes
import faulthandler
import gc
import importlib
import importlib.util
import inspect
import json
import os
import random
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType

import coverage
import pytest

from tests.house.guard_runner import SLOW_TO_IMPORT

ROOT = Path(__file__).parents[1]
TREE = ROOT / ".mutants"
COPIED = ("grym_fetch", "tests", "tools", "fuzz", "docs")
FILES = ("pyproject.toml", "README.md", "CHANGELOG.md", "SECURITY.md", "CONTRIBUTING.md", "Makefile", "assets.json")
ROOMS = ("grym_fetch/disk", "grym_fetch/store", "grym_fetch/manifest_files", "grym_fetch/repo", "grym_fetch/archive",
         "grym_fetch/net", "grym_fetch/core/http.py",
         "grym_fetch/core/archives.py", "grym_fetch/core/tar_headers.py")  # fmt: skip
SLOW = ("end_to_end", "house", "torture", "support", "__init__.py", "__pycache__", "conftest.py")
CHOSEN = ["-m", "not sweep and not alone", "-k", "not test_what_an_archive_costs"]
"""That one measures, for longer than all others take."""
MOST_TESTS = 200
MOST_MEMORY_BYTES = 4 * 1024**3
"""A test of a limit makes something a little larger than the limit, and a mutant may have none."""
HANGS_S = 10
"""A test that takes longer hangs."""
TIDIES_S = 2
ENOUGH_S = 120
"""A mutant whose tests take longer is taken for noticed."""

_PR_SET_PDEATHSIG = 1
_CLONE_NEWNS = 0x20000
_MS_REC, _MS_PRIVATE = 1 << 14, 1 << 18

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
        """The module with it. No other line gets another number."""
        lines = "\n" * source.count(b"\n", self.start, self.stop)
        text = f"{self.text[:-1]}{lines})" if self.text.endswith(")") else self.text + lines
        return source[: self.start] + text.encode() + source[self.stop :]

    def shown(self, source: bytes) -> str:
        """It in one line."""
        before = " ".join(source[self.start : self.stop].decode().split())
        return f"{self.module}:{self.line}: {before[:90]}  ->  {' '.join(self.text.split())[:90]}"


def mutants_of(module: Path, source: bytes) -> Iterator[Mutant]:
    """Every change of a module, but none inside an f-string: before Python 3.12 nobody says where in it a part is."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def change(node: ast.expr | ast.stmt, text: str) -> Mutant:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start, stop = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
        return Mutant(module, node.lineno, start, stop, text)

    for node in _nodes(ast.parse(source)):
        match node:
            case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test) if not _is_typing(test):
                yield change(test, f"(not ({ast.unparse(test)}))")
            case ast.Compare(ops=[operator], left=left, comparators=[right]):
                yield change(node, f"({ast.unparse(left)} {_OTHERS[type(operator)]} {ast.unparse(right)})")
            case ast.BoolOp(op=operator, values=values):
                word = " or " if isinstance(operator, ast.And) else " and "
                yield change(node, "(" + word.join(f"({ast.unparse(value)})" for value in values) + ")")
            case ast.BinOp(op=ast.BitOr(), left=left, right=ast.Attribute(attr=name)) if name.startswith("O_"):
                yield change(node, f"({ast.unparse(left)})")
            case ast.Raise(exc=exc) if exc is not None:
                yield change(node, "pass")
            case ast.Expr(value=ast.Call()):
                yield change(node, "pass")
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=ast.expr() as value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ) if name.lstrip("_").startswith("MAX_"):
                yield change(value, f"(({ast.unparse(value)}) * 10**6)")


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    pending = deque([tree])
    while pending:
        yield (node := pending.popleft())
        pending += [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.JoinedStr)]


def _is_typing(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def _place(mutant: Mutant) -> tuple[int, int]:
    return mutant.start, mutant.stop


class Functions:
    """The functions of a module, as this process has imported them, and the code that a mutant gives them."""

    def __init__(self, place: Path, source: bytes) -> None:
        self._place = str(place)
        self._codes = self._compiled(source)
        self._known: dict[tuple[str, int], list[FunctionType]] = defaultdict(list)
        gc.unfreeze()  # what is frozen is in no list
        for each in gc.get_objects():
            if type(each) is FunctionType and each.__code__.co_filename == self._place:
                self._known[each.__code__.co_qualname, each.__code__.co_firstlineno].append(each)

    def _compiled(self, source: bytes) -> list[CodeType]:
        return list(_functions_in(compile(source, self._place, "exec", dont_inherit=True)))

    def changed(self, source: bytes) -> list[tuple[FunctionType, CodeType]]:
        """What to give new code; empty if that is not all that the change is about."""
        codes = self._compiled(source)
        if len(codes) != len(self._codes):
            return []
        found = []
        for old, new in zip(self._codes, codes, strict=True):
            if old != new:
                known = self._known.get((old.co_qualname, old.co_firstlineno), [])
                if not known or old.co_freevars != new.co_freevars:
                    return []
                found += [(function, new) for function in known]
        return found


def _functions_in(code: CodeType) -> Iterator[CodeType]:
    """Those of a module and its classes, but not those inside of others."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            if constant.co_flags & inspect.CO_OPTIMIZED:
                yield constant
            else:
                yield from _functions_in(constant)


class Judge:
    """A plugin: has each mutant tried in a fork by those of the collected tests that are named with it.

    In the end, ``living`` are the mutants that none of them has noticed, ``untried`` those that cannot be tried so, and
    ``broken`` the tests that fail without a mutant.
    """

    def __init__(self, module: Path, source: bytes, tests: Mapping[Mutant, Collection[str]]) -> None:
        self._module = module
        self._source = source
        self._tests = tests
        self._is_forked = False
        self._failure = Path(os.environ["TMPDIR"], "failure")
        self._sound: set[str] = set()
        self.living: list[Mutant] = []
        self.untried: list[Mutant] = []
        self.broken: set[str] = set()
        self.has_run = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """All are collected."""
        if self._is_forked:
            return None
        functions = Functions(TREE / self._module, self._source)
        folders = list(Path(os.environ["TMPDIR"]).iterdir())
        gc.collect()
        gc.freeze()
        for mutant, names in self._tests.items():
            source = mutant.apply(self._source)
            if not (changed := functions.changed(source)):
                self.untried.append(mutant)
                continue
            write(self._module, source)
            while (failed := self._first_failure(session, names, changed, folders)) is not None:
                if failed and failed not in self._sound:
                    write(self._module, self._source)
                    is_sound = self._first_failure(session, [failed], [], folders) is None
                    (self._sound if is_sound else self.broken).add(failed)
                    write(self._module, source)
                if failed not in self.broken:
                    break
            else:
                self.living.append(mutant)
            write(self._module, self._source)
        self.has_run = True
        return True

    def _first_failure(
        self,
        session: pytest.Session,
        names: Collection[str],
        changed: Iterable[tuple[FunctionType, CodeType]],
        folders: Iterable[Path],
    ) -> str | None:
        """Run these tests with this change; return the first that fails, empty if they hang or die; None if none."""

        def run() -> int:
            self._is_forked = True
            for function, code in changed:
                function.__code__ = code
            session.items = [item for item in session.items if self._is_meant(item.nodeid, names)]
            session.config.option.maxfail = 1
            session.config.hook.pytest_runtestloop(session=session)
            return int(session.testsfailed > 0)

        has_passed = forked(run, ENOUGH_S)
        failed = self._failure.read_text(encoding="utf-8") if self._failure.exists() else ""
        empty(Path(os.environ["TMPDIR"]), folders)
        return None if has_passed else failed

    def _is_meant(self, test: str, names: Collection[str]) -> bool:
        if test in self.broken:
            return False
        return test in names or any(test.startswith(name) for name in names if "::" not in name)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A phase of a test has ended."""
        if report.failed:
            self._failure.write_text(report.nodeid, encoding="utf-8")


class Hurry:
    """A plugin: a test that hangs ends its process, however it hangs; one that has failed may tidy up for a moment."""

    def pytest_runtest_logstart(self) -> None:
        """A test begins."""
        self._end_in(HANGS_S)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A phase of a test has ended."""
        if report.failed:
            self._end_in(TIDIES_S)

    @staticmethod
    def _end_in(seconds: float) -> None:
        faulthandler.dump_traceback_later(seconds, exit=True, file=2)


def forked(run: Callable[[], int], seconds: float | None = None) -> bool:
    """Whether it returns 0 in a process of its own; with a limit, in time, and nothing is left of what it began."""
    child = os.fork()
    if not child:
        code = 1
        try:
            system = ctypes.CDLL(None)
            system.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if system.unshare(_CLONE_NEWNS) == 0:  # what a test mounts and leaves is gone with the process
                system.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None)
            if seconds is not None:
                os.setsid()
            code = run()
        finally:
            os._exit(code)
    watched = os.pidfd_open(child)
    try:
        select.select([watched], [], [], seconds)
    finally:
        os.close(watched)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL) if seconds is None else os.killpg(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    return status == 0


def empty(folder: Path, keeping: Iterable[Path] = ()) -> None:
    """Remove all that is in it, but make these folders in it anew."""
    for entry in list(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink()
    for kept in keeping:
        kept.mkdir(exist_ok=True)


def write(module: Path, source: bytes) -> None:
    """Change the copy's module. Two mutants can have one size and one second, by which Python tells stale bytecode."""
    (TREE / module).write_bytes(source)
    Path(importlib.util.cache_from_source(str(TREE / module))).unlink(missing_ok=True)


def become_pytest(tests: Iterable[str], plugins: Sequence[object], options: Iterable[str] = ()) -> int:
    """In a fork: run these tests of the copy, of which nothing may be imported so far."""
    os.chdir(TREE)
    sys.path[:] = [str(TREE), *(place for place in sys.path if place not in ("", str(ROOT)))]
    for name in [name for name in sys.modules if name.partition(".")[0] in ("grym_fetch", "tests", "tools")]:
        del sys.modules[name]
    importlib.invalidate_caches()
    os.environ.update(PYTHONPATH=str(TREE), HYPOTHESIS_PROFILE="guards")
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    given = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:xdist.looponfail"]
    given += ["-W", "ignore::pytest.PytestAssertRewriteWarning", "--timeout=0"]
    return pytest.main([*given, *CHOSEN, *options, *tests], plugins=[Hurry(), *plugins])


def judged(module: Path, source: bytes, tests: Mapping[Mutant, Sequence[str]], *, is_final: bool) -> list[Mutant]:
    """Those mutants of a module that none of the tests named with them notices; confirmed if that ``is_final``."""
    report = Path(os.environ["TMPDIR"]).with_suffix(".json")
    mutants = list(tests)
    files = list(dict.fromkeys(name.partition("::")[0] for names in tests.values() for name in names))
    if not files:
        return mutants

    def collect_and_judge() -> int:
        judge = Judge(module, source, tests)
        become_pytest(files, [judge])
        if judge.has_run:
            numbers = [[mutants.index(mutant) for mutant in some] for some in (judge.living, judge.untried)]
            report.write_text(json.dumps([*numbers, sorted(judge.broken)]), encoding="utf-8")
        return not judge.has_run

    if not forked(collect_and_judge):
        raise SystemExit(f"the tests of {module} could not be run: {' '.join(files)}")
    living, untried, broken = json.loads(report.read_text(encoding="utf-8"))
    report.unlink()
    if broken:
        print(f"these fail without a mutant: {' '.join(broken)}", file=sys.stderr, flush=True)
    in_doubt = {*untried, *living} if is_final else {*untried}
    return [
        mutants[at]
        for at in sorted({*living, *untried})
        if at not in in_doubt or lives(mutants[at], source, tests[mutants[at]], broken)
    ]


def lives(mutant: Mutant, source: bytes, tests: Sequence[str], broken: Iterable[str]) -> bool:
    """Whether none of these tests notices the mutant, in a process that imports it anew."""
    options = ["-x", *(f"--deselect={test}" for test in broken)]
    write(mutant.module, mutant.apply(source))
    has_passed = forked(lambda: become_pytest(tests, [], options), ENOUGH_S)
    write(mutant.module, source)
    empty(Path(os.environ["TMPDIR"]))
    return has_passed


def own_tests(module: Path) -> list[str]:
    """The test file named after the module, and the one that `tests.house.test_layout` names for it, if they exist."""
    name = Path(*module.parts[1:]).with_suffix("")
    found = [Path("tests", *name.parts[:-1], f"test_{name.name}.py")]
    found += [Path("tests", f"{place}.py") for place in [_elsewhere().get(name.as_posix())] if place]
    return [str(each) for each in found if each.parts[1] not in SLOW and (ROOT / each).is_file()]


@cache
def _elsewhere() -> dict[str, str]:
    """Read, not imported: nothing of the program may be imported here."""
    layout = ROOT / "tests/house/test_layout.py"
    for node in ast.parse(layout.read_bytes()).body if layout.exists() else ():
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ELSEWHERE":
            places: dict[str, str] = ast.literal_eval(node.value)
            return places
    return {}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    """With ``-p tools.mutants`` under coverage: remember which test reaches a line."""
    if (running := coverage.Coverage.current()) is not None:
        running.switch_context(item.nodeid)


class Reached:
    """Which tests reach a line of these modules. They run once, under coverage; what they start is left out."""

    def __init__(self, modules: Iterable[Path]) -> None:
        data, rules = TREE / ".coverage", TREE / ".coveragerc"
        included = "".join(f"  {TREE / module}\n" for module in modules)
        rules.write_text(f"[run]\ndata_file = {data}\nparallel = true\npatch = subprocess\ninclude =\n{included}")
        here = [f"tests/{name}" for name in sorted(os.listdir(TREE / "tests")) if name not in SLOW]
        asked = [name for name in here if (TREE / name).is_dir() or Path(name).name.startswith("test_")]
        under_coverage = [sys.executable, "-m", "coverage", "run", f"--rcfile={rules}", "-m", "pytest", "-q"]
        options = ["-p", "no:cacheprovider", "-p", "tools.mutants", "-n", "auto", *CHOSEN]
        environment = {**os.environ, "PYTHONPATH": str(TREE)}
        command = [*under_coverage, *options, *asked]
        mapping = subprocess.run(command, cwd=TREE, env=environment, capture_output=True, text=True, check=False)
        self._failing = set(re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", mapping.stdout, re.MULTILINE))
        """Those that coverage makes too slow."""
        combine = [sys.executable, "-m", "coverage", "combine", f"--rcfile={rules}", "-q"]
        subprocess.run(combine, cwd=TREE, check=False)
        self._data = coverage.CoverageData(str(data))
        self._data.read()

    def tests_of(self, mutant: Mutant) -> list[str]:
        """Those that reach the mutant's line, or its room's for a line that importing runs.

        Where there are many: of its own room first, and some of each file.
        """
        room = f"tests/{mutant.module.parts[1]}/"
        found = self._data.contexts_by_lineno(str(TREE / mutant.module)).get(mutant.line, [])
        files: dict[str, list[str]] = defaultdict(list)
        for test in sorted(set(found) - {""} - self._failing):
            files[test.partition("::")[0]].append(test)
        ranked = [(not file.startswith(room), rank, test) for file in files for rank, test in enumerate(files[file])]
        return [test for *_, test in sorted(ranked)[:MOST_TESTS]] or [room]


def tried(
    mutants: Iterable[Mutant], sources: Mapping[Path, bytes], tests_of: Callable[[Mutant], list[str]], *, is_final: bool
) -> list[Mutant]:
    """Those that live, module by module, shown if that ``is_final``."""
    survivors: list[Mutant] = []
    tests: dict[Path, dict[Mutant, list[str]]] = defaultdict(dict)
    for mutant in mutants:
        tests[mutant.module][mutant] = tests_of(mutant)
    for module, named in tests.items():
        source = sources[module]
        found = judged(module, source, named, is_final=is_final)
        survivors += found
        print(f"{module}: {len(found)} of {len(named)} live", file=sys.stderr, flush=True)
        for mutant in found if is_final else ():
            print(f"survives: {mutant.shown(source)}", flush=True)
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
    mutants = [
        mutant for module, source in sources.items() for mutant in sorted(mutants_of(module, source), key=_place)
    ]
    if options.sample is not None and options.sample < len(mutants):
        mutants = random.Random(options.seed).sample(mutants, options.sample)
    shutil.rmtree(TREE, ignore_errors=True)
    for name in COPIED:
        shutil.copytree(ROOT / name, TREE / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, TREE / name)
    for name in SLOW_TO_IMPORT:
        with suppress(ImportError):
            importlib.import_module(name)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="mutants-", dir=memory) as folder:
        os.environ["TMPDIR"] = folder
        tempfile.tempdir = None
        survivors = tried(mutants, sources, lambda mutant: own_tests(mutant.module), is_final=options.own)
        if survivors and not options.own:
            reached = Reached({mutant.module for mutant in survivors})
            survivors = tried(survivors, sources, reached.tests_of, is_final=True)
    shutil.rmtree(TREE, ignore_errors=True)
    print(f"{len(mutants)} mutants, {len(survivors)} survivors")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
