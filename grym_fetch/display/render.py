"""The live picture as lines of Rich text: a pure function of the state, the time and the terminal's size.

Rules: no line is wider than the terminal, and none is markup. Words are in colours that can be read on white as on
black: no yellow, cyan, green or white, and nothing is said by a colour alone. What does not fit is left out: first the
time left, then the speed, then the bytes; a name is shortened in the middle. A percentage appears only if the total is
known.
"""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from grym_fetch.core.cells import split_words
from grym_fetch.core.events import AWAY
from grym_fetch.core.figures import format_clock, format_rate, format_size
from grym_fetch.display.lines import Line, Mark, retry_number, short_reason
from grym_fetch.display.model import Phase, Row, Snapshot, Totals
from grym_fetch.display.stream import to_ascii

MAX_QUEUED_ROWS = 3
"""While nothing is active, this many queued assets have a row. Later they are only counted."""

_MIN_NAME_CELLS, MAX_NAME_CELLS = 16, 48
_LEAST_NAME_CELLS = 8
"""The least width of a name next to a long state."""
_MIN_BAR_CELLS, _MAX_BAR_CELLS = 10, 40
_PERCENT_CELLS, _SIZE_CELLS, _SPEED_CELLS, _ETA_CELLS, _NOTE_CELLS = 4, 17, 10, 8, 13
_PART_CELLS = 8
_BELOW = " " * 4
"""Before what is said of an asset, where that has no room beside its name."""
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_ASCII_SPINNER = "|/-\\"
_FRAMES_PER_S = 8

