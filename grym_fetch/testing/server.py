"""A real HTTP/1.1 server on the loopback interface that behaves correctly (RFC 9110) until a fault is ordered.

::

    async with AssetServer() as server:
        content = seeded_bytes(1_000_000, seed=1)
        file = server.add("/models/a.bin", content, faults=[Truncate(after=500_000, times=1)])
        ...  # download file.url, then compare with file.content and look at server.stats

Rules: ``answers`` decides the correct response and ``faults`` bend it; this module counts and serves. aiohttp parses
requests and keeps connections; ``wire`` writes the responses, because aiohttp cannot send a badly framed one.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Coroutine, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs
from weakref import WeakValueDictionary

from aiohttp import web
from yarl import URL

from grym_fetch.testing.answers import Answer, Grant, RecordedRequest, Resource, plain_answer, true_answer
from grym_fetch.testing.content import Content, as_content
from grym_fetch.testing.faults import AnswerFault, ExpiringRedirect, Fault, ResourceFault
from grym_fetch.testing.stats import ServerStats
from grym_fetch.testing.wire import Answered, AnswerWriter, CountingServer

_HOST = "127.0.0.1"


class ServedFile:
    """A file on the server: what the client should get, and the faults on the way."""

    def __init__(self, server: AssetServer, path: str, source: Content, faults: Iterable[Fault]) -> None:
        self._server = server
        self.path = path
        self.source = source
        self._resource = Resource(content=source, etag=f'"{source.fingerprint()}"')
        self._ordered = [_Ordered(fault) for fault in faults]

    @property
    def url(self) -> str:
        """The address; the server must have been started."""
        return self._server.url(self.path)

    @property
    def size(self) -> int:
        """The size of the true content in bytes."""
        return self.source.size

    @property
    def sha256(self) -> str:
        """The lowercase hex SHA-256 of the true content."""
        return self.source.sha256()

    @property
    def content(self) -> bytes:
        """The true content, all of it."""
        return self.source.read(0, self.source.size)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The faults ordered for this file; setting them resets their counts."""
        return tuple(ordered.fault for ordered in self._ordered)

    @faults.setter
    def faults(self, faults: Iterable[Fault]) -> None:
        ordered = [_Ordered(fault) for fault in faults]
        self._server._lock_targets(each.fault for each in ordered)  # noqa: SLF001  (the same module)
        self._ordered = ordered

    def answer(self, request: RecordedRequest, now: datetime) -> Answer:
        """Decide the answer to a request, and count the faults it meets."""
        truth = true_answer(self._resource, request, now)
        resource = self._resource
        for ordered in self._ordered:
            fault = ordered.fault
            if isinstance(fault, ResourceFault) and fault.applies(request, truth) and ordered.due():
                resource = fault.bend_resource(resource, ordered.hit())
        # An answer fault sees the response as it would be without the fault: no Content-Range is bent in a 200.
        unbent = answer = true_answer(resource, request, now)
        winner: AnswerFault | None = None
        combined: list[tuple[AnswerFault, int]] = []
        for ordered in self._ordered:
            fault = ordered.fault
            if not isinstance(fault, AnswerFault) or not fault.applies(request, unbent) or not ordered.due():
                continue
            if fault.combines:
                combined.append((fault, ordered.hit()))
            elif winner is None:
                winner = fault
                answer = fault.bend(answer, request, ordered.hit())
        for fault, hit in combined:
            answer = fault.bend(answer, request, hit)
        return answer


@dataclass
class _Ordered:
    """A fault and its counts: the requests it could have hit, and those it has hit."""

    fault: Fault
    seen: int = 0
    hits: int = 0

    def due(self) -> bool:
        """Count a request that the fault could hit; return whether its limits allow that."""
        self.seen += 1
        return self.seen > self.fault.skip and (self.fault.times is None or self.hits < self.fault.times)

    def hit(self) -> int:
        """Count a hit; return how many there were before."""
        self.hits += 1
        return self.hits - 1


@dataclass
class _Token:
    """What is left of a grant."""

    uses: int | None
    expires: float | None

    def use(self, now: float) -> bool:
        if self.uses == 0 or (self.expires is not None and now >= self.expires):
            return False
        if self.uses is not None:
            self.uses -= 1
        return True


# The servers of this process by origin, so that one can issue a token for a path on another.
_RUNNING: WeakValueDictionary[str, AssetServer] = WeakValueDictionary()


