from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from grym_fetch.core import events
from grym_fetch.core.events import Event
from grym_fetch.display.lines import Chronicle, Line, Mark
from grym_fetch.display.model import DisplayModel
from grym_fetch.display.render import cut_middle, render, render_line, wrapped
from tests.display.strategies import NAMES, any_event

MIB = 2**20
SCREENS = Path(__file__).with_name("screens.txt")
sizes = st.sampled_from([120, 80, 40, 20]) | st.integers(0, 250)


def picture(
    *happened: Event, now: float = 1.0, width: int = 80, height: int = 24, ascii_only: bool = False
) -> list[str]:
    model = DisplayModel(NAMES)
    for event in happened:
        model.apply(event, 1.0)
    return [line.plain for line in render(model.snapshot(now), now, width, height, ascii_only=ascii_only, retries=5)]


def planned(asset: str = "plain", size: int | None = 100 * MIB, resumed: int = 0) -> events.AssetPlanned:
    return events.AssetPlanned(asset=asset, size=size, resumed_bytes=resumed)


def progress(done: int = 50 * MIB, total: int | None = 100 * MIB, asset: str = "plain") -> events.ProgressMade:
    return events.ProgressMade(asset=asset, bytes=done, total=total, rate=5.0 * MIB, eta=10.0)


@given(st.lists(any_event, max_size=25), sizes, st.integers(0, 60), st.floats(0, 1e6), st.booleans())
@pytest.mark.shows("U1", "U7")
def test_no_picture_is_larger_than_the_terminal(
    happened: list[Event], width: int, height: int, now: float, ascii_only: bool
) -> None:
    """Whatever happens, no line is wider than the terminal or has a control character, and all lines fit."""
    lines = picture(*happened, now=now, width=width, height=height, ascii_only=ascii_only)
    assert len(lines) <= max(0, height - 1)
    for line in lines:
        assert cell_len(line) <= width
        assert line.isprintable()
        assert line.isascii() or not ascii_only


@given(st.lists(any_event, max_size=25), sizes, st.booleans())
@pytest.mark.shows("U1", "U7")
def test_no_line_that_stays_is_wider_than_the_terminal(happened: list[Event], width: int, ascii_only: bool) -> None:
    """Finished assets, failures and summaries fit, too."""
    model = DisplayModel(NAMES)
    chronicle = Chronicle(model)
    for event in happened:
        model.apply(event, 0.0)
        for line in chronicle.lines(event):
            for text in render_line(line, width, ascii_only=ascii_only):
                assert text.cell_len <= width
                assert text.plain.isascii() or not ascii_only


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (
            120,
            (
                "⠇ model.safetensors  ━━━━━━━━━━━━━━━━━━━━────────────────────  50%"
                "   50.0 MiB/100 MiB   5.0 MiB/s      10 s"
            ),
        ),
        (80, "⠇ model.safetensors  ━━━━━━╸──────  50%   50.0 MiB/100 MiB   5.0 MiB/s      10 s"),
        (70, "⠇ model.safetensors  ━━━━━━╸──────  50%   50.0 MiB/100 MiB   5.0 MiB/s"),
        (60, "⠇ model.safetensors  ━━━━━━━╸───────  50%   50.0 MiB/100 MiB"),
        (40, "⠇ model.safetensors  ━━━━━━━───────  50%"),
        (20, "⠇ model.…ensors  50%"),
        (10, "⠇ mode…ors"),
    ],
)
def test_columns_go_in_their_order(width: int, expected: str) -> None:
    """As the room shrinks, the time left goes first, then the speed, then the bytes, then the bar."""
    shown, *_ = picture(planned(), progress(), width=width)
    assert shown == expected


