"""What a person sees of a sync, on stderr: a live picture on a terminal, plain lines elsewhere, or nothing.

Rules: a display only reads events; it can neither slow nor end a transfer. Rich is imported only when a live picture is
actually drawn. Untrusted text is neutralised before it is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from grym_fetch.display.loop import EventSource, View, show
from grym_fetch.display.model import DisplayModel
from grym_fetch.display.plain import PlainView, Stream

__all__ = ["Display", "DisplayModel", "EventSource", "PlainView", "View", "choose_display", "show"]


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


def choose_display(
    *, stream: Stream, environ: Mapping[str, str], quiet: bool, names: Mapping[str, str], verbose: int
) -> Display | None:
    """Return the right display for ``stream``, None if ``quiet``. ``names`` maps an asset's id to its name.

    With ``TERM=dumb``, or if the stream is not a terminal, it prints plain lines: ``FORCE_COLOR`` is not about motion.
    """
    if quiet:
        return None
    if not _is_terminal(stream) or environ.get("TERM", "").lower() in {"", "dumb", "unknown"}:
        return Display(PlainView(stream, names, verbose=verbose), is_live=False)
    from grym_fetch.display.live import LiveView

    return Display(LiveView(stream, names, environ=environ, verbose=verbose), is_live=True)


def _is_terminal(stream: Stream) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False
