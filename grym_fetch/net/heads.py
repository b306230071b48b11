"""Repairs a head that the parser refuses if that is safe, as curl and browsers do. Does no I/O.

Rules: equal lengths count once (RFC 9110 section 8.6). A line whose name cannot be one is skipped, a folded line is
unfolded (RFC 9112 section 5.2), and spaces around a name or value are dropped. If the end of the body depends on such a
line, the head is refused, and the reason names the field. So is what curl refuses: NUL, and a line without a colon.
"""

from __future__ import annotations

import re

FRAMING = ("Content-Length", "Transfer-Encoding")
"""The fields that say where a body ends."""
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Unmendable(ValueError):
    """A head cannot be repaired. The text says what is wrong; it is empty if that has no name."""


def mend(head: bytes) -> bytes:
    """Return a head, up to its empty line, in the form that it should have had. Raises `Unmendable`."""
    status, *lines = (line.removesuffix(b"\r") for line in head.split(b"\n"))
    if b"\0" in head or any(b"\r" in line for line in lines):
        raise Unmendable
    fields: list[tuple[bytes, bytes]] = []
    for line in lines:
        framing = _about_framing(line)
        if line[:1] in (b" ", b"\t"):
            if not fields:
                raise Unmendable
            name, value = fields.pop()
            if framing := framing or _about_framing(name):
                raise Unmendable(f"a folded {framing}")
            fields.append((name, value + b" " + line.strip(b" \t")))
            continue
        name, colon, value = line.partition(b":")
        if not colon:
            raise Unmendable(f"a {framing} without a colon" if framing else "")
        if framing and not _NAME.fullmatch(name):
            raise Unmendable(f"a {framing} that is not written as a field")
        if _NAME.fullmatch(name := name.rstrip(b" \t")):
            fields.append((name, value.strip(b" \t")))
    fields = _with_one_length(fields)
    return b"\r\n".join([status, *(name + b": " + value for name, value in fields), b"", b""])


def _about_framing(line: bytes) -> str:
    lowered = line.lower()
    return next((name for name in FRAMING if name.lower().encode() in lowered), "")


def _with_one_length(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    lengths = [value for name, value in fields if name.lower() == b"content-length"]
    values = {part.strip(b" \t") for value in lengths for part in value.split(b",")}
    if not all(value.isdigit() for value in values):
        raise Unmendable("an invalid Content-Length")
    if len(values) > 1:
        raise Unmendable("Content-Length fields that differ")
    others = [(name, value) for name, value in fields if name.lower() != b"content-length"]
    return [*others, *((b"Content-Length", value) for value in values)]
