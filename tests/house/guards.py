"""Takes each guard out of a copy of the program, once, and sees the tests that are said to prove it fail.

``python -m tests.house.guards [ROW...]`` (`make guards`) reads ``guard_lists/``, a file for each room of the program:
the rows that rest on a guard, the text that is the guard, what stands there without it, and the tests that must then
fail.

Rules: the working tree is never changed. A guard that can be taken out unnoticed is an error, and so is a listed test
that passes without it: it does not prove what its mark says.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
LISTS = Path(__file__).parent / "guard_lists"
COPIED = ("grym_fetch", "tests", "tools", "pyproject.toml")
TIMEOUT_S = 300


@dataclass(frozen=True)
class Guard:
    """One guard: ``guard`` in ``file`` is replaced by ``without``, and then each of ``tests`` must fail."""

    name: str
    rows: tuple[str, ...]
    file: str
    guard: str
    without: str
    tests: tuple[str, ...]


def guards() -> list[Guard]:
    """All guards of the lists, in their order."""
    lists = [tomllib.loads(file.read_text(encoding="utf-8")) for file in sorted(LISTS.glob("*.toml"))]
    return [_guard(name, entry) for entries in lists for name, entry in entries.items()]


def _guard(name: str, entry: Mapping[str, object]) -> Guard:
    rows, tests = entry["rows"], entry["tests"]
    assert isinstance(rows, list)
    assert isinstance(tests, list)
    file, guard, without = (str(entry[key]).strip("\n") for key in ("file", "guard", "without"))
    return Guard(name, tuple(rows), file, guard, without, tuple(tests))


def covered() -> list[str]:
    """The rows whose guard is taken out, each once, in the lists' order."""
    return list(dict.fromkeys(row for guard in guards() for row in guard.rows))


def without(guard: Guard, text: str) -> str:
    """The file's text without the guard. Raises `ValueError` unless it stands there exactly once."""
    if (count := text.count(guard.guard)) != 1:
        raise ValueError(f"{guard.name}: the guard stands {count} times in {guard.file}, not once")
    return text.replace(guard.guard, guard.without)


def failed(report: Path) -> set[str]:
    """The tests of which a case failed, as ``tests/core/test_http.py::test_name``, from a report of JUnit's kind."""
    names = set()
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            place = case.get("classname", "").replace(".", "/")
            names.add(f"{place}.py::{case.get('name', '').partition('[')[0]}")
    return names


def unnoticed(guard: Guard, place: Path) -> list[str]:
    """Take the guard out of the copy at ``place``, run its tests, put it back; return the tests that passed."""
    file, report = place / guard.file, place / "report.xml"
    text = file.read_text(encoding="utf-8")
    report.unlink(missing_ok=True)
    file.write_text(without(guard, text), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *guard.tests]
    try:
        # The copy comes first, also for the processes that tests start; and no bytecode of another guard is left.
        environment = os.environ | {"PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return []  # that it hangs without the guard is noticed
    finally:
        file.write_text(text, encoding="utf-8")
    if done.returncode < 0:
        return []  # and so is that it dies
    found = failed(report) if report.exists() else set()
    return [test for test in guard.tests if test not in found]


@contextmanager
def copies(count: int) -> Iterator[SimpleQueue[Path]]:
    """So many copies of the program and its tests, to be taken and given back."""
    queue: SimpleQueue[Path] = SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="guards-") as folder:
        for number in range(count):
            place = Path(folder, str(number))
            place.mkdir()
            for name in COPIED:
                source = ROOT / name
                if source.is_dir():
                    shutil.copytree(source, place / name, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(source, place / name)
            queue.put(place)
        yield queue


def run(chosen: Iterable[Guard]) -> bool:
    """Take out each of these; say what came of it. Returns whether all were noticed by all of their tests."""
    chosen = list(chosen)
    workers = min(os.cpu_count() or 1, len(chosen)) or 1
    with copies(workers) as queue, ThreadPoolExecutor(workers) as pool:

        def one(guard: Guard) -> list[str]:
            place = queue.get()
            try:
                return unnoticed(guard, place)
            finally:
                queue.put(place)

        good = True
        for guard, passed in zip(chosen, pool.map(one, chosen), strict=True):
            good = good and not passed
            print(f"{'ok  ' if not passed else 'FAIL'}  {guard.name} ({', '.join(guard.rows)})", flush=True)
            for test in passed:
                print(f"      passes without it: {test}")
    return good


if __name__ == "__main__":
    wanted = set(sys.argv[1:])
    sys.exit(not run(guard for guard in guards() if not wanted or wanted & {guard.name, *guard.rows}))
