"""Asks hubs over the engine's own transport: its connections, redirects, addresses and tokens.

Rules: an answer is bounded in bytes and in time. A failure that may pass is retried as often as in a download. However
a hub fails, the error is a `SourceFailed` with the hub's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from grym_fetch.core.addresses import parse_address
from grym_fetch.core.errors import BadResponse, BadStatus, GrymFetchError, SourceFailed, Throttled, TransferError
from grym_fetch.core.http import Asked, Broken, ErrorStatus, Whole
from grym_fetch.core.origins import Origin
from grym_fetch.core.policy import Retry, RetryPolicy, next_step
from grym_fetch.core.refusals import Refusal
from grym_fetch.core.world import Clock, Connection, Response
from grym_fetch.sources.protocol import MAX_ANSWER_BYTES, Page
from grym_fetch.transfer.request import JudgedResponse, Requester

MAX_ANSWER_S = 120.0
"""Give up on an answer that is not complete after this many seconds."""
MAX_KEPT_BYTES = 64 * 1024 * 1024
"""The most bytes of pages that are kept while one hub is asked."""
_ANSWERS = frozenset({401, 403, 404, 410, 451})
"""Statuses that say something about what was asked for."""
_BUFFER_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked; a POST if there is a body."""

    url: str
    accept: str
    body: bytes | None = None
    fields: tuple[tuple[str, str], ...] = ()


class HubWeb:
    """Implements `Web` for one hub, over one connection, which the caller closes."""

    def __init__(
        self,
        hub: str,
        *,
        connection: Connection,
        requester: Requester,
        clock: Clock,
        environ: Mapping[str, str],
        retries: int,
        offline: bool = False,
        max_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        self._hub = hub
        self._connection = connection
        self._requester = requester
        self._clock = clock
        self.environ = environ
        self._policy = RetryPolicy(retries=retries)
        self._offline = offline
        self._max_bytes = max_bytes
        self._pages: dict[_Question, Page] = {}
        self._kept_bytes = 0
        self.asked = ""
        """The address that was asked last."""

    async def get(self, url: str, *, accept: str = "") -> Page:
        """Ask for each address only once: many files of a repository need the same pages. Raises `SourceFailed`."""
        return await self._once(_Question(url, accept))

    async def post(self, url: str, body: bytes, *, accept: str = "", fields: Mapping[str, str] | None = None) -> Page:
        """Ask each question only once, as `get` does. Raises `SourceFailed`."""
        return await self._once(_Question(url, accept, body, tuple((fields or {}).items())))

    def hide_in(self, error: Exception) -> None:
        """Remove the secrets that were sent from what an error says: it may quote an answer that repeats one."""
        self._requester.secrets.hide_in(error)

    async def _once(self, question: _Question) -> Page:
        if (page := self._pages.get(question)) is None:
            page = await self._answer(question)
            if self._kept_bytes + len(page.body) <= MAX_KEPT_BYTES:
                self._pages[question] = page
                self._kept_bytes += len(page.body) + len(question.url) + len(question.body or b"")
        return page

    async def _answer(self, question: _Question) -> Page:
        url = question.url
        if self._offline:
            raise SourceFailed(url, self._hub, "--offline forbids asking it")
        self.asked = url
        failures = 0
        while True:
            try:
                return await self._ask(question)
            except SourceFailed:
                raise
            except GrymFetchError as error:
                failures += 1
                step = next_step(
                    error,
                    failures=failures,
                    alternatives=False,
                    policy=self._policy,
                    jitter=self._clock.jitter(),
                )
                if not isinstance(step, Retry):
                    reason = error.reason if isinstance(error, TransferError) else str(error)
                    shown = error.url if isinstance(error, TransferError) else url
                    raise SourceFailed(shown, self._hub, reason) from error
                await self._clock.sleep(step.delay)

    async def _ask(self, question: _Question) -> Page:
        url = question.url
        deadline = self._clock.monotonic() + MAX_ANSWER_S
        where, answer = await self._open(question)
        try:
            head = answer.response.head
            fields = {name: self._requester.secrets.hide(head.get(name) or "") for name in head.fields}
            match answer.verdict:
                case Whole():
                    return Page(where, 200, fields, await self._read(answer.response, url, deadline))
                case ErrorStatus(status=status) if status in _ANSWERS and not _asks_to_wait(answer):
                    refusal = answer.refusal or Refusal(answer.verdict.reason)
                    return Page(where, status, fields, refusal=str(refusal), reason=refusal.reason)
                case ErrorStatus(status=status, reason=reason, retry_after=retry_after):
                    if answer.verdict.is_throttling:
                        raise Throttled(where, status, reason, retry_after)
                    raise BadStatus(where, status, str(answer.refusal or reason))
                case Broken(reason=reason):
                    raise BadResponse(where, reason)
                case _:
                    raise BadResponse(where, f"an answer that was not asked for (status {head.status})")
        finally:
            answer.response.close()

    async def _open(self, question: _Question) -> tuple[str, JudgedResponse]:
        """The answer, and the address that it is from."""
        url, asked = question.url, Asked(None, accept=question.accept)
        if question.body is not None:
            fields = dict(question.fields)
            answer = await self._requester.post(self._connection, parse_address(url), asked, fields, question.body)
            return url, answer
        origin = Origin(0, url)
        answer = await self._requester.open(self._connection, origin, asked)
        return url if origin.target is None else str(origin.target), answer

    async def _read(self, response: Response, url: str, deadline: float) -> bytes:
        data, buffer = bytearray(), memoryview(bytearray(_BUFFER_BYTES))
        while count := await response.readinto(buffer):
            data += buffer[:count]
            if len(data) > self._max_bytes:
                raise SourceFailed(url, self._hub, f"the answer is longer than {self._max_bytes:,} bytes")
            if self._clock.monotonic() > deadline:
                raise SourceFailed(url, self._hub, f"the answer was not complete after {MAX_ANSWER_S:.0f} seconds")
        return bytes(data)


def _asks_to_wait(answer: JudgedResponse) -> bool:
    return isinstance(answer.verdict, ErrorStatus) and answer.verdict.retry_after is not None
