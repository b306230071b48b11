"""Screens as they were looked at, in 120, 80 and 40 columns, kept in ``screens.txt``.

After a change: ``python -m tests.cli.test_screens`` writes them anew; look at the difference before you keep it.
"""

from __future__ import annotations

import io
import logging
import os
import re
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout, suppress
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import click
import pyte
import pytest

from grym_fetch.cli import streams
from grym_fetch.cli.findings import tell_finding
from grym_fetch.cli.help import EXAMPLES, fitted, screen_width
from grym_fetch.cli.logs import set_up_logging
from grym_fetch.cli.main import cli
from grym_fetch.cli.measured import tell_measured
from grym_fetch.cli.options import Common
from grym_fetch.cli.repairing import tell_repaired
from grym_fetch.cli.repository_text import survey_lines
from grym_fetch.cli.runner import print_error
from grym_fetch.cli.store import print_file
from grym_fetch.cli.tables import print_table
from grym_fetch.cli.updating import tell_newer
from grym_fetch.cli.usage import tell_usage
from grym_fetch.core import events
from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import (
    BadStatus,
    DigestMismatch,
    DiskFull,
    GrymFetchError,
    MirrorsExhausted,
    OriginFailure,
    SyncFailed,
    UnpinnedAsset,
)
from grym_fetch.core.manifest import Asset
from grym_fetch.display.lines import Telling
from grym_fetch.display.live import LiveView
from grym_fetch.display.sheet import Sheet
from grym_fetch.engine.reports import RepairReport
from grym_fetch.project.updating import NewerVersion
from grym_fetch.repo.identify import LargeFile, Survey
from grym_fetch.store.care import StoredFile, UsedBy
from tests.display.scripted import FakeTerminal

KEPT = Path(__file__).with_name("screens.txt")
WIDTHS = (120, 80, 40)
MIB = 2**20
URL = "https://models.example.org/{}.bin"


_COMMON = Common(None, None, None, verbose=0, quiet=False, json=False, log_file=None)
_colours: ContextVar[dict[str, str]] = ContextVar("colours")
"""What the environment says about them."""


def drawn(width: int, *happened: events.Event) -> str:
    """What a terminal shows after these events."""
    stream = FakeTerminal()
    telling = Telling(place="./assets", retries=5)
    environ = {"TERM": "xterm"} | _colours.get()
    view = LiveView(stream, environ=environ, telling=telling, size=lambda: (width, 24), is_in_foreground=lambda: True)
    for event in happened:
        view.apply(event, 1.0)
    for _ in range(2):  # what stays comes first, then what moves
        drawing = view.prepare(1.0)
        assert drawing is not None
        drawing()
    screen = pyte.Screen(width, 24)
    pyte.Stream(screen).feed(stream.getvalue().replace("\n", "\r\n"))
    return "\n".join(painted(screen.buffer[y], width).rstrip() for y in range(24))


def painted(row: Mapping[int, pyte.screens.Char], width: int) -> str:
    """A row of the screen; where colours are wanted, with its styles. A wide character's second cell is empty."""
    shown, before = "", ""
    for x in range(width):
        char = row[x]
        style = before
        if char.data.strip() and not _colours.get():
            style = " ".join(filter(None, ("" if char.fg == "default" else char.fg, "bold" if char.bold else "")))
        if style != before:
            shown += f"‹{style or 0}›"
            before = style
        shown += char.data
    return shown