class AssetServer:
    """An HTTP/1.1 server on 127.0.0.1 and a free port.

    ``ssl_context`` makes it HTTPS. ``keepalive_timeout``: seconds after which an idle connection is closed.
    """

    def __init__(self, *, ssl_context: ssl.SSLContext | None = None, keepalive_timeout: float = 75.0) -> None:
        self.stats = ServerStats()
        self._ssl = ssl_context
        self._keepalive_timeout = keepalive_timeout
        self._files: dict[str, ServedFile] = {}
        self._tokens: dict[str, dict[str, _Token]] = {}
        self._answering: set[asyncio.Task[object]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._web: CountingServer | None = None
        self._runner: web.ServerRunner | None = None
        self._site: web.TCPSite | None = None
        self._port: int | None = None

    async def start(self) -> None:
        """Start listening. A server can be started only once."""
        if self._port is not None:
            raise RuntimeError("this server was started before; make a new one")
        self._loop = asyncio.get_running_loop()
        self._web = CountingServer(self._respond, self.stats, self._keepalive_timeout)
        # Handlers are cancelled before the runner cleans up, so it has nothing to wait for.
        self._runner = web.ServerRunner(self._web, shutdown_timeout=0.1)
        await self._runner.setup()
        await self._listen(0)
        _RUNNING[self.url("")] = self

    async def aclose(self) -> None:
        """Stop at once: cancel all responses, abort every connection, wait until all are gone."""
        if self._runner is None or self._web is None:
            return
        runner, self._runner = self._runner, None
        _RUNNING.pop(self.url(""), None)
        if self._site is not None:
            await self._site.stop()
            self._site = None
        # A connection accepted in this turn of the loop gets its transport in the next.
        await asyncio.sleep(0)
        for task in list(self._answering):
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)
        await self._web.abort_connections()
        await runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def port(self) -> int:
        """The port, which stays the same while connections are refused."""
        if self._port is None:
            raise RuntimeError("the server has no address yet; start it first")
        return self._port

    def url(self, path: str) -> str:
        """Return the address of a path, given unquoted."""
        origin = URL.build(scheme="https" if self._ssl else "http", host=_HOST, port=self.port)
        return str(origin.with_path(path)) if path else str(origin).rstrip("/")

    def add(self, path: str, content: bytes | Content = b"", *, faults: Iterable[Fault] = ()) -> ServedFile:
        """Serve a file under an absolute path, replacing any file already there."""
        if not path.startswith("/"):
            raise ValueError(f"a path begins with a slash: {path!r}")
        file = ServedFile(self, path, as_content(content), faults)
        self._lock_targets(file.faults)
        self._files[path] = file
        return file

    async def refuse_connections(self) -> None:
        """Refuse new connections; open ones continue. Any loop may await this."""
        await self._in_own_loop(self._stop_listening())

    async def accept_connections(self) -> None:
        """Listen again, on the same port. Any loop may await this."""
        await self._in_own_loop(self._listen(self.port))

    async def _in_own_loop(self, work: Coroutine[object, object, None]) -> None:
        if self._loop is None or self._loop is asyncio.get_running_loop():
            await work
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def _listen(self, port: int) -> None:
        if self._site is not None or self._runner is None:
            return
        self._site = web.TCPSite(self._runner, _HOST, port, ssl_context=self._ssl)
        await self._site.start()
        self._port = self._site.port

    async def _stop_listening(self) -> None:
        if self._site is not None:
            await self._site.stop()
            self._site = None

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; aiohttp only sees that it has been answered."""
        task = asyncio.current_task()
        assert task is not None
        self._answering.add(task)
        recorded = _record(request)
        of_path = self.stats.of(recorded.path)
        self.stats.request_begun(recorded)
        of_path.request_begun(recorded)

        def count(sent: int) -> None:
            self.stats.sent(sent)
            of_path.sent(sent)

        keep_alive = False
        try:
            answer = self._decide(recorded)
            # The client has gone, which it may do.
            with suppress(ConnectionError):
                keep_alive = await AnswerWriter(request).write(answer, with_body=recorded.method != "HEAD", count=count)
        finally:
            self._answering.discard(task)
            self.stats.request_ended()
            of_path.request_ended()
        return Answered(keep_alive=keep_alive)

    def _decide(self, request: RecordedRequest) -> Answer:
        file = self._files.get(request.path)
        if file is None:
            return plain_answer(404, b"not found\n")
        tokens = self._tokens.get(request.path)
        if tokens is not None:
            token = tokens.get("".join(parse_qs(request.query).get("token", [])))
            if token is None or not token.use(monotonic()):
                return plain_answer(403, b"<Error><Code>AccessDenied</Code>Request has expired</Error>\n")
        answer = file.answer(request, datetime.now(UTC))
        if answer.grant is not None:
            self._issue(answer.grant)
        return answer

    def _lock_targets(self, faults: Iterable[Fault]) -> None:
        """From now on, only tokens open what these faults lead to."""
        for fault in faults:
            if isinstance(fault, ExpiringRedirect):
                self._locked(fault.to)

    def _issue(self, grant: Grant) -> None:
        expires = None if grant.seconds is None else monotonic() + grant.seconds
        self._locked(grant.url)[grant.token] = _Token(grant.uses, expires)

    def _locked(self, to: str) -> dict[str, _Token]:
        """Return the tokens of a path, here or on another server; from now on, only they open it."""
        url = URL(to)
        server = self if not url.absolute else _RUNNING.get(str(url.origin()))
        if server is None:
            raise LookupError(f"an ExpiringRedirect leads to an AssetServer that is not running: {to}")
        return server._tokens.setdefault(url.path, {})  # noqa: SLF001  (another server, but the same class)


def _record(request: web.BaseRequest) -> RecordedRequest:
    peer = request.get_extra_info("peername")
    return RecordedRequest(
        method=request.method,
        path=request.path,
        query=request.rel_url.raw_query_string,
        range=request.headers.get("Range"),
        if_range=request.headers.get("If-Range"),
        headers=request.headers,
        remote_port=peer[1] if peer else 0,
    )


@contextmanager
def serve_in_thread(
    *, ssl_context: ssl.SSLContext | None = None, keepalive_timeout: float = 75.0
) -> Iterator[AssetServer]:
    """Run a server in its own thread and event loop, for synchronous code.

    You may use ``add``, ``faults`` and ``stats`` from outside, and ``asyncio.run(server.refuse_connections())``.
    """
    server = AssetServer(ssl_context=ssl_context, keepalive_timeout=keepalive_timeout)
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        stop = asyncio.Event()
        async with server:
            started.set_result((asyncio.get_running_loop(), stop))
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=run, name="grym-fetch asset server")
    thread.start()
    try:
        loop, stop = started.result()
        try:
            yield server
        finally:
            loop.call_soon_threadsafe(stop.set)
    finally:
        thread.join()
