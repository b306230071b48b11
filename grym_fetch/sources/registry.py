"""Which sources there are, and which of them an address belongs to.

Rules: all sources, ours and others, are entry points in the group ``grym_fetch.sources``; a scheme is the name of its
entry point. A source is imported when an address needs it. If it cannot be imported, or raises an error that it should
not, only that source fails, and the error names it.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from grym_fetch.core.buckets import SCHEMES as BUCKETS
from grym_fetch.core.errors import GrymFetchError, SourceFailed, UnknownSource
from grym_fetch.core.lfs_addresses import SCHEME as LFS
from grym_fetch.core.manifest_values import check_address, check_source
from grym_fetch.core.text import safe_text
from grym_fetch.sources.protocol import AssetSource, Resolved, Web

log = logging.getLogger(__name__)

GROUP = "grym_fetch.sources"
PLAIN = ("http", "https")
_LISTED = (*PLAIN, *BUCKETS, LFS)
"""Schemes of addresses that stand in a manifest as they are."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


@cache
def _entry_points() -> Mapping[str, EntryPoint]:
    return {each.name: each for each in sorted(entry_points(group=GROUP), key=lambda each: each.name)}


def schemes() -> list[str]:
    """The schemes of all sources."""
    return list(_entry_points())


def scheme_of(text: str) -> str:
    """The scheme that an address begins with, in lower case; empty if it has none."""
    match = _SCHEME.match(text)
    return match[1].lower() if match is not None else ""


def source_of(address: str) -> AssetSource:
    """Return the source for a short address. Raises `UnknownSource` with the known schemes."""
    scheme = scheme_of(address)
    known = schemes()
    if scheme not in known:
        near = [f"{each}:" for each in difflib.get_close_matches(scheme, [*known, *_LISTED], n=1)]
        shown = ", ".join(f"{each}:" for each in [*known, *_LISTED])
        raise UnknownSource(address, f"there is no source {scheme + ':'!r}; known are {shown}", near)
    return _load(scheme)


@cache
def _load(scheme: str) -> AssetSource:
    try:
        made: AssetSource = _entry_points()[scheme].load()()
    except Exception as error:  # whatever a plug-in raises, it is its own failure
        log.debug("the source %s cannot be loaded", scheme, exc_info=True)
        raise UnknownSource(f"{scheme}:", f"this source cannot be loaded ({type(error).__name__})") from error
    return made


def recognize(text: str, environ: Mapping[str, str]) -> str | None:
    """Return the short address that is meant, or None for a plain address or something else.

    Raises `UnknownSource` for an unknown scheme.
    """
    scheme = scheme_of(text)
    if not scheme:
        return None
    if scheme in BUCKETS or scheme == LFS:
        return None
    if scheme not in PLAIN:
        source_of(text)
        return text
    for each in schemes():
        try:
            short = _load(each).recognize(text, environ)
        except Exception:
            log.debug("the source %s cannot say whether it knows an address", each, exc_info=True)
            continue
        if short is not None:
            return short
    return None


async def resolve(address: str, web: Web, *, newest: bool = False) -> Resolved:
    """Return what a short address leads to, or the newest version of it.

    Raises `UnknownSource` or `SourceFailed`, whatever the source raises or returns.
    """
    source = source_of(address)
    try:
        found = await (source.newest if newest else source.resolve)(address, web)
        for file in found.files:
            for url in (file.url, *file.mirrors):
                check_address(url)
            check_source(file.source)
    except GrymFetchError:
        raise
    except ValueError as error:
        reason = f"the answer makes no sense: {safe_text(str(error))}"
        raise SourceFailed(_asked_last(web) or address, source.hub, reason) from error
    except Exception as error:
        log.debug("the source of %s failed", safe_text(address), exc_info=True)
        reason = f"the answer makes no sense ({type(error).__name__})"
        raise SourceFailed(_asked_last(web) or address, source.hub, reason) from error
    if not found.files:
        raise UnknownSource(address, "there are no files")
    return found


def _asked_last(web: Web) -> str:
    """The address whose answer is complained about, if it is known: it says more than a short address."""
    return str(getattr(web, "asked", ""))
