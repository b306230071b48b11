"""Crashes while files get into the machine's store, out of it, and are adopted: nothing wrong is ever in place."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from grym_fetch import AssetManager, Settings
from grym_fetch.core.digest import Checksum
from grym_fetch.testing import AssetServer, seeded_bytes
from tests.end_to_end.test_crashes import CHANGES, ONE_THREAD, numbers_of, traced
from tests.support.project import KIB, SMALL, Project

CONTENT = seeded_bytes(40 * KIB, seed=71)
OTHER = seeded_bytes(30 * KIB, seed=72)
MOST_KILLS = 3
"""Of each kind of call, spread over the run."""
KINDS = f"{CHANGES},link,linkat,fchmod"

PROGRAM = f"""
import asyncio, sys
sys.path.insert(0, {os.getcwd()!r})
sys.dont_write_bytecode = True  # it would be a write among those that are counted
from pathlib import Path
from tests.end_to_end.test_store_crashes import story
asyncio.run(story(Path.cwd()))
"""


async def story(root: Path) -> None:
    """One project fetches and fills the store, another one takes from it, and the last adopts what a program left."""
    places = {"first": {"store": str(root / "store")}, "second": {"store": str(root / "store")}, "third": {}}
    for name, more in places.items():
        manager = AssetManager(root / name / "assets.json", settings=Settings(sizes=SMALL, retries=0, **more))  # type: ignore[arg-type]  # a path
        async with manager:
            if name == "third":
                await manager.adopt_assets([root / "downloads"])
            await manager.sync(all=True)


class Scene:
    """Two projects with an asset that a server has, and one with another that only another program has."""

    def __init__(self, root: Path, server: AssetServer) -> None:
        self.root = root
        self.projects = [Project(root / name) for name in ("first", "second", "third")]
        url = server.add("/a", CONTENT).url
        for each in self.projects[:2]:
            each.add("a", [url], CONTENT)
        self.projects[2].add("b", ["http://127.0.0.1:9/nowhere"], OTHER)
        self.server = server

    def reset(self) -> None:
        """Nothing is there but the manifests, and what another program left."""
        gone = [str(each.assets) for each in self.projects] + [str(self.root / name) for name in ("store", "downloads")]
        subprocess.run(["rm", "-rf", *gone, os.environ["XDG_STATE_HOME"]], check=True)
        (self.root / "downloads").mkdir()
        (self.root / "downloads/left.bin").write_bytes(OTHER)
        self.server.stats.reset()

    def stored(self) -> list[Path]:
        """What is in the store."""
        return [each for each in (self.root / "store/objects").rglob("*") if each.is_file()]

    def check(self, *, all_there: bool = False) -> None:
        """What is in place is right, and so is what the store has; what another program left is as it was."""
        for project in self.projects:
            for asset, path in project.finals().items():
                assert path.read_bytes() == project.contents[asset] if path.exists() else not all_there
            assert not (all_there and project.staged())
        objects = self.stored()
        assert all(each.read_bytes() == CONTENT and not each.stat().st_mode & 0o222 for each in objects)
        assert [each.name for each in objects] == [Checksum.of(CONTENT).hexdigest] or not (objects or all_there)
        left = self.root / "downloads/left.bin"
        assert left.read_bytes() == OTHER
        assert left.stat().st_mode & 0o200


@pytest.mark.strace
@pytest.mark.sweep
@pytest.mark.shows("P1")
def test_killed_before_each_change(tmp_path: Path, server: AssetServer) -> None:
    """The next run finishes the job; what is in the store by then is not fetched again."""
    scene, log, program = Scene(tmp_path, server), tmp_path / "trace", ONE_THREAD + PROGRAM
    trace = ("-e", f"trace={KINDS}")
    scene.reset()
    done = traced(scene.projects[0], log, *trace, program=program, folder=tmp_path)
    assert done.code == 0, done.err
    scene.check(all_there=True)
    assert server.stats.body_bytes_sent <= len(CONTENT)
    numbers = {kind: numbers_of(log, kind, tmp_path) for kind in KINDS.split(",")}
    killed = 0
    for kind, calls in numbers.items():
        for when in calls[:: -(-len(calls) // MOST_KILLS) or 1]:
            scene.reset()
            kill = ("-e", f"inject={kind}:signal=SIGKILL:when={when}")
            killed += traced(scene.projects[0], log, *trace, *kill, program=program, folder=tmp_path).code != 0
            scene.check()
            was_stored = bool(scene.stored())
            server.stats.reset()
            asyncio.run(story(tmp_path))
            scene.check(all_there=True)
            assert not (was_stored and server.stats.requests), "it was fetched again"
    assert killed >= 20
