"""What the connections of one run share."""

from __future__ import annotations

import os
import ssl
from contextlib import suppress

from yarl import URL

from grym_fetch.core.addresses import is_exempt
from grym_fetch.core.errors import CertificateRejected, ProxyRefused
from grym_fetch.core.variables import CLIENT_CERT, CLIENT_KEY
from grym_fetch.net.errors import os_reason
from grym_fetch.net.places import Places
from grym_fetch.net.proxies import Proxy, read_proxy
from grym_fetch.net.tls import resume_sessions

CONNECT_TIMEOUT_S = 10.0
STALL_TIMEOUT_S = 30.0


class HttpSettings:
    """Shared by all connections of a run: time-outs in seconds, fields, proxies, failed addresses, and TLS."""

    def __init__(
        self,
        *,
        connect_timeout: float = CONNECT_TIMEOUT_S,
        stall_timeout: float = STALL_TIMEOUT_S,
        allow_private: bool = True,
        user_agent: str = "grym-fetch",
    ) -> None:
        self.connect_timeout = connect_timeout
        self.stall_timeout = stall_timeout
        self.allow_private = allow_private
        self.fields = {"User-Agent": user_agent, "Accept": "*/*", "Accept-Encoding": "identity"}
        self.places = Places()
        self._proxies = _proxies()
        self._proxy_of: dict[tuple[str, str, int | None], Proxy | None] = {}
        self._tls: ssl.SSLContext | None = None
        self._proxy_tls: ssl.SSLContext | None = None

    def tls_for(self, url: str) -> ssl.SSLContext:
        """The TLS context for https. Made on first use, since that reads every trusted certificate.

        Raises `CertificateRejected` if the client certificate that the environment names cannot be used.
        """
        if self._tls is None:
            context = _new_context()
            certificate, key = os.environ.get(CLIENT_CERT), os.environ.get(CLIENT_KEY)
            if certificate or key:
                try:
                    # Refuse a key that needs a password: if none is given, OpenSSL would ask for it on the terminal.
                    context.load_cert_chain(certificate or "", key or None, password="")
                except (OSError, ValueError) as error:
                    names = f"{CLIENT_CERT} and {CLIENT_KEY}" if key else CLIENT_CERT
                    reason = f"the client certificate that {names} name{'' if key else 's'} cannot be used"
                    if isinstance(error, ssl.SSLError) and not error.reason:  # OpenSSL gives no reason for most
                        why = f"it is not PEM, or the file lacks the key and {CLIENT_KEY} names none"
                    elif isinstance(error, OSError):
                        why = os_reason(error)
                    else:
                        why = "not a usable name"
                    raise CertificateRejected(url, f"{reason}: {why}") from None
            resume_sessions(context)
            self._tls = context
        return self._tls

    def tls_for_proxy(self) -> ssl.SSLContext:
        """The TLS context for an https proxy, which does not get the client certificate."""
        if self._proxy_tls is None:
            self._proxy_tls = _new_context()
        return self._proxy_tls

    def proxy_for(self, url: URL) -> Proxy | None:
        """The proxy that the environment names for this address, or None. Raises `ProxyRefused` if it is unusable."""
        if not self._proxies:
            return None
        key = (url.scheme, url.host or "", url.port)
        if key not in self._proxy_of:
            is_direct = is_exempt(url, self._proxies.get("no") or "")
            text = "" if is_direct else self._proxies.get(url.scheme) or self._proxies.get("all")
            self._proxy_of[key] = read_proxy(text, str(url)) if text else None
        return self._proxy_of[key]


def _new_context() -> ssl.SSLContext:
    # OpenSSL itself honours SSL_CERT_FILE and SSL_CERT_DIR here, and Python honours SSLKEYLOGFILE.
    context = ssl.create_default_context()
    # RFC 9110 section 4.3.4: only the names in subjectAltName count.
    context.hostname_checks_common_name = False
    return context


def _proxies() -> dict[str, str]:
    """The proxies that the environment names, by scheme."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return {}
    from urllib.request import getproxies  # takes 8 ms, and most users have no proxy

    return getproxies()


def proxy_credentials() -> list[str]:
    """What the proxies that the environment names are sent as ``Proxy-Authorization``."""
    found: list[str] = []
    for name, text in _proxies().items():
        if name != "no":
            with suppress(ProxyRefused):  # said where it would be used
                found += read_proxy(text, "").fields.values()
    return found
