"""What every test can rely on: no proxy from the machine's environment, and markers that say what a test needs.

It also makes sure that no exception goes unseen. What tests write is in memory if there is
room for it, because a flush to a real disk takes longer than most tests; ``TMPDIR=/var/tmp`` puts it on a disk.
"""

from __future__ import annotations

import gc
import importlib.util
import logging
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from functools import cache
from pathlib import Path

import pytest

from grym_fetch.core import speeds
from grym_fetch.net import plain
from grym_fetch.testing import AssetServer
from tests.support import registry, tinyproxy
from tests.support.nginx import BINARY, Nginx
from tests.support.project import Project
from tests.support.properties import load_profile

if sys.platform != "win32":
    # Nothing of these can run here: `make test-windows` runs them.
    collect_ignore = ["end_to_end/test_windows.py"] + [
        f"runtime/test_{name}.py" for name in ("system_windows", "windows_access", "windows_folders")
    ]
else:
    # About the modules of other systems, and limits that Windows has not.
    collect_ignore = ["runtime/test_system.py", "runtime/test_descriptors.py"]

_MEMORY = Path("/dev/shm")
_ENOUGH = 4 << 30


def _write_to_memory() -> None:
    """Let this process and its children keep temporary files in memory, unless somebody has said where they belong."""
    if "TMPDIR" not in os.environ and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _ENOUGH:
        os.environ["TMPDIR"] = str(_MEMORY)
        tempfile.tempdir = None


load_profile()
_write_to_memory()

_FOREIGN = (
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "ssl_cert_file",
    "ssl_cert_dir",
    "hf_token",
    "hf_endpoint",
    "hf_token_path",
)
_FAR_S = speeds.FAR_S
_OWN_FOLDERS = ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "HF_HOME")


def pytest_configure(config: pytest.Config) -> None:
    """No test depends on, or adds to, the proxies, credentials, settings and state of the user who runs it.

    Nor on how busy the machine is: a connection within it that takes long to open makes no host far away, which would
    be asked more at once; and an answer that takes long is no request that was lost.
    """
    patch, state = pytest.MonkeyPatch(), tempfile.TemporaryDirectory()
    config.add_cleanup(state.cleanup)
    config.add_cleanup(patch.undo)
    for name in _OWN_FOLDERS:
        patch.setenv(name, state.name)
    for name in list(os.environ):
        if name.lower() in _FOREIGN or name.startswith("GRYM_FETCH_"):
            patch.delenv(name)
    patch.setattr(speeds, "FAR_S", math.inf)
    for name in ("FIRST_AHEAD_TIMEOUT_S", "AHEAD_TIMEOUT_S"):
        patch.setattr(plain, name, 60.0)


@pytest.fixture
def hosts_may_be_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes long to open is far away again: for tests with hosts of their own."""
    monkeypatch.setattr(speeds, "FAR_S", _FAR_S)


class _Unhandled(logging.Handler):
    """Keeps asyncio's reports of exceptions that nobody handled: of callbacks, and of abandoned tasks."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        error = record.exc_info[1] if record.exc_info else None
        # Dask leaves such futures behind when it closes a connection that is being opened.
        if not (isinstance(error, TimeoutError) and error.args == ("Timeout",) and "distributed" in sys.modules):
            self.records.append(record)


_UNHANDLED = _Unhandled()
_OURS = logging.getLogger("grym_fetch")


@pytest.fixture
def unhandled() -> list[logging.LogRecord]:
    """The exceptions of this test that have reached nobody so far."""
    return _UNHANDLED.records


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: some tests wait for a process to end or for a second to pass."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_finish() -> None:
    """Thousands of collected tests live to the end: the garbage collector need not look at them repeatedly."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Keep state outside an assets folder for a single test, and leave our logger as it was.

    A command run in this process configures the logger as if the process were its own. These are hooks: as fixtures
    of each of thousands of tests they would take a tenth of the time.
    """
    handlers, level, propagate = list(_OURS.handlers), _OURS.level, _OURS.propagate
    common = os.environ["XDG_STATE_HOME"]
    os.environ["XDG_STATE_HOME"] = os.path.join(common, os.urandom(4).hex())
    logging.getLogger("asyncio").addHandler(_UNHANDLED)
    try:
        return (yield)
    finally:
        logging.getLogger("asyncio").removeHandler(_UNHANDLED)
        os.environ["XDG_STATE_HOME"] = common
        _OURS.handlers[:] = handlers
        _OURS.setLevel(level)
        _OURS.propagate = propagate


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """Fail a test in which an exception reached nobody: a transfer may go on without the part that it hit."""
    yield
    unseen, _UNHANDLED.records[:] = list(_UNHANDLED.records), []
    assert not unseen, "\n\n".join(map(logging.Formatter().format, unseen))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot run; in CI what is missing is an error, so that no suite is skipped unnoticed."""
    programs = [
        name for name in ("nginx", "strace", "tinyproxy", "docker_registry", "git_lfs") if item.get_closest_marker(name)
    ]
    packages = [name for mark in item.iter_markers("package") for name in mark.args]
    missing = [name for name in programs if not _is_installed(name)]
    missing += [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        reason = f"{' and '.join(missing)} not installed"
        if os.environ.get("CI"):
            pytest.fail(f"{reason}, and this is CI", pytrace=False)
        pytest.skip(reason)
    if item.get_closest_marker("root") and (reason := _why_no_mount()):
        pytest.skip(reason)


def _is_installed(name: str) -> bool:
    found = {"nginx": BINARY, "tinyproxy": tinyproxy.BINARY, "docker_registry": registry.BINARY}
    found["git_lfs"] = shutil.which("git-lfs")
    return (found[name] if name in found else shutil.which(name)) is not None


@cache
def _why_no_mount() -> str:
    """Why no file system can be mounted here; empty if one can."""
    if os.geteuid() != 0:
        return "mounting needs root"
    with tempfile.TemporaryDirectory() as folder:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "none", folder], capture_output=True, check=False)
        if mounted.returncode != 0:
            return "mounting is not permitted here"
        subprocess.run(["umount", folder], check=True)
    return ""


@pytest.fixture
async def server() -> AsyncIterator[AssetServer]:
    """A truthful server on loopback until told otherwise."""
    async with AssetServer() as running:
        yield running


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project, in a folder that nothing else uses."""
    return Project(tmp_path / "project")


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    """A running nginx with the default configuration; `Nginx.restart` gives it locations. Mark the test ``nginx``."""
    with Nginx(tmp_path) as server:
        yield server
