"""Signals, several processes and full disks, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from grym_fetch.testing import AssetServer, Gate, Hold, SeededContent, Throttle, serve_in_thread
from tests.end_to_end.command import Running, environment, run, wait_until
from tests.support.project import Project
from tests.support.sweeps import typical
from tests.support.system import Stopwatch

MIB = 1024 * 1024
SIZE = 24 * MIB


@pytest.fixture
def gate() -> Gate:
    """Holds back the last byte of every asset: no download ends before a test lets it."""
    return Gate()


@pytest.fixture
def project(project: Project, server: AssetServer, gate: Gate) -> Project:
    """One asset."""
    add(project, server, "a", gate)
    return project


def add(project: Project, server: AssetServer, name: str, gate: Gate, *, size: int = SIZE) -> Path:
    """Serve an asset so slowly that its progress is reported often, and list it."""
    content = SeededContent(size, seed=len(name))
    file = server.add(f"/{name}", content, faults=[Throttle(rate=6 * MIB), Hold(gate, at=size - 1)])
    return project.add(name, [file.url], None, size=size, checksum=file.sha256)


SLOW_SOURCE = """
import asyncio, sys, time

class Slow:
    hub = "The Slow"

    def recognize(self, address, environ):
        return None

    async def resolve(self, address, web):
        print("asked", flush=True)
        time.sleep(100) if address.endswith("blocks") else await asyncio.sleep(100)

    newest = resolve
