"""What a run imports, since imports are most of the time until something happens."""

from __future__ import annotations

import gc
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from grym_fetch.cli.main import COLLECT_AFTER, main
from grym_fetch.core.digest import Checksum
from grym_fetch.disk.state import StateFolder
from grym_fetch.disk.verified import FileSignature, VerifiedCache
from tests.end_to_end.command import environment
from tests.support.project import Project

CONTENT = b"there already"
PROGRAM = """
import sys
loaded = sys.modules
{run}
print(*sorted(loaded), file=sys.stderr)
"""
COMMAND = """
from grym_fetch.cli import main
for arguments in {each!r}:
    sys.argv = ["grym-fetch", *arguments]
    try:
        main()
    except SystemExit as end:
        assert not end.code, arguments
"""

ASYNC = {"asyncio", "ssl", "uvloop", "concurrent.futures"}
FOREIGN = {
    "aiohttp", "aiohappyeyeballs", "anyio", "httptools", "multidict", "rich", "xxhash", "yarl", "zstandard",
}  # fmt: skip
OURS = {
    f"grym_fetch.{name}"
    for name in (
        "archive",
        "disk.assets_folder",
        "net",
        "project.diagnosis",
        "project.editing",
        "repo",
        "testing",
        "transfer",
    )
}


def imported(run: str, root: Path) -> set[str]:
    """Run code in a fresh interpreter and return the modules loaded at the end, or those that it calls ``loaded``."""
    program = PROGRAM.format(run=run)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


def test_what_is_looked_for_exists() -> None:
    """A renamed module cannot slip through."""
    assert all(importlib.util.find_spec(name) for name in OURS)


def test_help_is_all_click(tmp_path: Path) -> None:
    """Neither `--help` of the group nor importing the package imports a command or an event loop."""
    help_only = imported(COMMAND.format(each=[["--help"]]), tmp_path)
    assert not help_only & (ASYNC | FOREIGN | OURS | {"grym_fetch.manager", "grym_fetch.cli.runner"})
    assert not imported("import grym_fetch", tmp_path) & (ASYNC | FOREIGN | OURS | {"click", "grym_fetch.manager"})


def test_runs_that_find_everything_import_nothing_that_fetches(tmp_path: Path) -> None:
    """`path`, `list`, `check`, `info` and `sync` of present assets import nothing that speaks HTTP."""
    project = Project(tmp_path)
    file = project.add("base", ["https://models.example.org/base.bin"], CONTENT)
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    cache = VerifiedCache(StateFolder(project.assets))
    cache.record(file, Checksum.of(CONTENT), FileSignature.of(file.stat()))
    each = [["path", "base"], ["list"], ["check"], ["info", "base"], ["sync"]]
    modules = imported(COMMAND.format(each=each), tmp_path)
    assert "grym_fetch.manager" in modules
    assert not modules & (FOREIGN | OURS)


FIRST_WORD = """
import os, sys
class Terminal:
    encoding = "utf-8"
    def isatty(self): return True
    def flush(self): pass
    def fileno(self): return 2
    def write(self, text):
        if not hasattr(self, "first"):
            self.first, self.loaded = text, set(sys.modules)
os.environ["TERM"] = "xterm"
terminal = sys.stderr = Terminal()
from grym_fetch.cli import main
sys.argv = ["grym-fetch", "sync"]
try:
    main()
except SystemExit:
    pass
sys.stderr = sys.__stderr__
assert terminal.first == "\\r\\x1b[Kstarting …", terminal.first
loaded = terminal.loaded
"""


def test_the_first_word_comes_before_what_takes_long(tmp_path: Path) -> None:
    """A person sees that something begins before any of what does the work is imported."""
    loaded = imported(FIRST_WORD, tmp_path)
    assert "grym_fetch.cli.sync" in loaded
    assert not loaded & (
        ASYNC | FOREIGN | OURS | {"grym_fetch.manager", "grym_fetch.cli.runner", "grym_fetch.core.events"}
    )


def test_garbage_is_looked_for_seldom() -> None:
    """In a process that is ours: of what a large manifest is made of, nothing is garbage."""
    before = gc.get_threshold()
    try:
        with pytest.raises(SystemExit):
            main(["--version"])
        assert gc.get_threshold()[0] == COLLECT_AFTER
    finally:
        gc.set_threshold(*before)


def test_the_end_looks_at_no_object_again(tmp_path: Path) -> None:
    """60,000 assets are a million objects, which Python's last look for garbage leaves alone."""
    run = "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 0, file=sys.stderr))\n"
    assert "True" in imported(run + COMMAND.format(each=[["--version"]]), tmp_path)
