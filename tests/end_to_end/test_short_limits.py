"""A machine with few descriptors and few threads: real processes under real limits, as far as they go."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from grym_fetch.testing import SeededContent, serve_in_thread
from tests.end_to_end.command import Done, environment
from tests.support.project import Project
from tests.support.sweeps import typical

MIB = 1024 * 1024
SIZE = MIB


def sync(project: Project, *arguments: str, limit: Callable[[], None] | None = None, **more: str) -> Done:
    """Fetch everything, ten assets of one MiB, under a limit."""
    with serve_in_thread() as server:
        for number in range(10):
            file = server.add(f"/{number}", SeededContent(SIZE, seed=number))
            project.add(f"a{number}", [file.url], None, size=SIZE, checksum=file.sha256)
        command = [sys.executable, "-m", "grym_fetch", "sync", *arguments]
        done = subprocess.run(
            command,
            cwd=project.root,
            env=environment(**more),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            preexec_fn=limit,
        )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.shows("D16")
@pytest.mark.parametrize("files", typical([16, 20, 28, 40], 16))
def test_few_descriptors_mean_fewer_assets_at_work(tmp_path: Path, files: int) -> None:
    """Whatever `ulimit -n` allows: it takes longer, and every asset arrives."""
    project = Project(tmp_path / "project")
    done = sync(project, limit=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files)))
    assert done.code == 0, done.err


FEW_THREADS = """
import os, resource, _thread
limit_of = resource.getrlimit
resource.getrlimit = lambda kind: (9, 9) if kind == resource.RLIMIT_NPROC else limit_of(kind)
left = [int(os.environ["THREADS"])]
def counted(start):
    def start_if_there_is_one(*args, **more):
        if not left[0]:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        return start(*args, **more)
    return start_if_there_is_one
for name in ("start_new_thread", "start_joinable_thread"):  # threading uses the second one from Python 3.13 on
    if hasattr(_thread, name):
        setattr(_thread, name, counted(getattr(_thread, name)))
"""


@pytest.mark.shows("D16")
@pytest.mark.parametrize("threads", typical(range(6), 2))
def test_few_threads_suffice_or_are_named(tmp_path: Path, threads: int) -> None:
    """With one thread every asset arrives; with none, the error is reported as this machine's."""
    project = Project(tmp_path / "project")
    (tmp_path / "sitecustomize.py").write_text(FEW_THREADS)
    done = sync(project, PYTHONPATH=str(tmp_path), THREADS=str(threads))
    assert "a bug in grym-fetch" not in done.err
    assert done.code == (0 if threads else 4), done.err
    assert threads or "no thread to work in (ulimit -u 9" in done.err


@pytest.mark.shows("D16")
@pytest.mark.parametrize(
    "limit", typical([(kind, mib) for kind in "vd" for mib in (40, 80, 120, 240, 480)], ("v", 120), ("d", 120)), ids=str
)
def test_little_memory_for_threads(tmp_path: Path, limit: tuple[str, int]) -> None:
    """A small `ulimit -v` or `-d` is enough; a smaller one is named, and nothing aborts, hangs, or is called a bug."""
    project, (letter, mib) = Project(tmp_path / "project"), limit
    kind = {"v": resource.RLIMIT_AS, "d": resource.RLIMIT_DATA}[letter]
    done = sync(project, limit=lambda: resource.setrlimit(kind, (mib * MIB, mib * MIB)))
    assert "a bug in grym-fetch" not in done.err
    assert done.code == (0 if mib >= 120 else done.code), done.err
    assert done.code == 0 or f"ulimit -{letter} {mib * 1024}" in done.err
