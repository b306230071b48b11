"""The live picture as lines of Rich text: a pure function of the state, the time and the terminal's size.

Rules: no line is wider than the terminal, and none is markup. What does not fit is left out: first the time left, then
the speed, then the bytes; a name is shortened in the middle. A percentage appears only if the total is known.
"""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from grym_fetch.core.events import AWAY
from grym_fetch.display.lines import Line, Mark, format_clock, format_rate, format_size
from grym_fetch.display.model import Phase, Row, Snapshot, Totals
from grym_fetch.display.plain import to_ascii

MAX_QUEUED_ROWS = 5
"""More queued assets are only counted."""

_MIN_NAME_CELLS, _MAX_NAME_CELLS = 16, 48
_MIN_BAR_CELLS, _MAX_BAR_CELLS = 10, 40
_PERCENT_CELLS, _SIZE_CELLS, _SPEED_CELLS, _ETA_CELLS, _NOTE_CELLS = 4, 17, 10, 8, 13
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_ASCII_SPINNER = "|/-\\"
_FRAMES_PER_S = 8

_MARKS = {
    Mark.DONE: ("✓", "+", "green"),
    Mark.UNVERIFIED: ("!", "!", "yellow"),
    Mark.FAILED: ("✗", "x", "bold red"),
    Mark.SAME: ("=", "=", "dim"),
    Mark.NEWS: ("·", "-", "dim"),
    Mark.SUMMARY: ("", "", ""),
}


@dataclass(frozen=True, slots=True)
class Layout:
    """Cells of each column; 0: absent. There are two spaces between columns, and one before the percentage."""

    name: int
    bar: int = 0
    percent: int = 0
    size: int = 0
    speed: int = 0
    eta: int = 0
    note: int = 0


