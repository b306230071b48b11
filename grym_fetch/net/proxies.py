"""What lies behind a proxy, and a socket through a SOCKS proxy, by python-socks, which only the extra ``socks`` brings.

Rules: with ``socks5h`` and ``socks4a`` the proxy is told the name, with ``socks5`` and ``socks4`` the address that was
resolved and judged here. The proxy's password goes to it alone, and into no error.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

from yarl import URL

from grym_fetch.core.addresses import forbidden_reason
from grym_fetch.core.errors import ConnectFailed, PolicyRefused
from grym_fetch.core.text import safe_text
from grym_fetch.net.errors import os_reason

SOCKS_SCHEMES = ("socks4", "socks4a", "socks5", "socks5h")
DEFAULT_PORT = 1080
ADVICE = "the environment names a SOCKS proxy, for which an extra is needed: pip install 'grym-fetch[socks]'"


def is_socks(proxy: str | None) -> bool:
    """Whether this is the address of a SOCKS proxy."""
    return proxy is not None and proxy.partition("://")[0] in SOCKS_SCHEMES


def resolves_names(proxy: str) -> bool:
    """Whether the proxy is told names, and finds out by itself where they lead."""
    return proxy.partition("://")[0] in ("socks4a", "socks5h")


def refuse_forbidden(url: str, host: str, *, allow_private: bool) -> None:
    """Raise `PolicyRefused` for what is written as a forbidden number, in any spelling (``0xa9fea9fe``, ``169.16689``).

    What is behind a name, a proxy finds out by itself.
    """
    try:
        number = socket.inet_ntoa(socket.inet_aton(host.rstrip(".")))
    except (OSError, ValueError):
        number = host
    if reason := forbidden_reason(number, allow_private=allow_private):
        raise PolicyRefused(url, f"{safe_text(host)} is {reason}")


Dial = Callable[[str, int], Awaitable[socket.socket]]
"""Connects to a host and port. Raises `ConnectFailed`."""


def dial_through(proxy: str, url: str) -> Dial:
    """Return what connects through this SOCKS proxy. Raises `PolicyRefused` where the extra is missing."""
    try:
        from python_socks import ProxyConnectionError, ProxyError, ProxyType
        from python_socks.async_.asyncio import Proxy
    except ImportError:
        raise PolicyRefused(url, ADVICE) from None
    try:
        address = URL(proxy)
        where, at = address.host or "", address.port or DEFAULT_PORT
    except ValueError:
        where = ""
    if not where:
        raise PolicyRefused(url, "the address of the SOCKS proxy in the environment cannot be read")
    kind = ProxyType.SOCKS4 if address.scheme.startswith("socks4") else ProxyType.SOCKS5
    dialer = Proxy(kind, where, at, address.user, address.password, rdns=resolves_names(proxy))

    async def dial(host: str, port: int) -> socket.socket:
        try:
            return await dialer.connect(host, port)
        except ProxyConnectionError as error:
            raise ConnectFailed(url, f"no connection to the proxy: {os_reason(error)}") from None
        except ProxyError as error:
            code = f" (code {error.error_code})" if isinstance(error.error_code, int) else ""
            raise ConnectFailed(url, f"the SOCKS proxy refused to connect{code}, or its user and password") from None

    return dial
