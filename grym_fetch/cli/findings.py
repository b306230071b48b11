"""How what ``doctor`` finds and what ``setup`` does is told: a line each, and what to do about it.

Rules: on a terminal, lines are broken between words and hang below their text, and the advice is a line of its own.
"""

from __future__ import annotations

import sys

import click

from grym_fetch.cli import streams
from grym_fetch.core.cells import padded
from grym_fetch.core.text import safe_text

_STYLES = {"fail": ("bold", "red"), "warn": ("magenta",), "ok": ("dim",)}


def tell_finding(level: str, what: str, advice: str) -> None:
    """Write it to stdout. ``level``: ``ok``, ``warn``, ``fail`` or ``done``."""
    sheet = streams.sheet(sys.stdout)
    word = padded("FAIL" if level == "fail" else level, 4)
    shown, to_do = safe_text(what, limit=2500), safe_text(advice, limit=1000)
    if not sheet.is_terminal:
        click.echo(f"{word}  {shown}{f'  -> {to_do}' if to_do else ''}")
        return
    click.echo(sheet.item(word, shown, *_STYLES.get(level, ())), color=True)
    if to_do:
        click.echo(sheet.item(padded("", 4), f"-> {to_do}"), color=True)
