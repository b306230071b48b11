"""The rules that check every fault test notice each breach: a check must be able to fail."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from grym_fetch import GrymFetchError
from grym_fetch.core.events import AssetFailed, AssetVerified, Event, ProgressMade, RunFinished
from grym_fetch.core.journal import JournalEncoder, Piece, piece_digest
from grym_fetch.errors import NotWritable
from tests.support.invariants import Recorder, Rules, Run, Watcher, check_traffic
from tests.support.project import CANARY, OWN, Project

CONTENT = b"the right bytes"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """One asset, and its folder."""
    made = Project(tmp_path / "project")
    made.add("a", ["https://origin.example/a"], CONTENT).parent.mkdir(parents=True)
    return made


def a_run(*events: Event, error: GrymFetchError | None = None, log: str = "") -> Run:
    """A run with these events."""
    heard = Recorder()
    heard.events.extend(events)
    return Run(heard, {} if error is None else {"a": error}, [log])


def put(project: Project, content: bytes = CONTENT) -> None:
    """Put the asset in place."""
    project.finals()["a"].write_bytes(content)


def stage(project: Project, claimed: bytes) -> None:
    """Leave a part and a journal that claims these bytes of it."""
    folder = project.assets / OWN / "stage" / "one"
    folder.mkdir(parents=True)
    (folder / "part").write_bytes(b"12345678")
    encoder = JournalEncoder()
    piece = Piece(0, 8, piece_digest(claimed), 0)
    (folder / "journal").write_bytes(encoder.header("a") + encoder.piece(piece))


def test_a_good_run_is_good(project: Project) -> None:
    """A good run breaks no rule."""
    rules = Rules(project)
    put(project)
    stage(project, b"12345678")
    ended = AssetVerified(asset="a", path="a", checksum="", size=15, seconds=0.0, downloaded_bytes=15)
    rules.check(a_run(ProgressMade(asset="a", bytes=15, total=15, rate=0.0), ended))


def put_another(project: Project) -> None:
    """Rule 1."""
    put(project, b"other bytes")


def put_nothing(project: Project) -> None:
    """Rule 2."""


def claim_too_much(project: Project) -> None:
    """Rule 5."""
    put(project)
    stage(project, b"........")


def keep_a_secret(project: Project) -> None:
    """Rule 6."""
    put(project)
    stage(project, b"12345678")
    (project.staged()[0] / "x").write_text(CANARY)


def write_beside_it(project: Project) -> None:
    """Rule 7."""
    put(project)
    (project.root / "x").touch()


def write_into_it(project: Project) -> None:
    """Rule 7."""
    put(project)
    (project.assets / "x").touch()


BREACHES: dict[Callable[[Project], None], str] = {
    put_another: "neither the old nor the new",
    put_nothing: "nothing was said",
    claim_too_much: "is not there",
    keep_a_secret: "a secret in a file",
    write_beside_it: "none of ours",
    write_into_it: "none of ours",
}


@pytest.mark.parametrize(("breach", "text"), BREACHES.items(), ids=[breach.__name__ for breach in BREACHES])
def test_a_breach(project: Project, breach: Callable[[Project], None], text: str) -> None:
    """A breach left behind by a run is noticed."""
    rules = Rules(project)
    breach(project)
    with pytest.raises(AssertionError, match=text):
        rules.check(a_run())


def test_a_wrong_file_for_a_moment(tmp_path: Path) -> None:
    """One sighting is enough."""
    watcher = Watcher(tmp_path / "a", CONTENT)
    (tmp_path / "a").write_bytes(b"half")
    watcher.look()
    (tmp_path / "a").unlink()
    with pytest.raises(AssertionError, match="neither the old nor the new"):
        watcher.check()


@pytest.mark.parametrize(
    "events",
    [
        [ProgressMade(asset="a", bytes=2, total=1, rate=0.0)],
        [ProgressMade(asset="a", bytes=n, total=9, rate=0.0) for n in (5, 4)],
        [AssetFailed(asset="a", error="x", message="x")] * 2,
    ],
    ids=["over 100 %", "backwards", "ends twice"],
)
def test_events_that_cannot_be(events: list[Event]) -> None:
    """Rule 3."""
    with pytest.raises(AssertionError):
        a_run(*events).heard.check()


def test_an_end_that_is_not_told(project: Project) -> None:
    """The file is there, but listeners still wait for its end."""
    rules = Rules(project)
    put(project)
    with pytest.raises(AssertionError, match="nothing was told of the end of"):
        rules.check(a_run())


def test_a_secret_that_is_told(project: Project) -> None:
    """A secret in a log record, an event or an error is noticed."""
    rules = Rules(project)
    put(project)
    for run in (
        a_run(log=f"asked with {CANARY}"),
        a_run(AssetFailed(asset="a", error="x", message=CANARY)),
        a_run(error=NotWritable("/x", CANARY)),
    ):
        with pytest.raises(AssertionError, match="a secret"):
            rules.check(run)


@pytest.mark.parametrize(
    ("downloaded", "sent", "requests"),
    [(301, 999, 1), (201, 200, 1), (100, 999, 121)],
    ids=["twice", "counted and not sent", "asked forever"],
)
def test_traffic(downloaded: int, sent: int, requests: int) -> None:
    """Rule 4: an asset of 100 bytes; one break, which may cost 100 bytes, and 100 at the end."""
    ended = RunFinished(verified=0, reused=0, failed=1, downloaded_bytes=downloaded, seconds=0.0)
    run = a_run(AssetFailed(asset="a", error="x", message="x"), ended)
    with pytest.raises(AssertionError):
        check_traffic(run, sent, requests, {"a": 100}, may_lose=100)
    check_traffic(run, 999, 120, {"a": 101}, may_lose=100)


async def test_what_is_left_running(project: Project) -> None:
    """Rule 8: a task, a thread that does not end, an open file."""
    rules, end = Rules(project), asyncio.Event()
    task = asyncio.create_task(end.wait())
    with pytest.raises(AssertionError, match="was left"):
        rules.check(None)
    end.set()
    await task
    with (project.root / "assets.json").open(), pytest.raises(AssertionError, match="left open"):
        rules.check(None)


def test_a_thread_that_does_not_end(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for, but not forever."""
    monkeypatch.setattr("tests.support.invariants.DEADLINE", 0.01)
    rules, end = Rules(project), threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        with pytest.raises(AssertionError, match="was left"):
            rules.check(None)
    finally:
        end.set()
        thread.join()