@pytest.mark.parametrize(
    ("event", "now", "state"),
    [
        (planned(), 1.0, "queued"),
        (planned(resumed=MIB), 1.0, "resuming"),
        (events.AssetWaiting(asset="plain", holder="pid 7"), 1.0, "waiting for pid 7"),
        (
            events.RetryScheduled(asset="plain", url="", attempt=1, delay=3.0, reason="status 503: busy; later"),
            1.0,
            "503, retry 1 of 5 in 3 s",
        ),
        (
            events.RetryScheduled(asset="plain", url="", attempt=2, delay=3.0, reason="reset"),
            2.5,
            "reset, retry 2 of 5 in 2 s",
        ),
        (events.RetryScheduled(asset="plain", url="", attempt=6, delay=3.0, reason=""), 9.0, "retry 6"),
        (
            events.RetryScheduled(
                asset="plain", url="", attempt=1, delay=3.0, reason=f"refused; {events.AWAY}, trying"
            ),
            1.0,
            "server away, 3 s",
        ),
        (
            events.MirrorSwitched(asset="plain", from_="", to="", reason="", number=2, count=3),
            1.0,
            "mirror 2 of 3",
        ),
        (events.AssetRestarted(asset="plain", discarded=1, reason=""), 1.0, "starting over"),
        (events.AssetVerifying(asset="plain", bytes=45, total=100), 1.0, "verifying 45%"),
        (events.AssetVerifying(asset="plain", bytes=100, total=100), 1.0, "verifying"),
        (events.AssetVerifying(asset="plain", bytes=45, total=100, unpacking=True), 1.0, "unpacking 45%"),
        (progress(), 13.0, "no data for 12 s"),
    ],
)
@pytest.mark.parametrize("width", [120, 80, 40])
@pytest.mark.shows("U10")
def test_a_row_says_what_it_waits_for(event: Event, now: float, state: str, width: int) -> None:
    """Anything but a flow of bytes is described in words, at every usual width."""
    shown, *_ = picture(planned(), event, now=now, width=width)
    assert shown.endswith(f"  {state}")


@pytest.mark.shows("U8", "U10")
def test_a_percentage_is_never_rounded_up() -> None:
    """100 % is shown only when the last byte is there."""
    assert " 99%" in picture(planned(), progress(100 * MIB - 1))[0]
    assert "100%" in picture(planned(), progress(100 * MIB))[0]


@pytest.mark.shows("U8")
def test_an_unknown_size_has_a_moving_bar_and_no_percentage() -> None:
    """Without a total, the bytes and the speed are shown, a block moves to and fro, and nothing claims a percentage."""
    happened = (planned(size=None), progress(total=None))
    early, late = picture(*happened, now=1.0), picture(*happened, now=1.5)
    assert "%" not in "".join(early)
    assert early[0] != late[0]
    assert "50.0 MiB   5.0 MiB/s" in early[0]


@pytest.mark.parametrize("height", [3, 10, 24, 300])
@pytest.mark.shows("U9")
def test_the_rest_is_counted(height: int) -> None:
    """With 200 assets there are as many rows as fit the height minus 3, and the others make one line."""
    happened = [event for n in range(200) for event in (planned(str(n)), progress(asset=str(n)))]
    lines = picture(*happened, height=height)
    rows = min(200, height - 3)
    assert len(lines) == rows + (2 if rows < 200 else 1)
    if rows < 200:
        assert lines[-2] == f"  … and {200 - rows} more"
    assert lines[-1].startswith("  0 of 200 done")


@pytest.mark.shows("U9")
def test_what_is_queued_does_not_fill_the_screen() -> None:
    """While something is active, queued assets are only a number in the last line, which counts those not yet seen."""
    happened = [events.RunStarted(assets=60, bytes=6000 * MIB), *(planned(str(n)) for n in range(20))]
    happened += [progress(asset=str(n)) for n in range(12)]
    lines = picture(*happened, height=50, width=120)
    assert len(lines) == 12 + 1
    assert lines[-1].startswith("  0 of 60 done · 12 active · 48 queued ")
    lines = picture(*happened, height=10, width=120)
    assert lines[-2] == "  … and 53 more", "all that are hidden count, not only the planned ones"
    assert len(picture(*(planned(str(n)) for n in range(20)), height=50)) == 3 + 2


@pytest.mark.shows("U9", "U10")
def test_a_size_that_is_not_known_does_not_hide_the_others() -> None:
    """The percentage and the time left are those of the assets with a known size."""
    happened = (planned(), progress(), planned("open", size=None), progress(7 * MIB, None, "open"))
    *_, total = picture(*happened, width=120)
    assert "  50%  57.0 MiB/107 MiB+" in total
    assert total.endswith(" s")


