"""What the connections of one run share."""

from __future__ import annotations

import os
import ssl

from yarl import URL

from grym_fetch.core.errors import ConnectFailed
from grym_fetch.core.text import safe_text
from grym_fetch.net.places import Places

CONNECT_TIMEOUT_S = 10.0
STALL_TIMEOUT_S = 30.0


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

    @property
    def tls(self) -> ssl.SSLContext:
        """The context for https. Made on first use: it reads every trusted certificate."""
        if self._tls is None:
            # OpenSSL itself honours SSL_CERT_FILE and SSL_CERT_DIR here.
            self._tls = ssl.create_default_context()
            # RFC 9110 section 4.3.4: the name is in subjectAltName or nowhere.
            self._tls.hostname_checks_common_name = False
        return self._tls

    def proxy_for(self, url: URL) -> str | None:
        """The proxy that the environment names for this address, or None. `ConnectFailed` for an unusable one."""
        if not self._proxies:
            return None
        key = (url.scheme, url.host or "", url.port)
        if key not in self._proxy_of:
            # Looked up once: each time, the standard library reads the whole environment.
            self._proxy_of[key] = self._find_proxy(url)
        return self._proxy_of[key]

    def _find_proxy(self, url: URL) -> str | None:
        from urllib.request import proxy_bypass

        host = url.host or ""
        # NO_PROXY may name a host alone or with its port.
        if proxy_bypass(host) or proxy_bypass(f"{host}:{url.port}"):
            return None
        proxy = self._proxies.get(url.scheme) or self._proxies.get("all")
        if not proxy:
            return None
        if "://" not in proxy:
            proxy = f"http://{proxy}"
        if not proxy.lower().startswith(("http://", "https://")):
            scheme = safe_text(proxy.partition("://")[0], limit=20)
            raise ConnectFailed(str(url), f"the proxy in the environment is of a kind ({scheme}) that is not supported")
        return proxy


def _proxies() -> dict[str, str]:
    """The proxies that the environment names, by scheme."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return {}
    from urllib.request import getproxies  # 8 ms, and most have no proxy

    return getproxies()
