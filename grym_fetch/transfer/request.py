"""One request to an origin: from a range that is wanted to a response that has been judged.

Rules: redirects are followed here, by hand, each hop checked; Range and If-Range go along, credentials only while
scheme, host and port stay the same. Each origin remembers where its redirects ended, and from then on that address is
asked directly; when it answers as expired, the chain is walked again, once. A validator is for the server that sent it:
at the end of another chain it is no condition, and contradicts nothing.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from yarl import URL

from grym_fetch.core.addresses import (
    MAX_REDIRECTS,
    Credentials,
    follow_redirect,
    host_of,
    origin_key,
    parse_address,
    server_mark,
)
from grym_fetch.core.errors import BadResponse, GrymFetchError, TooManyRedirects
from grym_fetch.core.http import Asked, Redirected, Verdict, judge
from grym_fetch.core.origins import Origin
from grym_fetch.core.ranges import range_header
from grym_fetch.core.world import Connection, Response

log = logging.getLogger(__name__)

# What a signed address answers once it has expired, or a node that has gone.
_EXPIRED = frozenset({400, 401, 403, 404, 410})
MAX_TARGETS = 3
"""Remembered addresses that are tried for one request before the chain is walked again."""


@dataclass(frozen=True, slots=True)
class JudgedResponse:
    """A response that was judged. Its body is unread."""

    response: Response
    verdict: Verdict
    is_page: bool
    host: str = ""
    """Host and port that sent it, at the end of the redirects."""


class Requester:
    """Asks origins for ranges. Holds the credentials, and nothing that belongs to an asset."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    async def open(self, connection: Connection, origin: Origin, asked: Asked) -> JudgedResponse:
        """Ask ``origin``; return the judged response, whose body the caller closes.

        Raises `TooManyRedirects`, `PolicyRefused`, and what `Connection.get` raises.
        """
        try:
            return await self._open(connection, origin, asked)
        except GrymFetchError:
            raise
        except Exception as error:
            # Whatever this server sent to make us fail, the failure is this server's: others may have the file.
            log.warning("%s: unexpected", origin.shown, exc_info=True)
            reason = f"the response could not be read ({type(error).__name__})"
            raise BadResponse(origin.url, reason) from error

    async def _open(self, connection: Connection, origin: Origin, asked: Asked) -> JudgedResponse:
        first = parse_address(origin.url)
        for _ in range(MAX_TARGETS):
            target = origin.target
            if target is None:
                break
            answer = await self._ask(connection, first, target, asked, is_own=origin.target_is_own)
            expired = answer.response.head.status in _EXPIRED
            if not expired and not isinstance(answer.verdict, Redirected):
                return answer
            answer.response.close()
            origin.lost_target(target)
        return await self._walk(connection, origin, first, asked)

    async def _walk(self, connection: Connection, origin: Origin, first: URL, asked: Asked) -> JudgedResponse:
        seen = {first}
        here = first
        is_own = True
        while True:
            answer = await self._ask(connection, first, here, asked, is_own=is_own)
            if not isinstance(answer.verdict, Redirected):
                origin.resolved(here if here is not first else None, is_own=is_own)
                return answer
            # The body of a redirect is of no use, and nothing says how long it is.
            answer.response.close()
            here = follow_redirect(here, answer.verdict.location)
            # Once another origin has led the way, credentials do not come back: it has chosen the address.
            is_own = is_own and origin_key(here) == origin_key(first)
            if here in seen:
                raise TooManyRedirects(str(here), "the redirects lead back to where they came from")
            if len(seen) > MAX_REDIRECTS:
                raise TooManyRedirects(origin.url, f"more than {MAX_REDIRECTS} redirects")
            seen.add(here)

    async def _ask(
        self, connection: Connection, first: URL, here: URL, asked: Asked, *, is_own: bool
    ) -> JudgedResponse:
        fields: dict[str, str] = {}
        server = server_mark(here)
        if asked.wanted is not None:
            fields["Range"] = range_header(asked.wanted)
            if asked.validator.if_range and asked.validator.is_for(server):
                fields["If-Range"] = asked.validator.if_range
        authorization = self._credentials.authorization(first) if is_own else None
        if authorization:
            fields["Authorization"] = authorization
        bare = here.with_user(None) if here.user is not None or here.password is not None else here
        response = await connection.get(str(bare.with_fragment(None)), fields)
        verdict = judge(asked, replace(response.head, server=server))
        return JudgedResponse(response, verdict, response.head.is_page, host_of(str(here)))
