"""When a server's certificate expires: one handshake, no request."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress

CLOSE_TIMEOUT_S = 1.0
"""For saying goodbye to a server that has shown its certificate."""


async def certificate_expiry(host: str, port: int, context: ssl.SSLContext, patience: float) -> float | None:
    """Return when the certificate expires, in seconds since the epoch; None if that cannot be found out.

    ``patience`` in seconds. Fails quietly: whether the certificate is good is for the request itself to find out.
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
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await writer.wait_closed()
