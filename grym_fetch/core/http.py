"""What a response to our request means, judged before a byte of its body is used.

Rules (RFC 9110): a 206 is believed only if its Content-Range starts where we asked (section 15.3.7), and its total and
validator are the known ones. Content labelled as encoded is taken as it comes, undecoded, if a checksum decides, and
otherwise refused. A 200 to a ranged request is the whole content or nothing (section 14.2), never quietly a success.
Parts are combined only under the same strong validator (section 15.3.7.3). What a server says about the digest of its
own content (RFC 9530) can condemn the content but never approve it. Nothing here raises for any status or header text.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from grym_fetch.core.digest import Algorithm, Checksum
from grym_fetch.core.ranges import ByteRange, parse_content_range, parse_length
from grym_fetch.core.suspicion import POINTER_SIZES

REDIRECTS = frozenset({301, 302, 303, 307, 308})
"""The statuses whose ``Location`` is followed."""
MAX_RETRY_AFTER_S = 120.0
"""If a server asks us to wait longer than this, use another origin, or ask it again after this long."""


@dataclass(frozen=True, slots=True)
class Validator:
    """Identifies one representation at one origin (RFC 9110 section 8.8): a strong ETag, or nothing we can send.

    ``etag`` is the field as received, weak or strong; ``last_modified`` likewise. ``server`` stands for the server that
    sent them, at the end of the redirects; empty if not known. Another server may have other validators for the same
    bytes.
    """

    etag: str | None = None
    last_modified: str | None = None
    server: str = ""

    @property
    def is_strong(self) -> bool:
        """Whether equality proves the same bytes (section 8.8.3.2). Last-Modified alone does not."""
        return self.etag is not None and _STRONG_ETAG.fullmatch(self.etag) is not None

    @property
    def if_range(self) -> str | None:
        """The value for ``If-Range``: a strong ETag only (section 13.1.5 forbids weak ones), and of ASCII.

        Any other could not be sent as it came: its bytes may mean characters of any encoding.
        """
        etag = self.etag if self.is_strong else None
        return etag if etag is not None and etag.isascii() else None

    def is_for(self, server: str) -> bool:
        """Whether it means anything to this server."""
        return self.server in ("", server)

    def contradicts(self, other: Validator) -> bool:
        """Whether the two certainly identify different representations: at one server, what both have differs.

        A strong and a weak ETag of the same content differ by the ``W/`` alone, so weak comparison is used.
        """
        if not self.is_for(other.server):
            return False
        if self.etag and other.etag:
            return self.etag.removeprefix("W/") != other.etag.removeprefix("W/")
        if self.last_modified and other.last_modified:
            return self.last_modified != other.last_modified
        return False

    def proves(self, other: Validator) -> bool:
        """Whether the two certainly identify the same bytes: the same strong ETag, at one server (section 15.3.7.3)."""
        return self.is_strong and self.etag == other.etag and self.is_for(other.server)

    def __bool__(self) -> bool:
        return bool(self.etag or self.last_modified)


_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')
NO_VALIDATOR = Validator()


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """Status and header fields. Names are in lower case; a field that came several times has several values.

    ``server`` stands for the server that sent them; see `Validator`. ``is_local`` says whether it came directly from
    this machine itself, not through a proxy; None if the transport does not know.
    """

    status: int
    fields: Mapping[str, Sequence[str]] = field(default_factory=lambda: MappingProxyType({}))
    server: str = ""
    is_local: bool | None = None

    def of(self, server: str) -> ResponseHead:
        """The same head, sent by this server."""
        return ResponseHead(self.status, self.fields, server, self.is_local)

    def get(self, name: str) -> str | None:
        """The field's values, joined by commas as in RFC 9110 section 5.3, or None. Equal values count once."""
        values = self.fields.get(name)
        return ", ".join(dict.fromkeys(values)) if values else None

    @property
    def validator(self) -> Validator:
        """What the response says about its representation."""
        return Validator(self.get("etag"), self.get("last-modified"), self.server)

    @property
    def encoding(self) -> str | None:
        """The encoding that the content is labelled with, or None. Labels are wrong more often than not."""
        encoding = (self.get("content-encoding") or "identity").strip().lower()
        return None if encoding in ("", "identity") else encoding if _CODING.fullmatch(encoding) else "strangely"

    @property
    def is_page(self) -> bool:
        """Whether the content is labelled a web page. Few assets are; it is usually a login or an error."""
        return "html" in (self.get("content-type") or "").lower()