def test_a_file_that_is_all_there_is_not_shown_as_coming() -> None:
    """From its last byte to its end it has neither speed nor time left."""
    shown, _ = picture(planned(), progress(100 * MIB), width=120)
    assert shown.endswith("100%    100 MiB/100 MiB  verifying")


def test_the_last_line_says_what_is_not_verified() -> None:
    """A file without a checksum is finished, and counted separately while the others are under way."""
    loose = events.AssetVerified(
        asset="loose", path="p", checksum="c", size=1, seconds=1.0, downloaded_bytes=1, unverified=True
    )
    long_name = "n" * 60
    lines = picture(loose, planned(long_name), progress(asset=long_name), width=120)
    assert lines[-1].startswith("  1 of 2 done · 1 unverified · 1 active  ")


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (
            120,
            (
                "  1 of 3 done · 1 failed · 1 active              ━━━━━━━━━━━━╸────────────  50%"
                "   50.0 MiB/100 MiB   5.0 MiB/s      10 s"
            ),
        ),
        (80, "  1 of 3 · 1 failed · 1 active      50%   50.0 MiB/100 MiB   5.0 MiB/s      10 s"),
        (40, "  1 of 3 done · 1 failed  50%  5.0 MiB/s"),
        (20, "  1/3, 1 failed  50%"),
        (5, "  1/3"),
    ],
)
def test_the_last_line_adds_everything_up(width: int, expected: str) -> None:
    """The total shows files, bytes, speed and time left, as far as there is room."""
    long_name = "n" * 60
    failed = events.AssetFailed(asset="f", error="E", message="m")
    happened = (
        events.AssetReused(asset="r", path="p"),
        failed,
        planned(long_name),
        progress(asset=long_name),
    )
    assert picture(*happened, width=width)[-1] == expected


@pytest.mark.shows("U1", "U2")
def test_markup_and_escapes_are_plain_text() -> None:
    """A name with Rich markup or terminal escapes is shown literally."""
    assert "[red]evil[/red]" in picture(planned("markup"), width=120)[0]
    assert "\\x1b[2J" in picture(planned("escapes"), width=120)[0]


@pytest.mark.shows("U7")
def test_a_terminal_without_unicode_gets_ascii() -> None:
    """Bars, marks and names in other scripts have an ASCII form."""
    shown, _ = picture(planned("wide"), progress(asset="wide"), width=60, ascii_only=True)
    assert shown.startswith(r"| \u65e5\u67...")
    assert "#####" in shown


@given(st.text(max_size=60), st.integers(0, 30))
def test_a_cut_name_keeps_both_ends(name: str, width: int) -> None:
    """A name that does not fit is cut in the middle, to at most the width."""
    cut = cut_middle(name, width)
    assert cell_len(cut) <= width
    assert cut == name or "…" in cut or width < 3


def test_a_finished_asset_stays_with_its_numbers() -> None:
    """The line that scrolls up has mark, name, size, time and speed; a long name keeps both ends."""
    line = Line(Mark.DONE, "weights/model-00001.safetensors", "", "", ("1.0 GiB", "12 s", "85 MiB/s"))
    assert render_line(line, 80)[0].plain == "✓ weights/model-00001.safetensors   1.0 GiB      12 s    85 MiB/s"
    assert render_line(line, 40)[0].plain == "✓ weights/m…etensors   1.0 GiB      12 s"
    assert render_line(line, 80, ascii_only=True)[0].plain.startswith("+ weights/")


def test_the_numbers_of_finished_assets_stand_below_each_other() -> None:
    """Whatever the length of each name and the width of its characters."""
    figures = ("1.0 GiB", "12 s", "85 MiB/s")
    for width in (120, 80, 60):
        lines = [
            render_line(Line(Mark.DONE, name, "", "", figures), width, name_cells=24)[0].plain
            for name in ("a", "模型", "weights/model-00001.safetensors")
        ]
        assert len({cell_len(line) for line in lines}) == 1


def test_a_sentence_has_one_mark() -> None:
    """If a narrow terminal breaks it, it continues on the next line."""
    line = Line(Mark.DONE, "", "5 files ready in ./assets", "")
    assert [text.plain for text in render_line(line, 16)] == ["✓ 5 files ready", "  in ./assets"]


