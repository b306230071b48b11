"""When a server's certificate expires, from a handshake that was made anyway."""

from __future__ import annotations

import asyncio
import ssl


def certificate_expiry(transport: asyncio.BaseTransport) -> float | None:
    """Return when the peer's certificate expires, in seconds since the epoch; None without TLS."""
    certificate = transport.get_extra_info("peercert") or {}
    try:
        return ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    except (KeyError, ValueError):
        return None
