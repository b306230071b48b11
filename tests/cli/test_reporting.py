"""Pages that commands write: `sync --report` and `identify --html`."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from grym_fetch.cli.reporting import reporting, write_whole
from grym_fetch.core.errors import DiskFull, UnsafePath
from grym_fetch.core.events import AssetReused
from grym_fetch.testing import AssetServer, Gate, Hold, seeded_bytes
from tests.cli.running import invoke
from tests.end_to_end.command import environment
from tests.support.project import KIB, Project
from tests.support.terminal import Terminal

SIZE = 300 * KIB


@pytest.fixture
def project(tmp_path: Path, server: AssetServer, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Two assets, one of which nobody has any more."""
    made = Project(tmp_path / "project")
    content = seeded_bytes(SIZE, seed=1)
    made.add("here", [server.add("/here.bin", content).url + "?token=SECRET"], content)
    monkeypatch.chdir(made.root)
    return made


def test_a_sync_that_works_has_its_page(project: Project) -> None:
    """It is written beside nothing else, without secrets, and again over the older one."""
    for _ in range(2):
        done = invoke("sync", "--report", "report.html")
        assert done.exit_code == 0, done.output
    text = Path("report.html").read_text()
    assert "1 file ready" in text
    assert "SECRET" not in text
    assert sorted(path.name for path in project.root.iterdir()) == ["assets", "assets.json", "report.html"]


def test_a_sync_that_fails_has_its_page(project: Project, server: AssetServer) -> None:
    """With what failed, and why; the exit code is that of the failure."""
    gone = server.add("/gone.bin", b"x")
    project.add("gone", [gone.url.replace("/gone.bin", "/nowhere.bin")], b"x")
    assert invoke("sync", "--report", "report.html", "--retries", "0").exit_code == 1
    text = Path("report.html").read_text()
    assert "What failed" in text
    assert "404" in text


@pytest.mark.posix
def test_a_sync_that_is_interrupted_has_its_page(project: Project, server: AssetServer) -> None:
    """Ctrl-C ends the run, and the page says how far it was."""
    gate = Gate()
    content = seeded_bytes(SIZE, seed=2)
    project.add("held", [server.add("/held.bin", content, faults=[Hold(gate, at=SIZE - 1)]).url], content)
    with Terminal(project.root, "sync", "--report", "report.html", environ=environment()) as terminal:
        terminal.until(lambda rows: any("1 of 2 done" in row for row in rows))
        terminal.type(b"\x03")
        terminal.finish()
        assert terminal.code == 130
    gate.open()
    text = Path("report.html").read_text()
    assert "Interrupted" in text
    assert "1 file ready" in text


def test_a_sync_has_rows_for_programs(project: Project) -> None:
    """One line for each asset that was asked for, also after a failure."""
    project.add("gone", ["http://127.0.0.1:9/gone.bin"], b"x")
    assert invoke("sync", "--report", "report.jsonl", "--retries", "0").exit_code == 1
    rows = {row["asset"]: row for row in map(json.loads, Path("report.jsonl").read_text().splitlines())}
    assert (rows["here"]["end"], rows["here"]["bytes"], rows["here"]["attempts"]) == ("verified", SIZE, 1)
    assert (rows["gone"]["end"], rows["gone"]["origin"]) == ("failed", None)
    assert "SECRET" not in str(rows)


async def test_a_run_that_is_interrupted_has_its_rows(project: Project, tmp_path: Path) -> None:
    """What has ended, and what has not."""
    project.add("late", ["http://127.0.0.1:9/late.bin"], b"x")

    async def interrupted() -> None:
        async with project.manager() as manager, reporting(manager, manager.manifest.assets, tmp_path / "run.jsonl"):
            manager.emit(AssetReused(asset="here", path="/here"))
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await interrupted()
    rows = list(map(json.loads, (tmp_path / "run.jsonl").read_text().splitlines()))
    assert [(row["asset"], row["end"]) for row in rows] == [("here", "reused"), ("late", "unfinished")]


