"""Draws the picture of the README from the real display: ``python -m tools.picture`` (`make picture`).

A scripted run goes through the same model and the same drawing as on a terminal; a test fails while the file is stale.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from grym_fetch.core import events
from grym_fetch.core.events import Event
from grym_fetch.display.lines import Chronicle, Mark
from grym_fetch.display.model import DisplayModel
from grym_fetch.display.render import render, render_line

FILE = Path(__file__).parents[1] / "docs" / "screen.svg"
WIDTH = 100
MIB = 2**20
NAMES = {"tokenizer": "Tokenizer", "vocoder": "Vocoder", "encoder": "Encoder", "base": "Base model"}
# Dark on light, as paper is; the colours can be read on both.
_INK, _RED, _GREEN, _BLUE, _PURPLE = (36, 41, 47), (192, 38, 45), (26, 127, 55), (31, 111, 235), (130, 80, 223)
_BROWN, _TEAL, _GREY, _PALE = (154, 103, 0), (27, 124, 131), (90, 98, 106), (170, 178, 186)
_COLOURS = [_RED, _GREEN, _BROWN, _BLUE, _PURPLE, _TEAL]
_THEME = TerminalTheme((250, 250, 250), _INK, [_INK, *_COLOURS, _GREY], [_PALE, *_COLOURS, _INK])


def scene() -> list[tuple[float, Event]]:
    """A run, as (seconds, event)."""

    def planned(asset: str, size: int) -> Event:
        return events.AssetPlanned(asset=asset, size=size, resumed_bytes=0)

    def came(asset: str, done: float, size: int, rate: float) -> Event:
        left = (size - done * MIB) / (rate * MIB)
        return events.ProgressMade(asset=asset, bytes=int(done * MIB), total=size, rate=rate * MIB, eta=left)

    sizes = {"tokenizer": 5 * MIB, "vocoder": 96 * MIB, "encoder": 380 * MIB, "base": 1331 * MIB}
    done = events.AssetVerified(
        asset="tokenizer", path="t", checksum="c", size=5 * MIB, seconds=0.4, downloaded_bytes=5 * MIB
    )
    return [
        (0.0, events.RunStarted(assets=4, bytes=sum(sizes.values()))),
        *((0.0, planned(name, size)) for name, size in sizes.items()),
        (0.1, came("tokenizer", 1, sizes["tokenizer"], 13)),
        (0.5, done),
        (1.4, came("vocoder", 30.5, sizes["vocoder"], 25)),
        (1.4, came("encoder", 10, sizes["encoder"], 8)),
        (1.4, came("base", 33.5, sizes["base"], 28)),
        (1.5, events.RetryScheduled(asset="encoder", url="u", attempt=1, delay=1.0, reason="status 503: busy")),
    ]


def picture() -> str:
    """The picture, as SVG."""
    model = DisplayModel(NAMES)
    chronicle = Chronicle(model)
    lines: list[Text] = [Text("$ grym-fetch sync --parallel 8")]
    now = 0.0
    for now, event in scene():
        model.apply(event, now)
        model.snapshot(now)
        kept = [line for line in chronicle.lines(event) if line.mark is not Mark.NEWS]
        lines += [text for line in kept for text in render_line(line, WIDTH, name_cells=model.longest_name)]
    lines += render(model.snapshot(now), now, WIDTH, 24, retries=5)
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, _environ={})
    for line in lines:
        console.print(line, no_wrap=True, highlight=False)
    drawn = console.export_svg(title="grym-fetch", theme=_THEME, unique_id="screen")
    # Nothing from elsewhere: the reader's own fonts. Only some browsers know ui-monospace.
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)
    drawn = drawn.replace("Fira Code, monospace", "ui-monospace, monospace").replace(
        ": arial", ": system-ui, sans-serif"
    )
    return "\n".join(line.rstrip() for line in drawn.rstrip().split("\n")) + "\n"


if __name__ == "__main__":
    FILE.write_text(picture(), encoding="utf-8")
