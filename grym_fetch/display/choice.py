"""Which display a run gets, and what it can be asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from grym_fetch.core.figures import format_part, format_size
from grym_fetch.display.github import GitHubView
from grym_fetch.display.lines import Line, Telling
from grym_fetch.display.loop import EventSource, View, show
from grym_fetch.display.plain import PlainView
from grym_fetch.display.stream import Stream, can_move, is_github


@dataclass(frozen=True, slots=True)
class Display:
    """A view that waits for events."""

    view: View
    is_live: bool

    async def run(self, subscription: EventSource) -> None:
        """Show all events until the bus is closed. Cancelling also restores the terminal."""
        await show(subscription, self.view)

    def say(self, text: str) -> None:
        """Show a line, such as a log record, above the live region. Any thread may call this while it runs."""
        self.view.say(text)

    def came_back(self) -> None:
        """Begin below what others have written while the process was stopped. A signal handler may call this."""
        self.view.came_back()

    def try_beside(self, write: Callable[[], object]) -> bool:
        """Call ``write``, which writes to the same terminal, unless a live region is there.

        Returns whether it was called. Any thread may call this.
        """
        return self.view.try_beside(write)

    def last_word(self) -> Line | None:
        """Return the sentence about a run in which something failed, to be shown after the failures."""
        return self.view.chronicle.last_word

    def progress(self) -> str:
        """Return how far the run is: ``36.7 of 60.0 MiB``; empty if nothing has begun."""
        done, total = self.view.model.progress()
        if total is None:
            return format_size(done) if done else ""
        return format_part(done, total)


def choose_display(
    *,
    stream: Stream,
    environ: Mapping[str, str],
    quiet: bool,
    names: Mapping[str, str],
    telling: Telling | None = None,
    progress: str = "auto",
    interval: float = 30.0,
) -> Display | None:
    """Return the right display for ``stream``; None if ``quiet``. ``names`` maps an asset's id to its name.

    With ``TERM=dumb``, or if the stream is not a terminal, it prints plain lines, even with ``FORCE_COLOR``, which is
    not about motion. ``progress`` overrides this: ``bar``, ``plain`` or ``none``. If there is no bar, a line of
    progress is printed every ``interval`` seconds.
    """
    if quiet:
        return None
    if progress == "bar" or (progress == "auto" and can_move(stream, environ)):
        from grym_fetch.display.live import LiveView

        return Display(LiveView(stream, names, environ=environ, telling=telling), is_live=True)
    view = GitHubView if is_github(environ) else PlainView
    shown = None if progress == "none" else interval
    return Display(view(stream, names, telling=telling, interval=shown), is_live=False)
