"""Cookies of one chain of redirects (RFC 6265), such as a login wall or a load balancer sets on the way to a file.

Rules: a cookie goes back to the origin that set it, in the same chain, and to nobody else. The domain and path that it
names could only narrow that, and are ignored. Nothing is kept on disk; the number and length of cookies are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from yarl import URL

from grym_fetch.core.addresses import origin_key

MAX_COOKIES = 20
MAX_COOKIE_BYTES = 4096
"""The longest name and value together, as in browsers (RFC 6265 section 6.1)."""
_COOKIE = re.compile(r"""([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*([!#-+\--:<-\[\]-~]*|"[!#-+\--:<-\[\]-~]*")""")
_IS_DELETED = re.compile(
    r";[ \t]*(?:max-age[ \t]*=[ \t]*(?:-|0+[ \t]*(?:;|$))|expires[ \t]*=[^;]*\b19[0-9]{2}\b)", re.IGNORECASE
)
"""Servers delete a cookie by giving it an age of zero or less, or an end in the last century (usually 1970)."""


class ChainCookies:
    """The cookies that the servers of one chain have set so far. The repr shows none of them."""

    def __init__(self) -> None:
        self._cookies: dict[tuple[str, str, int], dict[str, str]] = {}

    def learn(self, url: URL, fields: Sequence[str]) -> None:
        """Take the ``Set-Cookie`` fields of a response from ``url``, without any that are malformed or too many."""
        cookies = self._cookies.setdefault(origin_key(url), {})
        for text in fields:
            pair = text.partition(";")[0].strip(" \t")
            found = _COOKIE.fullmatch(pair)
            if found is None or len(pair) > MAX_COOKIE_BYTES:
                continue
            name, value = found.groups()
            if _IS_DELETED.search(text):
                cookies.pop(name, None)
            elif name in cookies or len(cookies) < MAX_COOKIES:
                cookies[name] = value

    def field(self, url: URL) -> str:
        """Return the ``Cookie`` field for an address; empty if there is none."""
        return "; ".join(f"{name}={value}" for name, value in self._cookies.get(origin_key(url), {}).items())

    def __repr__(self) -> str:
        return "ChainCookies(…)"
