"""One request to an origin: from a range that is wanted to a response that has been judged.

Rules: redirects are followed here, by hand, each hop checked; Range and If-Range go along, credentials only while
scheme, host and port stay the same. A cookie that a hop sets goes back to its own origin in the same chain. Each origin
remembers where its redirects ended, and from then on that address is asked directly; when its answer looks expired, the
chain is walked again, once. A validator is for the server that sent it: at the end of another chain it is not sent as a
condition and contradicts nothing. Content without a checksum is accepted only over https, or directly from this machine
itself; this applies to every hop. The answer to a request that was sent ahead of its turn counts only if it is the
content asked for; otherwise the request is sent again, alone, and if that changes the answer, the host is asked only in
turn from then on. The address of an object in a bucket is signed where its chain begins; there, too, a Git LFS server
is asked where its object is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import cast

from yarl import URL

from grym_fetch.core.addresses import (
    BARE_HTTP,
    MAX_REDIRECTS,
    Credential,
    Credentials,
    follow_redirect,
    host_in,
    is_loopback,
    origin_key,
    parse_address,
    server_mark,
)
from grym_fetch.core.buckets import bucket_advice, is_bucket_address
from grym_fetch.core.challenges import token_address, trusts_realm
from grym_fetch.core.cookies import ChainCookies
from grym_fetch.core.errors import BadResponse, GrymFetchError, PolicyRefused, TooManyRedirects
from grym_fetch.core.http import (
    Asked,
    Broken,
    ErrorStatus,
    OtherRepresentation,
    Partial,
    Redirected,
    ResponseHead,
    UnusableRange,
    Verdict,
    Whole,
    judge,
    status_text,
)
from grym_fetch.core.lfs import LFS_TYPE, Lead, batch_address, batch_question
from grym_fetch.core.lfs_addresses import LfsAddress, is_lfs_address, is_resolved_when_asked
from grym_fetch.core.origins import Origin
from grym_fetch.core.ranges import range_header
from grym_fetch.core.redaction import SentSecrets
from grym_fetch.core.refusals import Refusal, explain_refusal
from grym_fetch.core.signatures import is_signed, may_be_signed
from grym_fetch.core.text import redact_url
from grym_fetch.core.world import AheadConnection, Connection, Response
from grym_fetch.transfer.lfs import read_lead
from grym_fetch.transfer.posting import post_method
from grym_fetch.transfer.registry import ClosedResponse, fetch_token

log = logging.getLogger(__name__)

# How a signed address responds once it has expired, or a node that no longer has the file.
_EXPIRED = frozenset({400, 401, 403, 404, 410})
# How a server responds that cannot do If-Range, or for which it is a precondition, as If-Match is.
_REFUSES_CONDITION = frozenset({304, 400, 412, 501})
MAX_TARGETS = 3
"""How many remembered addresses are tried for one request before the chain is walked again."""


@dataclass(frozen=True, slots=True)
class JudgedResponse:
    """A response that was judged. Its body has not been read."""

    response: Response
    verdict: Verdict
    is_page: bool
    refusal: Refusal | None = None
    """Why, if the status is an error."""
    host: str = ""
    """Host and port that sent it, at the end of the redirects."""
    scheme: str = ""
    """Over what it was sent: ``http`` or ``https``."""
    is_ahead: bool = False
    """Whether the request for it was sent ahead of its turn."""


_Realm = tuple[tuple[str, str, int], URL]
"""The origin of a registry, and where it has its tokens fetched."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request to one address: what it asks for, and its fields, including credentials."""

    here: URL
    asked: Asked
    address: str
    fields: dict[str, str]
    sent: Credential | None
    token: str | None


