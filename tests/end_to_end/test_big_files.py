"""The main job on a real server with files as big as users have them."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from grym_fetch.testing import SeededContent
from tests.end_to_end.command import Running, run, run_measured
from tests.support.nginx import Location, Nginx

MIB = 1024 * 1024
GIB = 1024 * MIB

pytestmark = pytest.mark.nginx


@pytest.fixture
def roomy() -> Iterator[Path]:
    """A folder with room for a few GiB: in memory if there is enough, so that no disk sets the pace."""
    shared = Path("/dev/shm")
    in_memory = shared.is_dir() and shutil.disk_usage(shared).free > 6 * GIB
    with tempfile.TemporaryDirectory(dir=shared if in_memory else None) as folder:
        yield Path(folder)


class Site:
    """An nginx with seeded files, and a project that lists them."""

    def __init__(self, folder: Path, sizes: dict[str, int], *, limit_rate: int | None = None) -> None:
        from tests.support.project import Project

        self.nginx = Nginx(folder, [Location("/", limit_rate=limit_rate)] if limit_rate else [])
        self.project = Project(folder / "project")
        self.contents = {name: SeededContent(size, seed) for seed, (name, size) in enumerate(sizes.items())}

    def __enter__(self) -> Self:
        self.nginx.start()
        for name, content in self.contents.items():
            with (self.nginx.root / name).open("wb") as file:
                for start in range(0, content.size, 16 * MIB):
                    file.write(content.read(start, min(start + 16 * MIB, content.size)))
            self.project.add(
                name, [self.nginx.url(f"/{name}")], None, size=content.size, checksum=f"sha256:{content.sha256()}"
            )
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.nginx.stop()


@pytest.mark.sweep
def test_four_big_assets(roomy: Path) -> None:
    """Four big assets arrive verified in bounded memory; a second run downloads nothing and says so."""
    sizes = {"big": GIB, "one": GIB // 6, "two": GIB // 6, "three": GIB // 6 - MIB}
    with Site(roomy, sizes) as site:
        root = site.project.root
        done = run_measured(root, "sync", "--parallel", "4", "--json")
        assert done.code == 0, done.err
        assert {event["asset"] for event in done.of("asset_verified")} == set(sizes)
        assert done.peak_memory <= 120 * MIB
        again = run(root, "sync")
        assert again.code == 0
        assert "4 files ready in ./assets · all already there" in again.err
        assert "all already there" in again.err
        for path in (site.project.assets / "models").iterdir():
            path.unlink()
        small = run_measured(root, "sync", "one")
        assert small.code == 0
        assert abs(done.peak_memory - small.peak_memory) <= 40 * MIB


@pytest.mark.sweep
@pytest.mark.alone
def test_verified_as_soon_as_the_last_byte_is_there(roomy: Path) -> None:
    """On a link slower than the hash, verification follows the last byte: nothing is read a second time.

    The best of three runs counts: a busy machine only ever adds time. A second read of 1 GiB would take longer
    than the limit on any machine.
    """
    with Site(roomy, {"big": GIB}, limit_rate=60 * MIB) as site:
        delays: list[float] = []
        while len(delays) < 3 and min(delays, default=1.0) > 0.1:
            done = run(site.project.root, "sync", "--json", "-q", "--force")
            assert done.code == 0
            (verified,) = done.of("asset_verified")
            full = next(event for event in done.of("progress") if event["bytes"] == event["total"])
            assert isinstance(verified["time"], float)
            assert isinstance(full["time"], float)
            delays.append(verified["time"] - full["time"])
        assert min(delays) <= 0.1


@pytest.mark.shows("P1")
@pytest.mark.sweep
def test_killed_at_random_moments(roomy: Path) -> None:
    """Killed with -9 at a random moment and run again, many times: right each time, and hardly anything sent twice."""
    size = 48 * MIB
    dice = random.Random(20)
    with Site(roomy, {"big": size}, limit_rate=20 * MIB) as site:
        root, path = site.project.root, site.project.assets / "models" / "big.bin"
        for number in range(10):
            with Running(root, "sync", "--json", "-q") as running:
                running.until_bytes(int(size * dice.uniform(0.05, 0.9)))
            assert not path.exists()
            done = run(root, "sync", "--json", "-q")
            assert done.code == 0, f"round {number}: {done.err}"
            (verified,) = done.of("asset_verified")
            (planned,) = done.of("asset_planned")
            assert isinstance(planned["resumed_bytes"], int)
            assert isinstance(verified["downloaded_bytes"], int)
            assert planned["resumed_bytes"] > 0
            assert planned["resumed_bytes"] + verified["downloaded_bytes"] <= size + 1 * MIB
            path.unlink()
        # 16 MiB is the first segment, four connections; the log also counts bytes in the kernel's buffers.
        sent = site.nginx.bytes_sent("/big")
        assert sent <= 10 * (size + 4 * 16 * MIB)
