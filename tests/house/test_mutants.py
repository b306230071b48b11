"""What `make mutants` tries is what runs, and who survives is nobody that a test has noticed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tools.mutants import ROOT, Functions, mutants_of, own_tests

HERE = Path("program/room/it.py")


def changes(text: str) -> list[str]:
    """Each change of a module, as its changed text."""
    return [mutant.text for mutant in mutants_of(HERE, text.encode())]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("if a: b", ["(not (a))"]),
        ("while a: b", ["(not (a))"]),
        ("x = b if a else c", ["(not (a))"]),
        ("x = a < b", ["(a <= b)"]),
        ("x = a is not b", ["(a is b)"]),
        ("x = a and b", ["((a) or (b))"]),
        ("x = a | os.O_EXCL", ["(a)"]),
        ("raise A", ["pass"]),
        ("f()", ["pass"]),
        ("_MAX_X: int = 3", ["((3) * 10**6)"]),
        ("if TYPE_CHECKING: b", []),
        ("x = f'{a < b}'", []),
        ("raise", []),
    ],
)
def test_each_kind_of_guard_is_changed(text: str, expected: list[str]) -> None:
    """One change for each, and none where it means nothing."""
    assert changes(text) == expected


def test_no_other_line_moves() -> None:
    """A change of several lines leaves the lines after it where they are."""
    source = b"if (a <\n    b):\n    f(\n        c)\nd = 1\n"
    for mutant in mutants_of(HERE, source):
        assert mutant.apply(source).splitlines()[-1] == b"d = 1"
        assert mutant.apply(source).count(b"\n") == source.count(b"\n")
        compile(mutant.apply(source), "it", "exec")


SOURCE = dedent("""
    from contextlib import contextmanager
    from functools import cache

    MAX_A = 3

    def plain(n):
        return n < 3

    def with_a_default(n=1 < 2):
        return n

    @cache
    def cached(n):
        return n < 4

    @contextmanager
    def block(n):
        yield n < 5

    class Thing:
        is_set = 1 < 2

        @property
        def is_here(self):
            return 1 < 1

        def outer(self):
            def inner(n):
                return n < 7
            return inner
    """).encode()


def test_who_has_imported_a_function_has_the_mutant(tmp_path: Path) -> None:
    """The function itself changes, bare, decorated or a method; what only importing does is left to a new process."""
    place = tmp_path / "it.py"
    place.write_bytes(SOURCE)
    spec = importlib.util.spec_from_file_location("it_with_functions", place)
    assert spec is not None
    assert spec.loader is not None
    it = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(it)
    plain, cached, block, thing = it.plain, it.cached, it.block, it.Thing()
    functions = Functions(place, SOURCE)
    left = []
    for mutant in mutants_of(HERE, SOURCE):
        changed = functions.changed(mutant.apply(SOURCE))
        left += [] if changed else [mutant.line]
        for function, code in changed:
            function.__code__ = code
    assert left == [5, 10, 22]
    assert plain(3)
    assert cached(4)
    assert thing.is_here
    assert thing.outer()(7)
    with block(5) as value:
        assert value


def test_tests_elsewhere_are_own_tests() -> None:
    """A module's tests are where the layout says, if that place is fast."""
    assert own_tests(Path("grym_fetch/disk/folders.py")) == ["tests/disk/test_folders.py"]
    assert own_tests(Path("grym_fetch/disk/state.py")) == ["tests/disk/test_shared_folders.py"]
    assert own_tests(Path("grym_fetch/cli/sync.py")) == []


PROGRAM = """
MAX_SIZE = 3

def is_small(n):
    return n < MAX_SIZE

def check(n):
    if n < 0:
        raise ValueError(n)

def tell():
    print("hello")

def down(n):
    while n > 5:
        n -= 1
    return n
"""
TESTS = """
import os, subprocess, sys
import pytest
with open(os.environ["IMPORTED"], "a") as file: file.write(".")
from program.room.it import check, down, is_small

def test_broken(): assert False
def test_size(): assert is_small(1) and not is_small(1000)
def test_check():
    check(1)
    with pytest.raises(ValueError): check(-1)
def test_process():
    run = [sys.executable, "-c", "from program.room import it; it.tell()"]
    assert subprocess.run(run, capture_output=True, text=True).stdout == "hello\\n"
def test_hangs(): assert down(3) == 3
def test_down(): assert down(7) == 5
"""
RUN = """
import sys
from pathlib import Path
from tools import mutants
mutants.ROOT, mutants.COPIED, mutants.FILES = Path(sys.argv.pop(1)), ("program", "tests"), ("pytest.ini",)
mutants.TREE, mutants.HANGS_S = mutants.ROOT / ".mutants", 1
sys.exit(mutants.main())
"""


@pytest.mark.sweep
def test_survivors_are_those_that_no_test_notices(tmp_path: Path) -> None:
    """Noticed are changes of a function and of a constant, one that a process meets, and one that hangs. A test that
    fails anyway notices nothing. Tests are imported once, and again for the constant and for each survivor."""
    for name, text in {HERE: PROGRAM, Path("tests/room/test_it.py"): TESTS, Path("pytest.ini"): "[pytest]\n"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-c", RUN, str(tmp_path), "--own", str(HERE)]
    environ = os.environ | {"PYTHONPATH": str(ROOT), "IMPORTED": str(tmp_path / "imported")}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "survives: program/room/it.py:5: n < MAX_SIZE  ->  (n <= MAX_SIZE)",
        "survives: program/room/it.py:8: n < 0  ->  (n <= 0)",
        "8 mutants, 2 survivors",
    ], done.stderr
    assert "these fail without a mutant: tests/room/test_it.py::test_broken" in done.stderr
    assert (tmp_path / HERE).read_text() == PROGRAM
    assert (tmp_path / "imported").read_text() == "...."
