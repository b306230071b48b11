"""What `make test-darwin` stands on: pytest starts there as everywhere, and the program has macOS's module."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, pytest
from tests.support.darwin import took_away
code = pytest.main(["-q", "-p", "no:cacheprovider", "tests/runtime/test_system.py", "-k", "told_to_write"])
from grym_fetch.runtime import system
print([name for name in took_away() if hasattr(os, name)], int(code), system.flush.__code__.co_filename)
"""


@pytest.mark.sweep
def test_tests_run_as_on_macos() -> None:
    """Warnings are errors of ours, also those of a start in which a part of the program was imported too early."""
    path = os.pathsep.join((str(ROOT / "tests/support/as_darwin"), str(ROOT)))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == [f"[] 0 {ROOT}/grym_fetch/runtime/system_darwin.py"], done.stderr
