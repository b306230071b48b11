"""What a registry asks for in ``WWW-Authenticate: Bearer realm=…``, and where its token is to be fetched.

The protocol is that of container registries (distribution.github.io, "Token Authentication Specification"): the realm,
asked with ``service`` and ``scope``, gives a token for a few minutes.

Rules: a token of the user goes to the realm only if that is at the registry's own origin, or known to belong to it.
Else any server could name somebody else's realm, have us fetch a token there with that host's credential, and be sent
it (compare CVE-2020-15157). From https no realm leads down to http.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from urllib.parse import urlencode

from yarl import URL

from grym_fetch.core.addresses import follow_redirect, is_loopback, origin_key, parse_address
from grym_fetch.core.errors import PolicyRefused

MAX_CHALLENGE_CHARS = 4096
MAX_TOKEN_RESPONSE_BYTES = 64 * 1024
_BEARER = re.compile(r"(?:^|,)[ \t]*bearer[ \t]+", re.IGNORECASE)
_PARAMETER = re.compile(r'[ \t,]*([A-Za-z0-9_-]+)[ \t]*=[ \t]*(?:"([^"\\]*)"|([^\s",]+))[ \t]*(?=,|$)')
_TOKEN = re.compile(r"[!-~]{1,16384}", re.ASCII)
_REALMS_ELSEWHERE = frozenset({(("https", "registry-1.docker.io", 443), ("https", "auth.docker.io", 443))})
"""Registries whose realm is on another host of theirs."""


def token_address(here: URL, challenges: Sequence[str]) -> URL | None:
    """Where the token for ``here`` is to be fetched, by the ``WWW-Authenticate`` fields of its 401, if anywhere."""
    for text in challenges:
        found = _BEARER.search(text) if len(text) <= MAX_CHALLENGE_CHARS else None
        if found is None:
            continue
        parameters: dict[str, str] = {}
        at = found.end()
        while (parameter := _PARAMETER.match(text, at)) is not None:
            parameters.setdefault(parameter[1].lower(), parameter[2] or parameter[3] or "")
            at = parameter.end()
        try:
            realm = follow_redirect(here, str(parse_address(parameters.get("realm", ""))))
        except PolicyRefused:
            continue
        if realm.scheme == "http" and not (is_loopback(realm) and is_loopback(here)):
            continue
        asked = urlencode({name: parameters[name] for name in ("service", "scope") if parameters.get(name)})
        query = "&".join(filter(None, (realm.raw_query_string, asked)))
        return URL(f"{str(realm).partition('?')[0]}?{query}" if query else str(realm), encoded=True)
    return None


def trusts_realm(registry: URL, realm: URL) -> bool:
    """Whether a credential for the registry's host, or the realm's, may go to the realm."""
    pair = origin_key(registry), origin_key(realm)
    return pair[0] == pair[1] or pair in _REALMS_ELSEWHERE


def read_token(data: bytes) -> str | None:
    """Return the token from a realm's JSON, or None; for any bytes."""
    try:
        answer = json.loads(data[:MAX_TOKEN_RESPONSE_BYTES])
    except (ValueError, RecursionError):
        return None
    if not isinstance(answer, dict):
        return None
    token = answer.get("token") or answer.get("access_token")
    return token if isinstance(token, str) and _TOKEN.fullmatch(token) else None
