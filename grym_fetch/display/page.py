"""Pages that are looked at in a browser: one file each, with nothing from elsewhere and no script.

Rules: whatever comes from outside is neutralised and escaped. The page forbids itself everything but its own styles
(Content Security Policy). It can be read in dark and in light. On a narrow screen, what is too wide for it is as large
as ever, and scrolls by itself.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from grym_fetch.core.figures import count_files, format_rate, format_seconds, format_size
from grym_fetch.core.text import redact_text, safe_text
from grym_fetch.display.report import LEAST_BYTES, LEAST_S, Life, Report, Share

MAX_ROWS = 500
"""Assets with a row of their own: those that took longest; the others are counted."""
MAX_TIMELINE_ROWS = 120
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --soft: #5b6570; --line: #d8dee4;
  --waits: #c3cad2; --comes: #1f6feb; --verifies: #8250df; --bad: #c0262d; --good: #1a7f37; --mark: #b35900; }
@media (prefers-color-scheme: dark) { :root { --paper: #12161b; --ink: #e6edf3; --soft: #9aa6b2; --line: #303840;
  --waits: #4a545f; --comes: #4c9aff; --verifies: #b392f0; --bad: #ff7b72; --good: #56d364; --mark: #f0a35e; } }
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; } p, td, th { overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; } th { color: var(--soft); font-weight: normal; text-align: left; }
td, th { border-bottom: 1px solid var(--line); padding: .25rem .8rem .25rem 0; vertical-align: top; }
th { white-space: nowrap; } td:first-child:not(.n) { min-width: 9rem; }
.wide { overflow-x: auto; } .whole { white-space: nowrap; }
.n { text-align: right; white-space: nowrap; } .soft { color: var(--soft); } .bad { color: var(--bad); }
.good { color: var(--good); } pre { white-space: pre-wrap; margin: 0; font: inherit; }
svg { display: block; width: 100%; min-width: 50rem; height: auto; }
text { fill: var(--ink); font: 12px system-ui, sans-serif; }
.waits { fill: var(--waits); } .comes { fill: var(--comes); } .verifies { fill: var(--verifies); }
.mark { fill: var(--mark); } .axis { stroke: var(--line); } .key { display: inline-block; width: .8em; height: .8em; }
"""


def page(title: str, body: Iterable[str], *, style: str = "") -> str:
    """Return a whole page. ``title`` is text; ``body`` are pieces of HTML."""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="referrer" content="no-referrer">',
            f"<title>{shown(title)}</title>",
            f"<style>{_STYLE}{style}</style>",
            *body,
            "</html>",
            "",
        ]
    )


def shown(text: str, *, limit: int = 2000) -> str:
    """Return text for a page: harmless, without secrets, escaped."""
    return html.escape(safe_text(redact_text(text), limit=limit))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """Return a table; cells are HTML already. Columns with these numbers are aligned to the right."""

    def row(cells: Sequence[str], tag: str) -> str:
        kinds = [' class="n"' if number in right else "" for number in range(len(cells))]
        return "<tr>" + "".join(f"<{tag}{kind}>{cell}" for kind, cell in zip(kinds, cells, strict=True))

    whole = ["<table>", row([shown(each) for each in head], "th"), *(row(cells, "td") for cells in rows), "</table>"]
    return scrolling(whole)


def scrolling(pieces: Iterable[str]) -> list[str]:
    """Return what may be wider than the screen."""
    return ['<div class="wide">', *pieces, "</div>"]


def report_page(report: Report, place: str) -> str:
    """Return the page about a run. ``place``: where its files are."""
    lives = sorted(report.lives, key=lambda life: life.ended - life.began, reverse=True)
    body = ["<h1>grym-fetch sync</h1>", f"<p>{_summary(report, place)}"]
    if report.servers:
        body += ["<h2>Where it came from</h2>", *_servers(report.servers)]
    timed = sorted((life for life in lives[:MAX_TIMELINE_ROWS] if life.stretches), key=lambda life: life.began)
    if timed:
        body += ["<h2>When</h2>", *_timeline(timed, report.began, report.ended)]
        if len(lives) > MAX_TIMELINE_ROWS:
            body.append(f'<p class="soft">These took longest; {len(lives) - len(timed):,} others are not shown.')
    failed = [life for life in lives if life.end == "failed"]
    if failed:
        body += ["<h2>What failed</h2>", *table(("asset", "why"), map(_failure, failed[:MAX_ROWS]))]
    told = [life for life in lives if life.marks]
    if told:
        body += ["<h2>Retries, switches, restarts</h2>"]
        marks = (row for life in told[:MAX_ROWS] for row in _marks(life, report))
        body += table(("asset", "after", "what"), marks, right=(1,))
    body += ["<h2>Assets</h2>"]
    head = ("asset", "end", "size", "downloaded", "resumed", "time", "speed", "from")
    body += table(head, map(_asset, lives[:MAX_ROWS]), right=(2, 3, 4, 5, 6))
    if len(lives) > MAX_ROWS:
        body.append(f'<p class="soft">… and {len(lives) - MAX_ROWS:,} more.')
    return page("grym-fetch sync", body)


