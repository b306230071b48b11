"""The log of a GitHub Actions job: groups that fold, and annotations.

Rules: a line of the log that begins with ``::`` or holds ``##[`` is a command to the runner (actions/runner,
``ActionCommand.cs``). So only commands made here have that form: in all other text, they are broken up.
"""

from __future__ import annotations

from dataclasses import dataclass

from grym_fetch.core import events
from grym_fetch.core.events import Event
from grym_fetch.core.figures import count_files
from grym_fetch.display.lines import Line, Mark
from grym_fetch.display.plain import PlainView
from grym_fetch.display.stream import harmless


def annotation(level: str, message: str, *, title: str = "", file: str = "") -> str:
    """Return the line that makes an annotation. ``level``: ``error``, ``warning`` or ``notice``."""
    named = {"file": file, "title": title}
    properties = ",".join(f"{name}={_escaped_property(value)}" for name, value in named.items() if value)
    return f"::{level}{' ' if properties else ''}{properties}::{_escaped(message)}"


@dataclass(frozen=True, slots=True)
class _Command(Line):
    """A line that is meant for the runner."""


class GitHubView(PlainView):
    """The lines of a run in a group, which is open until its end."""

    _is_open = False

    def apply(self, event: Event, now: float) -> None:
        """Process an event; a run begins and ends its group."""
        if isinstance(event, events.RunFinished):
            self._end_group()
        elif isinstance(event, events.RunStarted):
            self._end_group()
            self._is_open = True
            self._command(f"::group::{_escaped(f'grym-fetch: {count_files(event.assets)}')}")
        super().apply(event, now)

    def close(self) -> None:
        """End a group that is still open, since the run was interrupted."""
        self._end_group()
        self._write(self._pending.take())
        super().close()

    def _end_group(self) -> None:
        if self._is_open:
            self._is_open = False
            self._command("::endgroup::")

    def _command(self, text: str) -> None:
        self._pending.add(_Command(Mark.SAID, "", text, text))

    def _as_told(self, line: Line) -> str:
        return line.plain if isinstance(line, _Command) else harmless(line.plain)


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escaped_property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")
