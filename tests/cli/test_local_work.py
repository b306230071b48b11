"""Long work without a manager is shown like a sync."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from grym_fetch.cli import local_work, streams
from grym_fetch.cli.options import Common
from grym_fetch.core.events import AssetPlanned, AssetVerifying, Event, RunStarted
from grym_fetch.core.progress import Meter
from tests.cli.running import invoke


class Terminal(io.StringIO):
    """A terminal that keeps all that was written to it."""

    def isatty(self) -> bool:
        return True


COMMON = Common(None, None, None, 0, False, False, None)


def common(**chosen: Any) -> Common:
    """The options that every command has."""
    return replace(COMMON, **chosen)


def work(common: Common) -> None:
    """Half of one of two files."""
    with local_work.showing(common) as emit:
        emit(RunStarted(assets=2, bytes=4096))
        emit(AssetPlanned(asset="models/a.bin", size=2048, resumed_bytes=0))
        emit(AssetVerifying(asset="models/a.bin", bytes=1024, total=2048))


@pytest.mark.posix
def test_a_pipe_gets_a_line_of_progress(capsys: pytest.CaptureFixture[str]) -> None:
    """Every so many seconds, as of a sync."""
    work(common(progress="plain", progress_interval=1e-9))
    assert "0 of 2 files, 2.0 of 4.0 KiB" in capsys.readouterr().err


@pytest.mark.posix
def test_a_terminal_gets_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what the command prints meanwhile comes above it."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with local_work.showing(common(progress="bar")) as emit:
        emit(RunStarted(assets=1, bytes=2048))
        emit(AssetVerifying(asset="models/a.bin", bytes=1024, total=2048))
        streams.tell("moved: x")
    assert "models/a.bin" in terminal.getvalue()
    assert "verifying 50%" in terminal.getvalue()
    assert "moved: x" in terminal.getvalue()


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is shown, and nothing is started for it."""
    work(common(quiet=True))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(143)], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("quiet", [False, True])
def test_a_signal_is_answered(capsys: pytest.CaptureFixture[str], end: BaseException, quiet: bool) -> None:
    """As by a sync: the last line says how to go on."""
    with pytest.raises(type(end)), local_work.showing(common(quiet=quiet)):
        raise end
    assert capsys.readouterr().err == ("" if quiet else "interrupted; run the same command to go on\n")


def test_where_there_is_no_thread_the_work_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unseen."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(local_work, "begin_daemon", refuse)
    work(common(progress="plain", progress_interval=1e-9))
    assert capsys.readouterr().err == ""


def test_clean_and_restore_show_how_far_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a manifest by themselves, and with one as the manager's events."""
    heard: list[Event] = []

    @contextmanager
    def showing(_: Common) -> Iterator[Callable[[Event], None]]:
        yield heard.append

    monkeypatch.setattr(local_work, "showing", showing)
    # A slow machine would tell more: how far it is, and that it reads.
    monkeypatch.setattr(Meter, "is_due", lambda *_: False)
    (tmp_path / "root").mkdir()
    monkeypatch.chdir(tmp_path / "root")
    Path("big.bin").write_bytes(os.urandom(3_000_000))
    for command in (("clean", "-y", "1"), ("restore", "--all")):
        heard.clear()
        assert invoke(*command).exit_code == 0
        assert [each.type for each in heard] == ["run_started", "progress", "asset_verified"]
        assert heard[0] == RunStarted(assets=1, bytes=3_000_000), "of which the totals are made"
    Path("assets.json").write_text('{"version": "1.0.0", "updated": "2026-01-01T00:00:00Z", "assets": []}')
    Path("big.bin").rename("../big.bin")
    heard.clear()
    records = [json.loads(line)["type"] for line in invoke("restore", "big.bin", "--json").stdout.splitlines()]
    assert sorted(records) == ["asset_verified", "progress", "restored", "run_started"]
    assert heard == []
