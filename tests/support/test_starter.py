"""A forked command is like a newly started one: its own arguments, folder, streams and end."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from grym_fetch._version import __version__
from tests.end_to_end.command import environment
from tests.support.starter import Started, start, start_program

LOOK = """
import os, sys
print(sys.argv, os.getcwd(), os.environ["OF"], sys.stdin.read(), "tests" in sys.modules)
print(sorted(os.listdir("/proc/self/fd"))[:-1], file=sys.stderr)
sys.exit(7)
"""


def test_it_is_like_a_new_one(tmp_path: Path) -> None:
    """Arguments, folder, environment, streams and exit code are its own, and nothing of ours is open in it."""
    done = start_program(LOOK, tmp_path, environment(OF="its own"), ["an argument"])
    out, err = done.communicate(timeout=60)
    assert out == f"['-c', 'an argument'] {tmp_path} its own  False\n"
    assert (done.returncode, err) == (7, "['0', '1', '2']\n")


@pytest.mark.parametrize("more", [{}, {"PYTHONIOENCODING": "ascii"}], ids=["forked", "a new interpreter"])
def test_the_command(tmp_path: Path, more: dict[str, str]) -> None:
    """If the environment needs a new interpreter, one is started."""
    running = start(["--version"], tmp_path, environment(**more))
    assert isinstance(running, subprocess.Popen if more else Started)
    assert running.communicate(timeout=60) == (f"grym-fetch, version {__version__}\n", "")
    assert running.wait() == 0


def test_a_signal_ends_it(tmp_path: Path) -> None:
    """It waits while it is held; the signal that ended it is reported like any child's; the dead get no signal."""
    running = start_program("raise SystemExit(1)", tmp_path, environment(), is_held=True)
    with pytest.raises(subprocess.TimeoutExpired):
        running.wait(timeout=0)
    assert running.poll() is None
    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=60) == -signal.SIGTERM
    assert not os.path.exists(f"/proc/{running.pid}")
    running.kill()
    running.release()
    running.communicate(timeout=60)


def test_several_at_once(tmp_path: Path) -> None:
    """Each reports its own end, whichever ends first."""
    held = [start_program(f"raise SystemExit({code})", tmp_path, environment(), is_held=True) for code in (3, 4)]
    for running in reversed(held):
        running.release()
        running.communicate(timeout=60)
    assert [running.returncode for running in held] == [3, 4]


def test_an_error_is_told_as_by_python(tmp_path: Path) -> None:
    """A program that fails leaves its traceback and exit code 1."""
    running = start_program("1 / 0", tmp_path, environment())
    assert "ZeroDivisionError" in running.communicate(timeout=60)[1]
    assert running.returncode == 1


FAR = """
from grym_fetch.core.speeds import Speeds
measured = Speeds()
measured.opened("here", 5.0)
assert not measured.is_far("here")
"""


def test_on_a_busy_machine_no_server_of_a_test_is_far_away(tmp_path: Path) -> None:
    """However long a connection took to open, no host is asked more for it: neither here nor by a command."""
    exec(FAR, {})
    started = start_program(FAR, tmp_path, environment())
    assert (started.communicate(timeout=60), started.wait()) == (("", ""), 0)
