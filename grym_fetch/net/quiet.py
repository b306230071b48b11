"""Whether a kept socket has something in it that nobody has asked for.

Rule: such a socket is not used again. What lies there before a request is sent would be taken for its answer.
"""

from __future__ import annotations

import asyncio
import select


def is_quiet(transport: asyncio.BaseTransport) -> bool:
    """Whether nothing has come over an idle socket since its last response, also nothing that the loop has yet to read.

    That the other side has closed it counts as something.
    """
    sock = transport.get_extra_info("socket")
    if transport.is_closing() or sock is None:
        return False
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return not poll.poll(0)
