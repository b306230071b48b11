"""The faults of ranges, validators and content, under the rules of ``faults``."""

# Every ``bend`` has the signature of ``Fault.bend``, whether or not it reads all of it.
# ruff: noqa: ARG002

from __future__ import annotations

import gzip
from dataclasses import dataclass, replace

from grym_fetch.testing.answers import Answer, RecordedRequest, Resource, Span, bytes_span, plain_answer
from grym_fetch.testing.content import (
    BytesContent,
    Content,
    FlippedContent,
    SeededContent,
    UnendingContent,
    as_content,
)
from grym_fetch.testing.faults import AnswerFault, PartFault, ResourceFault

# --- Ranges ---


@dataclass(frozen=True)
class NoRanges(ResourceFault):
    """Ignores Range: answers with the whole body, and has no Accept-Ranges."""

    def bend_resource(self, resource: Resource, hit: int) -> Resource:
        return replace(resource, accepts_ranges=False)


@dataclass(frozen=True)
class IgnoreIfRange(ResourceFault):
    """Ignores If-Range."""

    def bend_resource(self, resource: Resource, hit: int) -> Resource:
        return replace(resource, honours_if_range=False)


@dataclass(frozen=True)
class ContentRange(PartFault):
    """Sends this raw text as Content-Range with the true part, or none if None."""

    value: str | None

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        return answer.with_header("Content-Range", self.value)


@dataclass(frozen=True)
class LyingTotal(PartFault):
    """Sends this total in Content-Range."""

    total: int | str

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        return _with_content_range(answer, total=self.total)


@dataclass(frozen=True)
class ShiftRange(PartFault):
    """Answers 206 with bytes this much further on (or back), as far as the file goes.

    Its Content-Range admits it only if ``truthful``.
    """

    by: int
    truthful: bool = True

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        content = answer.body.content
        start = max(0, min(answer.body.start + self.by, content.size - answer.body.length))
        shifted = answer.with_body(Span(content, start, start + answer.body.length))
        return _with_content_range(shifted) if self.truthful else shifted


@dataclass(frozen=True)
class ShortPartial(PartFault):
    """Answers 206 with this many bytes fewer than requested, but at least one."""

    by: int

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        stop = max(answer.body.start + 1, answer.body.stop - self.by)
        return _with_content_range(answer.with_body(replace(answer.body, stop=stop)))


@dataclass(frozen=True)
class LongPartial(PartFault):
    """Answers 206 with this many bytes more than its Content-Range says; its Content-Length is true."""

    by: int

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        body = answer.body
        return answer.with_body(Span(UnendingContent(body.content), body.start, body.stop + self.by))


@dataclass(frozen=True)
class SliceAs200(PartFault):
    """Answers 200 with only the slice, and with its Content-Range if ``content_range``."""

    content_range: bool = True

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        answer = replace(answer, status=200)
        return answer if self.content_range else answer.with_header("Content-Range", None)


@dataclass(frozen=True)
class MultipartRanges(PartFault):
    """Answers 206 with multipart/byteranges to a request for one range."""

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        body = answer.body
        part = (
            f"\r\n--grym-boundary\r\nContent-Type: {answer.header('Content-Type')}\r\n"
            f"Content-Range: {answer.header('Content-Range')}\r\n\r\n"
        ).encode()
        data = part + body.content.read(body.start, body.stop) + b"\r\n--grym-boundary--\r\n"
        answer = answer.with_header("Content-Range", None).with_body(bytes_span(data))
        return answer.with_header("Content-Type", "multipart/byteranges; boundary=grym-boundary")


@dataclass(frozen=True)
class RangeNotSatisfiable(AnswerFault):
    """Answers 416 to a ranged request, with this raw Content-Range, or none if None."""

    content_range: str | None = None

    def applies(self, request: RecordedRequest, answer: Answer) -> bool:
        """Whether the request has a Range."""
        return request.range is not None and super().applies(request, answer)

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        refused = plain_answer(416, b"range not satisfiable\n")
        return refused.with_header("Content-Range", self.content_range)


