"""What is plainly not an asset: a web page, a git-lfs pointer, an empty file.

With status 200 and no checksum to compare, a login page or a pointer looks like any file. Adding or pinning it would
make it right forever, so it is checked first.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from grym_fetch.core.digest import Checksum
from grym_fetch.core.manifest_values import MAX_SIZE_BYTES

BEGINNING_BYTES = 1024
"""How much of a file is looked at."""
_PAGE = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*+(?:<\?xml[^>]*>\s*+)?+(?:<!--.*?-->\s*+)*+<(?:!doctype\s+html|html)\b",
    re.IGNORECASE | re.DOTALL,
)
_PAGE_NAMES = (".html", ".htm", ".xhtml", ".mhtml")
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\r?\n(?:.*\n)*?"
    rb"oid (?P<oid>sha256:[0-9a-f]{64})\r?\nsize (?P<size>[0-9]{1,20})(?P<rest>[^\r\n]*)"
)
MAX_POINTER_BYTES = 1024
"""The longest text of a pointer, according to the specification of Git LFS."""
POINTER_SIZES = range(100, 201)
"""How long a git-lfs pointer is, in bytes."""


def read_pointer(beginning: bytes, size: int) -> tuple[Checksum, int] | None:
    """If a file of ``size`` bytes is a git-lfs pointer, return the digest and size of its content; or None."""
    pointer = _POINTER.match(beginning) if size <= MAX_POINTER_BYTES else None
    if pointer is None or pointer["rest"] or (real := int(pointer["size"])) > MAX_SIZE_BYTES:
        return None
    return Checksum.parse(pointer["oid"].decode()), real


def suspicion(beginning: bytes, size: int, *, name: str, url: str) -> str | None:
    """If a file of ``size`` bytes with this beginning is plainly not an asset, say what it is and what to do; or None.

    ``name`` is its path: a file that is meant to be a page is not suspicious.
    """
    if size == 0:
        return "this is an empty file"
    if (pointer := _POINTER.match(beginning)) is not None:
        oid, real = pointer["oid"].decode(), int(pointer["size"])
        return f"this is a git-lfs pointer, which stands for {real:,} bytes with {oid}; name the address of these"
    if _PAGE.match(beginning) and not name.lower().endswith(_PAGE_NAMES):
        return f"this is a web page{page_advice(url) or ': a login, an error page or a captive portal?'}"
    return None


def page_advice(url: str) -> str:
    """What to use instead of the address of a page that shows a file; empty if that is not known."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    host = (parts.hostname or "").lower()
    if "/blob/" not in parts.path:
        return ""
    if host == "huggingface.co" or host.endswith(".huggingface.co"):
        return " about the file; the file itself has /resolve/ in its address instead of /blob/"
    if host == "github.com":
        return " about the file; the file itself has /raw/ in its address instead of /blob/"
    return ""
