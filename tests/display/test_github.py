from __future__ import annotations

import pytest

from grym_fetch.core import events
from grym_fetch.display.choice import choose_display
from grym_fetch.display.github import GitHubView, annotation
from grym_fetch.display.stream import harmless, is_github
from tests.display.scripted import FakeTerminal

STARTED = events.RunStarted(assets=1, bytes=0)
PLANNED = events.AssetPlanned(asset="a", size=100, resumed_bytes=0)
FINISHED = events.RunFinished(verified=1, reused=0, failed=0, downloaded_bytes=0, seconds=1.0)


def lines(*happened: events.Event, name: str = "a", ends: bool = True) -> list[str]:
    stream = FakeTerminal(is_terminal=False)
    view = GitHubView(stream, {"a": name})
    for event in happened:
        view.apply(event, 0.0)
    if (drawing := view.prepare(0.0)) is not None:
        drawing()
    if ends:
        view.close()
    return stream.getvalue().splitlines()


def test_a_run_is_a_group() -> None:
    """It folds in the job's log; the sentence at the end stays outside."""
    assert lines(STARTED, PLANNED, FINISHED) == [
        "::group::grym-fetch: 1 file",
        "1 file",
        "a: downloading, 100 B",
        "::endgroup::",
        "1 file ready",
    ]


def test_an_interrupted_run_ends_its_group() -> None:
    """What follows in the job is not folded away."""
    assert lines(STARTED, PLANNED)[-1] == "::endgroup::"
    assert "::endgroup::" not in lines(STARTED, PLANNED, ends=False)


@pytest.mark.shows("U1")
@pytest.mark.parametrize("name", ["::error::no", "::stop-commands::x", "a ##[error]no"])
def test_a_name_is_no_command(name: str) -> None:
    """The name of an asset cannot command the runner."""
    *_, planned, end = lines(STARTED, PLANNED, name=name)
    assert end == "::endgroup::"
    assert "::" not in planned
    assert "##[" not in planned
    assert harmless("a: b") == "a: b"


def test_an_annotation_is_one_line() -> None:
    """It is one line, whatever the message and the file are called."""
    assert annotation("error", "50 %\nnext", file="a,b:c.json", title="x") == (
        "::error file=a%2Cb%3Ac.json,title=x::50 %25%0Anext"
    )
    assert annotation("warning", "w") == "::warning::w"


def test_it_is_chosen_in_a_job() -> None:
    """The variable that the runner sets decides."""
    assert not is_github({"GITHUB_ACTIONS": ""})
    stream = FakeTerminal(is_terminal=False)
    display = choose_display(stream=stream, environ={"GITHUB_ACTIONS": "true"}, quiet=False, names={})
    assert display is not None
    assert isinstance(display.view, GitHubView)
