"""Runs tests in a copy of the program, again and again, and says which cases failed, and which rows are theirs.

Reads jobs from stdin, a line of JSON each: ``{"place": …, "tests": […], "timeout": seconds}``. Writes a line for each:
the failed cases and their rows, or null if the tests hung or died.

Rules: third-party packages that are slow to import are imported once, and each job runs in a process forked from
there; nothing of the program or of its tests is imported here. A test of many cases has failed with its first failing
case: the others are run only if they show another row.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest

SLOW_TO_IMPORT = (
    "_hypothesis_pytestplugin",
    "_pytest.junitxml",
    "_pytest.pastebin",
    "_pytest.unittest",
    "aiofiles",
    "aiohttp.web",
    "aiohappyeyeballs",
    "anyio._backends._asyncio",
    "anyio.pytest_plugin",
    "asyncio",
    "click",
    "cryptography.x509",
    "email.utils",
    "httptools",
    "hypothesis.strategies",
    "pdb",
    "pytest_asyncio.plugin",
    "pytest_timeout",
    "rich.console",
    "rich.live",
    "tomllib",
    "trustme",
    "xxhash",
    "yarl",
)
REPORT = "report.json"
_BROKEN = 3
"""The exit code if pytest could not be run. A time-out may end the process at once, with 1."""
HANGS_S = 10
"""A case that takes longer hangs without its guard, and has failed. Its own limit, a minute, is for a busy machine."""


class FailedCases:
    """A plugin that collects the failed cases and the rows that each of them shows."""

    def __init__(self) -> None:
        self._rows: dict[str, list[str]] = {}
        self.failed: dict[str, list[str]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Read the marks."""
        self._rows = {item.nodeid: [row for mark in item.iter_markers("shows") for row in mark.args] for item in items}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A phase of a case has ended."""
        if report.failed:
            self.failed[report.nodeid] = self._rows.get(report.nodeid, [])

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """Skip a case of a test that has already failed, unless it would show another row."""
        has_failed = _test_of(item.nodeid) in map(_test_of, self.failed)
        shown = {row for rows in self.failed.values() for row in rows}
        return True if has_failed and shown.issuperset(self._rows[item.nodeid]) else None

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A module has been collected."""
        if report.failed:
            self.failed[report.nodeid] = []


def _test_of(case: str) -> str:
    return case.partition("[")[0]


def run_here(place: Path, tests: list[str]) -> None:
    """Run the copy's tests in this process; write what failed to a file there."""
    os.setsid()
    os.chdir(place)
    sys.path[0] = str(place)
    os.environ["PYTHONPATH"] = str(place)  # processes started by tests use the copy, too
    os.environ["HYPOTHESIS_PROFILE"] = "guards"
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    cases = FailedCases()
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-p",
        "no:xdist.looponfail",
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
        f"--timeout={HANGS_S}",
    ]
    code = pytest.main([*options, *tests], plugins=[cases])
    if code in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise RuntimeError(code)
    (place / REPORT).write_text(json.dumps(cases.failed), encoding="utf-8")


def run_forked(place: Path, tests: list[str], timeout: float) -> dict[str, list[str]] | None:
    """Run the copy's tests in a process of their own. None if they hang, or if a signal or a time-out ends them.

    Raises ``RuntimeError`` if they could not be run.
    """
    (place / REPORT).unlink(missing_ok=True)
    child = os.fork()
    if not child:
        code = _BROKEN
        try:
            run_here(place, tests)
            code = 0
        finally:
            os._exit(code)
    watched = os.pidfd_open(child)
    select.select([watched], [], [], timeout)
    os.close(watched)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # including what its tests have started
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == _BROKEN:
        raise RuntimeError(f"pytest cannot run {tests}")
    if code:
        return None
    failed: dict[str, list[str]] = json.loads((place / REPORT).read_text(encoding="utf-8"))
    return failed


if __name__ == "__main__":
    for module in SLOW_TO_IMPORT:
        with suppress(ImportError):  # not every job needs each of them
            import_module(module)
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        job = json.loads(line)
        answer = run_forked(Path(job["place"]), job["tests"], job["timeout"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
