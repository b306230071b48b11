"""What the displays need from a stream, and what it can show. Imports nothing that takes long."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Protocol

_TYPOGRAPHIC = str.maketrans({"·": "-", "…": "...", "✓": "+", "✗": "x", "→": "->"})


class Stream(Protocol):
    """What the displays need from a text stream; `sys.stderr` has it."""

    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...
    def isatty(self) -> bool: ...
    def fileno(self) -> int: ...
    @property
    def encoding(self) -> str | None: ...


def is_terminal(stream: Stream) -> bool:
    """Whether the stream is an open terminal."""
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def can_move(stream: Stream, environ: Mapping[str, str]) -> bool:
    """Whether the stream is a terminal whose cursor can be moved."""
    return is_terminal(stream) and environ.get("TERM", "").lower() not in _UNMOVED


_UNMOVED = frozenset({"", "dumb", "unknown"})


def is_unicode(stream: Stream) -> bool:
    """Whether the stream accepts every character."""
    return (getattr(stream, "encoding", None) or "").lower().replace("-", "").replace("_", "") in {
        "utf8",
        "utf16",
    }


def to_ascii(text: str) -> str:
    """Return ``text`` in ASCII, with other characters escaped."""
    return text.translate(_TYPOGRAPHIC).encode("ascii", "backslashreplace").decode("ascii")


class DirectStream:
    """Writes to a stream's file descriptor without a buffer.

    A thread stuck writing to a buffered `sys.stderr` holds its lock, and the interpreter then aborts when it flushes at
    exit. Here there is no lock to hold. A stream without a descriptor is written to directly.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"
        try:
            self._descriptor: int | None = stream.fileno()
            stream.flush()
        except (OSError, ValueError, AttributeError):
            self._descriptor = None

    def write(self, text: str) -> int:
        if self._descriptor is None:
            self._stream.write(text)
        else:
            remaining = memoryview(text.encode(self.encoding, "backslashreplace"))
            while remaining:
                remaining = remaining[os.write(self._descriptor, remaining) :]
        return len(text)

    def flush(self) -> None:
        if self._descriptor is None:
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno() if self._descriptor is None else self._descriptor


def is_github(environ: Mapping[str, str]) -> bool:
    """Whether this runs in a job of GitHub Actions or a compatible runner."""
    return environ.get("GITHUB_ACTIONS") == "true"


def harmless(text: str) -> str:
    """Return the text in a form that the runner of GitHub Actions does not take for a command; see `github`."""
    return text.replace("::", ": :").replace("##[", "## [")