"""


@pytest.mark.shows("B61")
@pytest.mark.parametrize("how", ["waits", pytest.param("blocks", marks=pytest.mark.sweep)])
def test_a_source_that_hangs(project: Project, tmp_path: Path, how: str) -> None:
    """Ctrl-C ends the command even if somebody's source holds up everything; nothing is written."""
    package = tmp_path / "packages/slow-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: slow\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[grym_fetch.sources]\nslow = slow_source:Slow\n")
    (package.parent / "slow_source.py").write_text(SLOW_SOURCE)
    before = project.manifest.read_bytes()
    with subprocess.Popen(
        [sys.executable, "-m", "grym_fetch", "add", f"slow:{how}"],
        cwd=project.root,
        env=environment(PYTHONPATH=str(package.parent)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "asked\n"
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in told
    assert project.manifest.read_bytes() == before


@pytest.mark.alone
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.shows("B61", "P8")
def test_a_signal_stops_soon_and_keeps_everything(
    project: Project, gate: Gate, number: signal.Signals, code: int
) -> None:
    """SIGINT and SIGTERM end the command within two seconds, keep what has arrived, and say how to continue."""
    with Running(project.root, "sync", "--json") as running:
        running.until_bytes(SIZE // 3)
        since = Stopwatch()
        running.send(number)
        done = running.finish()
        assert since.seconds < 2
    assert done.code == code
    assert "run the same command to go on" in done.err
    assert "Traceback" not in done.err
    received = max(event["bytes"] for event in done.of("progress") if isinstance(event["bytes"], int))
    gate.open()
    again = run(project.root, "sync", "--json")
    assert again.code == 0
    (planned,) = again.of("asset_planned")
    assert isinstance(planned["resumed_bytes"], int)
    assert planned["resumed_bytes"] >= received - 64 * 1024


@pytest.mark.parametrize("stream", typical(["stdout", "stderr"], "stderr"))
@pytest.mark.shows("P8", "P14")
def test_a_signal_ends_it_also_where_nobody_reads(project: Project, stream: str) -> None:
    """Even when writing into a full pipe that nobody reads, a signal ends the command within two seconds."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"." * 512)
    os.set_blocking(writing, True)
    command = [sys.executable, "-m", "grym_fetch", "sync", "--json", "-vv"]
    out, err = (writing, subprocess.DEVNULL) if stream == "stdout" else (subprocess.DEVNULL, writing)
    process = subprocess.Popen(command, cwd=project.root, env=environment(), stdout=out, stderr=err)
    try:
        while not handles(process.pid, signal.SIGTERM) or (stream == "stdout" and not project.staged()):
            with suppress(subprocess.TimeoutExpired):
                raise AssertionError(f"it ended with {process.wait(timeout=0.02)}")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143
    finally:
        process.kill()
        process.wait()
        os.close(reading)
        os.close(writing)


def handles(pid: int, number: signal.Signals) -> bool:
    """Whether a process has its own handler for a signal."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(fields["SigCgt"], 16) & 1 << (number - 1))


@pytest.mark.shows("P8")
@pytest.mark.sweep
def test_the_last_line_is_said_in_the_middle_of_a_long_flush(project: Project, gate: Gate) -> None:
    """A flush that takes too long is left alone; the message still says what happens to the bytes."""
    (project.root / "sitecustomize.py").write_text(
        "import os, threading\n"
        "flush = os.fsync\n"
        "def slow(file):\n"
        "    if os.readlink(f'/proc/self/fd/{file}').endswith('/part'):\n"
        "        threading.Event().wait(600)\n"
        "    flush(file)\n"
        "os.fsync = slow\n"
    )
    gate.open()
    with Running(project.root, "sync", "--json", PYTHONPATH=".") as running:
        running.until("asset_verifying")
        running.send(signal.SIGINT)
        done = running.finish()
    assert done.code == 130
    assert done.err.count("run the same command to go on") == 1


@pytest.mark.shows("B61")
def test_nothing_goes_on_after_a_signal(project: Project, server: AssetServer) -> None:
    """After Ctrl-C no thread goes on downloading: the server sees every connection closed."""
    with Running(project.root, "sync", "--json") as running:
        running.until_bytes(SIZE // 4)
        running.send(signal.SIGINT)
        running.finish()
    wait_until(server, lambda stats: stats.connections_open == 0)


@pytest.mark.alone
@pytest.mark.shows("P8")
def test_a_second_signal_ends_at_once(project: Project) -> None:
    """A user who presses Ctrl-C twice does not have to wait."""
    with Running(project.root, "sync", "--json") as running:
        running.until_bytes(MIB)
        since = Stopwatch()
        running.send(signal.SIGINT)
        running.send(signal.SIGINT)
        assert running.finish().code in (130, -signal.SIGINT)
        assert since.seconds < 2


@pytest.mark.shows("B12", "B13", "X1")
def test_a_second_process_waits_and_finds_it_done(project: Project, server: AssetServer, gate: Gate) -> None:
    """Two processes, one asset: the second says which process it waits for, and downloads nothing."""
    with Running(project.root, "sync", "--json") as first:
        first.until_bytes(MIB)
        with Running(project.root, "sync", "--json") as second:
            waiting = second.until("asset_waiting")
            assert str(first.pid) in str(waiting["holder"])
            gate.open()
            assert first.finish().code == 0
            done = second.finish()
    assert done.code == 0
    assert done.of("asset_reused")
    assert done.of("run_finished")[0]["downloaded_bytes"] == 0
    # Once, plus what a slow connection had left when an idle one took over its work.
    assert SIZE <= server.stats.body_bytes_sent < SIZE * 3 / 2


@pytest.mark.shows("B10", "B44", "B60", "X2")
@pytest.mark.sweep
def test_a_dead_holder_blocks_nobody(project: Project, gate: Gate) -> None:
    """A process killed while it held an asset is not waited for, and its bytes are taken over."""
    with Running(project.root, "sync", "--json") as first:
        first.until_stored(project, 1)
        with Running(project.root, "sync", "--json") as second:
            second.until("asset_waiting")
            first.send(signal.SIGKILL)
            gate.open()
            done = second.finish()
    assert done.code == 0
    (planned,) = done.of("asset_planned")
    assert isinstance(planned["resumed_bytes"], int)
    assert planned["resumed_bytes"] > 0


@pytest.mark.shows("B60", "X2")
def test_waiting_has_an_end(project: Project) -> None:
    """After --lock-timeout the second process gives up with its own exit code and names the holder."""
    with Running(project.root, "sync", "--json") as first:
        first.until_bytes(MIB)
        done = run(project.root, "sync", "--lock-timeout", "0.3")
    assert done.code == 5
    assert f"process {first.pid}" in done.err
    assert "--lock-timeout" in done.err


@pytest.mark.sweep
def test_never_more_connections_than_asked_for(tmp_path: Path, server: AssetServer, gate: Gate) -> None:
    """--parallel bounds the connections open at once, including idle ones, over all assets and hosts."""
    project = Project(tmp_path / "many")
    gate.open()
    with serve_in_thread() as other:
        for number in range(6):
            where = server if number % 2 else other
            add(project, where, f"asset-{number}", gate, size=5 * MIB)
        done = run(project.root, "sync", "--parallel", "3", "--json")
        assert done.code == 0
        assert server.stats.most_open_connections + other.stats.most_open_connections <= 6
        assert server.stats.most_open_connections <= 3
        assert other.stats.most_open_connections <= 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.root
@pytest.mark.shows("D1")
def test_too_small_a_disk_is_refused_before_the_first_byte(
    small_disk: Path, project: Project, server: AssetServer
) -> None:
    """A download that cannot fit is not started; the error names the space needed and the space free."""
    done = run(project.root, "sync", "--assets-dir", str(small_disk / "assets"))
    assert done.code == 4
    assert "not enough space" in done.err
    assert "24.0 MiB needed" in done.err
    assert server.stats.body_bytes_sent == 0


@pytest.mark.root
@pytest.mark.shows("B63", "D2")
def test_a_disk_that_fills_on_the_way(small_disk: Path, project: Project, server: AssetServer, gate: Gate) -> None:
    """A disk that somebody else fills ends the run with exit code 4; with space again, the run continues from there."""
    add(project, server, "b", gate, size=10 * MIB)
    assets = ("--assets-dir", str(small_disk / "assets"))
    # Over one connection, everything before the last two pieces is certainly written.
    with Running(project.root, "sync", "b", "--json", "--parallel", "1", *assets) as running:
        running.until_bytes(5 * MIB)
        ballast = small_disk / "ballast"
        with pytest.raises(OSError, match="No space"):
            ballast.write_bytes(bytes(32 * MIB))
        done = running.finish()
    assert done.code == 4
    assert "no space left" in done.err
    ballast.unlink()
    gate.open()
    again = run(project.root, "sync", "b", "--json", *assets)
    assert again.code == 0, again.err
    (planned,) = again.of("asset_planned")
    assert planned["resumed_bytes"] != 0


@pytest.mark.shows("D9")
def test_a_folder_that_cannot_be_written(project: Project, tmp_path: Path, server: AssetServer) -> None:
    """An assets dir that is not a folder ends the run with exit code 4, naming it."""
    blocked = tmp_path / "blocked"
    blocked.write_text("a file")
    done = run(project.root, "sync", "--assets-dir", str(blocked / "assets"))
    assert done.code == 4
    assert str(blocked) in done.err
    assert server.stats.body_bytes_sent == 0


@pytest.mark.shows("U7")
def test_a_reader_that_goes_away(project: Project, gate: Gate) -> None:
    """A closed stdout ends the JSON output, not the download."""
    with Running(project.root, "sync", "--json", "-q") as running:
        running.until_bytes(MIB)
        running.close_stdout()
        gate.open()
        done = running.finish()
    assert done.code == 0, done.err
    assert (project.assets / "models" / "a.bin").stat().st_size == SIZE