@pytest.mark.shows("P20")
@pytest.mark.parametrize("is_interrupted", [False, True])
async def test_rows_that_cannot_be_written(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_interrupted: bool
) -> None:
    """The run goes on, nothing waits for the report in memory, and in the end it is an error; the older one stays."""
    path = tmp_path / "run.jsonl"
    path.write_text("old\n")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("grym_fetch.display.report_rows.JsonLines.write", refuse)

    async def story() -> None:
        async with project.manager() as manager, reporting(manager, manager.manifest.assets, path):
            manager.emit(AssetReused(asset="here", path="/here"))
            async with asyncio.timeout(60):
                while manager._bus.is_heard:
                    await asyncio.to_thread(int)
            if is_interrupted:
                raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError if is_interrupted else DiskFull):
        await story()
    assert path.read_text() == "old\n"
    assert [name for name in os.listdir(tmp_path) if "run" in name] == ["run.jsonl"]


def test_parquet_without_its_extra_is_refused_first(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install; nothing is fetched."""
    monkeypatch.setattr("grym_fetch.cli.options.find_spec", lambda _: None)
    done = invoke("sync", "--report", "report.parquet")
    assert done.exit_code == 2
    assert "pip install 'grym-fetch[parquet]'" in done.stderr
    assert not project.assets.exists()


@pytest.mark.package("pyarrow")
def test_a_sync_has_a_table(project: Project) -> None:
    """In Parquet, with the same rows."""
    from pyarrow import parquet

    assert invoke("sync", "--report", "report.parquet").exit_code == 0
    (row,) = parquet.read_table("report.parquet").to_pylist()
    assert (row["asset"], row["end"], row["bytes"]) == ("here", "verified", SIZE)


@pytest.mark.parametrize("name", ["report.txt", "nowhere/report.html", "."])
def test_a_name_that_no_page_can_have_is_refused_first(project: Project, name: str) -> None:
    """Wrong usage, and nothing is fetched."""
    assert invoke("sync", "--report", name).exit_code == 2
    assert not project.assets.exists()


def test_a_page_that_cannot_be_written_is_an_error(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 0 means that all that was asked for is there: the page, too."""

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("grym_fetch.cli.reporting.replace_file", refuse)
    done = invoke("sync", "--report", "report.html")
    assert done.exit_code == 4
    assert "report.html" in done.stderr
    assert (project.assets / "models/here.bin").stat().st_size == SIZE


def test_metrics_of_a_sync_that_fails(project: Project, server: AssetServer) -> None:
    """They tell what failed and what arrived, from where, without the query of an address."""
    gone = server.add("/gone.bin", b"x")
    project.add("gone", [gone.url.replace("/gone.bin", "/nowhere.bin")], b"x")
    assert invoke("sync", "--metrics", "sync.prom", "--retries", "0").exit_code == 1
    text = Path("sync.prom").read_text()
    assert f'grym_fetch_downloaded_bytes_total{{server="http://127.0.0.1:{server.port}"}} {SIZE}' in text
    assert 'grym_fetch_asset_failed{asset="gone"} 1' in text
    assert "grym_fetch_run_success 0" in text
    assert "SECRET" not in text


def test_a_mirror_of_ones_own_is_named(project: Project, server: AssetServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes count for the server that is asked for them, not for the one in the manifest."""
    content = seeded_bytes(KIB, seed=3)
    project.add("mirrored", ["https://models.example.org/mirrored.bin"], content)
    server.add("/m/mirrored.bin", content)
    monkeypatch.setenv("GRYM_FETCH_MIRRORS", f"https://models.example.org/ = {server.url('/m/')}")
    for name in ("report.jsonl", "report.html"):
        done = invoke("sync", "mirrored", "--force", "--report", name, "--metrics", "sync.prom")
        assert done.exit_code == 0, done.output
    assert json.loads(Path("report.jsonl").read_text())["origin"] == server.url("/m/mirrored.bin")
    for text in (Path("report.html").read_text(), Path("sync.prom").read_text()):
        assert "models.example.org" not in text
        assert f"127.0.0.1:{server.port}" in text


@pytest.mark.posix
def test_metrics_while_a_sync_goes_on(project: Project, server: AssetServer) -> None:
    """The file is there soon, and an interrupted run leaves the last state. It needs a folder that is there."""
    gate = Gate()
    content = seeded_bytes(SIZE, seed=2)
    project.add("held", [server.add("/held.bin", content, faults=[Hold(gate, at=SIZE - 1)]).url], content)
    with Terminal(project.root, "sync", "--metrics", "sync.prom", environ=environment()) as terminal:
        terminal.until(lambda rows: any("1 of 2 done" in row for row in rows) and Path("sync.prom").exists())
        terminal.type(b"\x03")
        terminal.finish()
        assert terminal.code == 130
    gate.open()
    text = Path("sync.prom").read_text()
    assert 'grym_fetch_assets{state="verified"} 1' in text
    assert 'grym_fetch_assets{state="unfinished"} 1' in text
    assert "grym_fetch_run_finished 0" in text
    assert invoke("sync", "--metrics", "nowhere/sync.prom").exit_code == 2


@pytest.mark.posix
def test_a_repository_has_a_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its files, and with --history of what is in its past."""
    root = tmp_path / "repo"
    (root / "data").mkdir(parents=True)
    (root / "data/gone.bin").write_bytes(os.urandom(300_000))
    git = ["git", "-C", str(root), "-c", "user.name=t", "-c", "user.email=t@t"]
    for arguments in (["init", "--quiet"], ["add", "-A"], ["commit", "--quiet", "-m", "x"]):
        subprocess.run([*git, *arguments], check=True)
    (root / "data/gone.bin").rename(root / "data/here.bin")
    monkeypatch.chdir(root)
    done = invoke("identify", "0.1", "--history", "--html", "../map.html")
    assert done.exit_code == 0, done.output
    text = Path("../map.html").read_text()
    assert "data/here.bin" in text
    assert "data/gone.bin" in text
    assert text.count("<svg") == 2


@pytest.mark.posix
@pytest.mark.parametrize("option", ["--report", "--metrics"])
@pytest.mark.parametrize("kind", ["pipe", "link to a device"])
@pytest.mark.shows("S5")
def test_what_is_not_a_file_is_not_replaced(project: Project, server: AssetServer, option: str, kind: str) -> None:
    """Root could replace /dev/null or /dev/stdout for the whole machine: refused, and nothing is fetched."""
    place, before = Path("sync.html"), len(server.stats.requests)
    os.mkfifo(place) if kind == "pipe" else place.symlink_to("/dev/null")
    done = invoke("sync", option, str(place))
    assert done.exit_code == 2
    assert "is not a file" in done.output
    assert stat.S_ISFIFO(place.lstat().st_mode) if kind == "pipe" else place.is_symlink()
    assert len(server.stats.requests) == before


@pytest.mark.posix
@pytest.mark.shows("S5")
def test_what_has_become_no_file_is_not_replaced(tmp_path: Path) -> None:
    """Whoever put it there during the run; a link to a file is replaced, and what it leads to stays."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to(os.devnull)
    for name in ("pipe", "null"):
        with pytest.raises(UnsafePath, match="not a file"):
            write_whole(tmp_path / name, b"new")
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("link", "dangling"):
        write_whole(tmp_path / name, b"new")
        assert not (tmp_path / name).is_symlink()
    assert (tmp_path / "file").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "file", "link", "null", "pipe"]


@pytest.mark.posix
@pytest.mark.timeout(60)  # without its guard, it would wait for ever
async def test_no_pipe_is_read_for_an_earlier_report(project: Project, tmp_path: Path) -> None:
    """A run that goes on reads the report of the one before, if it is a file."""
    os.mkfifo(tmp_path / "pipe.jsonl")
    async with project.manager() as manager:
        with pytest.raises(UnsafePath, match="not a file"):
            async with reporting(manager, [], tmp_path / "pipe.jsonl", goes_on=True):
                pass
