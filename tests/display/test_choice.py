from __future__ import annotations

import subprocess
import sys

import pytest

from grym_fetch.display.choice import choose_display
from grym_fetch.display.live import LiveView
from grym_fetch.display.plain import PlainView
from tests.display.scripted import FakeTerminal


def test_quiet_shows_nothing() -> None:
    """With --quiet there is no display."""
    assert choose_display(stream=FakeTerminal(), environ={}, quiet=True, names={}) is None


@pytest.mark.parametrize(
    ("is_terminal", "environ", "expected"),
    [
        (True, {"TERM": "xterm-256color"}, LiveView),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, LiveView),
        (True, {"TERM": "dumb"}, PlainView),
        (True, {}, PlainView),
        (False, {"TERM": "xterm"}, PlainView),
        (False, {"TERM": "xterm", "FORCE_COLOR": "1"}, PlainView),
    ],
)
@pytest.mark.shows("U7")
def test_only_a_terminal_that_can_move_its_cursor_gets_animation(
    is_terminal: bool, environ: dict[str, str], expected: type
) -> None:
    """Pipes, files and dumb terminals get plain lines, even where colour is forced."""
    display = choose_display(stream=FakeTerminal(is_terminal=is_terminal), environ=environ, quiet=False, names={})
    assert display is not None
    assert type(display.view) is expected
    assert display.is_live is (expected is LiveView)


@pytest.mark.shows("U7")
def test_a_closed_stream_is_no_terminal() -> None:
    """Choosing does not fail if stderr is closed."""
    stream = FakeTerminal()
    stream.close()
    stream.isatty = lambda: bool(stream.getvalue())  # type: ignore[method-assign]
    display = choose_display(stream=stream, environ={"TERM": "xterm"}, quiet=False, names={})
    assert display is not None
    assert not display.is_live


def test_importing_the_display_does_not_import_rich() -> None:
    """Rich takes time to start, so only the live display loads it."""
    code = "import sys, grym_fetch.display.choice; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