@dataclass(frozen=True, slots=True)
class Asked:
    """What we asked, and what we know. ``wanted`` is None for the whole content; ``total`` is None while unknown;
    ``ranges_proven``: this origin has served a range before; ``checksum`` is the manifest's; ``past_caches``: no cache
    on the way may answer for the origin; ``accept``: the media types that are asked for, if not any."""

    wanted: ByteRange | None
    total: int | None = None
    validator: Validator = NO_VALIDATOR
    ranges_proven: bool = False
    checksum: Checksum | None = None
    past_caches: bool = False
    accept: str = ""


@dataclass(frozen=True, slots=True)
class Partial:
    """The body is the bytes of ``range``, which starts where we asked and may end earlier."""

    range: ByteRange
    total: int | None
    validator: Validator


@dataclass(frozen=True, slots=True)
class Whole:
    """The body is the whole content. ``length`` is None if the server does not say; ``framed`` is false if only the
    end of the connection ends the body, so that a broken connection looks like the end."""

    length: int | None
    validator: Validator
    framed: bool


@dataclass(frozen=True, slots=True)
class Unsatisfiable:
    """No such range (416). ``total`` is the content's length if the server says it."""

    total: int | None


@dataclass(frozen=True, slots=True)
class OtherRepresentation:
    """The origin serves another representation than the one we have parts of."""

    reason: str
    validator: Validator


@dataclass(frozen=True, slots=True)
class WrongLength:
    """The content does not have the length that is known to be right."""

    actual: int
    hint: str = ""


@dataclass(frozen=True, slots=True)
class WrongDigest:
    """The server itself says that the whole content it has is not the right one (RFC 9530 ``Repr-Digest``)."""

    actual: Checksum


@dataclass(frozen=True, slots=True)
class Redirected:
    """The content is elsewhere, at ``location``, as sent."""

    location: str


@dataclass(frozen=True, slots=True)
class UnusableRange:
    """The server refuses the range, or sends other bytes; it may still serve the whole content."""

    reason: str


@dataclass(frozen=True, slots=True)
class ErrorStatus:
    """No content: a status of 400 or above, or 202. ``retry_after`` is in seconds, if the server says it."""

    status: int
    reason: str
    retry_after: float | None = None

    @property
    def is_throttling(self) -> bool:
        """Whether the server says that it was asked too often, or asks us to wait."""
        return self.status in _TOO_MANY or self.retry_after is not None


_TOO_MANY = frozenset({420, 429, 430, 503, 509, 529})
"""429 and 503 as in RFC 6585 and 9110; the others are non-standard, but servers use them."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The response breaks the rules, so nothing in it can be trusted."""

    reason: str


Verdict = (
    Partial
    | Whole
    | Unsatisfiable
    | OtherRepresentation
    | WrongLength
    | WrongDigest
    | Redirected
    | UnusableRange
    | ErrorStatus
    | Broken
)


def is_chunked(head: ResponseHead) -> bool | None:
    """Whether the body comes in chunks, which mark its end; None for any other transfer coding.

    We offer no coding (RFC 9110 section 10.1.4), so only `chunked` may be used (RFC 9112 section 6.1). With any other,
    ``identity`` and a second `chunked` included, it is not certain where the body ends.
    """
    codings = head.fields.get("transfer-encoding")
    if codings is None:
        return False
    return True if [coding.strip(" \t").lower() for coding in codings] == ["chunked"] else None


