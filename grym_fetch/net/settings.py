"""What the connections of one run share."""

from __future__ import annotations

import os
import ssl

from yarl import URL

from grym_fetch.core.addresses import is_exempt
from grym_fetch.core.errors import CertificateRejected, PolicyRefused
from grym_fetch.core.text import safe_text
from grym_fetch.net import proxies
from grym_fetch.net.errors import tls_reason
from grym_fetch.net.places import Places

CONNECT_TIMEOUT_S = 10.0
STALL_TIMEOUT_S = 30.0
PROXY_SCHEMES = ("http", "https", *proxies.SOCKS_SCHEMES)
CLIENT_CERT = "GRYM_FETCH_CLIENT_CERT"
CLIENT_KEY = "GRYM_FETCH_CLIENT_KEY"


class HttpSettings:
    """What every connection of a run knows: time-outs in seconds, fields, proxies, failed addresses, and TLS."""

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
        self._proxy_of: dict[tuple[str, str, int | None], str | None] = {}
        self._tls: ssl.SSLContext | None = None

    def tls_for(self, url: str) -> ssl.SSLContext:
        """The context for https. Made on first use: it reads every trusted certificate.

        Raises `CertificateRejected` where the client certificate that the environment names cannot be used.
        """
        if self._tls is None:
            # OpenSSL itself honours SSL_CERT_FILE and SSL_CERT_DIR here, and Python SSLKEYLOGFILE.
            context = ssl.create_default_context()
            # RFC 9110 section 4.3.4: the name is in subjectAltName or nowhere.
            context.hostname_checks_common_name = False
            certificate, key = os.environ.get(CLIENT_CERT), os.environ.get(CLIENT_KEY)
            if certificate or key:
                try:
                    # A key that wants a password is refused: without one given, OpenSSL would ask at the terminal.
                    context.load_cert_chain(certificate or "", key or None, password="")
                except (OSError, ValueError) as error:
                    names = f"{CLIENT_CERT} and {CLIENT_KEY}" if key else CLIENT_CERT
                    reason = f"the client certificate that {names} name{'' if key else 's'} cannot be used"
                    raise CertificateRejected(url, f"{reason}: {tls_reason(error)}") from None
            self._tls = context
        return self._tls

    def proxy_for(self, url: URL) -> str | None:
        """The proxy that the environment names for this address, or None. `PolicyRefused` for an unusable one."""
        if not self._proxies:
            return None
        key = (url.scheme, url.host or "", url.port)
        if key not in self._proxy_of:
            # Looked up once: each time, the standard library reads the whole environment.
            self._proxy_of[key] = self._find_proxy(url)
        return self._proxy_of[key]

    def _find_proxy(self, url: URL) -> str | None:
        if is_exempt(url, self._proxies.get("no") or ""):
            return None
        proxy = self._proxies.get(url.scheme) or self._proxies.get("all")
        if not proxy:
            return None
        if "://" not in proxy:
            proxy = f"http://{proxy}"
        scheme, _, rest = proxy.partition("://")
        if scheme.lower() not in PROXY_SCHEMES:
            shown = safe_text(scheme, limit=20)
            known = ", ".join(PROXY_SCHEMES)
            reason = f"the proxy in the environment is of a kind ({shown}) that is not supported; these are: {known}"
            raise PolicyRefused(str(url), reason)
        return f"{scheme.lower()}://{rest}"


def trust_advice() -> str:
    """What is wrong with where the environment says that trusted certificates are, to be put behind a rejection."""
    for name, is_there in (("SSL_CERT_FILE", os.path.isfile), ("SSL_CERT_DIR", os.path.isdir)):
        if (place := os.environ.get(name)) and not (is_there(place) and os.access(place, os.R_OK)):
            return f"; {name} names {safe_text(place)}, which cannot be read"
    return ""


def _proxies() -> dict[str, str]:
    """The proxies that the environment names, by scheme."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return {}
    from urllib.request import getproxies  # 8 ms, and most have no proxy

    return getproxies()