def layout(width: int, *, longest_name: int, mirrors: bool) -> Layout:
    """Return the columns that fit in ``width`` cells. ``mirrors``: some asset comes from a mirror."""
    free = width - 2
    if free < _MIN_NAME_CELLS + 2 + _MIN_BAR_CELLS + 1 + _PERCENT_CELLS:
        if free < 12:
            return Layout(name=max(0, free))
        return Layout(name=free - 1 - _PERCENT_CELLS, percent=_PERCENT_CELLS)
    free -= _MIN_NAME_CELLS + 2 + _MIN_BAR_CELLS + 1 + _PERCENT_CELLS
    shown = dict.fromkeys(("size", "speed", "eta", "note"), 0)
    wanted = [("size", _SIZE_CELLS), ("speed", _SPEED_CELLS), ("eta", _ETA_CELLS)]
    if mirrors and width >= 100:
        wanted.append(("note", _NOTE_CELLS))
    for column, cells in wanted:
        if free < cells + 2:
            break
        shown[column] = cells
        free -= cells + 2
    wider = min(free * 2 // 3 if free > 6 else free, _MAX_NAME_CELLS - _MIN_NAME_CELLS)
    name = _MIN_NAME_CELLS + min(wider, max(0, longest_name - _MIN_NAME_CELLS))
    bar = min(_MAX_BAR_CELLS, _MIN_BAR_CELLS + free - (name - _MIN_NAME_CELLS))
    return Layout(name=name, bar=bar, percent=_PERCENT_CELLS, **shown)


def render(snapshot: Snapshot, now: float, width: int, height: int, *, ascii_only: bool = False) -> list[Text]:
    """Return the live region: rows, how many more there are, totals. At most ``height`` - 1 lines."""
    if width < 1 or height < 2:
        return []
    shown = list(snapshot.rows[: snapshot.working]) + list(snapshot.rows[snapshot.working :][:MAX_QUEUED_ROWS])
    shown = shown[: max(0, height - 3)]
    columns = layout(width, longest_name=snapshot.longest_name, mirrors=snapshot.mirrors)
    pen = _Pen(columns, width, now, ascii_only)
    lines = [pen.row(row) for row in shown]
    more = snapshot.under_way - len(shown)
    if more and height > 2:
        lines.append(pen.line(Text(f"{'...' if ascii_only else '…'} and {more:,} more", "dim"), indent=2))
    lines.append(pen.totals(snapshot.totals, width))
    return lines


def render_line(line: Line, width: int, *, ascii_only: bool = False) -> list[Text]:
    """Return a permanent line in ``width`` cells. The name is shortened first, down to a third of the line.

    A line without a name is not cut but wrapped.
    """
    symbol, plain_symbol, style = _MARKS[line.mark]
    mark = plain_symbol if ascii_only else symbol
    name, detail = line.name, line.detail
    if ascii_only:
        name, detail = to_ascii(name), to_ascii(detail)
    text = Text(f"{mark} " if mark else "", style)
    if not name:
        return [_within(text + Text(part), width) for part in wrapped(detail, max(1, width - text.cell_len))]
    free = width - 2 - 2 - cell_len(detail)
    text.append(
        cut_middle(name, max(free, 16, width // 3 - 2), ascii_only=ascii_only),
        "dim" if style == "dim" else "",
    )
    text.append("  ")
    detail_style = {"dim": "dim", "bold red": "red", "yellow": "yellow"}.get(style, "")
    text.append(cut_end(detail, max(0, width - text.cell_len), ascii_only=ascii_only), detail_style)
    return [_within(text, width)]


def cut_middle(text: str, width: int, *, ascii_only: bool = False) -> str:
    """Return ``text`` in at most ``width`` cells. A file name's end says more than its middle."""
    if cell_len(text) <= width:
        return text
    dots = "..." if ascii_only else "…"
    space = width - len(dots)
    if space < 2:
        return _head(text, max(0, width))
    tail = _head(text[::-1], space // 2)[::-1]
    return _head(text, space - cell_len(tail)) + dots + tail


def cut_end(text: str, width: int, *, ascii_only: bool = False) -> str:
    """Return the beginning of ``text`` in at most ``width`` cells."""
    if cell_len(text) <= width:
        return text
    dots = "..." if ascii_only else "…"
    return _head(text, width - len(dots)) + dots if width > len(dots) else _head(text, max(0, width))


def wrapped(text: str, width: int) -> list[str]:
    """Return ``text`` as lines of at most ``width`` cells, broken at spaces if possible."""
    lines = [""]
    for word in text.split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if cell_len(joined) <= width:
            lines[-1] = joined
            continue
        rest = word
        while cell_len(rest) > width:
            head = _head(rest, width) or rest[:1]
            lines.append(head)
            rest = rest[len(head) :]
        lines.append(rest)
    return [line for line in lines if line] or [""]


def _head(text: str, width: int) -> str:
    used = 0
    for index, char in enumerate(text):
        used += cell_len(char)
        if used > width:
            return text[:index]
    return text


def _within(text: Text, width: int) -> Text:
    text.truncate(width, overflow="crop")
    text.no_wrap = True
    return text


class _Pen:
    """Draws lines into the columns of one picture."""

    def __init__(self, columns: Layout, width: int, now: float, ascii_only: bool) -> None:
        self._columns = columns
        self._width = width
        self._now = now
        self._ascii = ascii_only

    def line(self, text: Text, indent: int = 0) -> Text:
        return _within(Text(" " * indent).append_text(text), self._width)

    def row(self, row: Row) -> Text:
        columns = self._columns
        queued = row.phase in (Phase.QUEUED, Phase.RESUMING) and not row.rate
        fraction = None if row.total is None else (row.bytes / row.total if row.total else 1.0)
        cells = [
            (columns.bar, self._bar(fraction, columns.bar, moving=not queued)),
            (columns.percent, Text("" if fraction is None or queued else f"{int(fraction * 100)}%")),
            (columns.size, Text(_size_of(row.bytes, row.total))),
        ]
        state, style = self._state(row)
        if not state:
            eta = row.eta_at(self._now)
            cells.append((columns.speed, Text(format_rate(row.rate_at(self._now)))))
            cells.append((columns.eta, Text("" if eta is None else format_clock(eta))))
            if columns.note and row.mirror:
                cells.append((columns.note, Text("mirror {} of {}".format(*row.mirror), "dim")))
        else:
            cells = self._with_state(cells, Text(state, style))
        mark = Text("·" if not self._ascii else "-", "dim") if queued else Text(self._spin(), style or "cyan")
        space = columns.name
        if state and not columns.bar:
            space = min(space, max(8, self._width - 4 - cell_len(state)))
        return self._joined(mark, Text(self._name(row.name, space), "dim" if queued else ""), cells, space)

    def totals(self, totals: Totals, width: int) -> Text:
        columns = self._columns
        known = totals.total > 0 and not totals.open_ended
        fraction = totals.bytes / totals.total if known else None
        percent = f"{int(fraction * 100)}%" if fraction is not None else ""
        eta = "" if totals.eta is None else format_clock(totals.eta)
        rate = format_rate(totals.rate)
        size = _size_of(totals.bytes, totals.total if known else None)
        if not columns.size:
            words = width - 2 if width < 40 else width - 2 - 2 - _SPEED_CELLS
            parts = [_files_done(totals, words), percent, rate, eta and f"{eta} left"]
            text = "  ".join(part for part in parts if part)
            while cell_len(text) > width - 2 and len(parts) > 1:
                parts.pop()
                text = "  ".join(part for part in parts if part)
            return self.line(Text(text, "bold"), indent=2)
        cells = [
            (columns.bar, self._bar(fraction, columns.bar, moving=totals.rate > 0)),
            (columns.percent, Text(percent)),
            (columns.size, Text(size)),
            (columns.speed, Text(rate)),
            (columns.eta, Text(eta)),
        ]
        line = self._joined(Text(" "), Text(_files_done(totals, columns.name)), cells, columns.name)
        line.stylize("bold")
        return line

    def _with_state(self, cells: list[tuple[int, Text]], state: Text) -> list[tuple[int, Text]]:
        """Replace speed and time left with ``state``; if that is too narrow, replace more."""
        space = self._width - 2 - self._columns.name - 2
        kept = list(cells)
        while kept and state.cell_len > space - sum(cells + 2 for cells, _ in kept if cells):
            kept.pop()
        return [*kept, (-1, state)]

    def _joined(self, mark: Text, name: Text, cells: list[tuple[int, Text]], space: int) -> Text:
        """Return one line, with names aligned left and numbers right in their columns. -1: as wide as the text."""
        columns = self._columns
        line = Text().append_text(mark).append(" ").append_text(name)
        line.append(" " * max(0, space - name.cell_len))
        for index, (width, cell) in enumerate(cells):
            if width == 0:
                continue
            line.append(" " if index == 1 and width > 0 else "  ")
            is_left = width < 0 or index == 0 or width == columns.note
            pad = " " * max(0, width - cell.cell_len)
            line.append("" if is_left else pad).append_text(cell).append(pad if is_left else "")
        line.rstrip()
        return _within(line, self._width)

    def _state(self, row: Row) -> tuple[str, str]:
        """Return what to show instead of speed and time left, and its style; empty while bytes flow."""
        if (silence := row.stalled_for(self._now)) is not None:
            return f"no data for {format_clock(int(silence))}", "yellow"
        match row.phase:
            case Phase.QUEUED:
                return "queued", "dim"
            case Phase.RESUMING:
                return "resuming", "cyan"
            case Phase.WAITING:
                holder = to_ascii(row.holder) if self._ascii else row.holder
                return f"waiting for {holder}" if holder else "waiting", "yellow"
            case Phase.RETRYING:
                left = row.retry_at - self._now
                when = format_clock(left) if left > 0 else ""
                if row.is_away:
                    return (f"{AWAY}, {when}" if when else AWAY), "yellow"
                return (f"retrying in {when}" if when else "retrying"), "yellow"
            case Phase.SWITCHED:
                return ("mirror {} of {}".format(*row.mirror) if row.mirror else "next mirror"), "yellow"
            case Phase.RESTARTED:
                rate = row.rate_at(self._now)
                return (f"again, {format_rate(rate)}" if rate else "starting over"), "yellow"
            case Phase.VERIFYING:
                partly = row.hashed is not None and 0 < row.hashed < 1
                return (f"verifying {int((row.hashed or 0) * 100)}%" if partly else "verifying"), "magenta"
            case Phase.DOWNLOADING:
                return "", ""

    def _name(self, name: str, width: int) -> str:
        return cut_middle(to_ascii(name) if self._ascii else name, width, ascii_only=self._ascii)

    def _spin(self) -> str:
        frames = _ASCII_SPINNER if self._ascii else _SPINNER
        return frames[int(self._now * _FRAMES_PER_S) % len(frames)]

    def _bar(self, fraction: float | None, width: int, *, moving: bool) -> Text:
        if width <= 0:
            return Text()
        full, half, rest = ("#", "", ".") if self._ascii else ("━", "╸", "─")
        bar = Text()
        if fraction is None:
            # Unknown length: a piece that moves to and fro.
            piece = max(1, width // 5)
            span = width - piece
            step = int(self._now * _FRAMES_PER_S) % (2 * span) if span and moving else 0
            start = min(step, 2 * span - step)
            bar.append(rest * start, "bright_black")
            bar.append((full if moving else rest) * piece, "cyan" if moving else "bright_black")
            bar.append(rest * (span - start), "bright_black")
            return bar
        halves = int(min(1.0, max(0.0, fraction)) * width * 2)
        done = full * (halves // 2) + (half if halves % 2 else "")
        bar.append(done, "green" if fraction >= 1 else "cyan")
        return bar.append(rest * (width - len(done)), "bright_black")


def _size_of(count: int, total: int | None) -> str:
    return format_size(count) if total is None else f"{format_size(count)}/{format_size(total)}"


def _files_done(totals: Totals, width: int) -> str:
    """Return how many files are present, in as many words as fit."""
    short = f"{totals.finished:,}/{totals.assets:,}"
    long = f"{totals.finished:,} of {totals.assets:,} files"
    failed = f", {totals.failed:,} failed" if totals.failed else ""
    unverified = f", {totals.unverified:,} unverified" if totals.unverified else ""
    reused = f", {totals.reused:,} already there" if totals.reused else ""
    for text in (long + failed + unverified + reused, long + failed + unverified, long + failed, short + failed, short):
        if len(text) <= width:
            return text
    return short[: max(0, width)]
