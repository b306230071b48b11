"""Reads a short answer whole: where an object is, or a token.

Rule: it is bounded in bytes and in time. Each byte of it may come just before the stall time-out, and nobody else is
asked meanwhile.
"""

from __future__ import annotations

import asyncio

from grym_fetch.core.errors import BadResponse, Stalled
from grym_fetch.core.world import Response

MAX_ANSWER_S = 30.0
"""Give up on an answer that is not complete after this many seconds."""
_BUFFER_BYTES = 16 * 1024


async def read_answer(response: Response, url: str, *, whose: str, most: int) -> bytes:
    """Return the body. ``whose``: the server, in messages.

    Raises `BadResponse` if it is longer than ``most`` bytes, `Stalled` if it takes too long.
    """
    now = asyncio.get_running_loop().time
    deadline = now() + MAX_ANSWER_S
    data, buffer = bytearray(), memoryview(bytearray(_BUFFER_BYTES))
    while count := await response.readinto(buffer):
        data += buffer[:count]
        if len(data) > most:
            raise BadResponse(url, f"the answer of {whose} is longer than {most:,} bytes")
        if now() > deadline:
            raise Stalled(url, f"the answer of {whose} was not complete after {MAX_ANSWER_S:g} s")
    return bytes(data)
