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
    return not (_is_read_ahead(transport) or system.has_arrived(sock.fileno()))


def _is_read_ahead(transport: asyncio.BaseTransport) -> bool:
    """Whether the loop of Windows, which reads before anything has arrived, has something that it has not handed on.

    Nothing public tells that. Other loops' transports have none of these names.
    """
    below = getattr(getattr(transport, "_ssl_protocol", None), "_transport", transport)
    reading = getattr(getattr(below, "_read_fut", None), "_ov", None)
    return (reading is not None and not reading.pending) or getattr(below, "_pending_data_length", -1) > -1
