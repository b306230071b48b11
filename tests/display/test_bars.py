"""Bars of other libraries: one for each asset under way and one for the files of a sync."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tqdm import tqdm

from grym_fetch import blocking
from grym_fetch.core import events
from grym_fetch.display.bars import Bars, default_bar
from grym_fetch.testing import seeded_bytes, serve_in_thread
from tests.support.project import Project

SIZE = 3000


class RecordedBar:
    """A bar that notes what is done with it."""

    made: list[RecordedBar]

    def __init__(self, *, total: int | None, desc: str, **_: object) -> None:
        self.total, self.desc, self.n, self.is_closed = total, desc, 0, False
        self.made.append(self)

    def update(self, n: int) -> None:
        assert n > 0
        assert not self.is_closed
        self.n += n

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def bars() -> type[RecordedBar]:
    class Bar(RecordedBar):
        made: list[RecordedBar] = []  # noqa: RUF012 - of this test alone

    return Bar


def progress(done: int, total: int | None = 100) -> events.ProgressMade:
    return events.ProgressMade(asset="a\x1b[2J", bytes=done, total=total, rate=1.0)


def test_bars_follow_the_events(bars: type[RecordedBar]) -> None:
    """They never go back, learn a size, and end with their asset; after closing, nothing is shown any more."""
    shown = Bars(bars)
    shown.show(events.RunStarted(assets=2, bytes=100))
    for done, total in ((40, None), (20, None), (60, 100)):
        shown.show(progress(done, total))
    files, asset = bars.made
    assert (files.desc, files.total, files.n) == ("files", 2, 0)
    assert (asset.n, asset.total, asset.is_closed) == (60, 100, False)
    assert "\x1b" not in asset.desc
    shown.show(events.AssetFailed(asset="a\x1b[2J", error="Stalled", message="", attempts=()))
    assert (asset.is_closed, files.n, files.is_closed) == (True, 1, False)
    shown.show(progress(10))
    shown.close()
    shown.show(progress(20))
    assert len(bars.made) == 3
    assert all(bar.is_closed for bar in bars.made)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path)
    with serve_in_thread() as server:
        for name in ("a", "b"):
            content = seeded_bytes(SIZE, seed=ord(name))
            made.add(name, [server.add(f"/{name}.bin", content).url], content)
        yield made


async def test_a_sync_has_bars(project: Project, bars: type[RecordedBar]) -> None:
    """All of its bytes and files, and nothing after the block."""
    async with project.manager() as manager:
        with manager.progress(bars):
            await manager.sync()
        await manager.download_asset("a", force=True)
    assert sorted((bar.desc, bar.n, bar.is_closed) for bar in bars.made) == [
        ("a", SIZE, True), ("b", SIZE, True), ("files", 2, True),
    ]  # fmt: skip


def test_a_sync_without_await_has_bars_of_tqdm(project: Project) -> None:
    """Real ones, made and closed in the manager's own loop."""
    out = io.StringIO()
    with blocking.AssetManager(project.root / "assets.json") as manager, manager.progress(partial(tqdm, file=out)):
        manager.sync()
    assert "2/2" in out.getvalue()


def test_without_tqdm_there_are_bars_of_rich(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Rich is always there."""
    assert default_bar().__module__.startswith("tqdm")
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    shown = Bars(default_bar())
    shown.show(events.RunStarted(assets=1, bytes=100))
    shown.show(progress(50))
    shown.show(events.AssetReused(asset="a\x1b[2J", path="a"))
    shown.close()
    assert "files" in capsys.readouterr().out