def many(width: int) -> str:
    """Sixty files, of which some are done, some are under way, and most are queued."""
    names = [f"layer-{number:02}" for number in range(60)]
    happened: list[events.Event] = [events.RunStarted(assets=60, bytes=60 * MIB)]
    happened += [events.AssetPlanned(asset=name, size=MIB, resumed_bytes=0) for name in names]
    happened += [
        events.AssetVerified(asset=name, path="p", checksum="c", size=MIB, seconds=2.0, downloaded_bytes=MIB)
        for name in names[:4]
    ]
    happened += [events.ProgressMade(asset=n, bytes=MIB // 2, total=MIB, rate=MIB / 8, eta=4.0) for n in names[4:10]]
    return drawn(width, *happened)


def waiting(width: int) -> str:
    """What holds up a file, however long the reason is."""
    names = ("limited", "asked", "reset", "resumed")
    happened: list[events.Event] = [events.RunStarted(assets=4, bytes=4 * MIB)]
    happened += [events.AssetPlanned(asset=n, size=MIB, resumed_bytes=MIB // 4 * (n == "resumed")) for n in names]
    happened += [events.ProgressMade(asset=n, bytes=MIB // 2, total=MIB, rate=1.0) for n in names]
    happened += [
        events.AssetWaiting(asset="limited", holder="models.example.org:443, which allows 2 at a time"),
        events.AssetWaiting(asset="asked", holder="models.example.org:443 to be free, to ask it again: status 404"),
        events.RetryScheduled(
            asset="reset", url="u", attempt=1, delay=3.0, reason="connection lost after 524,288 of 1,048,576 bytes"
        ),
    ]
    return drawn(width, *happened)


def ended(width: int) -> str:
    """The lines that stay: aligned, and a sentence at the end."""
    took = [("base", 1331.0, 50.0, None), ("a-long-name-for-a-model-that-was-tuned-on-many-things-v2", 3.0, 1.0, None)]
    took += [("模型", 5.0, 2.0, None)]
    happened: list[events.Event] = [events.RunStarted(assets=5, bytes=0)]
    happened.append(events.AssetReused(asset="tokenizer", path="p"))
    for name, size, seconds, _ in took:
        happened.append(events.AssetPlanned(asset=name, size=int(size * MIB), resumed_bytes=0))
        happened.append(
            events.AssetVerified(
                asset=name, path="p", checksum="c", size=int(size * MIB), seconds=seconds,
                downloaded_bytes=int(size * MIB), unverified=name == "模型" or None,
            )
        )  # fmt: skip
    happened.append(events.AssetReused(asset="a-long-name-for-a-file-that-was-there-before-this-run", path="p"))
    happened.append(
        events.RunFinished(verified=2, unverified=1, reused=2, failed=0, downloaded_bytes=int(1339 * MIB), seconds=53.0)
    )
    return drawn(width, *happened)


def clustered(width: int) -> str:
    """Two workers of one machine, which their ports tell apart, and what is there of all files."""
    happened: list[events.Event] = [events.RunStarted(assets=3, bytes=3 * MIB)]
    for name, node in (("base", "127.0.0.1:41233"), ("vocoder", "127.0.0.1:41877"), ("labels", "127.0.0.1:41877")):
        happened.append(events.AssetPlanned(asset=name, size=MIB, resumed_bytes=0, node=node))
        happened.append(events.ProgressMade(asset=name, bytes=MIB // 2, total=MIB, rate=1.0, node=node))
    done = events.AssetVerified(asset="base", path="p", checksum="c", size=MIB, seconds=2.0, downloaded_bytes=MIB)
    return drawn(width, *happened, replace(done, node="127.0.0.1:41233"))


def failed(_: int) -> None:
    """Each failure is a block; what to do is a line of its own."""

    def exhausted(name: str, *codes: int) -> MirrorsExhausted:
        url = URL.format(name)
        return MirrorsExhausted(name, [OriginFailure(url, BadStatus(url, code, f"status {code}")) for code in codes])

    failures: dict[str, GrymFetchError] = {
        "private": exhausted("private", 401),
        "vocoder": exhausted("vocoder", 503, 404),
        "wrong": DigestMismatch("wrong", f"sha256:{'ab' * 32}", f"sha256:{'cd' * 32}", advice="Use another mirror."),
        "unpinned": UnpinnedAsset("unpinned"),
        "big": DiskFull("/data", "not enough space: 900 GiB needed, 72.6 GiB free; free some, or use --assets-dir"),
    }
    print_error(SyncFailed(failures))
    told = "3 of 8 files ready in ./assets · 5 failed · 1 already there · 1.3 GiB in 53 s (25 MiB/s)"
    streams.tell(streams.sheet().marked("✗", "x", "red", told))


def listed(_: int) -> None:
    """A table, and what to do next."""
    rows = [
        ("verified", "base", "1.3 GiB", "./assets/models/base-model-v2.safetensors", ""),
        ("partial 36%", "模型", "5.0 MiB", "./assets/models/模型.bin", ""),
        ("corrupt", "vocoder", "96.0 MiB", "./assets/models/vocoder.bin", "the checksum does not match"),
    ]
    print_table(("STATE", "ID", "SIZE", "PATH", "NOTE"), rows, state=0, right=(2,), note=4)
    streams.say("1 partly there, 1 corrupt: grym-fetch sync")


def planned(_: int) -> None:
    """What a sync would do."""
    rows = [
        ("fetch", "base", "1.3 GiB", "-> models/base-model-v2.safetensors", ""),
        ("read ", "模型", "", "", "(there but not verified yet: read first, and repaired if it is wrong)"),
        ("keep ", "vocoder", "", "", ""),
    ]
    print_table(("PLAN", "ID", "SIZE", "PATH", "NOTE"), rows, right=(2,), note=4, piped="  ")
    streams.say_result("1 to fetch, 2 already there")


def checked(width: int) -> str:
    """A file that is read to its end once more, beside one that has been."""
    happened: list[events.Event] = [events.RunStarted(assets=3, bytes=3 * MIB)]
    happened.append(events.AssetVerifying(asset="base", bytes=MIB // 4, total=MIB))
    happened.append(events.AssetVerifying(asset="模型", bytes=MIB, total=MIB))
    return drawn(width, *happened)


def identified(_: int) -> None:
    """Large files, largest first; totals; what to ignore and what to do next."""
    files = (
        LargeFile("models/a-long-name-for-a-model-that-was-tuned-on-many-things.safetensors", 1300 * MIB),
        LargeFile("models/模型.bin", 96 * MIB),
    )
    found = Survey(files=files, ignored=1, pointers=0, symlinks=("latest",), repositories=(), unreadable=())
    for line in survey_lines(found, "", 10 * MIB):
        streams.say_result(line)


def measured(_: int) -> None:
    """What `add` and `pin` say of each."""
    tell_measured("added", [("bar", 20 * MIB, Checksum.of(b"bar"), ""), ("模型", 900, Checksum.of(b"x"), "(kept)")])


def found(_: int) -> None:
    """What `doctor` says."""
    tell_finding("ok", "space: 46.0 MiB to be fetched, 59.6 GiB free", "")
    what = f"origin: sick: {URL.format('sick')}: status 503"
    tell_finding("fail", what, "the server is busy or broken; try again later, or add a fallback url")


def stored(_: int) -> None:
    """What is in the store: a digest may be shortened, a path never."""
    uses = (UsedBy(Path("/home/me/one/assets"), "models/base.safetensors"), UsedBy(Path("/home/me/two/assets"), "b"))
    print_file("  20.0 MiB", StoredFile(Checksum.of(b"bar"), 20 * MIB, 2, 0.0, uses))
    print_file("     900 B", StoredFile(Checksum.of(b"x"), 900, 0, 0.0, ()), unused="not used by any project")


def newer(_: int) -> None:
    """What `outdated` and `update` say."""
    old = Asset("model-big.bin", "Big", URL.format("old"), version="e8058d9ea1fb" + "0" * 28, size=20 * MIB)
    new = replace(old, version="d3b7eef1c2e5" + "0" * 28, size=21 * MIB, source="hf://org/model@main/big.bin")
    tell_newer(NewerVersion(old, new), _COMMON, is_written=False)


def repaired(_: int) -> None:
    """What `repair` did and would do, with digests of the pieces and without."""
    by_digests = RepairReport("base", Path("b"), "repaired", 20, 1, MIB, 1, MIB, 19 * MIB)
    tell_repaired(by_digests, _COMMON)
    tell_repaired(replace(by_digests, bad=0, fetched=13, downloaded_bytes=13 * MIB, saved_bytes=7 * MIB), _COMMON)
    tell_repaired(replace(by_digests, outcome="damaged", is_guess=True, bytes_at_most=20 * MIB, saved_bytes=0), _COMMON)
    tell_repaired(RepairReport("vocoder", Path("v"), "intact"), _COMMON)


def warned(_: int) -> None:
    """A warning of the log reads as one of a command."""
    logs = set_up_logging(_COMMON)
    logging.getLogger("grym_fetch").warning("no log file %s: permission denied", "/var/log/grym-fetch.log")
    logs.close()
    streams.complain("the environment variable GRYM_FETCH_PARALEL means nothing", kind="warning")


def helped(_: int) -> None:
    """One screen of help."""
    with suppress(click.exceptions.Exit):
        cli.main(["sync", "-h"], prog_name="grym-fetch", standalone_mode=False)


def exemplified(_: int) -> None:
    """Examples that are too long for a narrow terminal; a shell takes their lines as one."""
    for example in (*EXAMPLES["import"], *EXAMPLES["update"]):
        streams.say_result(fitted(f"  grym-fetch {example}", screen_width()))


def explained(_: int) -> None:
    """All of the help; where two columns would be narrow, what an option means is below it."""
    with suppress(click.exceptions.Exit):
        cli.main(["schema", "--help"], prog_name="grym-fetch", standalone_mode=False)


def mistyped(_: int) -> None:
    """Wrong usage, told like any error."""
    try:
        cli.main(["snyc"], prog_name="grym-fetch", standalone_mode=False)
    except click.ClickException as error:
        tell_usage(error)


def stopped(_: int) -> None:
    """The last line of a run that was interrupted."""
    streams.say(streams.interrupted("21.9 of 64.0 MiB", at_once=False))


SCENES: tuple[Callable[[int], str | None], ...] = (
    many, waiting, checked, clustered, ended, failed, planned, listed, identified, measured, found, stored, newer,
    repaired, warned, helped, exemplified, explained, mistyped, stopped,
)  # fmt: skip


IN_COLOUR: tuple[Callable[[int], str | None], ...] = (waiting, checked, ended, failed, listed, measured, warned)
LEGIBLE = {"0", "1", "2", "31", "35", "1;31", "bold", "red", "magenta", "red bold"}
"""The styles of words: they can be read on white as on black."""


def screen(scene: Callable[[int], str | None], width: int, *, in_colour: bool = False) -> str:
    """What is shown, stdout and stderr together."""
    shown = io.StringIO()
    colours = {} if in_colour else {"NO_COLOR": "1"}
    _colours.set(colours)
    sheet = Sheet(FakeTerminal(), {"TERM": "xterm"} | colours, width=width)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("G")} | {"COLUMNS": str(width)}
    with (
        redirect_stdout(shown),
        redirect_stderr(shown),
        patch.object(streams, "sheet", lambda *_: sheet),
        patch.dict(os.environ, kept, clear=True),
    ):
        drawn_by_itself = scene(width)
    text = drawn_by_itself if drawn_by_itself is not None else shown.getvalue()
    return "\n".join(line.rstrip() for line in text.rstrip().split("\n"))


def title(scene: Callable[[int], str | None], width: int, *, in_colour: bool = False) -> str:
    """The line above a kept screen."""
    return f"--- {scene.__name__}, {width} columns{', in colour' if in_colour else ''}\n"


def kept_screen(scene: Callable[[int], str | None], width: int, *, in_colour: bool = False) -> str:
    """The screen as it was kept."""
    text = KEPT.read_text(encoding="utf-8").split(title(scene, width, in_colour=in_colour))[1]
    return text.split("\n\n--- ")[0].rstrip("\n")


def legible(text: str) -> str:
    """The text with its escape sequences as ``‹31›``."""
    return re.sub(r"\x1b\[([^m]*)m", r"‹\1›", text)


@pytest.mark.posix
@pytest.mark.shows("U7")
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_the_screen_is_the_one_that_was_looked_at(scene: Callable[[int], str | None], width: int) -> None:
    """As it was kept; and no sentence is broken in the middle of a word."""
    assert screen(scene, width) == kept_screen(scene, width)


@pytest.mark.shows("U7")
@pytest.mark.parametrize("scene", IN_COLOUR, ids=lambda scene: scene.__name__)
def test_the_colours_are_those_that_were_looked_at(scene: Callable[[int], str | None]) -> None:
    """On black and on white: as they were kept, and each word in one that can be read on both."""
    text = screen(scene, 80, in_colour=True)
    assert legible(text) == kept_screen(scene, 80, in_colour=True)
    for style, words in re.findall("‹([^›]*)›([^‹]*)", legible(text)):
        assert style in LEGIBLE or not any(map(str.isalnum, words)), (style, words)


if __name__ == "__main__":
    pages = [title(scene, width) + screen(scene, width) for scene in SCENES for width in WIDTHS]
    pages += [title(each, 80, in_colour=True) + legible(screen(each, 80, in_colour=True)) for each in IN_COLOUR]
    KEPT.write_text("\n\n".join(pages) + "\n", encoding="utf-8")