def _summary(report: Report, place: str) -> str:
    done = report.finished
    took = format_seconds(report.ended - report.began)
    if done is None:
        ready = sum(life.end in ("verified", "unverified", "reused") for life in report.lives)
        return f'<b class="bad">Interrupted</b> after {took}: {count_files(ready)} ready in {shown(place)}.'
    ready = done.verified + done.unverified + done.reused
    parts = [f"{count_files(ready)} ready in {shown(place)}"]
    if done.failed:
        parts.append(f'<b class="bad">{done.failed:,} failed</b>')
    if done.unverified:
        parts.append(f"{done.unverified:,} not verified, without a checksum")
    if done.reused:
        parts.append(f"{done.reused:,} already there")
    if done.downloaded_bytes:
        rate = f" ({format_rate(done.downloaded_bytes / done.seconds)})" if done.seconds > 0 else ""
        parts.append(f"{format_size(done.downloaded_bytes)} in {format_seconds(done.seconds)}{rate}")
    resumed = sum(life.resumed for life in report.lives)
    if resumed:
        parts.append(f"{format_size(resumed)} were there from an earlier run")
    return " · ".join(parts) + "."


def _servers(servers: dict[str, Share]) -> list[str]:
    rows = [
        (
            shown(host or "unknown"),
            f"{share.assets:,}",
            format_size(share.bytes),
            format_rate(share.bytes / share.seconds) if share.seconds >= LEAST_S and share.bytes >= LEAST_BYTES else "",
            f"{share.retries:,}" if share.retries else "",
            f"{share.left:,}" if share.left else "",
        )
        for host, share in sorted(servers.items(), key=lambda each: -each[1].bytes)
    ]
    head = ("address", "assets", "bytes", "speed of one asset", "retries", "left for a mirror")
    return table(head, rows, right=(1, 2, 3, 4, 5))


_NAME_PX, _CHART_PX, _ROW_PX = 240, 760, 20
_KEY = " ".join(
    f'<span class="whole"><span class="key" style="background:var(--{kind})"></span> {text}</span>'
    for kind, text in (
        ("waits", "waits"),
        ("comes", "comes"),
        ("verifies", "is verified or unpacked"),
        ("mark", "retry, switch, restart"),
    )
)


def _timeline(lives: Sequence[Life], began: float, ended: float) -> list[str]:
    span = max(ended - began, 1e-3)
    height = _ROW_PX * len(lives) + 24

    def x(time: float) -> float:
        return _NAME_PX + _CHART_PX * min(1.0, max(0.0, (time - began) / span))

    drawing = [
        f'<svg viewBox="0 0 {_NAME_PX + _CHART_PX} {height}" role="img" aria-label="timeline of the assets">',
    ]
    for part in range(5):
        at = _NAME_PX + _CHART_PX * part / 4
        anchor = "end" if part == 4 else "start" if part == 0 else "middle"
        drawing.append(f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="16" y2="{height}"/>')
        drawing.append(f'<text x="{at:.1f}" y="11" text-anchor="{anchor}">{format_seconds(span * part / 4)}</text>')
    for number, life in enumerate(lives):
        top = 20 + _ROW_PX * number
        name = life.asset if len(life.asset) <= 34 else f"{life.asset[:16]}…{life.asset[-17:]}"
        drawing.append(f'<text x="0" y="{top + 12}">{shown(name)}</text>')
        for what, since, until in life.stretches:
            title = f"{life.asset}: {what}{_holders(life, what, since, until)}, {format_seconds(until - since)}"
            wide = max(1.0, x(until) - x(since))
            drawing.append(
                f'<rect class="{what}" x="{x(since):.1f}" y="{top}" width="{wide:.1f}" height="14">'
                f"<title>{shown(title)}</title></rect>"
            )
        drawing += [
            f'<circle class="mark" cx="{x(time):.1f}" cy="{top + 7}" r="4"><title>{shown(text)}</title></circle>'
            for time, text in life.marks
        ]
    return [f'<p class="soft">{_KEY}', *scrolling([*drawing, "</svg>"])]


def _holders(life: Life, what: str, since: float, until: float) -> str:
    """What the asset waited for in this stretch, if anything."""
    holders = dict.fromkeys(holder for time, holder in life.holders if what == "waits" and since <= time <= until)
    return f" for {'; '.join(holders)}" if holders else ""


def _failure(life: Life) -> tuple[str, str]:
    lines = "\n".join(shown(line) for line in life.trouble.split("\n"))
    return shown(life.asset), f'<pre class="bad">{lines}</pre>'


def _marks(life: Life, report: Report) -> list[tuple[str, str, str]]:
    return [(shown(life.asset), format_seconds(time - report.began), shown(text)) for time, text in life.marks]


def _asset(life: Life) -> tuple[str, ...]:
    kind = {"failed": "bad", "unfinished": "bad", "verified": "good"}.get(life.end, "soft")
    end = {"reused": "already there", "unverified": "not verified"}.get(life.end, life.end)
    return (
        f'{shown(life.asset)}<br><span class="soft">{shown(life.path)}</span>' if life.path else shown(life.asset),
        f'<span class="whole {kind}">{end}</span>',
        "" if life.size is None else format_size(life.size),
        format_size(life.downloaded) if life.downloaded else "",
        format_size(life.resumed) if life.resumed else "",
        format_seconds(life.ended - life.began) if life.stretches else "",
        format_rate(life.speed) if life.speed else "",
        shown(life.origin) if life.downloaded else "",
    )
