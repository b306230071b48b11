"""Whether anything that nobody has asked for has arrived on a kept socket.

Rule: such a socket is not used again. Bytes that arrived before a request is sent would be taken for its answer.
"""

from __future__ import annotations

import asyncio

from grym_fetch.runtime import system


def is_quiet(transport: asyncio.BaseTransport) -> bool:
    """Whether nothing has arrived on an idle socket since its last response, not even bytes that the loop has not read.

    A close by the other side counts as something.
    """
    sock = transport.get_extra_info("socket")
    if transport.is_closing() or sock is None:
        return False
    return not system.has_arrived(sock.fileno())