_MARKS = {
    Mark.DONE: ("✓", "+", "green"),
    Mark.UNVERIFIED: ("!", "!", "magenta"),
    Mark.FAILED: ("✗", "x", "bold red"),
    Mark.SAME: ("=", "=", "dim"),
    Mark.NEWS: ("·", "-", "dim"),
    Mark.SAID: ("", "", ""),
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
    wider = min(free * 2 // 3 if free > 6 else free, MAX_NAME_CELLS - _MIN_NAME_CELLS)
    name = _MIN_NAME_CELLS + min(wider, max(0, longest_name - _MIN_NAME_CELLS))
    bar = min(_MAX_BAR_CELLS, _MIN_BAR_CELLS + free - (name - _MIN_NAME_CELLS))
    return Layout(name=name, bar=bar, percent=_PERCENT_CELLS, **shown)


def render(
    snapshot: Snapshot, now: float, width: int, height: int, *, ascii_only: bool = False, retries: int | None = None
) -> list[Text]:
    """Return the live region: rows, how many more there are, totals. At most ``height`` - 1 lines.

    ``retries``: how often a server that fails is asked again.
    """
    if width < 1 or height < 2:
        return []
    queued_rows = 0 if snapshot.working else MAX_QUEUED_ROWS
    shown = list(snapshot.rows[: snapshot.working + queued_rows])[: max(0, height - 3)]
    columns = layout(width, longest_name=snapshot.longest_name, mirrors=snapshot.mirrors)
    pen = _Pen(columns, width, now, ascii_only, retries)
    lines = [pen.row(row) for row in shown]
    totals = pen.totals(snapshot.totals, width)
    hidden = snapshot.totals.active + snapshot.totals.queued - len(shown)
    are_counted = not snapshot.totals.queued or f"{snapshot.totals.queued:,} queued" in totals.plain
    if hidden > 0 and height > 2 and snapshot.rows and not (are_counted and len(shown) >= snapshot.working > 0):
        lines.append(pen.line(Text(f"{'...' if ascii_only else '…'} and {hidden:,} more", "dim"), indent=2))
    lines.append(totals)
    return lines


def render_line(line: Line, width: int, *, ascii_only: bool = False, name_cells: int = 0) -> list[Text]:
    """Return a permanent line in ``width`` cells; its columns begin after ``name_cells``.

    The name is shortened first, down to a third of the line. What is said of it is not cut: where there is no room, it
    comes below. A line without a name is wrapped.
    """
    symbol, plain_symbol, style = _MARKS[line.mark]
    mark = plain_symbol if ascii_only else symbol
    name, detail = line.name, line.detail
    if ascii_only:
        name, detail = to_ascii(name), to_ascii(detail)
    text = Text()  # only the mark is coloured: see the rule above
    text.append(f"{mark} " if mark else "", style)
    if not name:
        indent = Text(" " * text.cell_len)
        parts = wrapped(detail, max(1, width - text.cell_len))
        return [_within((indent if number else text) + Text(part), width) for number, part in enumerate(parts)]
    if line.columns:
        return [_within(_in_columns(line, text, name, detail, width, name_cells, ascii_only), width)]
    free = width - 2 - 2 - cell_len(detail)
    most = max(free, 16, width // 3 - 2)
    shown = cut_middle(name, min(most, name_cells or most), ascii_only=ascii_only)
    text.append(shown, "dim" if style == "dim" else "")
    text.append(" " * (2 + max(0, min(name_cells, free) - cell_len(shown))))
    detail_style = {"dim": "dim", "bold red": "red", "magenta": "magenta"}.get(style, "")
    room = width - text.cell_len
    if cell_len(detail) <= room or width < 2 * _MIN_NAME_CELLS:
        text.append(cut_end(detail, max(0, room), ascii_only=ascii_only), detail_style)
        return [_within(text, width)]
    text.rstrip()
    parts = wrapped(detail, max(_MIN_NAME_CELLS, width - len(_BELOW)))
    return [_within(text, width), *(_within(Text(_BELOW).append(part, detail_style), width) for part in parts)]


def _in_columns(line: Line, text: Text, name: str, detail: str, width: int, name_cells: int, ascii_only: bool) -> Text:
    """The name, followed by as many columns as fit, with numbers aligned."""
    cells = list(zip(line.columns, (_PART_CELLS, _PART_CELLS, _SPEED_CELLS), strict=True))
    while cells and 2 + _MIN_NAME_CELLS + sum(cells + 2 for _, cells in cells) > width:
        cells.pop()
    free = width - 2 - sum(cells + 2 for _, cells in cells)
    space = max(0, min(max(name_cells or cell_len(name), _MIN_NAME_CELLS), free))
    shown = cut_middle(name, space, ascii_only=ascii_only)
    text.append(shown + " " * (space - cell_len(shown)), "")
    for cell, wide in cells:
        text.append(f"  {cell:>{wide}}", "")
    if detail and width - text.cell_len > len(detail) // 2:
        text.append(f"  {cut_end(detail, width - text.cell_len - 2, ascii_only=ascii_only)}", "magenta")
    text.rstrip()
    return text


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
    for word in split_words(text):
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

    def __init__(self, columns: Layout, width: int, now: float, ascii_only: bool, retries: int | None) -> None:
        self._columns = columns
        self._width = width
        self._now = now
        self._ascii = ascii_only
        self._retries = retries

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
        space = columns.name
        if row.is_worker and columns.bar:  # its name says more than a bar without an end
            space += 2 + columns.bar
            cells[0] = (0, Text())
        if state:
            space = min(space, max(_LEAST_NAME_CELLS, self._width - 4 - cell_len(state)))
            cells = self._with_state(cells, Text(state, style), space)
        mark = Text("·" if not self._ascii else "-", "dim") if queued else Text(self._spin(), style or "cyan")
        return self._joined(mark, Text(self._name(row.name, space), "dim" if queued else ""), cells, space)

    def totals(self, totals: Totals, width: int) -> Text:
        columns = self._columns
        is_more_unknown = totals.open_ended and totals.known_bytes >= totals.known_total
        is_known = totals.known_total > 0 and not is_more_unknown
        fraction = totals.known_bytes / totals.known_total if is_known else None
        percent = f"{int(fraction * 100)}%" if fraction is not None else ""
        eta = "" if totals.eta is None else format_clock(totals.eta)
        rate = format_rate(totals.rate)
        if not columns.size:
            figures = [each for each in (percent, rate, eta and f"{eta} left") if each]
            return self.line(self._bold(_fitting(_wordings(totals), figures[: 1 + (width >= 40)], width - 2)), indent=2)
        more = "+" if totals.open_ended and totals.known_total else ""
        size = _size_of(totals.bytes, totals.total if totals.known_total else None) + more
        figures_cells = [
            (columns.percent, Text(percent)),
            (columns.size, Text(size)),
            (columns.speed, Text(rate)),
            (columns.eta, Text(eta)),
        ]
        wordings = _wordings(totals)
        if cell_len(wordings[0]) <= columns.name or columns.bar < _MIN_BAR_CELLS:
            words = next((each for each in wordings if cell_len(each) <= columns.name), "")
            bar = self._bar(fraction, columns.bar, moving=totals.rate > 0)
            line = self._joined(Text(" "), self._bold(words), [(columns.bar, bar), *figures_cells], columns.name)
        else:  # the words say more than a bar could
            space = columns.name + 2 + columns.bar
            words = next((each for each in wordings if cell_len(each) <= space), "")
            line = self._joined(Text(" "), self._bold(words), [(0, Text()), *figures_cells], space)
        line.stylize("bold")
        return line

    def _bold(self, words: str) -> Text:
        return Text(to_ascii(words) if self._ascii else words, "bold")

    def _with_state(self, cells: list[tuple[int, Text]], state: Text, name: int) -> list[tuple[int, Text]]:
        """Replace speed and time left with ``state``; if that is too narrow, replace more, and in the end cut it."""
        space = self._width - 2 - name - 2
        kept = list(cells)
        while kept and state.cell_len > space - sum(cells + 2 for cells, _ in kept if cells):
            kept.pop()
        if 0 < space < state.cell_len:
            state = Text(cut_end(state.plain, space, ascii_only=self._ascii), state.style)
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
            return f"no data for {format_clock(int(silence))}", "magenta"
        match row.phase:
            case Phase.QUEUED:
                return "queued", "dim"
            case Phase.RESUMING:
                return "resuming", ""
            case Phase.WAITING:
                holder = to_ascii(row.holder) if self._ascii else row.holder
                clause = holder.partition(",")[0]
                wordings = [f"waiting for {each}" for each in (holder, clause, clause.partition(" ")[0])]
                return self._fitting(wordings if holder else [], "waiting"), "magenta"
            case Phase.RETRYING:
                left = row.retry_at - self._now
                when = format_clock(left) if left > 0 else ""
                if row.is_away:
                    return (f"{AWAY}, {when}" if when else AWAY), "magenta"
                why = to_ascii(short_reason(row.why)) if self._ascii else short_reason(row.why)
                number = retry_number(row.attempt, self._retries)
                number = f"{number} in {when}" if when else number
                # A long reason is cut rather than what comes next.
                room = self._state_room() - len(number) - 2
                if cell_len(why) > room:
                    why = cut_end(why, room, ascii_only=self._ascii) if room >= _LEAST_NAME_CELLS else ""
                return ", ".join(part for part in (why, number) if part), "magenta"
            case Phase.SWITCHED:
                return ("mirror {} of {}".format(*row.mirror) if row.mirror else "next mirror"), "magenta"
            case Phase.RESTARTED:
                rate = row.rate_at(self._now)
                return (f"again, {format_rate(rate)}" if rate else "starting over"), "magenta"
            case Phase.VERIFYING | Phase.UNPACKING:
                word = "unpacking" if row.phase is Phase.UNPACKING else "verifying"
                partly = row.hashed is not None and 0 < row.hashed < 1
                return (f"{word} {int((row.hashed or 0) * 100)}%" if partly else word), "magenta"
            case Phase.DOWNLOADING:
                # All of it has arrived: do not show it as still under way.
                return ("verifying", "magenta") if row.total and row.bytes >= row.total else ("", "")

    def _state_room(self) -> int:
        """The most cells for a state, next to the shortest name."""
        return self._width - 4 - _LEAST_NAME_CELLS

    def _fitting(self, wordings: list[str], last: str) -> str:
        return next((each for each in wordings if cell_len(each) <= self._state_room()), last)

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
            # Unknown length: a piece that moves back and forth.
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


def _wordings(totals: Totals) -> list[str]:
    """How many files are done, active and queued, in ever fewer words."""
    done = f"{totals.finished:,} of {totals.assets:,}"
    failed = [f"{totals.failed:,} failed"] if totals.failed else []
    unverified = [f"{totals.unverified:,} unverified"] if totals.unverified else []
    active = [f"{totals.active:,} active"] if totals.active else []
    queued = [f"{totals.queued:,} queued"] if totals.queued else []
    return [
        " · ".join(parts)
        for parts in (
            [f"{done} done", *failed, *unverified, *active, *queued],
            [f"{done} done", *failed, *active, *queued],
            [done, *failed, *active, *queued],
            [f"{done} done", *failed, *queued],
            [f"{done} done", *failed],
            [done, *failed],
            [", ".join([f"{totals.finished:,}/{totals.assets:,}", *failed])],
            [f"{totals.finished:,}/{totals.assets:,}"],
        )
    ]


def _fitting(wordings: list[str], figures: list[str], width: int) -> str:
    """The longest wording that leaves room for all figures; if none does, for as many figures as possible."""
    for count in range(len(figures), -1, -1):
        for words in wordings:
            text = "  ".join([words, *figures[:count]])
            if cell_len(text) <= width:
                return text
    return wordings[-1][: max(0, width)]