def judge(asked: Asked, head: ResponseHead) -> Verdict:
    """Say what a response means. Every status and any header text gives a verdict; nothing raises."""
    status = head.status
    if status in (200, 203, 206) and is_chunked(head) is None:
        return Broken("a Transfer-Encoding other than chunked, which nobody asked for")
    if status == 206:
        return _judge_partial(asked, head)
    if status == 200 or (status == 203 and asked.checksum is not None):
        # 203: something on the way may have changed the content (RFC 9110 section 15.3.4). The checksum decides.
        return _judge_whole(asked, head)
    if status == 416:
        content_range = parse_content_range(head.get("content-range") or "")
        return Unsatisfiable(content_range.total if content_range is not None else None)
    if status in REDIRECTS:
        locations = set(head.fields.get("location", ())) - {""}
        if len(locations) > 1:
            return Broken(f"a redirect ({status}) with Location fields that differ")
        return Redirected(locations.pop()) if locations else Broken(f"a redirect ({status}) without an address")
    return _judge_refusal(asked, head)


def _judge_partial(asked: Asked, head: ResponseHead) -> Verdict:
    if asked.wanted is None:
        return Broken("part of the content (206) although the whole was asked for")
    if (head.get("content-type") or "").lower().lstrip().startswith("multipart/byteranges"):
        return UnusableRange("several parts although one range was asked for")
    text = head.get("content-range")
    if text is None:
        return UnusableRange("a partial response (206) without Content-Range")
    content_range = parse_content_range(text)
    if content_range is None or content_range.range is None:
        return UnusableRange(f"an invalid Content-Range {_shown(text)}")
    got, total = content_range.range, content_range.total
    if head.encoding and (asked.checksum is None or total is None or total != asked.total):
        # RFC 9110 section 8.4: the range counts encoded bytes, not ours, unless the label is wrong. In that case the
        # total is the right one, and the checksum decides.
        return UnusableRange(f"a range of {head.encoding}-encoded content although identity was asked for")
    if got.start != asked.wanted.start or got.stop > asked.wanted.stop:
        return UnusableRange(
            f"bytes {got.start}-{got.stop - 1} instead of {asked.wanted.start}-{asked.wanted.stop - 1}"
        )
    lengths = head.fields.get("content-length", ())
    if any(parse_length(value) != got.length for value in lengths) and not is_chunked(head):
        return UnusableRange(
            f"a Content-Length {_shown(lengths[0])} that is not the {got.length} bytes of its Content-Range"
        )
    if (stated := _stated_otherwise(asked, head)) is not None:
        return WrongDigest(stated)
    # Compare the validators first: if they differ, a different total is the consequence, not the fault.
    if asked.validator.contradicts(head.validator):
        return OtherRepresentation("the content at this address has changed", head.validator)
    if asked.total is not None and total is not None and total != asked.total:
        return WrongLength(total, length_hint(head, total, asked.total))
    return Partial(got, total, head.validator)


def _judge_whole(asked: Asked, head: ResponseHead) -> Verdict:
    if head.encoding and asked.checksum is None:
        return Broken(f"{head.encoding}-encoded content although identity was asked for, and no checksum to tell")
    if head.encoding and asked.total is None and asked.wanted is not None:
        # Only the checksum can tell a wrong label from encoded content. A server that encodes only sometimes may not do
        # so if asked again.
        return UnusableRange(f"{head.encoding}-encoded content although identity was asked for")
    chunked = is_chunked(head)
    lengths = [
        parse_length(part.strip(" \t")) for value in head.fields.get("content-length", ()) for part in value.split(",")
    ]
    if None in lengths:
        return Broken("an invalid Content-Length")
    if len(set(lengths)) > 1:
        return Broken("Content-Length fields that differ")
    # RFC 9112 section 6.3: if both are sent, Transfer-Encoding wins and the length means nothing.
    length = None if chunked or not lengths else lengths[0]
    if "content-range" in head.fields:
        # RFC 9110 section 14.4: it has no meaning on a 200. Servers that send it have sent the slice, not the whole.
        return UnusableRange("status 200 with a Content-Range")
    if asked.wanted is not None and length == asked.wanted.length and length != asked.total:
        # The slice without a Content-Range; or, while the total is unknown, a file of exactly this length. Asking for
        # the whole shows which.
        return UnusableRange("status 200 with only the slice that was asked for")
    if (stated := _stated_otherwise(asked, head)) is not None:
        return WrongDigest(stated)
    validator = head.validator
    if asked.total is not None and length is not None and length != asked.total:
        if asked.validator.contradicts(validator):
            return OtherRepresentation("the content at this address has changed", validator)
        if head.encoding:
            return Broken(f"{head.encoding}-encoded content of {length} bytes although identity was asked for")
        return WrongLength(length, length_hint(head, length, asked.total))
    if asked.validator.contradicts(validator):
        return OtherRepresentation("the content at this address has changed", validator)
    return Whole(length, validator, framed=bool(chunked) or length is not None)


