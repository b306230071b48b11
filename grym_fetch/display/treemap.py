"""A treemap: areas that are as large as what they stand for.

Squarified (Bruls, Huizing, van Wijk: Squarified Treemaps, 2000): rows along the shorter side, each as long as its worst
tile gets better by one more. Pure: sizes in, rectangles and a page out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from grym_fetch.core.figures import count_files, format_size
from grym_fetch.display.page import page, scrolling, shown, table

MAX_TILES = 400
"""Of one map; the smaller files of a folder are one tile together."""
_WIDTH, _HEIGHT = 1000.0, 560.0
_HEAD_PX = 18.0
"""Pixels above a folder's tiles, for its name."""
_CHARACTER_PX = 6.6
_STYLE = """
.tile { stroke: var(--paper); stroke-width: 1; } .box { fill: none; stroke: var(--soft); }
.t0 { fill: #8ab4e8; } .t1 { fill: #a6d29b; } .t2 { fill: #e8b48a; } .t3 { fill: #c7a6dd; } .t4 { fill: #e59aa5; }
.t5 { fill: #8fd0cf; } .t6 { fill: #d6c878; } .t7 { fill: #b9bec5; } .tile-text { fill: #10151a; }
"""


@dataclass(frozen=True, slots=True)
class Rect:
    """A rectangle, in pixels."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Weight:
    """A file and its bytes. ``note`` is said of it, too."""

    path: str
    bytes: int
    note: str = ""


def squarify(sizes: Sequence[float], within: Rect) -> list[Rect]:
    """Return a rectangle for each size, in their order: of the same share of ``within``, and as square as can be.

    ``sizes`` are positive and the largest comes first.
    """
    total = sum(sizes)
    scale = within.width * within.height / total if total > 0 else 0.0
    areas = [size * scale for size in sizes]
    placed: list[Rect] = []
    free, at = within, 0
    while at < len(areas):
        side = min(free.width, free.height)
        stop = at + 1
        while stop < len(areas) and _worst(areas[at : stop + 1], side) <= _worst(areas[at:stop], side):
            stop += 1
        row, free = _row(areas[at:stop], free)
        placed += row
        at = stop
    return placed


def _worst(areas: Sequence[float], side: float) -> float:
    """The worst of the ratios of sides in a row along this side."""
    whole = sum(areas)
    if side <= 0 or whole <= 0 or min(areas) <= 0:
        return float("inf")
    return max(side**2 * max(areas) / whole**2, whole**2 / (side**2 * min(areas)))


def _row(areas: Sequence[float], free: Rect) -> tuple[list[Rect], Rect]:
    """Put a row along the shorter side; return it, and what is left."""
    whole = sum(areas)
    is_wide = free.width >= free.height
    side = free.height if is_wide else free.width
    # Rounding must not lead out of the whole.
    deep = min(whole / side, free.width if is_wide else free.height) if side > 0 else 0.0
    row, along = [], 0.0
    for area in areas:
        length = side * area / whole if whole > 0 else 0.0
        if is_wide:
            row.append(Rect(free.x, free.y + along, deep, length))
        else:
            row.append(Rect(free.x + along, free.y, length, deep))
        along += length
    if is_wide:
        return row, Rect(free.x + deep, free.y, max(0.0, free.width - deep), free.height)
    return row, Rect(free.x, free.y + deep, free.width, max(0.0, free.height - deep))


def weight_page(title: str, maps: Sequence[tuple[str, Sequence[Weight]]]) -> str:
    """Return a page with a map for each heading and its files."""
    body = [f"<h1>{shown(title)}</h1>"]
    for heading, weights in maps:
        whole = sum(weight.bytes for weight in weights)
        body.append(f"<h2>{shown(heading)}</h2><p>{count_files(len(weights))}, {format_size(whole)}")
        body += _map([weight for weight in weights if weight.bytes > 0])
        heaviest = sorted(weights, key=lambda each: -each.bytes)[:50]
        rows = [(format_size(each.bytes), shown(each.path), shown(each.note)) for each in heaviest]
        body += table(("size", "path", ""), rows, right=(0,))
        if len(weights) > len(heaviest):
            body.append(f'<p class="soft">… and {len(weights) - len(heaviest):,} smaller ones.')
    return page(title, body, style=_STYLE)


def _map(weights: Sequence[Weight]) -> list[str]:
    groups: defaultdict[str, list[Weight]] = defaultdict(list)
    for weight in sorted(weights, key=lambda each: -each.bytes):
        groups[weight.path.partition("/")[0] if "/" in weight.path else "."].append(weight)
    ordered = sorted(groups.items(), key=lambda each: -sum(weight.bytes for weight in each[1]))
    sums = [sum(weight.bytes for weight in files) for _, files in ordered]
    drawing = [f'<svg viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img" aria-label="areas as large as the files">']
    share = max(1, MAX_TILES // max(1, len(ordered)))
    places = squarify(sums, Rect(0, 0, _WIDTH, _HEIGHT))
    for number, ((folder, files), place) in enumerate(zip(ordered, places, strict=True)):
        drawing += _folder(folder, _few(files, share), place, number % 8)
    return scrolling([*drawing, "</svg>"])


def _few(files: Sequence[Weight], most: int) -> list[Weight]:
    if len(files) <= most:
        return list(files)
    rest = files[most - 1 :]
    together = Weight(f"{len(rest):,} smaller files", sum(each.bytes for each in rest))
    return sorted([*files[: most - 1], together], key=lambda each: -each.bytes)


def _folder(folder: str, files: Sequence[Weight], place: Rect, colour: int) -> list[str]:
    has_head = folder != "." and place.height > 3 * _HEAD_PX and place.width > 60
    head = _HEAD_PX if has_head else 0.0
    drawing = []
    if has_head:
        drawing.append(_text(f"{folder}/", place.x + 4, place.y + 13, place.width - 8, ""))
    inside = Rect(place.x, place.y + head, place.width, place.height - head)
    for weight, tile in zip(files, squarify([each.bytes for each in files], inside), strict=True):
        about = f"{weight.path}, {format_size(weight.bytes)}" + (f", {weight.note}" if weight.note else "")
        drawing.append(
            f'<rect class="tile t{colour}" x="{tile.x:.1f}" y="{tile.y:.1f}" width="{tile.width:.1f}" '
            f'height="{tile.height:.1f}"><title>{shown(about)}</title></rect>'
        )
        if tile.height > 18:
            name = weight.path.rpartition("/")[2]
            drawing.append(_text(name, tile.x + 4, tile.y + 14, tile.width - 8, "tile-text"))
        if tile.height > 34:
            drawing.append(_text(format_size(weight.bytes), tile.x + 4, tile.y + 28, tile.width - 8, "tile-text"))
    drawing.append(
        f'<rect class="box" x="{place.x:.1f}" y="{place.y:.1f}" width="{place.width:.1f}" height="{place.height:.1f}"/>'
    )
    return drawing


def _text(text: str, x: float, y: float, width: float, kind: str) -> str:
    """The text, as much of it as fits; nothing if that is too little to read."""
    most = int(width / _CHARACTER_PX)
    if most < 4:
        return ""
    cut = text if len(text) <= most else f"{text[: most - 1]}…"
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{shown(cut)}</text>'
