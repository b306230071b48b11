"""Permanent lines: one for each change of an asset's state, and the formats of sizes, speeds and times.

Rules: every line is a single line of neutralised text. Progress produces no line. If many files were already there, a
single line sums them up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from grym_fetch.core import events
from grym_fetch.core.events import Event
from grym_fetch.core.text import redact_url, safe_text
from grym_fetch.display.model import DisplayModel

MAX_REUSED_LINES = 20
"""Up to this many files that were already there get their own line; more are summed up."""
_NOT_VERIFIED = "not verified: no checksum yet"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


class Mark(Enum):
    """The mark of a line. A terminal shows ``NEWS`` only when verbose."""

    DONE = auto()
    UNVERIFIED = auto()
    FAILED = auto()
    SAME = auto()
    NEWS = auto()
    SUMMARY = auto()


@dataclass(frozen=True, slots=True)
class Line:
    """``plain`` is the whole line for a log; ``name`` and ``detail`` are its parts for a terminal."""

    mark: Mark
    name: str
    detail: str
    plain: str


def format_size(count: float) -> str:
    """Return bytes in binary units, in at most 8 characters: ``512 B``, ``1.5 GiB``, ``640 MiB``."""
    return _scaled(count, tenths_below=100)


def format_rate(rate: float) -> str:
    """Return bytes per second in binary units: ``85 MiB/s``."""
    return f"{_scaled(rate, tenths_below=10)}/s"


def format_seconds(seconds: float) -> str:
    """Return a duration as people say it: ``0.4 s``, ``12 s``, ``3 min 5 s``, ``2 h 5 min``."""
    if not math.isfinite(seconds):
        return "? s"
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def format_clock(seconds: float) -> str:
    """Return time left in at most 8 characters: ``12 s``, ``3:05``, ``1:02:03``, ``4 days``."""
    whole = math.ceil(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02}"
    if whole < 100 * 3600:
        return f"{whole // 3600}:{whole % 3600 // 60:02}:{whole % 60:02}"
    return f"{whole // 86400} days" if whole < 1000 * 86400 else "> 3 yrs"


def count_files(count: int) -> str:
    """Return ``1 file``, ``10,000 files``."""
    return f"{count:,} file{'' if count == 1 else 's'}"


class Chronicle:
    """Turns events into lines. ``model`` must have seen each event first."""

    def __init__(self, model: DisplayModel, *, verbose: int = 0) -> None:
        self._model = model
        self._verbose = verbose
        self._assets = 0
        self._reused: list[Line] = []
        self._reused_count = self._reused_unverified = 0

    def lines(self, event: Event) -> Iterator[Line]:
        """Yield the lines for ``event``."""
        name = self._model.name(event.asset)
        match event:
            case events.RunStarted():
                self._assets = event.assets
                self._reused, self._reused_count, self._reused_unverified = [], 0, 0
                size = f", {format_size(event.bytes)}" if event.bytes else ""
                text = f"{count_files(event.assets)}{size}"
                yield Line(Mark.NEWS, "", text, text)
            case events.AssetPlanned() if event.resumed_bytes:
                of = f" of {format_size(event.size)}" if event.size is not None else ""
                yield _line(Mark.NEWS, name, f"resuming at {format_size(event.resumed_bytes)}{of}")
            case events.AssetPlanned():
                size = f", {format_size(event.size)}" if event.size is not None else ", size unknown"
                yield _line(Mark.NEWS, name, f"downloading{size}")
            case events.AssetWaiting():
                yield _line(Mark.NEWS, name, f"waiting for {safe_text(event.holder)}")
            case events.RetryScheduled():
                when = format_seconds(event.delay)
                yield _line(
                    Mark.NEWS,
                    name,
                    f"attempt {event.attempt} failed, retrying in {when}: {_first(event.reason)}",
                )
            case events.MirrorSwitched():
                place = f"mirror {event.number} of {event.count}"
                yield _line(Mark.NEWS, name, f"now from {place}, {redact_url(event.to)}: {_first(event.reason)}")
            case events.AssetRestarted():
                lost = f" ({format_size(event.discarded)} discarded)" if event.discarded else ""
                yield _line(Mark.NEWS, name, f"starting over{lost}: {_first(event.reason)}")
            case events.AssetVerified():
                yield _verified(name, event)
            case events.AssetFailed():
                reason = _first(event.message.removeprefix(f"{event.asset}: ")) or safe_text(event.error)
                yield Line(Mark.FAILED, name, reason, f"{name}: failed: {reason}")
            case events.AssetReused():
                mark, warning = (Mark.UNVERIFIED, f", {_NOT_VERIFIED}") if event.unverified else (Mark.SAME, "")
                yield from self._already_there(_line(mark, name, f"already there{warning}"))
            case events.RunFinished():
                yield from self._held_back()
                text = self._summary(event)
                yield Line(Mark.SUMMARY, "", text, text)
            case _:
                pass

    def _already_there(self, line: Line) -> Iterator[Line]:
        if self._verbose or 0 < self._assets <= MAX_REUSED_LINES:
            yield line
            return
        self._reused_count += 1
        self._reused_unverified += line.mark is Mark.UNVERIFIED
        if self._reused_count <= MAX_REUSED_LINES:
            self._reused.append(line)

    def _held_back(self) -> Iterator[Line]:
        if self._reused_count <= MAX_REUSED_LINES:
            yield from self._reused
        else:
            unverified = f", {self._reused_unverified:,} of them not verified" if self._reused_unverified else ""
            text = f"{count_files(self._reused_count)} already there{unverified}"
            yield Line(Mark.UNVERIFIED if unverified else Mark.SAME, "", text, text)
        self._reused, self._reused_count, self._reused_unverified = [], 0, 0

    def _summary(self, event: events.RunFinished) -> str:
        unverified = f", {event.unverified:,} fetched but not verified" if event.unverified else ""
        parts = [f"{event.verified:,} verified{unverified}, {event.reused:,} already there, {event.failed:,} failed"]
        if event.downloaded_bytes:
            speed = f" ({format_rate(event.downloaded_bytes / event.seconds)})" if event.seconds > 0 else ""
            parts.append(f"{format_size(event.downloaded_bytes)} in {format_seconds(event.seconds)}{speed}")
        else:
            parts.append(f"nothing downloaded, {format_seconds(event.seconds)}")
        if self._model.saved_bytes:
            parts.append(f"saved {format_size(self._model.saved_bytes)} by resuming")
        return " · ".join(parts)


def _verified(name: str, event: events.AssetVerified) -> Line:
    size, took = format_size(event.size), format_seconds(event.seconds)
    speed = format_rate(event.downloaded_bytes / event.seconds) if event.seconds > 0 and event.downloaded_bytes else ""
    mark = Mark.UNVERIFIED if event.unverified else Mark.DONE
    warning = _NOT_VERIFIED if event.unverified else ""
    detail = "  ".join(part for part in (size, f"in {took}", speed, warning) if part)
    plain = f"{name}: {warning or 'verified'}, {size} in {took}{f' ({speed})' if speed else ''}"
    return Line(mark, name, detail, plain)


def _line(mark: Mark, name: str, detail: str) -> Line:
    return Line(mark, name, detail, f"{name}: {detail}")


def _first(text: str) -> str:
    return safe_text(next((line.strip() for line in text.splitlines() if line.strip()), ""))


def _scaled(count: float, *, tenths_below: int) -> str:
    scaled = max(0.0, float(count))
    for unit in _UNITS:
        text = f"{scaled:.0f}" if unit == "B" or round(scaled, 1) >= tenths_below else f"{scaled:.1f}"
        if float(text) < 1024 or unit == _UNITS[-1]:
            return f"{text} {unit}"
        scaled /= 1024
    raise AssertionError("unreachable: the last unit returns")
