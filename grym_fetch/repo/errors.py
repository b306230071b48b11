"""What this package refuses to do."""

from __future__ import annotations

from grym_fetch.core.errors import GrymFetchError


class Refused(GrymFetchError):
    """What was asked for makes no sense or would be dangerous. Wrong usage: nothing was changed."""


class NotMoved(GrymFetchError):
    """One file is left as it is; the others are not concerned. The text has no path."""
