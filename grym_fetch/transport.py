"""Another way to the network: what `AssetManager(transport=...)` takes.

A transport implements the Protocol `Transport`, and does not handle redirects, retries, mirrors or verification.
`AiohttpTransport` fetches over an application's existing aiohttp session.
"""

from __future__ import annotations

from collections.abc import Mapping

from grym_fetch.core.http import ResponseHead, Validator
from grym_fetch.core.world import Connection, PostConnection, Response, Transport
from grym_fetch.net.session import AiohttpTransport

__all__ = [
    "AiohttpTransport",
    "BytesResponse",
    "Connection",
    "PostConnection",
    "Response",
    "ResponseHead",
    "Transport",
    "Validator",
]


class BytesResponse:
    """A `Response` whose body is in memory. ``Content-Length`` is set unless ``fields`` has it."""

    def __init__(self, status: int, fields: Mapping[str, str] | None = None, body: bytes | memoryview = b"") -> None:
        given = {name.lower(): [value] for name, value in (fields or {}).items()}
        self.head = ResponseHead(status, {"content-length": [str(len(body))], **given})
        self._rest = memoryview(body)

    async def readinto(self, buffer: memoryview) -> int:
        """Put the next bytes of the body at the front of ``buffer``; return how many, 0 at its end."""
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        """Drop the rest of the body."""
        self._rest = memoryview(b"")
