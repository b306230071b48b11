"""The proxies that the environment names, and a socket through a SOCKS proxy.

Rules: a proxy's password is sent only to the proxy, and is not in any error. With ``socks5h``, ``socks4a``, ``http``
and ``https`` the proxy gets the name; with ``socks5`` and ``socks4`` it gets the address that was resolved and judged
here. SOCKS is done by python-socks, which is installed only with the extra ``socks``.
"""

from __future__ import annotations

import base64
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from yarl import URL

from grym_fetch.core.addresses import forbidden_reason
from grym_fetch.core.errors import ConnectFailed, PolicyRefused, ProxyRefused, TransferError
from grym_fetch.core.text import safe_text
from grym_fetch.net.errors import os_reason

DEFAULT_PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}
ADVICE = "the environment names a SOCKS proxy, for which an extra is needed: pip install 'grym-fetch[socks]'"
NEVER_S = 86400.0
"""The time-out of python-socks in seconds; the caller has its own."""
MAX_SOCKS_CHARS = 255
"""The longest user name and the longest password (RFC 1929 section 2)."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, by its address. The repr shows neither user nor password."""

    scheme: str
    host: str
    port: int
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    @property
    def is_socks(self) -> bool:
        """Whether it speaks SOCKS; otherwise it speaks HTTP."""
        return self.scheme.startswith("socks")

    @property
    def resolves_names(self) -> bool:
        """Whether it resolves names itself."""
        return self.scheme not in ("socks4", "socks5")

    @property
    def fields(self) -> dict[str, str]:
        """The header field that authenticates us to an HTTP proxy (RFC 9110 section 11.7.2), or none."""
        if self.user is None and self.password is None:
            return {}
        login = f"{self.user or ''}:{self.password or ''}".encode()
        return {"Proxy-Authorization": f"Basic {base64.b64encode(login).decode('ascii')}"}


def read_proxy(text: str, url: str) -> Proxy:
    """Parse a proxy's address; without a scheme, it is HTTP. Raises `ProxyRefused` if it cannot be used."""
    scheme, found, _ = text.partition("://")
    scheme = scheme.lower() if found else "http"
    if scheme not in DEFAULT_PORTS:
        shown, known = safe_text(scheme, limit=20), ", ".join(DEFAULT_PORTS)
        reason = f"the proxy in the environment is of a kind ({shown}) that is not supported; these are: {known}"
        raise ProxyRefused(url, reason)
    try:
        address = URL(text if found else f"http://{text}")
        port = DEFAULT_PORTS[scheme] if address.explicit_port is None else address.explicit_port
        proxy = Proxy(scheme, address.host or "", port, address.user, address.password)
    except (ValueError, IndexError):
        proxy = None
    if proxy is None or not proxy.host or not proxy.port:
        raise ProxyRefused(url, "the address of the proxy in the environment cannot be read")
    return proxy


def refuse_forbidden(url: str, host: str, *, allow_private: bool) -> None:
    """Raise `PolicyRefused` for a forbidden IP address in any spelling (``0xa9fea9fe``, ``169.16689``).

    The proxy itself resolves names.
    """
    try:
        number = socket.inet_ntoa(socket.inet_aton(host.rstrip(".")))
    except (OSError, ValueError):
        number = host
    if reason := forbidden_reason(number, allow_private=allow_private):
        raise PolicyRefused(url, f"{safe_text(host)} is {reason}")


Dial = Callable[[str, int], Awaitable[socket.socket]]
"""Connects to a host and port. Raises `ConnectFailed`, or `ProxyRefused` if asking again would not help."""

_REPLIES = {
    # RFC 1928 section 6.
    1: "a general failure",
    2: "its rules do not allow it",
    3: "the network is unreachable",
    4: "the host is unreachable",
    5: "the host refused the connection",
    6: "the way to the host is too long",
    7: "it does not support the command",
    8: "it does not support this kind of address",
    # SOCKS 4.
    91: "it was rejected or failed",
    92: "it cannot reach identd on this machine",
    93: "identd on this machine names another user",
}
_FINAL_REPLIES = frozenset({2, 7, 8, 92, 93})
"""Refusals that another try would not change."""


def dial_through(proxy: Proxy, url: str) -> Dial:
    """Return a function that connects through this SOCKS proxy. Raises `ProxyRefused` if the extra is missing."""
    try:
        from python_socks import ProxyConnectionError, ProxyError, ProxyType
        from python_socks.async_.asyncio import Proxy as Dialer
    except ImportError:
        raise ProxyRefused(url, ADVICE) from None
    if not all((text or "").isascii() and len(text or "") <= MAX_SOCKS_CHARS for text in (proxy.user, proxy.password)):
        reason = f"user and password of a SOCKS proxy are ASCII, and at most {MAX_SOCKS_CHARS} characters each"
        raise ProxyRefused(url, reason)
    kind = ProxyType.SOCKS4 if proxy.scheme.startswith("socks4") else ProxyType.SOCKS5
    dialer = Dialer(kind, proxy.host, proxy.port, proxy.user, proxy.password, rdns=proxy.resolves_names)

    async def dial(host: str, port: int) -> socket.socket:
        try:
            return await dialer.connect(host, port, timeout=NEVER_S)
        except ProxyConnectionError as error:
            raise ConnectFailed(url, f"no connection to the proxy: {os_reason(error)}") from None
        except ProxyError as error:
            raise _socks_error(url, str(error), error.error_code) from None

    return dial


def _socks_error(url: str, text: str, code: object) -> TransferError:
    """Return our error for one from python-socks, by its code; without a code by its text, which the library wrote."""
    if isinstance(code, int):
        failed = ProxyRefused if code in _FINAL_REPLIES else ConnectFailed
        return failed(url, f"the SOCKS proxy did not connect: {_REPLIES.get(code, 'it failed')} (code {int(code)})")
    if "authentication" in text.lower():
        return ProxyRefused(url, "the SOCKS proxy wants another user or password than its variable names")
    return ConnectFailed(url, "the SOCKS proxy broke off, or does not speak this version of SOCKS")