class Requester:
    """Asks origins for ranges. Holds the credentials, but nothing that belongs to an asset.

    ``on_lost_ahead`` is called with a host that turns out not to take requests ahead of their turn,
    ``on_led`` whenever a redirect says where an origin leads. ``sign`` makes an address that can be asked from that of
    an object in a bucket. ``also_sent``: what the transport itself sends as authorization, to proxies.
    """

    def __init__(
        self,
        credentials: Credentials,
        on_lost_ahead: Callable[[str], None] = lambda _: None,
        on_led: Callable[[], None] = lambda: None,
        sign: Callable[[str], Awaitable[str]] | None = None,
        also_sent: Iterable[str] = (),
    ) -> None:
        self._sign = sign
        self._credentials = credentials
        self._on_led = on_led
        self._on_lost_ahead = on_lost_ahead
        self.secrets = SentSecrets()
        """The secrets sent in this run. A server that repeats one must not get it shown."""
        for authorization in also_sent:
            self.secrets.note(authorization)
        self._unconditional: set[str] = set()
        """The servers that refuse If-Range. The validator of their answer is compared all the same."""
        self._realms: dict[URL, _Realm] = {}
        """Where the token for each address of a registry was fetched."""
        self._tokens: dict[_Realm, str] = {}
        """The last token from each realm, for one registry: any server can name the realm of another one."""

    async def open(
        self, connection: Connection, origin: Origin, asked: Asked, *, sent_ahead: Request | None = None
    ) -> JudgedResponse:
        """Ask ``origin``; return the judged response, whose body the caller closes.

        ``sent_ahead``: what `ask_ahead` has sent for this. Raises `TooManyRedirects`, `PolicyRefused`, and what
        `Connection.get` raises.
        """
        try:
            answer = await self._open(connection, origin, asked, sent_ahead)
            if answer.refusal is not None and is_bucket_address(origin.url) and answer.response.head.status in _EXPIRED:
                return replace(answer, refusal=_bucket_refusal(origin, answer.refusal, answer.response.head.status))
            return answer
        except GrymFetchError as error:
            self.secrets.hide_in(error)
            raise
        except Exception as error:
            # Whatever this server sent to make us fail, it is this server's failure: others may have the file.
            log.warning("%s: unexpected", origin.shown, exc_info=True)
            reason = f"the response could not be read ({type(error).__name__})"
            raise BadResponse(origin.url, reason) from error

    async def _open(
        self, connection: Connection, origin: Origin, asked: Asked, sent_ahead: Request | None
    ) -> JudgedResponse:
        is_resolved = is_resolved_when_asked(origin.url)
        for _ in range(MAX_TARGETS):
            target = origin.target
            if target is None:
                break
            first = target if is_resolved else parse_address(origin.url)
            is_own = origin.target_is_own
            request = _sent(target, asked, sent_ahead) or self._request(
                first, target, asked, is_own=is_own, cookie=origin.target_cookie, lent=origin.target_fields
            )
            answer = await self._ask(connection, first, request, asked, is_own=is_own)
            expired = answer.response.head.status in _EXPIRED
            if not expired and not isinstance(answer.verdict, Redirected):
                return answer
            answer.response.close()
            origin.lost_target(target)
        lead = await self._lead(connection, origin.url) if is_resolved else Lead(parse_address(origin.url))
        return await self._walk(connection, origin, lead, asked, _sent(lead.url, asked, sent_ahead))

    async def _lead(self, connection: Connection, address: str) -> Lead:
        """Find out where an address leads now. As after a redirect, that is remembered until it expires."""
        if is_lfs_address(address):
            return await self._object_on(connection, LfsAddress.parse(address))
        if self._sign is None:
            raise PolicyRefused(address, "buckets are not asked here")
        return Lead(parse_address(await self._sign(address)))

    async def _object_on(self, connection: Connection, address: LfsAddress) -> Lead:
        """Ask a Git LFS server where an object is now."""
        url, asked, fields = batch_address(address), Asked(None, accept=LFS_TYPE), {"Content-Type": LFS_TYPE}
        answer = await self.post(connection, url, asked, fields, batch_question(address))
        try:
            lead = await read_lead(answer.response, answer.verdict, answer.refusal, address, str(url))
        finally:
            answer.response.close()
        self.secrets.note_lent(lead.fields)
        return lead

    async def post(
        self, connection: Connection, address: URL, asked: Asked, fields: Mapping[str, str], body: bytes
    ) -> JudgedResponse:
        """Send a POST that asks for ``asked``, following redirects; return the judged response, whose body is unread.

        Raises `TooManyRedirects`, `PolicyRefused`, and what `PostConnection.post` raises.
        """
        send = post_method(connection, str(address))
        here, is_own = address, True
        for _ in range(MAX_REDIRECTS + 1):
            request = self._request(address, here, asked, is_own=is_own, cookie="")
            response = await send(request.address, {**fields, **request.fields}, body)
            head, verdict = self._judge(asked, response, server_mark(here))
            if not isinstance(verdict, Redirected):
                return self._judged(response, head, verdict, request, address)
            response.close()
            here = follow_redirect(here, verdict.location)
            is_own = is_own and origin_key(here) == origin_key(address)
        raise TooManyRedirects(str(address), f"more than {MAX_REDIRECTS} redirects")

    async def _walk(
        self, connection: Connection, origin: Origin, lead: Lead, asked: Asked, request: Request | None
    ) -> JudgedResponse:
        first = lead.url
        cookies, cookie = ChainCookies(), ""
        seen = {(first, cookie)}
        here = first
        is_own = True
        while True:
            lent = lead.fields if is_own else {}
            request = request or self._request(first, here, asked, is_own=is_own, cookie=cookie, lent=lent)
            answer = await self._ask(connection, first, request, asked, is_own=is_own)
            request = None
            if not isinstance(answer.verdict, Redirected):
                is_elsewhere = here is not first or bool(cookie) or is_resolved_when_asked(origin.url)
                origin.resolved(here if is_elsewhere else None, is_own=is_own, cookie=cookie, fields=lent)
                return answer
            # The body of a redirect is useless, and may be of any length.
            answer.response.close()
            cookies.learn(here, answer.response.head.fields.get("set-cookie", ()))
            here = follow_redirect(here, answer.verdict.location)
            origin.leads(here)
            self._on_led()
            cookie = cookies.field(here)
            # Once a redirect has left the origin, credentials are not sent again: another server chose the address.
            is_own = is_own and origin_key(here) == origin_key(first)
            if (here, cookie) in seen:
                raise TooManyRedirects(str(here), "the redirects lead back to where they came from")
            if len(seen) > MAX_REDIRECTS:
                raise TooManyRedirects(origin.url, f"more than {MAX_REDIRECTS} redirects")
            seen.add((here, cookie))

    async def _ask(
        self, connection: Connection, first: URL, request: Request, asked: Asked, *, is_own: bool
    ) -> JudgedResponse:
        here, address, fields, token = request.here, request.address, request.fields, request.token
        server = server_mark(here)
        response = await self._get(connection, address, fields)
        is_ahead = self._is_ahead(connection, here)
        head, verdict = self._judge(asked, response, server)
        if is_ahead and not (_is_content(asked, verdict) or _says_wait(verdict)):
            response.close()
            await connection.aclose()
            response = await self._get(connection, address, fields)
            is_ahead = False
            head, verdict = self._judge(asked, response, server)
            if _is_content(asked, verdict):
                self._on_lost_ahead(host_in(here))
        status = response.head.status
        is_expired = status in _EXPIRED and may_be_signed(here)
        if status in _REFUSES_CONDITION and not is_expired and fields.pop("If-Range", None) is not None:
            response.close()
            response = await self._get(connection, address, fields)
            is_ahead = False
            head, verdict = self._judge(asked, response, server)
            if isinstance(verdict, Partial | Whole | OtherRepresentation):
                self._unconditional.add(server)
        if is_own and response.head.status == 401:
            challenges = response.head.fields.get("www-authenticate", ())
            if (realm := token_address(here, challenges)) is not None:
                response.close()
                fresh = await self._fresh_token(connection, realm, first, stale=token)
                if fresh is None:
                    response = ClosedResponse(response.head)
                else:
                    fields["Authorization"] = f"Bearer {fresh}"
                    self._note(fields)
                    response = await self._get(connection, address, fields)
                head, verdict = self._judge(asked, response, server)
        return self._judged(response, head, verdict, request, first, is_ahead=is_ahead)

    def _judged(
        self,
        response: Response,
        head: ResponseHead,
        verdict: Verdict,
        request: Request,
        first: URL,
        *,
        is_ahead: bool = False,
    ) -> JudgedResponse:
        """The response with what is said of it, without secrets. Raises `PolicyRefused` if anybody could change it."""
        here, sent = request.here, request.sent
        if _is_bare(here, request.asked) and response.head.is_local is False:
            # The name is this machine's, but the proxy or the resolver leads elsewhere.
            response.close()
            raise PolicyRefused(str(here), BARE_HTTP)
        refusal = None
        if isinstance(verdict, ErrorStatus) and head.status >= 400:
            status, reason = verdict.status, verdict.reason
            refusal = explain_refusal(
                status,
                reason,
                first=first,
                here=here,
                sent=sent,
                credentials=self._credentials,
                challenges=response.head.fields.get("www-authenticate", ()),
            )
            refusal = replace(refusal, reason=self.secrets.hide(refusal.reason))
        match verdict:
            case UnusableRange(reason=reason) | Broken(reason=reason) | ErrorStatus(reason=reason):
                verdict = replace(verdict, reason=self.secrets.hide(reason))
        return JudgedResponse(response, verdict, head.is_page, refusal, host_in(here), here.scheme, is_ahead)

    def _request(
        self,
        first: URL,
        here: URL,
        asked: Asked,
        *,
        is_own: bool,
        cookie: str,
        lent: Mapping[str, str] | None = None,
    ) -> Request:
        if _is_bare(here, asked) and not is_loopback(here):
            raise PolicyRefused(str(here), BARE_HTTP)
        fields: dict[str, str] = {}
        server = server_mark(here)
        if asked.wanted is not None:
            fields["Range"] = range_header(asked.wanted)
            condition = None if server in self._unconditional else asked.validator.if_range
            if condition and asked.validator.is_for(server):
                fields["If-Range"] = condition
        if asked.accept:
            fields["Accept"] = asked.accept
        if asked.past_caches:
            fields["Cache-Control"] = "no-cache"
        if cookie:
            fields["Cookie"] = cookie
        # A signed address is its own credential, and S3 answers 400 to both.
        sent = self._credentials.find(first) if is_own and not is_signed(here) else None
        realm = self._realms.get(first) if is_own and not is_signed(here) else None
        token = self._tokens.get(realm) if realm is not None else None
        if token is not None:
            fields["Authorization"] = f"Bearer {token}"
        elif sent is not None:
            fields["Authorization"] = sent.field
        bare = here.with_user(None) if here.user is not None or here.password is not None else here
        self.secrets.note_address(here)
        self._note(fields)
        if lent:
            # What the server of the object wants is sent there, and to nobody else.
            fields |= lent
        return Request(here, asked, str(bare.with_fragment(None)), fields, sent, token)

    def ask_ahead(self, connection: Connection, origin: Origin, asked: Asked) -> Request | None:
        """Send the request that `open` would send first, ahead of its turn. Return it; None if that is impossible."""
        ask_ahead = getattr(connection, "ask_ahead", None)
        if ask_ahead is None:
            return None
        try:
            first = origin.target if is_resolved_when_asked(origin.url) else parse_address(origin.url)
            if first is None:
                return None  # it is not known yet where it leads
            if origin.target is None:
                request = self._request(first, first, asked, is_own=True, cookie="")
            else:
                is_own, cookie, lent = origin.target_is_own, origin.target_cookie, origin.target_fields
                request = self._request(first, origin.target, asked, is_own=is_own, cookie=cookie, lent=lent)
            return request if ask_ahead(request.address, request.fields) else None
        except GrymFetchError:
            return None  # `open` will say why

    def _is_ahead(self, connection: Connection, here: URL) -> bool:
        """Whether the connection's last response answers a request sent ahead. Also reports lost requests."""
        if not hasattr(connection, "ask_ahead"):
            return False
        ahead = cast("AheadConnection", connection)
        if ahead.lost_ahead():
            self._on_lost_ahead(host_in(here))
        return ahead.is_ahead

    def _note(self, fields: Mapping[str, str]) -> None:
        if "Authorization" in fields:
            self.secrets.note(fields["Authorization"])

    def _judge(self, asked: Asked, response: Response, server: str) -> tuple[ResponseHead, Verdict]:
        head = self._without_secrets(response.head.of(server))
        return head, judge(asked, head)

    def _without_secrets(self, head: ResponseHead) -> ResponseHead:
        """Remove validators that repeat a secret: they would be stored."""
        bad = [name for name in ("etag", "last-modified") if self.secrets.occur_in(head.get(name) or "")]
        if not bad:
            return head
        return replace(head, fields={name: values for name, values in head.fields.items() if name not in bad})

    async def _get(self, connection: Connection, address: str, fields: Mapping[str, str]) -> Response:
        """`Connection.get`, with a log line of what was asked, what came, and how long that took."""
        if not log.isEnabledFor(logging.DEBUG):
            return await connection.get(address, fields)
        loop = asyncio.get_running_loop()
        # A redirect may have put a secret into the path.
        shown = self.secrets.hide(redact_url(address))
        asked, began = f"GET {shown} {fields.get('Range', '')}".rstrip(), loop.time()
        try:
            response = await connection.get(address, fields)
        except GrymFetchError as error:
            log.debug("%s: %s after %d ms", asked, type(error).__name__, (loop.time() - began) * 1000)
            raise
        log.debug("%s: %d in %d ms", asked, response.head.status, (loop.time() - began) * 1000)
        return response

    async def _fresh_token(self, connection: Connection, realm: URL, first: URL, *, stale: str | None) -> str | None:
        """Return a token other than ``stale`` from a registry's realm, or None if it sends none.

        Many connections meet the same expiry: one that finds a newer token than its own takes that.
        """
        place = self._realms[first] = origin_key(first), realm
        known = self._tokens.get(place)
        if known is not None and known != stale:
            return known
        sent = None
        if trusts_realm(first, realm):
            sent = self._credentials.find(first if origin_key(first) == origin_key(realm) else realm)
        if sent is not None:
            self.secrets.note(sent.field)
        token = await fetch_token(connection, realm, sent.field if sent is not None else None)
        if token is None:
            self._tokens.pop(place, None)
        else:
            self._tokens[place] = token
        return token


