"""How checksums that are now in the manifest are reported to a person or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from grym_fetch.core.digest import Checksum


def tell_measured(word: str, rows: Sequence[tuple[str, int | None, Checksum | None, str]]) -> None:
    """Write what was measured to stdout: ``✓ added bar  19.1 MiB  sha256:d2d1…``; whole and plain into a pipe.

    Each row has id, size, checksum and a note. For a person, a note that is a path is left out.
    """
    from grym_fetch.cli import streams
    from grym_fetch.core.cells import cells, padded
    from grym_fetch.core.figures import format_size
    from grym_fetch.core.text import safe_text

    sheet = streams.sheet(sys.stdout)
    widest = min(max((cells(safe_text(row[0])) for row in rows), default=0), 40)
    for asset_id, size, checksum, note in rows:
        name, shown = safe_text(asset_id), "?" if size is None else format_size(size)
        if not sheet.is_terminal:
            click.echo("  ".join(part for part in (word, name, shown, str(checksum), note) if part))
            continue
        short = f"{checksum.algorithm}:{checksum.hexdigest[:12]}…" if checksum is not None else ""
        parts = [f"{word} {padded(name, widest)}", f"{shown:>8}", short, note if note.startswith("(") else ""]
        click.echo(sheet.marked("✓", "+", "green", "  ".join(part for part in parts if part)), color=True)
