"""Makes text from elsewhere safe: no secret gets out, no control character reaches a terminal or a log.

Rules: an address is shown as scheme, host, port and path only; `redact_text` does this to each address in other text.
Text from a server or a manifest is shown with every unsafe character escaped, so that it can neither move a cursor nor
forge a line.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from urllib.parse import urlsplit, urlunsplit

UNSAFE_CATEGORIES: Mapping[str, str] = {
    "Cc": "a control character",
    "Cf": "an invisible format character",
    "Cs": "half of a surrogate pair",
    "Zl": "a line separator",
    "Zp": "a paragraph separator",
}
"""Unicode categories that may move a cursor, hide text or forge a line; Cf includes the bidi overrides."""

_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]{0,20}://"
_ADDRESS = re.compile(rf"\b{_SCHEME}(?:(?!{_SCHEME})[^\s'\"<>])*")
_AFTER_ADDRESS = ",;.!?)"
"""What ends a part of a sentence, and so is rarely the end of an address."""
# How our own messages say what an address looks like: a scheme alone, or with what would be read as a bad port.
_FORM = re.compile(r"[a-z0-9]{1,20}://(?:HOST:PORT)?")
_SECRET_FIELD = re.compile(r"\b((?:proxy-)?authorization|(?:set-)?cookie)(['\"]\s*[:,]|\s*[:=])[^\n]*", re.IGNORECASE)
# What most addresses look like: a host, perhaps a port, and a path. Nothing secret can hide in these.
_PLAIN_ADDRESS = re.compile(r"https?://[a-z0-9.-]+(?::[0-9]{1,5})?(?:/[A-Za-z0-9/._~-]*)?")
MAX_ADDRESS_CHARACTERS = 500
"""The longest address that is shown whole."""
_HOST = re.compile(r"(?:\[[^\[\]]*\]|[^:\[\]]*)(?::[0-9]*)?")


def safe_text(text: str, *, limit: int = 300) -> str:
    """Return ``text`` on one line, with unsafe characters escaped and at most ``limit`` characters long."""
    # Nearly all text; checking each character takes a tenth of the time of a sync of 10,000 files that are all there.
    if len(text) <= limit and text.isprintable():
        return text
    escaped = "".join(
        char.encode("unicode_escape", "surrogatepass").decode("ascii")
        if unicodedata.category(char) in UNSAFE_CATEGORIES
        else char
        for char in text[:limit]
    )
    return escaped[:limit] + "…" if len(text) > limit or len(escaped) > limit else escaped


def redact_url(url: str) -> str:
    """Return the address without userinfo, query and fragment: these may hold secrets."""
    if len(url) <= MAX_ADDRESS_CHARACTERS and _PLAIN_ADDRESS.fullmatch(url):
        return url
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        if not _HOST.fullmatch(host) or (not host and "@" in url):
            return "<unreadable address>"
        shown = urlunsplit((parts.scheme, host, parts.path, "", ""))
    except ValueError:
        return "<unreadable address>"
    return safe_text(shown, limit=MAX_ADDRESS_CHARACTERS)


def redact_text(text: str) -> str:
    """Return text with every address in it redacted, and without the values of header fields that hold secrets.

    For text that is not ours, such as the message of a foreign exception. A value ends with its line.
    """
    if "://" in text:
        text = _ADDRESS.sub(_redact_match, text)
    return _SECRET_FIELD.sub(r"\1: …", text)


def _redact_match(found: re.Match[str]) -> str:
    address = found[0].rstrip(_AFTER_ADDRESS)
    return (address if _FORM.fullmatch(address) else redact_url(address)) + found[0][len(address) :]
