"""Whether a manifest is still fresh: not past its ``expires``, and not older than a version seen before.

Rules: the manifest states both itself, so they guard against an old manifest, whether it comes from a stale mirror or
cache or is served on purpose, but not against one written to deceive. A manifest that has neither is always fresh.
"""

from __future__ import annotations

import re

from grym_fetch.core.text import safe_text

EXPIRY_RULE = "a time with a zone such as 2026-12-31T00:00:00Z"

VersionNumber = tuple[int, ...]

_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)  # RFC 3339, 5.6
_VERSION = re.compile(r"v?\d{1,20}(\.\d{1,20}){0,7}", re.ASCII)


def parse_expiry(text: str) -> float:
    """Return an RFC 3339 time in seconds since the epoch. Raises `ValueError`."""
    from datetime import UTC, datetime  # most manifests have no expiry

    try:
        if not _TIME.fullmatch(text):
            raise ValueError
        # In UTC, as it will be shown: the zone may move it out of the supported years.
        return datetime.fromisoformat(text.upper()).astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        raise ValueError(f"is not a valid time; allowed: {EXPIRY_RULE}") from None


def version_number(text: str | None) -> VersionNumber | None:
    """Return a comparable version: numbers joined by dots, with or without a leading ``v``. None for any other text.

    ``1``, ``1.0`` and ``v1.0.0`` are the same version, and ``1.10`` is later than ``1.9``.
    """
    if text is None or not _VERSION.fullmatch(text):
        return None
    numbers = [int(part) for part in text.removeprefix("v").split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def why_stale(version: str | None, expires: float | None, *, now: float, last_seen: str | None) -> str | None:
    """Say why a manifest is refused; None if it is not. ``expires`` and ``now`` in seconds since the epoch."""
    if expires is not None and now >= expires:
        return f"expired on {_shown(expires)} (it is {_shown(now)} by this machine's clock)"
    seen = version_number(last_seen)
    if seen is None:
        return None
    number = version_number(version)
    if number is None:
        has = "has no version" if version is None else f"has the version '{safe_text(version, limit=80)}'"
        return f"{has}, which cannot be compared with version {last_seen} that was seen here before"
    return f"is version {version}, older than version {last_seen} that was seen here before" if number < seen else None


def _shown(moment: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
