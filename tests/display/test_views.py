from __future__ import annotations

import os
import pty
import re
import select
import sys
from collections.abc import Iterator
from dataclasses import replace

import pyte
import pytest
from rich.cells import cell_len

from grym_fetch.core import events
from grym_fetch.display.choice import choose_display
from grym_fetch.display.lines import Telling
from grym_fetch.display.live import LiveView
from grym_fetch.display.loop import View, show
from grym_fetch.display.model import DisplayModel
from grym_fetch.display.plain import MAX_PENDING_LINES, PlainView, progress_line
from tests.display.scripted import Bus, Clock, FakeTerminal, draw_at_once, start

HIDE_CURSOR = "\x1b[?25l"
PLANNED = events.AssetPlanned(asset="a", size=100, resumed_bytes=0)
FINISHED = events.RunFinished(verified=1, reused=0, failed=0, downloaded_bytes=100, seconds=1.0)
VERIFIED = events.AssetVerified(asset="a", path="p", checksum="c", size=100, seconds=1.0, downloaded_bytes=100)


def live(stream: FakeTerminal, *, width: int = 60, verbose: int = 0, **environ: str) -> LiveView:
    return LiveView(
        stream,
        {"a": "[b]ä[/b].bin"},
        environ={"TERM": "xterm", **environ},
        size=lambda: (width, 10),
        telling=Telling(verbose),
    )


def drawn(view: View, *happened: events.Event, now: float = 0.0) -> None:
    for event in happened:
        view.apply(event, now)
    drawing = view.prepare(now)
    assert drawing is not None
    drawing()


@pytest.mark.shows("U1", "U7")
def test_plain_lines_have_no_escape_codes() -> None:
    """A log gets one line per change, ended by a line feed, and nothing else."""
    stream = FakeTerminal(is_terminal=False)
    view = PlainView(stream, {"a": "\x1b[31mred.bin"})
    drawn(view, PLANNED, VERIFIED)
    assert stream.getvalue() == ("\\x1b[31mred.bin: downloading, 100 B\n\\x1b[31mred.bin: verified, 100 B in 1.0 s\n")


@pytest.mark.shows("U9")
def test_plain_lines_draw_nothing_for_progress() -> None:
    """The plain display writes nothing for progress."""
    view = PlainView(FakeTerminal(is_terminal=False))
    view.apply(events.ProgressMade(asset="a", bytes=1, total=2, rate=1.0), 0.0)
    assert view.prepare(0.0) is None


@pytest.mark.shows("U7")
def test_plain_lines_are_ascii_where_the_stream_is() -> None:
    """A stream that is not UTF-8 gets escapes instead of an error or question marks."""
    stream = FakeTerminal(is_terminal=False, encoding="ascii")
    drawn(PlainView(stream, {"a": "ä.bin"}), PLANNED, FINISHED)
    assert stream.getvalue() == ("\\xe4.bin: downloading, 100 B\n1 file ready - 100 B in 1.0 s (100 B/s)\n")


@pytest.mark.shows("U9")
def test_lines_that_nobody_takes_are_bounded() -> None:
    """A stream that is stuck for long loses its oldest lines, and says how many."""
    stream = FakeTerminal(is_terminal=False)
    view = PlainView(stream)
    drawn(view, *[PLANNED] * (MAX_PENDING_LINES + 7))
    first, *others = stream.getvalue().splitlines()
    assert first == "(7 lines left out: they could not be written in time)"
    assert len(others) == MAX_PENDING_LINES


@pytest.mark.shows("U2")
def test_the_live_display_cleans_up_after_itself() -> None:
    """The region is cleared once; the cursor is never hidden, so it need not be restored; names are not markup."""
    stream = FakeTerminal()
    view = live(stream)
    drawn(view, PLANNED)
    assert "[b]ä[/b].bin" in stream.getvalue()
    view.close()
    closed = stream.getvalue()
    view.close()
    assert closed.endswith("\r\x1b[1A\x1b[2K\x1b[?2026l")
    assert stream.getvalue() == closed
    assert HIDE_CURSOR not in stream.getvalue()


def test_finished_assets_scroll_up_out_of_the_region() -> None:
    """A finished asset's line is printed once, before the region."""
    stream = FakeTerminal()
    view = live(stream, NO_COLOR="1")
    drawn(view, PLANNED, events.AssetPlanned(asset="b", size=None, resumed_bytes=0))
    drawn(view, VERIFIED)
    drawn(view)
    text = stream.getvalue()
    assert text.count("✓ [b]ä[/b].bin         100 B     1.0 s\n") == 1
    assert text.rindex("✓") < text.rindex("queued")


