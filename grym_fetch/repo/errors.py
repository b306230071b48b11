"""Why one file is not moved. If everything is refused, that is a `RepositoryError`."""

from __future__ import annotations

from grym_fetch.core.errors import GrymFetchError


class NotMoved(GrymFetchError):
    """One file is left as it is; the others are not affected. The text has no path."""