def is_transient(status: int) -> bool:
    """Whether the same request may succeed later (RFC 9110 sections 15.5, 15.6; 425: RFC 8470; 429: RFC 6585).

    Every server error except 501 and 505 (the server cannot do it at all) and 511, which waits for a person
    (RFC 6585 section 6).
    """
    return status in (408, 425, *_TOO_MANY) or (500 <= status < 600 and status not in (501, 505, 511))


def may_be_for_the_range(status: int) -> bool:
    """Whether a refusal may mean the Range rather than the content: old gateways and filters say so in many ways.

    Not if it asks for credentials or patience, or says that the content is gone.
    """
    return 400 <= status < 600 and status not in (401, 407, 410, 420, 429, 430)


PROXY_ADVICE = "the proxy wants another user or password than HTTP_PROXY and HTTPS_PROXY name"

# Signed addresses and filters may answer a Range with these although they would serve the whole.
_RANGE_ONLY = frozenset({400, 403, 501})
_ADVICE = {
    401: "the server wants credentials",
    403: "access denied",
    404: "not found",
    407: PROXY_ADVICE,
    410: "gone for good",
    451: "unavailable for legal reasons; another mirror may have it",
    511: "this network wants a login; open any page in a browser",
}


def status_text(status: int) -> str:
    """Return the status and, if that is clear, what it means."""
    phrase = _ADVICE.get(status)
    return f"status {status}" + (f": {phrase}" if phrase else "")


def _judge_refusal(asked: Asked, head: ResponseHead) -> Verdict:
    status = head.status
    wait = _stated_wait(head)
    if wait is not None and status in (202, 403):
        return ErrorStatus(status, f"status {status}: the server asks to wait", wait)
    if status in _RANGE_ONLY and asked.wanted is not None and not asked.ranges_proven:
        return UnusableRange(f"status {status} to a ranged request")
    reason = status_text(status)
    if status in (403, 503) and head.is_page:
        page = "it sent a web page: a login, a challenge for robots, or a filter on the way"
        reason += f"{';' if status in _ADVICE else ':'} {page}"
    if status == 202:
        return Broken("status 202: accepted and not ready yet, or a challenge for robots; open it in a browser")
    if is_transient(status):
        return ErrorStatus(status, reason, wait)
    if 400 <= status < 600:
        return ErrorStatus(status, reason)
    return Broken(f"status {status}, which answers nothing we asked")


_CODING = re.compile(r"[a-z0-9!#$%&*+.^_|~, -]{1,40}", re.ASCII)
_PLAIN_VALUE = re.compile(r"[!-~ ]{0,60}", re.ASCII)


def _shown(value: str) -> str:
    """A field's value for messages: shown whole if it is short and plain, otherwise not at all.

    A part of it could be part of a secret that the server repeats, which redaction would not recognise.
    """
    return repr(value) if _PLAIN_VALUE.fullmatch(value) else "that is long or not plain text"


_FIELD_NAMES: Mapping[str, Algorithm] = {"sha-256": "sha256", "sha-512": "sha512"}
_STATED_DIGEST = re.compile(r"(?:^|,)[ \t]*(sha-256|sha-512)=:([A-Za-z0-9+/]{43,86}={1,2}):(?=[ \t]*(?:[,;]|$))")


