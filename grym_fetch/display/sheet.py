"""Formats what is written once and stays: messages and tables, for a person at a terminal or for a pipe.

Rules: text is coloured, wrapped or shortened only on a terminal, because programs may read from a pipe.
``FORCE_COLOR`` adds colour everywhere, ``NO_COLOR`` nowhere (no-color.org). Words are never yellow, cyan, green or
white, which cannot be read on white or on black; nothing is said by a colour alone. Rich is not used here, because it
takes long to import.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from grym_fetch.core.cells import cells, padded, shortened, wrapped
from grym_fetch.display.stream import Stream, harmless, is_github, is_terminal, is_unicode

_SGR = {"red": "31", "green": "32", "magenta": "35", "bold": "1", "dim": "2"}
_KINDS = {"error": ("bold", "red"), "warning": ("magenta",), "hint": ("bold",)}
LEAST_WIDTH = 20
"""The narrowest terminal for which we wrap text; a narrower one breaks lines itself."""
_LEAST_CELLS = 8
"""The least width of a shortened column."""
_NOTE_INDENT = " " * 4


class Sheet:
    """Text for one stream. ``width`` in cells, None if it is not a terminal; by default the terminal is asked."""

    def __init__(self, stream: Stream, environ: Mapping[str, str], *, width: int | None = None) -> None:
        self.is_terminal = is_terminal(stream)
        self.width = width if width is not None else _width_of(stream) if self.is_terminal else None
        self.is_unicode = is_unicode(stream)
        self._is_read_by_runner = is_github(environ)
        is_dumb = environ.get("TERM", "").lower() in ("dumb", "unknown")
        is_forced = environ.get("FORCE_COLOR", "") not in ("", "0")
        self.is_coloured = not environ.get("NO_COLOR") and (is_forced or (self.is_terminal and not is_dumb))

    def paint(self, text: str, *styles: str) -> str:
        """Return the text in these styles: ``red``, ``green`` (for marks), ``magenta``, ``bold``, ``dim``."""
        if not self.is_coloured or not text or not styles:
            return text
        return f"\x1b[{';'.join(_SGR[each] for each in styles)}m{text}\x1b[0m"

    def message(self, kind: str, text: str) -> str:
        """Return a message that begins with its kind: ``error``, ``warning``, ``hint`` or another word.

        Line breaks are kept. A hint is a sentence, however it comes.
        """
        text = self._harmless(as_sentence(text) if kind == "hint" else text)
        head, *others = self._wrapped(f"{kind}: {text}")
        coloured = self.paint(f"{kind}:", *_KINDS.get(kind, ())) + head.removeprefix(f"{kind}:")
        return "\n".join([coloured, *others])

    def marked(self, mark: str, plain: str, style: str, text: str) -> str:
        """Return text after a mark, if a person reads it: ``✓ added model``, or ``+ added model`` in ASCII."""
        text = self._harmless(text)
        if not self.is_terminal:
            return text
        shown = mark if self.is_unicode else plain
        head, *others = self._wrapped(f"{shown} {text}")
        return "\n".join([self.paint(shown, style) + head.removeprefix(shown), *others])

    def prose(self, text: str) -> str:
        """Return sentences, broken between words. An indented line stays whole: it is something to copy."""
        lines = self._harmless(text).split("\n")
        return "\n".join(line if line.startswith(" ") else "\n".join(self._wrapped(line)) for line in lines)

    def item(self, label: str, text: str, *styles: str) -> str:
        """Return text beside a label in these styles; where the text is broken, it hangs below itself.

        Where there is no room for that, or a word fits only into a line of its own, it hangs below the label.
        """
        beside = " " * (cells(label) + 2)
        painted = self.paint(label, *styles)
        if self.width is None or self.width < LEAST_WIDTH:
            return f"{painted}  {text}"
        first, *others = text.split(" ")
        longest = max(map(cells, (first, *others)))
        is_narrow = self.width < LEAST_WIDTH + len(beside) or longest > self.width - len(beside)
        indent = _NOTE_INDENT if is_narrow and len(_NOTE_INDENT) < len(beside) else beside
        if len(beside) + cells(first) > self.width and indent is not beside:
            lines = wrapped(indent + text, self.width, indent=indent)
            return "\n".join([painted, *lines] if label.strip() else lines)
        lines = wrapped(beside + text, self.width, indent=indent)
        return "\n".join([f"{painted}  {lines[0].removeprefix(beside)}", *lines[1:]])

    def _harmless(self, text: str) -> str:
        return harmless(text) if self._is_read_by_runner else text

    def _wrapped(self, text: str) -> list[str]:
        if self.width is None or self.width < LEAST_WIDTH:
            return text.split("\n")
        lines = []
        for line in text.split("\n"):
            indent = " " * (len(line) - len(line.lstrip(" ")) + 2)
            lines += wrapped(line, self.width, indent=indent)
        return lines

    def table(
        self,
        head: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        right: Sequence[int] = (),
        styles: Mapping[str, tuple[str, ...]] | None = None,
        styled: int = -1,
        note: int = -1,
    ) -> list[str]:
        """Return lines with aligned columns; ``right`` has the numbers of the columns aligned to the right.

        ``styles`` gives the style for each value in the column ``styled``. The head, only for a terminal, is dim. Empty
        columns are left out. ``note`` is a last column of sentences, which are never shortened: where there is no room
        for them beside the others, each comes below its row.
        """
        used = [number for number in range(len(head)) if any(row[number] for row in rows)]
        lines = [list(head), *map(list, rows)] if self.is_terminal else list(map(list, rows))
        widths = {number: max((cells(line[number]) for line in lines), default=0) for number in used}
        hangs = note in widths and self.width is not None and sum(widths.values()) + 2 * (len(used) - 1) > self.width
        if hangs:
            del widths[note]
        self._make_fit(widths, styled)
        told = []
        for index, line in enumerate(lines):
            is_head = self.is_terminal and index == 0
            told.append(self._row(line, widths, right, styled, styles or {}, is_head=is_head))
            if hangs and line[note] and not is_head:
                told += wrapped(_NOTE_INDENT + line[note], self.width or 0, indent=_NOTE_INDENT)
        return told

    def _make_fit(self, widths: dict[int, int], styled: int) -> None:
        """Shorten the widest columns until a row fits the terminal, but not the one whose values are words of ours."""
        if self.width is None or not widths:
            return
        room = max(self.width, LEAST_WIDTH) - 2 * (len(widths) - 1)
        while sum(widths.values()) > room:
            widest = max(widths, key=lambda number: (number != styled, widths[number]))
            if widths[widest] <= _LEAST_CELLS:
                return
            widths[widest] = max(_LEAST_CELLS, widths[widest] - (sum(widths.values()) - room), widths[widest] // 2)

    def _row(
        self,
        line: Sequence[str],
        widths: Mapping[int, int],
        right: Sequence[int],
        styled: int,
        styles: Mapping[str, tuple[str, ...]],
        *,
        is_head: bool,
    ) -> str:
        shown = []
        for number, width in widths.items():
            text = shortened(line[number], width) if self.width is not None else line[number]
            cell = padded(text, width, right=number in right)
            if number == list(widths)[-1]:
                cell = cell.rstrip()
            style = ("dim",) if is_head else styles.get(line[number], ()) if number == styled else ()
            shown.append(self.paint(cell, *style))
        return "  ".join(shown).rstrip()


def as_sentence(text: str) -> str:
    """Return the text with a capital and a full stop, unless it begins with something that is spelled as it is."""
    first = text.partition(" ")[0]
    if first.isalpha() and first.islower():
        text = text[0].upper() + text[1:]
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _width_of(stream: Stream) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
