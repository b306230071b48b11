"""A registry's token, fetched from its realm over the connection that needs it.

Rules: the realm is asked as any other address: redirects are followed by hand, each hop checked, and the credential
stays with the realm's own origin. The answer is bounded; if anything is wrong with it, there is no token.
"""

from __future__ import annotations

from dataclasses import dataclass

from yarl import URL

from grym_fetch.core.addresses import MAX_REDIRECTS, follow_redirect, is_loopback, origin_key
from grym_fetch.core.challenges import MAX_TOKEN_RESPONSE_BYTES, read_token
from grym_fetch.core.errors import GrymFetchError
from grym_fetch.core.http import REDIRECTS, ResponseHead
from grym_fetch.core.world import Connection
from grym_fetch.transfer.answers import read_answer


@dataclass(frozen=True, slots=True)
class ClosedResponse:
    """A response whose body was given up already."""

    head: ResponseHead

    async def readinto(self, buffer: memoryview) -> int:  # noqa: ARG002 - the Protocol's
        """Return 0: there is no body."""
        return 0

    def close(self) -> None:
        """Do nothing: it is closed."""


async def fetch_token(connection: Connection, realm: URL, authorization: str | None) -> str | None:
    """Ask a realm for a token, with this credential or anonymously. Return None if it sends none."""
    here, is_own = realm, True
    try:
        for _ in range(MAX_REDIRECTS + 1):
            fields = {"Authorization": authorization} if authorization is not None and is_own else {}
            response = await connection.get(str(here.with_fragment(None)), fields)
            try:
                if response.head.status == 200:
                    data = await read_answer(response, str(here), whose="the registry", most=MAX_TOKEN_RESPONSE_BYTES)
                    return read_token(data)
                location = response.head.get("location")
                if response.head.status not in REDIRECTS or location is None:
                    return None
            finally:
                response.close()
            here = follow_redirect(here, location)
            is_own = is_own and origin_key(here) == origin_key(realm)
            if here.scheme == "http" and not is_loopback(here):
                return None
    except GrymFetchError:
        pass
    return None