def test_news_shows_only_when_verbose() -> None:
    """Retries and mirrors are states of a row; their reasons stay on screen only with -v."""
    retry = events.RetryScheduled(asset="a", url="u", attempt=1, delay=3.0, reason="status 503")
    quiet, talkative = FakeTerminal(), FakeTerminal()
    drawn(live(quiet), PLANNED, retry)
    drawn(live(talkative, verbose=1, width=100), PLANNED, retry)
    assert "status 503" not in quiet.getvalue()
    assert "status 503" in talkative.getvalue()


@pytest.mark.shows("U7")
def test_no_color_is_honoured() -> None:
    """With NO_COLOR no colour is written; without it, some is."""
    coloured, colourless = FakeTerminal(), FakeTerminal()
    drawn(live(coloured), PLANNED, events.ProgressMade(asset="a", bytes=50, total=100, rate=1.0))
    drawn(live(colourless, NO_COLOR="1"), PLANNED, events.ProgressMade(asset="a", bytes=50, total=100, rate=1.0))
    assert "\x1b[36m" in coloured.getvalue()
    assert "\x1b[36m" not in colourless.getvalue()


def test_nothing_is_drawn_before_there_is_something_to_show() -> None:
    """A run with nothing to do shows only its summary."""
    stream = FakeTerminal()
    view = live(stream)
    view.apply(events.RunStarted(assets=1, bytes=0), 0.0)
    view.apply(events.AssetReused(asset="a", path="a"), 0.0)
    assert view.model.snapshot(0.0).under_way == 0
    view = live(stream)
    view.apply(events.RunStarted(assets=0, bytes=0), 0.0)
    assert view.prepare(0.0) is None
    view.close()
    assert stream.getvalue() == ""


@pytest.mark.shows("U1")
def test_what_is_said_does_not_break_the_region() -> None:
    """A log record becomes a line above the region, made harmless and wrapped."""
    stream = FakeTerminal()
    view = live(stream, width=20, NO_COLOR="1")
    view.say("a warning that is \x1b[2J longer than twenty")
    drawn(view, PLANNED)
    assert "a warning that is\n\\x1b[2J longer than\ntwenty\n" in stream.getvalue()


def test_a_narrower_terminal_leaves_no_remains() -> None:
    """Rows broken by a narrower terminal are erased before the next picture."""
    stream = FakeTerminal()
    width = 80
    view = LiveView(stream, {}, environ={"TERM": "xterm"}, size=lambda: (width, 10))
    drawn(view, PLANNED)
    before = len(stream.getvalue())
    width = 30
    drawn(view)
    up = stream.getvalue()[before:].split("a")[0].count("\x1b[1A")
    assert up > 2


@pytest.mark.shows("U7")
def test_nothing_is_drawn_in_the_background() -> None:
    """The terminal then belongs to another job. Back in front, drawing restarts at the cursor; no line is lost."""
    stream, is_in_front = FakeTerminal(), True
    view = LiveView(stream, environ={"TERM": "xterm"}, size=lambda: (60, 10), is_in_foreground=lambda: is_in_front)
    drawn(view, PLANNED)
    assert "a" in stream.getvalue()
    is_in_front, before = False, len(stream.getvalue())
    view.say("a warning")
    assert view.prepare(1.0) is None
    assert len(stream.getvalue()) == before
    is_in_front = True
    drawn(view, now=2.0)
    again = stream.getvalue()[before:]
    assert "a warning" in again
    assert "\x1b[1A" not in again, "what others wrote meanwhile is not erased"


@pytest.mark.shows("U7")
def test_after_a_stop_a_new_region_begins() -> None:
    """What the shell has written below the old one, such as ``fg``, is not erased."""
    stream = FakeTerminal()
    view = live(stream)
    drawn(view, PLANNED)
    before = len(stream.getvalue())
    view.came_back()
    drawn(view, now=2.0)
    again = stream.getvalue()[before:]
    assert ".bin" in again
    assert "\x1b[1A" not in again
    before = len(stream.getvalue())
    drawn(view, now=3.0)
    assert "\x1b[1A" in stream.getvalue()[before:], "only the first picture is a new one"