@dataclass(frozen=True)
class RefuseRanges(AnswerFault):
    """Answers 403, or another ``status``, to ranged requests."""

    status: int = 403

    def applies(self, request: RecordedRequest, answer: Answer) -> bool:
        """Whether the request has a Range."""
        return request.range is not None and super().applies(request, answer)

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        return plain_answer(self.status, b"no ranges here\n")


# --- Validators and content ---


@dataclass(frozen=True)
class ChangeContent(ResourceFault):
    """Serves other content, under new validators unless ``keep_validators``; ``skip`` sets when it starts."""

    content: bytes | Content
    keep_validators: bool = False

    def bend_resource(self, resource: Resource, hit: int) -> Resource:
        content = as_content(self.content)
        if self.keep_validators:
            return replace(resource, content=content)
        etag = f'"{content.fingerprint()}"'
        return replace(resource, content=content, etag=etag, last_modified="Fri, 02 Jan 2026 00:00:00 GMT")


@dataclass(frozen=True)
class WrongFile(ResourceFault):
    """Serves other content of the same size, under another ETag."""

    seed: int = 0x77726F6E67

    def bend_resource(self, resource: Resource, hit: int) -> Resource:
        other = SeededContent(resource.content.size, self.seed)
        return replace(resource, content=other, etag=f'"{other.fingerprint()}"')


@dataclass(frozen=True)
class FlipByte(ResourceFault):
    """Serves one byte with all its bits inverted, under the same validators."""

    at: int

    def bend_resource(self, resource: Resource, hit: int) -> Resource:
        return replace(resource, content=FlippedContent(resource.content, self.at))


@dataclass(frozen=True)
class ETag(ResourceFault):
    """Sends this raw text as ETag, or none if None."""

    value: str | None

    def bend_resource(self, resource: Resource, hit: int) -> Resource:
        return replace(resource, etag=self.value)


@dataclass(frozen=True)
class WeakETag(ResourceFault):
    """Sends a weak ETag."""

    def bend_resource(self, resource: Resource, hit: int) -> Resource:
        return _weakened(resource)


@dataclass(frozen=True)
class FlippingETag(ResourceFault):
    """Sends a different ETag each time, or cycles through ``tags``, like CDN nodes that disagree."""

    tags: tuple[str, ...] = ()

    def bend_resource(self, resource: Resource, hit: int) -> Resource:
        return replace(resource, etag=self.tags[hit % len(self.tags)] if self.tags else f'"flip-{hit}"')


@dataclass(frozen=True)
class LastModified(ResourceFault):
    """Sends this raw text as Last-Modified, or none if None."""

    value: str | None

    def bend_resource(self, resource: Resource, hit: int) -> Resource:
        return replace(resource, last_modified=self.value)


@dataclass(frozen=True)
class NoValidator(ResourceFault):
    """Sends neither ETag nor Last-Modified."""

    def bend_resource(self, resource: Resource, hit: int) -> Resource:
        return replace(resource, etag=None, last_modified=None)


@dataclass(frozen=True)
class Gzip(ResourceFault):
    """Serves gzip whatever was requested, without ranges; with ``ranges``, a Range counts compressed bytes."""

    ranges: bool = False

    def bend_resource(self, resource: Resource, hit: int) -> Resource:
        packed = gzip.compress(resource.content.read(0, resource.content.size), compresslevel=1, mtime=0)
        resource = replace(resource, content=BytesContent(packed), content_encoding="gzip")
        return resource if self.ranges else replace(_weakened(resource), accepts_ranges=False)


def _with_content_range(answer: Answer, total: int | str | None = None) -> Answer:
    body = answer.body
    total = body.content.size if total is None else total
    return answer.with_header("Content-Range", f"bytes {body.start}-{body.stop - 1}/{total}")


def _weakened(resource: Resource) -> Resource:
    if resource.etag is None or resource.etag.startswith("W/"):
        return resource
    return replace(resource, etag=f"W/{resource.etag}")
