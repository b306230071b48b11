"""How long a server's certificate is still good for: one handshake, no request."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress


async def certificate_expiry(host: str, port: int, context: ssl.SSLContext, patience: float) -> float | None:
    """Return when the certificate ends, in seconds since the epoch; None if it cannot be found out.

    ``patience`` in seconds. That it is a good one is for the request itself to prove; this fails quietly.
    """
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(patience):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
        certificate = writer.get_extra_info("peercert") or {}
        return ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    except (OSError, KeyError, ValueError):
        return None
    finally:
        if writer is not None:
            writer.close()
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(1):
                    await writer.wait_closed()