@given(st.text(alphabet="ab 長", max_size=80), st.integers(2, 20))
def test_a_summary_is_broken_not_cut(text: str, width: int) -> None:
    """A line without a name loses no word, however narrow the terminal."""
    lines = wrapped(text, width)
    assert all(cell_len(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


@given(st.lists(any_event, max_size=25), st.sampled_from([120, 80, 40]), st.floats(0, 100))
def test_words_can_be_read_on_white_as_on_black(happened: list[Event], width: int, now: float) -> None:
    """Yellow, cyan, green and grey are for bars and marks; words have the terminal's own colour, or a dark one."""
    model = DisplayModel(NAMES)
    chronicle = Chronicle(model)
    texts = []
    for event in happened:
        model.apply(event, 1.0)
        texts += [text for line in chronicle.lines(event) for text in render_line(line, width)]
    texts += render(model.snapshot(now), now, width, 24, retries=5)
    for text in texts:
        assert text.style in ("", "bold")
        for start, stop, style in text.spans:
            words = any(char.isalnum() for char in text.plain[start:stop])
            allowed = {"", "bold", "dim", "red", "bold red", "magenta"}
            assert str(style) in (allowed if words else allowed | {"cyan", "green", "bright_black"})


def scene() -> tuple[Event, ...]:
    """A run with a file in each state."""
    return (
        events.RunStarted(assets=9, bytes=2000 * MIB),
        planned("done"),
        events.AssetVerified(
            asset="done", path="d", checksum="c", size=100 * MIB, seconds=4.0, downloaded_bytes=100 * MIB
        ),
        events.AssetFailed(asset="private", error="BadStatus", message="private: status 401: a token is needed"),
        planned("model-00001-of-00002.safetensors", 4096 * MIB, 1024 * MIB),
        progress(2048 * MIB, 4096 * MIB, "model-00001-of-00002.safetensors"),
        planned("retried"),
        events.RetryScheduled(asset="retried", url="u", attempt=2, delay=3.0, reason="status 503: busy"),
        planned("mirrored"),
        events.MirrorSwitched(asset="mirrored", from_="a", to="b", reason="reset", number=2, count=3),
        progress(10 * MIB, 100 * MIB, "mirrored"),
        planned("hashed"),
        progress(100 * MIB, 100 * MIB, "hashed"),
        events.AssetVerifying(asset="hashed", bytes=45 * MIB, total=100 * MIB),
        planned("archive"),
        progress(100 * MIB, 100 * MIB, "archive"),
        events.AssetVerifying(asset="archive", bytes=30 * MIB, total=100 * MIB, unpacking=True),
        planned("unknown", None),
        progress(3 * MIB, None, "unknown"),
        planned("queued"),
    )


@pytest.mark.parametrize("width", [120, 80, 40])
def test_the_screen_as_it_was_looked_at(width: int) -> None:
    """The whole screen at the usual widths, as text: a change is looked at, and then kept in ``screens.txt``."""
    model = DisplayModel({})
    chronicle = Chronicle(model)
    lines = []
    for event in scene():
        model.apply(event, 1.0)
        kept = [line for line in chronicle.lines(event) if line.mark is not Mark.NEWS]
        lines += [text.plain for line in kept for text in render_line(line, width, name_cells=model.longest_name)]
    lines += [text.plain for text in render(model.snapshot(1.0), 1.0, width, 24, retries=5)]
    shown = SCREENS.read_text(encoding="utf-8").split(f"--- {width} columns\n")[1].split("\n---")[0]
    assert "\n".join(lines) == shown.rstrip("\n")


def test_what_is_said_of_an_asset_is_not_cut() -> None:
    """Where there is no room beside its name, it comes below."""
    detail = "status 503; now from mirror 2 of 2, https://models.example.org/mirror.bin"
    first, *below = (text.plain for text in render_line(Line(Mark.NEWS, "mirrored", detail, ""), 60))
    assert first == "· mirrored"
    assert " ".join(part.strip() for part in below) == detail
    assert all(part.startswith("    ") for part in below)
