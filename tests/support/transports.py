"""The ways to a server: each test of a transport holds directly, through a proxy, and for requests sent ahead."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from yarl import URL

from grym_fetch.core.world import Connection, Response
from grym_fetch.net.client import HttpTransport
from grym_fetch.net.plain import PlainConnection, PlainResponse
from grym_fetch.net.settings import HttpSettings


@dataclass
class TinyProxy:
    """A proxy of forty lines: absolute form for http, CONNECT for https. ``asked`` has each request's first line.

    ``refuse`` is its answer to every request; ``tunnel`` its answer to CONNECT before it connects. With ``tls``
    it is spoken to over TLS; if it ``holds``, it says nothing after ``refuse``. ``heads`` has everything it was told.
    """

    refuse: bytes = b""
    tunnel: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n"
    tls: ssl.SSLContext | None = None
    holds: bool = False
    heads: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    port: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[TinyProxy]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self.tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await server.wait_closed()

    async def until_all_is_closed(self) -> None:
        """Wait until the client has closed its sockets."""
        await asyncio.gather(*self._tasks)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head.decode("latin-1"))
            first, *lines = head.decode("latin-1").split("\r\n")
            self.asked.append(first)
            fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            self.authorizations.append(fields.get("proxy-authorization"))
            method, target, _ = first.split(" ")
            if self.refuse:
                writer.write(self.refuse)
                await writer.drain()
                if self.holds:
                    await reader.read()
                return
            authority, slash, path = target.rpartition("://")[2].partition("/")
            url = URL(f"http://{authority}")
            far_reader, far_writer = await asyncio.open_connection(url.host, url.port)
            if method == "CONNECT":
                writer.write(self.tunnel)
            else:
                kept = [line for line in lines if not line.lower().startswith("proxy-")]
                far_writer.write("\r\n".join([f"{method} {slash}{path} HTTP/1.1", *kept]).encode("latin-1"))
            try:
                await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
            finally:
                far_writer.close()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Pass on everything that comes, and close the other side at the end."""
    while data := await source.read(65_536):
        target.write(data)
        await target.drain()
    target.close()


def direct(**settings: Any) -> HttpTransport:
    """A transport that knows the proxies of the environment, of which a test has none."""
    return HttpTransport(HttpSettings(**settings))


class ProxiedTransport(HttpTransport):
    """A transport whose connections have a proxy each, if the environment names no other one."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(HttpSettings(**settings))

    def connection(self) -> Connection:  # type: ignore[override]  # anything that serves the Protocol
        """Return a new place for a connection."""
        return _ProxiedConnection(self)


class _ProxiedConnection:
    """Starts the proxy with the first request, and ends it when the connection is closed."""

    def __init__(self, transport: ProxiedTransport) -> None:
        self._settings = transport.settings
        self._beneath = HttpTransport(self._settings).connection()
        self._proxy = AsyncExitStack()

    @property
    def host(self) -> str:
        """Like the connection beneath."""
        return self._beneath.host

    async def get(self, url: str, fields: Mapping[str, str]) -> Response:
        """Like the connection beneath."""
        if "all" not in self._settings._proxies:
            proxy = await self._proxy.enter_async_context(TinyProxy().running())
            self._settings._proxies["all"] = f"http://127.0.0.1:{proxy.port}"
        return await self._beneath.get(url, fields)

    async def aclose(self) -> None:
        """Close the connection, and end the proxy."""
        await self._beneath.aclose()
        await self._proxy.aclose()
        self._settings._proxies.pop("all", None)
        self._settings._proxy_of.clear()


class AheadTransport(HttpTransport):
    """A transport that sends each request ahead of its turn if it can: all except the first over a socket."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(HttpSettings(**settings))

    def connection(self) -> PlainConnection:
        """Return a new place for a connection."""
        return _AheadConnection(self.settings)


class _AheadConnection(PlainConnection):
    async def get(self, url: str, fields: Mapping[str, str]) -> PlainResponse:
        """Send it ahead, and wait for it."""
        is_sent = self.ask_ahead(url, fields)
        response = await super().get(url, fields)
        assert not is_sent or self.is_ahead or self.lost_ahead()
        return response


Way = Callable[..., HttpTransport]
WAYS: tuple[Way, ...] = (direct, ProxiedTransport)
