"""Permanent lines: one for each change of an asset's state, and the sentence at the end.

Rules: every line is a single line of harmless text. Progress produces no line. If many files were already there, a
single line sums them up. A failure is only a few words here; at the end, the command shows it in full, and then the
final sentence, which is kept for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal

from grym_fetch.core import events
from grym_fetch.core.events import Event
from grym_fetch.core.figures import count_files, format_clock, format_delay, format_rate, format_seconds, format_size
from grym_fetch.core.text import redact_url, safe_text
from grym_fetch.display.model import DisplayModel

MAX_REUSED_LINES = 20
"""Up to this many files that were already there get their own line; more are summed up."""
WORTH_A_SPEED_BYTES = 1024 * 1024
"""No speed is shown for a smaller file: it would measure the requests, not the link."""
MAX_REASON_CHARACTERS = 60
_NOT_VERIFIED = "not verified: no checksum"
_STATUS = re.compile(r"\bstatus (\d{3})\b")
_ADDRESS = re.compile(r"^[a-z][a-z0-9+.-]*://\S+: ")
# Short texts for errors whose own text has many figures.
_FAILURES = {
    "DigestMismatch": "wrong checksum",
    "LengthMismatch": "wrong size",
    "DiskFull": "disk full",
    "UnpinnedAsset": "no checksum",
    "UnverifiedRead": "no pieces",
}


Tells = Literal["all", "failures", "news", "progress"]
"""What a display tells besides the news: the end of each asset, of those that failed, or none; or not even the news."""


class Mark(Enum):
    """The mark of a line. A terminal shows ``NEWS`` only when verbose."""

    DONE = auto()
    UNVERIFIED = auto()
    FAILED = auto()
    SAME = auto()
    NEWS = auto()
    SAID = auto()


@dataclass(frozen=True, slots=True)
class Line:
    """``plain`` is the whole line for a log; the others are its parts for a terminal.

    ``columns`` are a size, a time and a speed, aligned with those of other lines.
    """

    mark: Mark
    name: str
    detail: str
    plain: str
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Telling:
    """What to show of a run besides its progress.

    ``place``: where the files go, as a person writes it. ``retries``: how often a server that fails is asked again.
    ``tells``: which assets to report at their end; the command may report each asset itself, or even the failures.
    """

    verbose: int = 0
    place: str = ""
    retries: int | None = None
    tells: Tells = "all"


class Chronicle:
    """Turns events into lines. ``model`` must have seen each event first."""

    def __init__(self, model: DisplayModel, telling: Telling | None = None) -> None:
        self._model = model
        self._telling = telling or Telling()
        self._assets = 0
        self._reused: list[Line] = []
        self._reused_count = self._reused_unverified = self._unverified_there = 0
        self._has_repaired = False
        self._holders: dict[str, str] = {}
        """What each asset is known to wait for."""
        self.last_word: Line | None = None
        """The sentence about a run in which something failed, to be shown after the failures."""

    def lines(self, event: Event) -> Iterator[Line]:
        """Yield the lines for ``event``."""
        name = self._model.name(event.asset)
        if not isinstance(event, events.AssetWaiting | events.ProgressMade) and event.asset is not None:
            self._holders.pop(event.asset, None)
        match event:
            case _ if self._telling.tells == "progress":
                pass
            case events.RunStarted():
                self._assets = event.assets
                self._reused, self._reused_count, self._reused_unverified = [], 0, 0
                self._unverified_there = 0
                self.last_word, self._has_repaired = None, False
                size = f", {format_size(event.bytes)}" if event.bytes else ""
                yield said(f"{count_files(event.assets)}{size}", Mark.NEWS)
            case events.AssetDamaged():
                yield _line(Mark.NEWS, name, f"damaged: {_damage(event)}")
            case events.AssetRepaired():
                self._has_repaired = True
                what = f"{event.fetched:,} of {event.pieces:,} pieces fetched"
                yield _line(Mark.NEWS, name, f"repaired: {what}, {format_size(event.saved_bytes)} saved")
            case events.AssetPlanned() if event.resumed_bytes:
                of = f" of {format_size(event.size)}" if event.size is not None else ""
                yield _line(Mark.NEWS, name, f"resuming at {format_size(event.resumed_bytes)}{of}")
            case events.AssetPlanned():
                size = f", {format_size(event.size)}" if event.size is not None else ", size unknown"
                yield _line(Mark.NEWS, name, f"downloading{size}")
            case events.AssetWaiting():
                if event.holder != self._holders.get(event.asset or ""):
                    self._holders[event.asset or ""] = event.holder
                    yield _line(Mark.NEWS, name, f"waiting for {safe_text(event.holder)}")
            case events.RetryScheduled():
                when = format_delay(event.delay)
                number = retry_number(event.attempt, self._telling.retries, delay=event.delay)
                yield _line(Mark.NEWS, name, f"{number} {when}: {_first(event.reason)}")
            case events.MirrorSwitched():
                place = f"mirror {event.number} of {event.count}"
                yield _line(Mark.NEWS, name, f"{_first(event.reason)}; now from {place}, {redact_url(event.to)}")
            case events.AssetRestarted():
                lost = f" ({format_size(event.discarded)} discarded)" if event.discarded else ""
                yield _line(Mark.NEWS, name, f"starting over{lost}: {_first(event.reason)}")
            case events.AssetFailed() if self._assets <= 1:
                pass  # the command's error follows at once and says it all
            case events.AssetFailed() if self._telling.tells != "news":
                reason = short_failure(event)
                yield Line(Mark.FAILED, name, reason, f"{name}: failed: {reason}")
            case events.AssetVerified():
                if self._telling.tells == "all":
                    yield _verified(name, event, self._model.last_seconds)
                for url in event.wrong_origins or ():
                    yield _line(Mark.NEWS, name, f"wrong bytes came from {redact_url(url)}, and were replaced")
            case _ if self._telling.tells != "all":
                pass
            case events.AssetReused():
                self._unverified_there += bool(event.unverified)
                mark, warning = (Mark.UNVERIFIED, f", {_NOT_VERIFIED}") if event.unverified else (Mark.SAME, "")
                yield from self._already_there(_line(mark, name, f"already there{warning}"))
            case events.RunFinished():
                yield from self._held_back()
                yield from self._end(event)
            case _:
                pass

    def _already_there(self, line: Line) -> Iterator[Line]:
        if self._telling.verbose or 0 < self._assets <= MAX_REUSED_LINES:
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
            yield said(text, Mark.UNVERIFIED if unverified else Mark.SAME)
        self._reused, self._reused_count, self._reused_unverified = [], 0, 0

    def _end(self, event: events.RunFinished) -> Iterator[Line]:
        ready = event.verified + event.unverified + event.reused
        if ready + event.failed < self._assets:
            return  # it was interrupted, which is reported elsewhere
        if event.failed and ready + event.failed > 1:
            self.last_word = said(self._summary(event, ready), Mark.FAILED)
        elif ready and not event.failed:
            yield said(self._summary(event, ready), Mark.UNVERIFIED if self._unverified(event) else Mark.DONE)

    def _unverified(self, event: events.RunFinished) -> int:
        """How many files are ready that nobody can vouch for: of those that were there, the event does not tell."""
        return event.unverified + self._unverified_there

    def _summary(self, event: events.RunFinished, ready: int) -> str:
        """A sentence without zeros: what is there and where, what was downloaded, and what did not have to be."""
        where = f" in {self._telling.place}" if self._telling.place else ""
        if not event.failed:
            parts = [f"{count_files(ready)} ready{where}"]
        elif ready:
            parts = [f"{ready:,} of {count_files(ready + event.failed)} ready{where}", f"{event.failed:,} failed"]
        else:
            parts = [f"{count_files(event.failed)} failed"]
        if unverified := self._unverified(event):
            parts.append(f"{unverified:,} not verified, without a checksum")
        if event.reused and not event.failed and event.reused == ready:
            parts.append("all already there" if ready > 1 else "already there")
        elif event.reused:
            parts.append(f"{event.reused:,} already there")
        if event.downloaded_bytes:
            speed = f" ({format_rate(event.downloaded_bytes / event.seconds)})" if event.seconds > 0 else ""
            parts.append(f"{format_size(event.downloaded_bytes)} in {format_seconds(event.seconds)}{speed}")
        if self._model.saved_bytes:
            parts.append(f"{format_size(self._model.saved_bytes)} saved{'' if self._has_repaired else ' by resuming'}")
        return " · ".join(parts)


def said(text: str, mark: Mark = Mark.SAID) -> Line:
    """Return a line of text that is not about a single asset."""
    return Line(mark, "", text, text)


def retry_number(attempt: int, retries: int | None, *, delay: float | None = None) -> str:
    """Return which retry it is: ``retry 2 of 5``.

    If we wait for the server, there may be more retries than that. Without a delay, it is one that asks in another way.
    Number 0 does not count: a host that is only busy may be asked as often as it takes.
    """
    if attempt == 0:
        return "next try"
    if delay == 0 and retries is not None and attempt > retries:
        return "one more try"
    return f"retry {attempt} of {retries}" if retries is not None and attempt <= retries else f"retry {attempt}"


def short_reason(text: str) -> str:
    """Return why something failed in a few words: the number of a status, or the first clause."""
    first = _ADDRESS.sub("", _first(text))
    if (status := _STATUS.search(first)) is not None:
        return status[1]
    clause = re.split(r"; | \(", first, maxsplit=1)[0]
    return clause if len(clause) <= MAX_REASON_CHARACTERS else f"{clause[: MAX_REASON_CHARACTERS - 1].rstrip()}…"


def short_failure(event: events.AssetFailed) -> str:
    """Return why an asset could not be fetched in a few words: ``401``, ``wrong checksum``."""
    if (words := _FAILURES.get(event.error)) is not None:
        return words
    if event.attempts:
        return short_reason(event.attempts[-1])
    text = _first(event.message.removeprefix(f"{event.asset}: ")).removeprefix("could not be fetched: ")
    return short_reason(text) or safe_text(event.error)


def _verified(name: str, event: events.AssetVerified, busy_seconds: float) -> Line:
    # The time since it was planned may include waiting for a free connection.
    seconds = min(event.seconds, busy_seconds or event.seconds)
    size, took = format_size(event.size), format_seconds(seconds)
    has_speed = seconds > 0 and event.downloaded_bytes >= WORTH_A_SPEED_BYTES
    speed = format_rate(event.downloaded_bytes / seconds) if has_speed else ""
    mark = Mark.UNVERIFIED if event.unverified else Mark.DONE
    warning = _NOT_VERIFIED if event.unverified else ""
    plain = f"{name}: {warning or 'verified'}, {size} in {took}{f' ({speed})' if speed else ''}"
    short = took if seconds < 9.95 else format_clock(seconds)
    return Line(mark, name, warning, plain, (size, short, speed))


def _line(mark: Mark, name: str, detail: str) -> Line:
    return Line(mark, name, detail, f"{name}: {detail}")


def _first(text: str) -> str:
    return safe_text(next((line.strip() for line in text.splitlines() if line.strip()), ""))


def _damage(event: events.AssetDamaged) -> str:
    size, most = format_size(event.bytes), format_size(event.at_most or 0)
    if not event.guess:
        return f"{event.bad:,} of {event.pieces:,} pieces are bad; fetching {size}"
    if event.bad:
        return f"{event.bad:,} of {event.pieces:,} pieces are probably bad; fetching {size}, or up to {most}"
    return f"nothing says which part; comparing with an origin until the whole is right, up to {most}"
