"""What a registry asks for in ``WWW-Authenticate: Bearer realm=…``, and where to fetch its token.

The protocol is that of container registries (distribution.github.io, "Token Authentication Specification"): the realm,
asked with ``service`` and ``scope``, gives a token for a few minutes.

Rules: the user's token goes to the realm only if the realm is at the registry's own origin, or is known to belong to
it. Otherwise any server could name somebody else's realm, have us fetch a token there with that host's credential, and
be sent that token (compare CVE-2020-15157). From https no realm leads down to http.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from urllib.parse import urlencode

from yarl import URL

from grym_fetch.core.addresses import follow_redirect, is_loopback, origin_key, parse_address
from grym_fetch.core.errors import PolicyRefused

MAX_CHALLENGE_CHARS = 4096
MAX_TOKEN_RESPONSE_BYTES = 64 * 1024
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'[ \t,]*({_WORD})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))[ \t]*(?=,|$)')
_SCHEME = re.compile(rf"[ \t,]*({_WORD})(?:[ \t]+[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|$)|(?=[ \t,]|$))")
"""A scheme, and its token68 if it has one (RFC 9110 section 11.2)."""
_TOKEN = re.compile(r"[!-~]{1,16384}", re.ASCII)
_REALMS_ELSEWHERE = frozenset({(("https", "registry-1.docker.io", 443), ("https", "auth.docker.io", 443))})
"""Registries whose realm is on another of their hosts."""


def token_address(here: URL, challenges: Sequence[str]) -> URL | None:
    """Where to fetch the token for ``here``, according to the ``WWW-Authenticate`` fields of its 401, if anywhere."""
    for text in challenges:
        for parameters in _bearer_challenges(text) if len(text) <= MAX_CHALLENGE_CHARS else ():
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


def wants_login(challenges: Sequence[str]) -> bool:
    """Whether a login and a password are all that a server takes, according to its ``WWW-Authenticate`` fields."""
    schemes = {text.split(maxsplit=1)[0].lower() for text in challenges if text.strip()}
    return schemes == {"basic"} and "bearer" not in " ".join(challenges).lower()


def _bearer_challenges(text: str) -> Iterator[dict[str, str]]:
    """The parameters of each Bearer challenge in a field; it may hold several challenges (RFC 9110 section 11.6.1)."""
    scheme, parameters, at = "", dict[str, str](), 0
    while at < len(text):
        if (found := _PARAMETER.match(text, at)) is not None:
            value = found[3] or re.sub(r"\\(.)", r"\1", found[2] or "")
            parameters.setdefault(found[1].lower(), value)
        elif (found := _SCHEME.match(text, at)) is not None:
            if scheme == "bearer":
                yield parameters
            scheme, parameters = found[1].lower(), {}
        else:
            break
        at = found.end()
    if scheme == "bearer":
        yield parameters


def trusts_realm(registry: URL, realm: URL) -> bool:
    """Whether a credential for the registry's host, or the realm's, may go to the realm."""
    pair = origin_key(registry), origin_key(realm)
    return pair[0] == pair[1] or pair in _REALMS_ELSEWHERE


def read_token(data: bytes) -> str | None:
    """Return the token from a realm's JSON, or None. Accepts any bytes."""
    try:
        answer = json.loads(data[:MAX_TOKEN_RESPONSE_BYTES])
    except (ValueError, RecursionError):
        return None
    if not isinstance(answer, dict):
        return None
    token = answer.get("token") or answer.get("access_token")
    return token if isinstance(token, str) and _TOKEN.fullmatch(token) else None
