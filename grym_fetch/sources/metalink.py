"""Metalink 4 (RFC 5854): files with their addresses, sizes and digests, as XML.

Rules: a document type is refused, and with it every entity that could expand. Unknown elements are skipped. Of several
digests the SHA-256 is used, else the strongest known one. Digests of pieces are not read.
"""

from __future__ import annotations

from collections.abc import Iterable
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from grym_fetch.core.digest import Checksum
from grym_fetch.core.lfs_addresses import is_resolved_when_asked
from grym_fetch.core.manifest import Asset
from grym_fetch.core.manifest_values import MAX_SIZE_BYTES
from grym_fetch.core.stated import StatedDigest
from grym_fetch.sources.protocol import ListedFile

NAMESPACE = "urn:ietf:params:xml:ns:metalink"
MAX_DEPTH = 32
_TYPES = {"sha-256": "sha256", "sha-512": "sha512", "sha-1": "sha1", "md5": "md5"}
"""IANA's names for the kinds of digest, best first."""
_NAMES = {ours: theirs for theirs, ours in _TYPES.items()}


class _Reader:
    """Handles the events of the XML parser."""

    def __init__(self) -> None:
        self.files: list[ListedFile] = []
        self._path: list[str] = []
        self._text: list[str] = []
        self._attributes: dict[str, str] = {}
        self._name = ""
        self._size: int | None = None
        self._urls: list[tuple[int, int, str]] = []
        self._hashes: dict[str, str] = {}

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if len(self._path) >= MAX_DEPTH:
            raise ValueError(f"elements are nested more than {MAX_DEPTH} deep")
        self._path.append(name)
        self._text, self._attributes = [], attributes
        if self._path == [f"{NAMESPACE} metalink", f"{NAMESPACE} file"]:
            self._name, self._size, self._urls, self._hashes = attributes.get("name", ""), None, [], {}

    def text(self, text: str) -> None:
        self._text.append(text)

    def end(self, _: str) -> None:
        inside, text = self._path[2:], "".join(self._text).strip()
        if self._path[:2] == [f"{NAMESPACE} metalink", f"{NAMESPACE} file"]:
            if inside == [f"{NAMESPACE} size"]:
                self._size = _whole(text, "size")
            elif inside == [f"{NAMESPACE} url"]:
                priority = self._attributes.get("priority", "999999")
                self._urls.append((_whole(priority, "priority"), len(self._urls), text))
            elif inside == [f"{NAMESPACE} hash"]:
                self._hashes.setdefault(self._attributes.get("type", "").lower(), text)
            elif not inside:
                self.files.append(self._file())
        self._path.pop()
        self._text = []

    def _file(self) -> ListedFile:
        if not self._name:
            raise ValueError("a file has no name")
        best = next((kind for kind in _TYPES if kind in self._hashes), None)
        checksum = stated = None
        if best in ("sha-1", "md5"):
            stated = StatedDigest.parse(f"{_TYPES[best]}:{self._hashes[best]}")
        elif best is not None:
            checksum = Checksum.parse(f"{_TYPES[best]}:{self._hashes[best]}")
        urls = tuple(url for _, _, url in sorted(self._urls))
        return ListedFile(self._name, urls, self._size, checksum, stated)


def read_metalink(text: str) -> list[ListedFile]:
    """Return the files of a Metalink document. Raises `ValueError`."""
    reader = _Reader()
    parser = expat.ParserCreate("utf-8", namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(text.encode("utf-8"), True)
    except expat.ExpatError as error:
        raise ValueError(f"is not XML: line {error.lineno}: {expat.ErrorString(error.code)}") from None
    except UnicodeEncodeError:
        raise ValueError("is not Unicode") from None
    return reader.files


def write_metalink(assets: Iterable[Asset]) -> str:
    """Write a Metalink document. Raises `ValueError` for a kind of checksum that has no name there."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f'<metalink xmlns="{NAMESPACE}">']
    for asset in assets:
        lines.append(f"  <file name={quoteattr(asset.local_path)}>")
        if asset.description:
            lines.append(f"    <description>{escape(asset.description)}</description>")
        if asset.size is not None:
            lines.append(f"    <size>{asset.size}</size>")
        if asset.checksum is not None:
            kind = _NAMES.get(asset.checksum.algorithm)
            if kind is None:
                raise ValueError(f"{asset.id}: has a BLAKE2b checksum, which this format cannot say")
            lines.append(f'    <hash type="{kind}">{asset.checksum.hexdigest}</hash>')
        lines += [
            f'    <url priority="{priority}">{escape(url)}</url>'
            for priority, url in enumerate(web_addresses(asset), 1)
        ]
        lines.append("  </file>")
    return "\n".join([*lines, "</metalink>"]) + "\n"


def web_addresses(asset: Asset) -> list[str]:
    """The http and https addresses of an asset: other tools know no others. Raises `ValueError` if it has none."""
    found = [url for url in asset.urls if not is_resolved_when_asked(url)]
    if not found:
        raise ValueError(f"{asset.id}: has no http or https address, and other tools know no others")
    return found


def _refuse_doctype(*_: object) -> None:
    raise ValueError("has a document type, which is not allowed")


def _whole(text: str, what: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 19 and int(text) <= MAX_SIZE_BYTES):
        raise ValueError(f"a {what} is not a whole number")
    return int(text)
