"""What this package refuses to do."""

from __future__ import annotations

from grym_fetch.core.errors import GrymFetchError
from grym_fetch.core.errors import RepositoryError as Refused

__all__ = ["NotMoved", "Refused"]


class NotMoved(GrymFetchError):
    """One file is left as it is; the others are not concerned. The text has no path."""
