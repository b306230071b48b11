from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core import events
from grym_fetch.core.events import Event
from grym_fetch.display.page import MAX_ROWS, MAX_TIMELINE_ROWS, report_page
from grym_fetch.display.report import Report
from tests.display.strategies import any_event
from tests.display.test_report import LIFE, followed

HOSTILE = '<script src="https://evil.example/x.js"></script>\'"&\x1b[2J'


def test_a_page_needs_nothing_from_elsewhere() -> None:
    """No script, no image, no font, no link: and a policy that would forbid them."""
    text = report_page(followed(*LIFE), "./assets")
    assert "default-src 'none'" in text
    assert not re.search(r"<(script|img|link|iframe|object|embed|a)\b|url\(|@import|\bon\w+=", text)
    assert text.startswith("<!doctype html>")


def test_a_page_says_what_came_from_where() -> None:
    """Origins with bytes, speeds, retries; the summary; each asset."""
    text = report_page(followed(*LIFE), "./assets")
    for words in (
        "1 file ready in ./assets",
        "https://one.example",
        "https://two.example",
        "200 B were there",
        "verified",
    ):
        assert words in text
    assert "Interrupted" not in text
    assert "Interrupted" in report_page(followed(*LIFE[:4]), "./assets")


def test_waiting_is_no_trouble() -> None:
    """What an asset waits for is told where it waits, and neither listed nor marked like a retry."""
    holder = "one.example, which allows 2 at a time"
    planned = events.AssetPlanned(asset="a", size=10, resumed_bytes=0)
    waits = events.AssetWaiting(asset="a", holder=holder)
    done = events.AssetVerified(asset="a", path="p", checksum="c", size=10, seconds=2.0, downloaded_bytes=10)
    text = report_page(followed((0.0, planned), (1.0, waits), (3.0, done)), "./assets")
    assert f"<title>a: waits for {holder}, 3.0 s</title>" in text
    assert "Retries" not in text
    assert "<circle" not in text


@pytest.mark.shows("U1", "U4")
def test_whatever_a_server_says_is_text() -> None:
    """Names, reasons, messages and addresses are escaped, and secrets in them are left out."""
    url = "https://user:pass@one.example/a?token=SECRET"
    report = Report({HOSTILE: url})
    for event in (
        events.AssetPlanned(asset=HOSTILE, size=10, resumed_bytes=0),
        events.ProgressMade(asset=HOSTILE, bytes=5, total=10, rate=1.0),
        events.RetryScheduled(asset=HOSTILE, url=url, attempt=1, delay=0.0, reason=HOSTILE),
        events.MirrorSwitched(asset=HOSTILE, from_=url, to=url, reason=f"{HOSTILE} {url}", number=2, count=2),
        events.AssetFailed(asset=HOSTILE, error="BadStatus", message=f"{HOSTILE}\n{url}"),
    ):
        report.apply(replace(event, time=1.0))
    text = report_page(report, HOSTILE)
    assert "<script" not in text
    assert "\x1b" not in text
    assert "SECRET" not in text
    assert "pass@" not in text
    assert "&lt;script" in text


@given(st.lists(st.tuples(st.floats(0, 1e9), any_event), max_size=25))
def test_every_run_has_a_page(happened: list[tuple[float, Event]]) -> None:
    """Whatever is told, in whatever order: its tables are whole."""
    text = report_page(followed(*happened), "./assets")
    assert text.count("<table>") == text.count("</table>")
    assert text.count("<svg") == text.count("</svg>")


def test_a_page_about_many_assets_can_be_opened() -> None:
    """Those that took longest have rows; the others are counted."""
    lives: list[tuple[float, Event]] = []
    for number in range(3 * MAX_ROWS):
        planned = events.AssetPlanned(asset=f"a{number}", size=1, resumed_bytes=0)
        lives += [
            (float(number), planned),
            (2.0 * number, events.AssetFailed(asset=f"a{number}", error="E", message="m")),
        ]
    text = report_page(followed(*lives), "./assets")
    assert text.count("<rect") == MAX_TIMELINE_ROWS
    assert f"{2 * MAX_ROWS:,} more" in text
    assert len(text) < 400_000


def test_what_is_wide_scrolls_by_itself() -> None:
    """Each drawing and each table is in a box that scrolls, as large as ever; words of a column are not broken."""
    text = report_page(followed(*LIFE), "./assets")
    for piece in ("<svg", "<table"):
        assert text.count(piece) == text.count(f'<div class="wide">\n{piece}')
    assert ".wide { overflow-x: auto; }" in text
    assert "svg { display: block; width: 100%; min-width:" in text
    assert '<span class="whole good">verified</span>' in text