@pytest.mark.shows("U7")
def test_a_job_that_ends_in_the_background_says_how() -> None:
    """Its lines are printed as by any program, without a picture."""
    stream = FakeTerminal()
    view = LiveView(stream, environ={"TERM": "xterm", "NO_COLOR": "1"}, size=lambda: (60, 10), is_in_foreground=bool)
    view.apply(PLANNED, 0.0)
    view.apply(FINISHED, 1.0)
    assert view.prepare(1.0) is None
    view.close()
    assert "1 file ready" in stream.getvalue()
    assert "\x1b[1A" not in stream.getvalue()


@pytest.mark.posix
@pytest.mark.shows("U7")
@pytest.mark.parametrize("is_in_front", [True, False])
def test_a_terminal_says_whose_it_is(is_in_front: bool) -> None:
    """A job whose process group is not the foreground one is in the background."""
    reader, writer = os.pipe()
    child, terminal = pty.fork()
    if child == 0:
        if (job := os.fork()) == 0:
            if not is_in_front:
                os.setpgid(0, 0)
            view = LiveView(sys.__stderr__, environ={"TERM": "xterm"})  # type: ignore[arg-type]  # it is there
            view.apply(PLANNED, 0.0)
            os.write(writer, b"drawn" if view.prepare(0.0) else b"away")
            os._exit(0)
        os.waitpid(job, 0)
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        assert file.read() == (b"drawn" if is_in_front else b"away")
    os.waitpid(child, 0)
    os.close(terminal)


@pytest.mark.shows("U7")
@pytest.mark.parametrize("width", [120, 80, 40])
def test_an_interrupt_leaves_no_remains(width: int) -> None:
    """The last row has room for the ``^C`` that a terminal shows: the cursor stays in the row where clearing begins."""
    stream = FakeTerminal()
    view = LiveView(stream, {"a": "a" * 40}, environ={"TERM": "xterm"}, size=lambda: (width, 10))
    for second in range(4):
        arrived = events.ProgressMade(asset="a", bytes=second << 20, total=64 << 20, rate=1 << 20)
        drawn(view, events.RunStarted(assets=1, bytes=64 << 20), PLANNED, arrived, now=float(second))
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue().rpartition("\n")[2])
    assert "0 of 1 done" in last
    assert cell_len(last) + len("^C") <= width


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """A pseudo-terminal: the end that the display writes to, and the end that a person sees."""
    seen, written = os.openpty()
    yield written, seen
    os.close(seen)
    os.close(written)


def read_until(descriptor: int, text: str) -> str:
    """Read what a person sees, up to a text: the system delivers it in portions, at its own pace."""
    shown = b""
    while text.encode() not in shown and select.select([descriptor], [], [], 10)[0]:
        shown += os.read(descriptor, 65_536)
    return shown.decode()


@pytest.mark.posix
async def test_a_real_terminal_is_left_as_it_was(terminal: tuple[int, int]) -> None:
    """On a pseudo-terminal the live display is chosen, shows the run, and never hides the cursor."""
    written, seen = terminal
    with os.fdopen(written, "w", encoding="utf-8", closefd=False) as stream:
        display = choose_display(stream=stream, environ={"TERM": "xterm"}, quiet=False, names={})
        assert display is not None
        bus = Bus([PLANNED, events.ProgressMade(asset="a", bytes=50, total=100, rate=1.0)])
        running = start(display.run(bus))
        bus.put(VERIFIED)
        bus.put(FINISHED)
        bus.finish()
        await running
    shown = read_until(seen, "1 file ready")
    assert "1 file ready" in shown
    assert "✓ " in shown
    assert HIDE_CURSOR not in shown


