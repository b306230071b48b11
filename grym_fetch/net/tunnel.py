"""A tunnel through a proxy that speaks HTTP (CONNECT, RFC 9110 section 9.3.6), and TLS to the server inside it.

Rules: the proxy is sent host and port, and its own password. Any answer but success is the proxy's failure and not the
server's; a page that it sends along is never taken for content. Nothing may come through before we have sent something.
"""

from __future__ import annotations

import asyncio
import ssl

from yarl import URL

from grym_fetch.core.errors import BadResponse, ConnectFailed, ConnectionLost, ProxyRefused, Stalled, TransferError
from grym_fetch.core.http import PROXY_ADVICE, is_transient
from grym_fetch.net.proxies import Proxy
from grym_fetch.net.wire import Wire


async def open_tunnel(wire: Wire, proxy: Proxy, address: URL, url: str, user_agent: str) -> asyncio.Transport:
    """Have the proxy connect to the server; return the transport that leads there, which ``wire`` has given up.

    Raises `ProxyRefused` if the proxy refuses for good, else `ConnectFailed`.
    """
    authority = f"{address.host_subcomponent}:{address.port}"
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}", f"User-Agent: {user_agent}"]
    lines += [f"{name}: {value}" for name, value in proxy.fields.items()]
    try:
        head = await wire.ask("\r\n".join([*lines, "", ""]).encode("ascii"), url)
        status = head.status
        if 200 <= status < 300:
            return wire.leave()
    except (ConnectionLost, Stalled, BadResponse) as error:
        wire.abort()
        raise ConnectFailed(url, f"the proxy gave no tunnel: {error.reason}") from None
    except BaseException:
        wire.abort()
        raise
    wire.abort()
    raise refusal(url, status)


def refusal(url: str, status: int) -> TransferError:
    """Return the error for a proxy that answered with this status itself."""
    reason = f"the proxy answered {status}"
    if status in (401, 407):
        return ProxyRefused(url, f"{reason}: {PROXY_ADVICE}")
    if status >= 400 and not is_transient(status):
        return ProxyRefused(url, f"{reason}: it does not connect to this host")
    return ConnectFailed(url, reason)


async def start_tls(
    transport: asyncio.Transport, tls: ssl.SSLContext, host: str, stall_timeout: float
) -> tuple[asyncio.Transport, Wire]:
    """Start TLS with the server at the other end. Raises the errors of the handshake."""
    wire = Wire(stall_timeout)
    # asyncio does not call this here, and bytes that come right after the handshake need a wire that is ready.
    wire.connection_made(transport)
    secured = await asyncio.get_running_loop().start_tls(transport, wire, tls, server_hostname=host)
    assert secured is not None, "None only where the transport is closed before it begins"
    wire.use(secured)
    return secured, wire
