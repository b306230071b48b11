"""Foreign text made safe: no secret leaves, no control character reaches a terminal or a log.

Rules: an address is shown as scheme, host, port and path only. Text from a server or a manifest is shown with every
control, format and surrogate character escaped, so that it can neither move a cursor nor forge a line.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import urlsplit, urlunsplit

# Cc: controls, Cf: format (bidi overrides, zero width), Cs: lone surrogates, Zl and Zp: line and paragraph separators.
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


_HOST = re.compile(r"(?:\[[^\[\]]*\]|[^:\[\]]*)(?::[0-9]*)?")


def safe_text(text: str, *, limit: int = 300) -> str:
    """Return ``text`` on one line, with unsafe characters escaped and at most ``limit`` characters long."""
    # Nearly all text; looking at each character would take a tenth of a sync of 10,000 files that are there.
    if len(text) <= limit and text.isascii() and text.isprintable():
        return text
    escaped = "".join(
        char.encode("unicode_escape", "surrogatepass").decode("ascii")
        if unicodedata.category(char) in _UNSAFE_CATEGORIES
        else char
        for char in text[:limit]
    )
    return escaped[:limit] + "…" if len(text) > limit or len(escaped) > limit else escaped


def redact_url(url: str) -> str:
    """Return the address without userinfo, query and fragment: these may hold secrets."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        if not _HOST.fullmatch(host) or (not host and "@" in url):
            return "<unreadable address>"
        shown = urlunsplit((parts.scheme, host, parts.path, "", ""))
    except ValueError:
        return "<unreadable address>"
    return safe_text(shown, limit=500)