@pytest.mark.shows("U7")
async def test_a_closed_pipe_harms_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    """If stderr's reader has gone, the run goes on, stdout is untouched, and nothing is raised."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as stream:
        for view in (PlainView(stream), LiveView(stream, environ={"TERM": "xterm"}, size=lambda: (80, 24))):
            clock, bus = Clock(), Bus([PLANNED])
            showing = start(show(bus, view, clock=clock, sleep=clock.sleep, draw=draw_at_once))
            await clock.advance(1.0)
            bus.put(VERIFIED)
            bus.finish()
            await clock.finish(showing)
            assert bus.is_empty
    print("still here")  # noqa: T201 - Rich's own answer to a broken pipe closes stdout
    assert capfd.readouterr().out == "still here\n"


@pytest.mark.shows("U7", "U10")
def test_a_pipe_hears_of_a_run_that_is_alive() -> None:
    """Without a bar, a line of progress comes at intervals, but none while nothing is under way."""
    stream = FakeTerminal(is_terminal=False)
    view = PlainView(stream, {}, interval=30.0)
    mib = 1 << 20
    happened = [events.RunStarted(assets=60, bytes=60 * mib), *(replace(PLANNED, asset=n, size=mib) for n in "abc")]
    drawn(view, *happened, replace(VERIFIED, asset="a", size=mib), now=0.0)
    before = len(stream.getvalue())
    assert view.prepare(29.9) is None
    view.apply(events.ProgressMade(asset="b", bytes=mib // 2, total=mib, rate=0.0), 29.9)
    drawn(view, now=30.0)
    assert stream.getvalue()[before:] == "1 of 60 files, 1.5 of 60.0 MiB, 51 KiB/s, 20 min left\n"
    assert view.prepare(59.9) is None
    drawn(view, now=60.0)
    assert stream.getvalue()[before:].count("\n") == 2
    silent = PlainView(FakeTerminal(is_terminal=False), {}, interval=None)
    drawn(silent, *happened, now=0.0)
    assert silent.prepare(1000.0) is None


def test_a_line_of_progress_says_what_is_not_known() -> None:
    """An unknown size makes the others a lower bound."""
    model = DisplayModel()
    for event in (PLANNED, replace(PLANNED, asset="b", size=None)):
        model.apply(event, 0.0)
    model.apply(events.ProgressMade(asset="b", bytes=50, total=None, rate=10.0), 0.0)
    assert progress_line(model.snapshot(0.0).totals) == (
        "0 of 2 files, 50 B of more than 100 B, 10 B/s, at least 10 s left"
    )


@pytest.mark.shows("U7")
def test_nothing_else_is_written_into_the_region() -> None:
    """Other writers to the same terminal must wait while the region is shown."""
    view, written = live(FakeTerminal()), []
    assert view.try_beside(lambda: written.append("before"))
    drawn(view, PLANNED)
    assert not view.try_beside(lambda: written.append("meanwhile"))
    view.close()
    assert view.try_beside(lambda: written.append("after"))
    assert written == ["before", "after"]


@pytest.mark.shows("U10")
def test_what_has_finished_is_not_shown_as_running() -> None:
    """In any picture, an asset has either its line above the region or its row in it."""
    stream, screen = FakeTerminal(), pyte.Screen(60, 10)
    view = live(stream)
    drawn(view, PLANNED, replace(PLANNED, asset="b"), events.ProgressMade(asset="b", bytes=1, total=100, rate=1.0))
    drawn(view, VERIFIED)
    pyte.Stream(screen).feed(stream.getvalue().replace("\n", "\r\n"))
    assert ["[b]" in row for row in screen.display[:4]] == [True, False, False, False]
    assert screen.display[0].startswith("✓ ")
    assert screen.display[2].startswith("  1 of 2 done · 1 active")


def test_a_frame_appears_as_a_whole() -> None:
    """Each write is between the marks of synchronized output (mode 2026), on a terminal that can move only."""
    terminal, dumb = FakeTerminal(), FakeTerminal()
    drawn(live(terminal), PLANNED)
    drawn(live(dumb, TERM="dumb"), PLANNED)
    frames = terminal.getvalue()
    assert frames.startswith("\x1b[?2026h")
    assert frames.endswith("\x1b[?2026l")
    assert re.fullmatch(r"(\x1b\[\?2026h(?:(?!\x1b\[\?2026).)*\x1b\[\?2026l)+", frames, re.DOTALL)
    assert "2026" not in dumb.getvalue()


def test_a_run_is_shown_until_it_is_over() -> None:
    """Of small files nothing is told until they are there; what is still to come stands below those that are."""
    stream, screen = FakeTerminal(), pyte.Screen(60, 10)
    view = live(stream)
    drawn(view, events.RunStarted(assets=3, bytes=300))
    drawn(view, VERIFIED)
    drawn(view)
    pyte.Stream(screen).feed(stream.getvalue().replace("\n", "\r\n"))
    assert screen.display[0].startswith("✓ ")
    assert screen.display[1].startswith("  1 of 3 done · 2 queued")
    drawn(view, FINISHED)
    assert view.model.snapshot(0.0).under_way == 0
