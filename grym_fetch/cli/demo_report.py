"""The demo's results, as plain figures, as lines for a person, and as an object for a program.

Rules: pure. Every figure was counted by a server, read from a clock, or recomputed from a file; none is a claim of the
downloader.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from grym_fetch.core.cells import wrapped
from grym_fetch.core.figures import count_files, format_rate, format_seconds, format_size

_LABEL_CHARS = 13


@dataclass(frozen=True, slots=True)
class Served:
    """What one mirror sent in all runs: bytes of body given to its sockets, and the requests for them."""

    bytes: int
    requests: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """The figures of one demo. ``*_sent`` are bytes of body that both servers gave to their sockets during a run.

    Not all of them were read: they include bytes that were still on their way to the killed process.
    """

    files: int
    bytes: int
    first_sent: int
    first_seconds: float
    second_sent: int
    second_seconds: float
    third_sent: int
    mirrors: tuple[Served, ...]
    most_connections: int
    allowed_connections: int
    verified: int
    seconds: float

    @property
    def kept(self) -> int:
        """Bytes that the first run left behind and the second did not need again."""
        return self.bytes - self.second_sent

    @property
    def sent(self) -> int:
        """Bytes that the servers sent in all."""
        return self.first_sent + self.second_sent + self.third_sent

    @property
    def excess(self) -> int:
        """Bytes sent in addition to those of the assets, that is, sent twice."""
        return self.sent - self.bytes

    @property
    def second_rate(self) -> float:
        """Bytes per second of the second run, from its start as a process to its end."""
        return self.second_sent / self.second_seconds

    def surprises(self) -> Iterator[str]:
        """Yield a sentence for each figure that is wrong."""
        if self.verified != self.files:
            yield f"only {self.verified} of {count_files(self.files)} have the right checksum"
        if self.kept <= 0:
            yield f"the resume saved nothing: the second run fetched {format_size(self.second_sent)}"
        if self.third_sent:
            yield f"the third run fetched {format_size(self.third_sent)}, though everything was there"
        if self.most_connections > self.allowed_connections:
            yield f"{self.most_connections} connections were open at once, {self.allowed_connections} are allowed"

    def as_json(self) -> dict[str, object]:
        """Return the figures for a program: bytes, seconds, bytes per second."""
        return {
            "v": 1,
            "type": "demo",
            "files": self.files,
            "bytes": self.bytes,
            "first_run": {"sent_bytes": self.first_sent, "seconds": round(self.first_seconds, 3), "killed": True},
            "second_run": {
                "sent_bytes": self.second_sent,
                "seconds": round(self.second_seconds, 3),
                "bytes_per_second": round(self.second_rate),
                "kept_bytes": self.kept,
            },
            "third_run": {"sent_bytes": self.third_sent},
            "sent_bytes": self.sent,
            "excess_bytes": self.excess,
            "overhead": round(self.excess / self.bytes, 4),
            "mirrors": [{"sent_bytes": served.bytes, "requests": served.requests} for served in self.mirrors],
            "most_connections": self.most_connections,
            "verified": self.verified,
            "seconds": round(self.seconds, 3),
        }

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield the summary as pairs of a label and a text."""
        yield "assets", f"{count_files(self.files)}, {format_size(self.bytes)}"
        yield "first run", f"killed after {format_seconds(self.first_seconds)}, {format_size(self.first_sent)} sent"
        yield "kept", f"{format_size(self.kept)} ({percent(self.kept, self.bytes)}) were not sent again"
        speed = format_rate(self.second_rate)
        yield "second run", f"{format_size(self.second_sent)} in {format_seconds(self.second_seconds)}, {speed}"
        excess = f"{format_size(self.excess)} more than the assets have ({percent(self.excess, self.bytes, digits=1)})"
        yield "sent in all", f"{format_size(self.sent)}, {excess}"
        yield "third run", f"{format_size(self.third_sent)} sent, because everything was there"
        for number, served in enumerate(self.mirrors, 1):
            yield f"mirror {number}", f"{format_size(served.bytes)} in {served.requests} requests"
        yield "connections", f"{self.most_connections} open at once at most, {self.allowed_connections} allowed"
        yield "verified", f"{self.verified} of {count_files(self.files)}, SHA-256 recomputed from the disk"


def summary(figures: Figures, width: int | None) -> list[str]:
    """Return the summary as aligned lines, wrapped to ``width`` cells if that is not None."""
    lines: list[str] = []
    for label, text in figures.rows():
        pieces = [text] if width is None else wrapped(text, max(width - _LABEL_CHARS, _LABEL_CHARS))
        lines += [f"{label:<{_LABEL_CHARS}}{pieces[0]}", *(" " * _LABEL_CHARS + piece for piece in pieces[1:])]
    return lines


def percent(part: float, whole: float, *, digits: int = 0) -> str:
    """Return a share as text: ``52 %``."""
    return f"{100 * part / whole:.{digits}f} %"
