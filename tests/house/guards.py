"""Takes each guard out of a copy of the program, one at a time, and checks that the tests said to prove it fail.

``python -m tests.house.guards [ROW...]`` (`make guards`) reads ``guard_lists/``, one file for each room of the program:
the rows that rest on a guard, the guard's text, what replaces it, and the tests that must then
fail; and, if another guard stands behind it, the name of that one.

Rules: the working tree is never changed. A guard that can be taken out unnoticed is an error, and so is a listed test
that passes without it, since it does not prove what its mark says.
"""

from __future__ import annotations

import compileall
import json
import os
import py_compile
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Self

ROOT = Path(__file__).parents[2]
LISTS = Path(__file__).parent / "guard_lists"
COPIED = ("grym_fetch", "tests", "tools", "pyproject.toml")
TIMEOUT_S = 40


@dataclass(frozen=True)
class Guard:
    """One guard: ``guard`` in ``file`` is replaced by ``without``, and then each of ``tests`` must fail.

    ``behind`` names guards that would still catch what this one lets through: they are taken out with it.
    """

    name: str
    rows: tuple[str, ...]
    file: str
    guard: str
    without: str
    tests: tuple[str, ...]
    behind: tuple[str, ...] = ()


@cache
def guards() -> tuple[Guard, ...]:
    """All guards of the lists, in order."""
    lists = [tomllib.loads(file.read_text(encoding="utf-8")) for file in sorted(LISTS.glob("*.toml"))]
    return tuple(_guard(name, entry) for entries in lists for name, entry in entries.items())


def _guard(name: str, entry: Mapping[str, object]) -> Guard:
    rows, tests, behind = entry["rows"], entry["tests"], entry.get("behind", [])
    assert isinstance(rows, list)
    assert isinstance(tests, list)
    assert isinstance(behind, list)
    file, guard, without = (str(entry[key]).strip("\n") for key in ("file", "guard", "without"))
    return Guard(name, tuple(rows), file, guard, without, tuple(tests), tuple(behind))


def covered() -> list[str]:
    """The rows whose guard is taken out, each once, in the order of the lists."""
    return list(dict.fromkeys(row for guard in guards() for row in guard.rows))


def without(guard: Guard, text: str) -> str:
    """The file's text without the guard. Raises `ValueError` unless the guard occurs there exactly once."""
    if (count := text.count(guard.guard)) != 1:
        raise ValueError(f"{guard.name}: the guard stands {count} times in {guard.file}, not once")
    return text.replace(guard.guard, guard.without)


class Copy:
    """A copy of the program and its tests at ``place``, and a process that runs tests there (`guard_runner`)."""

    def __init__(self, place: Path) -> None:
        self.place = place
        runner = Path(__file__).with_name("guard_runner.py")
        self._process = subprocess.Popen(
            [sys.executable, runner], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        stdin, stdout = self._pipes()
        stdin.close()
        self._process.wait()
        stdout.close()

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout

    def failures(self, tests: Iterable[str]) -> dict[str, list[str]] | None:
        """Run these; return the failed cases and the rows each shows, or None if they hang or die."""
        stdin, stdout = self._pipes()
        stdin.write(json.dumps({"place": str(self.place), "tests": list(tests), "timeout": TIMEOUT_S}) + "\n")
        stdin.flush()
        failed: dict[str, list[str]] | None = json.loads(stdout.readline())
        return failed

    def unnoticed(self, guard: Guard) -> list[str]:
        """Take the guard out, run its tests, put it back; return the tests that passed and the rows that none shows.

        A row counts as shown only if a case with its mark failed.
        """
        before: dict[Path, str] = {}
        try:
            for each in (guard, *(known for known in guards() if known.name in guard.behind)):
                file = self.place / each.file
                text = file.read_text(encoding="utf-8")
                before.setdefault(file, text)
                file.write_text(without(each, text), encoding="utf-8")
            failed = self.failures(guard.tests)
        finally:
            for file, text in before.items():
                file.write_text(text, encoding="utf-8")
        if failed is None:
            return []  # a hang or crash without the guard counts as noticed
        names = {case.partition("[")[0] for case in failed}
        shown = {row for rows in failed.values() for row in rows}
        return [test for test in guard.tests if test not in names] + [row for row in guard.rows if row not in shown]


@contextmanager
def copies(count: int) -> Iterator[SimpleQueue[Copy]]:
    """This many copies of the program and its tests, to be borrowed and returned."""
    queue: SimpleQueue[Copy] = SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="guards-") as folder, ExitStack() as stack:
        for number in range(count):
            place = Path(folder, str(number))
            place.mkdir()
            for name in COPIED:
                source = ROOT / name
                if source.is_dir():
                    shutil.copytree(source, place / name, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(source, place / name)
            # Bytecode is checked against the source, so that a changed file is compiled again.
            compileall.compile_dir(
                place / "grym_fetch", quiet=2, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH
            )
            queue.put(stack.enter_context(Copy(place)))
        yield queue


def run(chosen: Iterable[Guard]) -> bool:
    """Take out each of these and report the results. Returns whether all were noticed by all of their tests."""
    chosen = list(chosen)
    workers = min(os.cpu_count() or 1, len(chosen)) or 1
    with copies(workers) as queue, ThreadPoolExecutor(workers) as pool:

        def one(guard: Guard) -> tuple[list[str], float]:
            copy = queue.get()
            began = time.monotonic()
            try:
                return copy.unnoticed(guard), time.monotonic() - began
            finally:
                queue.put(copy)

        good = True
        for guard, (passed, seconds) in zip(chosen, pool.map(one, chosen), strict=True):
            good = good and not passed
            what = f"{guard.name} ({', '.join(guard.rows)})"
            print(f"{'ok  ' if not passed else 'FAIL'}  {what}, {seconds:.0f} s", flush=True)
            for test in passed:
                print(f"      does not notice: {test}")
    return good


if __name__ == "__main__":
    wanted = set(sys.argv[1:])
    sys.exit(not run(guard for guard in guards() if not wanted or wanted & {guard.name, *guard.rows}))
