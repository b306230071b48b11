"""Rows for a person, on stdout: in columns on a terminal, and so for a pipe unless the command says otherwise."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from grym_fetch.cli import streams

_STYLES: dict[str, tuple[str, ...]] = {
    "missing": ("magenta",), "corrupt": ("bold", "red"), "unverified": ("magenta",),
}  # fmt: skip


def print_table(
    head: Sequence[str],
    rows: Sequence[tuple[str, ...]],
    *,
    state: int = -1,
    right: Sequence[int] = (),
    note: int = -1,
    piped: str | None = None,
) -> None:
    """Write rows in aligned columns. ``state`` is the number of the column with the assets' states, ``note`` that of a
    last one with sentences. ``piped``: what stands between the columns in a pipe, which are then not aligned.
    """
    from grym_fetch.cli.runner import print_data

    if not rows:
        return
    sheet = streams.sheet(sys.stdout)
    if piped is not None and not sheet.is_terminal:
        print_data(piped.join(filter(None, row)) for row in rows)
        return
    styles = _STYLES
    if state >= 0:
        styles = styles | {row[state]: ("magenta",) for row in rows if row[state].startswith("partial")}
    print_data(sheet.table(head, rows, right=right, styles=styles, styled=state, note=note), color=sheet.is_coloured)