def _bucket_refusal(origin: Origin, refusal: Refusal, status: int) -> Refusal:
    """What it means that an object is refused: a signed address was signed just now, so the keys or name are wrong."""
    if refusal.sent and status in (401, 403):
        return refusal
    was_signed = origin.target is not None and bool(origin.target.raw_query_string)
    return Refusal(
        status_text(status), bucket_advice(origin.url, is_missing=status in (404, 410), is_signed=was_signed)
    )


def _sent(here: URL, asked: Asked, request: Request | None) -> Request | None:
    """The request that was sent ahead, if it asks this very address for the same."""
    return request if request is not None and request.here == here and request.asked == asked else None


def _is_bare(here: URL, asked: Asked) -> bool:
    """Whether nothing proves what comes: neither the server's name nor a checksum."""
    return here.scheme == "http" and asked.checksum is None


def _says_wait(verdict: Verdict) -> bool:
    """Whether a server asks us to wait: then it is not asked again at once."""
    return isinstance(verdict, ErrorStatus) and verdict.is_throttling


def _is_content(asked: Asked, verdict: Verdict) -> bool:
    """Whether a response is just what was asked for."""
    if isinstance(verdict, Whole):
        return asked.wanted is None or (asked.wanted.start == 0 and asked.wanted.stop == asked.total)
    return isinstance(verdict, Partial)
