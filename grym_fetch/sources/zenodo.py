"""Records on Zenodo: ``zenodo:RECORD[/FILE or PATTERN]``, ``doi:10.5281/zenodo.RECORD[/…]``, and their pages.

Rules: a record never changes; a newer version is another record. A concept's number stands for its newest record, and
redirects to it. Zenodo states only MD5: each file is fetched once, compared, and gets a SHA-256.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from grym_fetch.core.errors import SourceFailed, UnknownSource
from grym_fetch.core.stated import StatedDigest
from grym_fetch.sources.answers import HubAnswer
from grym_fetch.sources.choice import choose_paths, quoted, unquoted
from grym_fetch.sources.protocol import Page, Resolved, SourceFile, Web

HUB = "Zenodo"
API = "https://zenodo.org/api"
MAX_FILES = 10_000
FORM = "zenodo:RECORD, zenodo:RECORD/FILE or doi:10.5281/zenodo.RECORD"

_SHORT = re.compile(r"(?:zenodo:|doi:10\.5281/zenodo\.)(?P<record>[0-9]{1,18})(?:/(?P<path>.*))?", re.IGNORECASE)
_PAGE = re.compile(
    r"https?://(?:www\.)?zenodo\.org/records?/(?P<record>[0-9]{1,18})"
    r"(?:/(?:files|preview)/(?P<path>[^?#]+)|/files)?/?(?:[?#].*)?"
)
_DOI_PAGE = re.compile(
    r"https?://(?:(?:dx\.)?doi\.org|zenodo\.org/doi)/10\.5281/zenodo\.(?P<record>[0-9]{1,18})/?(?:[?#].*)?",
    re.IGNORECASE,
)


class Zenodo:
    """The sources ``zenodo`` and ``doi``."""

    hub = HUB

    def recognize(self, address: str, environ: Mapping[str, str], /) -> str | None:  # noqa: ARG002 - the Protocol's
        """Return the short address for the page of a record or a file, or for a DOI's address."""
        if (match := _PAGE.fullmatch(address)) is not None:
            return f"zenodo:{match['record']}" + (f"/{match['path'].rstrip('/')}" if match["path"] else "")
        match = _DOI_PAGE.fullmatch(address)
        return f"zenodo:{match['record']}" if match is not None else None

    async def resolve(self, address: str, web: Web, /) -> Resolved:
        """Return the files of a record."""
        record, wanted = _read(address)
        return _resolved(address, await _record(address, record, "", web), wanted)

    async def newest(self, address: str, web: Web, /) -> Resolved:
        """Return the file of the same name in the newest version."""
        record, wanted = _read(address)
        return _resolved(address, await _record(address, record, "/versions/latest", web), wanted)


def _read(address: str) -> tuple[str, str]:
    """The record, and the wanted files, still encoded. Raises `UnknownSource`."""
    match = _SHORT.fullmatch(address)
    if match is None:
        is_doi = address.lower().startswith("doi:") and not address.lower().startswith("doi:10.5281/zenodo.")
        reason = "only DOIs of Zenodo (10.5281/zenodo.…) are understood" if is_doi else f"is not an address on {HUB}"
        raise UnknownSource(address, f"{reason}; allowed: {FORM}")
    try:
        unquoted(match["path"] or "")
    except ValueError:
        raise UnknownSource(address, "has a % that is not followed by UTF-8") from None
    return match["record"], match["path"] or ""


async def _record(address: str, record: str, behind: str, web: Web) -> HubAnswer:
    page = await web.get(f"{API}/records/{record}{behind}")
    if page.status != 200:
        raise _missing(address, page)
    return HubAnswer(page.json())


def _missing(address: str, page: Page) -> UnknownSource | SourceFailed:
    if page.status == 404:
        return UnknownSource(address, "there is no such record")
    if page.status == 410:
        return UnknownSource(address, "this record was deleted")
    return SourceFailed(page.url, HUB, page.refusal)


def _resolved(address: str, answer: HubAnswer, wanted: str) -> Resolved:
    record = answer.number("id")
    if not answer.has("files"):
        raise UnknownSource(address, "this record has no files, or they are restricted")
    files = {file.path: file for file in (_file(each, record) for each in answer.each("files", most=MAX_FILES))}
    chosen = choose_paths(wanted, list(files), address)
    found = tuple(files[path] for path in chosen.paths)
    return Resolved(f"zenodo-{record}", str(record), found, is_whole=chosen.is_whole)


def _file(entry: HubAnswer, record: int) -> SourceFile:
    name = entry.text("key")
    stated = StatedDigest.parse(entry.text("checksum"))
    return SourceFile(
        name, entry.inner("links").url("self"), f"zenodo:{record}/{quoted(name)}", entry.size("size"), stated=stated
    )
