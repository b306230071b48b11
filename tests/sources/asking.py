"""How these tests let a source ask a hub: over the real transport, with a clock that skips all waiting."""

from __future__ import annotations

from collections.abc import Mapping

from grym_fetch.core.addresses import Credentials
from grym_fetch.core.world import Clock, Connection
from grym_fetch.net.client import HttpTransport
from grym_fetch.sources import Resolved
from grym_fetch.sources.protocol import MAX_ANSWER_BYTES
from grym_fetch.sources.registry import resolve
from grym_fetch.sources.web import HubWeb
from grym_fetch.transfer.request import Requester
from tests.support.project import ImpatientClock


def web_over(
    connection: Connection,
    environ: Mapping[str, str] | None = None,
    clock: Clock | None = None,
    *,
    retries: int = 2,
    offline: bool = False,
    max_bytes: int = MAX_ANSWER_BYTES,
) -> HubWeb:
    """A web over this connection."""
    environ = environ or {}
    requester = Requester(Credentials(environ))
    return HubWeb(
        "The Hub",
        connection=connection,
        requester=requester,
        clock=clock or ImpatientClock(),
        environ=environ,
        retries=retries,
        offline=offline,
        max_bytes=max_bytes,
    )


async def ask(address: str, environ: Mapping[str, str], *, newest: bool = False) -> Resolved:
    """Ask a hub on loopback what an address leads to."""
    connection = HttpTransport().connection()
    try:
        return await resolve(address, web_over(connection, environ, retries=0), newest=newest)
    finally:
        await connection.aclose()