def _stated_otherwise(asked: Asked, head: ResponseHead) -> Checksum | None:
    """The digest that ``Repr-Digest`` states for the whole content (RFC 9530 section 3), if it is not the manifest's.

    It is about the whole content even on a 206. A digest that cannot be read, or contradicts itself, is ignored.
    """
    if asked.checksum is None:
        return None
    stated = {
        base64.b64decode(digest).hex()
        for name, digest in _STATED_DIGEST.findall(head.get("repr-digest") or "")
        if _FIELD_NAMES[name] == asked.checksum.algorithm
    }
    if len(stated) != 1:
        return None
    try:
        digest = Checksum(asked.checksum.algorithm, stated.pop())
    except ValueError:
        return None  # not the length of a digest
    return None if digest == asked.checksum else digest


def length_hint(head: ResponseHead, length: int, expected: int) -> str:
    """Say what content of ``length`` instead of ``expected`` bytes may be; empty if there is nothing to say."""
    if head.is_page:
        return "it sent a web page: a login, an error page or a captive portal?"
    if length == 0:
        return "it sent an empty file"
    if length in POINTER_SIZES and expected > 1024:
        return "so short a file may be a git-lfs pointer, which only names the file"
    return ""


_LIMITS = re.compile(r'(?:^|,)[ \t]*(?:"[^"]*"|[A-Za-z*][A-Za-z0-9_.*-]*)((?:[ \t]*;[ \t]*[a-z]+(?:=[^;,"]*)?)*)')
_SECONDS = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,9})?", re.ASCII)
_DECADE_S = 10 * 365 * 86400
"""``X-RateLimit-Reset`` is a moment if it is more than this, else seconds from now."""


def _stated_wait(head: ResponseHead) -> float | None:
    """How many seconds the server asks us to wait, from any of the fields that servers use for this.

    ``Retry-After``; ``RateLimit`` as of draft-ietf-httpapi-ratelimit-headers (``"name";r=0;t=55``), and its earlier
    form ``RateLimit-Reset``; ``X-RateLimit-Reset``, in seconds from now or a moment.
    """
    wait = parse_retry_after(head.get("retry-after"), head.get("date"))
    if wait is not None:
        return wait
    limits = [_parameters(text) for text in _LIMITS.findall(head.get("ratelimit") or "")]
    if spent := [float(p["t"]) for p in limits if p.get("r") == "0" and _SECONDS.fullmatch(p.get("t", ""))]:
        return max(spent)
    for prefix in ("ratelimit", "x-ratelimit"):
        left, reset = head.get(f"{prefix}-remaining"), (head.get(f"{prefix}-reset") or "").strip()
        if not _SECONDS.fullmatch(reset):
            continue
        if (left or "0").strip() == "0" and (left is not None or head.status == 429):
            return float(reset) if float(reset) < _DECADE_S else _seconds_until(float(reset), head.get("date"))
    return None


def _parameters(text: str) -> dict[str, str]:
    pairs = (parameter.partition("=") for parameter in text.split(";"))
    return {name.strip(): value.strip() for name, _, value in pairs}


def _seconds_until(moment: float, date: str | None) -> float | None:
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, moment - parsedate_to_datetime(date or "").timestamp())
    except (TypeError, ValueError, OverflowError):
        return None


def parse_retry_after(text: str | None, date: str | None) -> float | None:
    """Read ``Retry-After`` (RFC 9110 section 10.2.3) as seconds from now, at least 0; None if absent or invalid.

    A date is measured against the response's own ``Date``, never against our clock, which may be wrong.
    """
    if text is None:
        return None
    text = text.strip()
    if re.fullmatch(r"[0-9]{1,18}", text, re.ASCII):
        return float(text)
    from email.utils import parsedate_to_datetime  # 4 ms, and dates are rare here

    try:
        return max(0.0, (parsedate_to_datetime(text) - parsedate_to_datetime(date or "")).total_seconds())
    except (TypeError, ValueError, OverflowError):
        # TypeError: one of the two dates has a zone and the other does not.
        return None
