"""Which sources there are, and which of them an address belongs to.

Rules: all sources, ours and others, are entry points in the group ``grym_fetch.sources``; a scheme is the name of its
entry point. A source is imported when an address needs it. If it cannot be imported, or raises an error that it should
not, only that source fails, and the error names it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol, runtime_checkable

from grym_fetch.core.buckets import SCHEMES as BUCKETS
from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import SourceFailed, UnknownSource
from grym_fetch.core.lfs_addresses import SCHEME as LFS
from grym_fetch.core.manifest_values import MAX_SIZE_BYTES, check_address, check_label, check_source
from grym_fetch.core.nearest import nearest_names
from grym_fetch.core.stated import StatedDigest
from grym_fetch.core.text import safe_text
from grym_fetch.sources.answers import HubRefusal
from grym_fetch.sources.protocol import AssetSource, Resolved, SourceFile, Web

log = logging.getLogger(__name__)


@runtime_checkable
class HidesSecrets(Protocol):
    """A `Web` that knows what it has sent. One of somebody's tests need not."""

    def hide_in(self, error: Exception) -> None:
        """Remove the secrets that were sent from what an error says."""


GROUP = "grym_fetch.sources"
PLAIN = ("http", "https")
_LISTED = (*PLAIN, *BUCKETS, LFS)
"""Schemes of addresses that stand in a manifest as they are."""
_OTHERS_SAY = {
    "abfs": "az",
    "abfss": "az",
    "azure": "az",
    "docker": "oci",
    "gh": "github",
    "huggingface": "hf",
    "ms": "modelscope",
}
"""What other programs and people call some of them."""
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
        if scheme == "file":
            raise UnknownSource(address, "a file is named by its path, and --url says where others can fetch it")
        meant = _OTHERS_SAY.get(scheme)
        near = [meant] if meant is not None else nearest_names(scheme, [*known, *_LISTED], most=1)
        shown = ", ".join(f"{each}:" for each in [*known, *_LISTED])
        reason = f"there is no source {scheme + ':'!r}; known are {shown}"
        raise UnknownSource(address, reason, [f"{each}:" for each in near])
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
        return scheme + text[len(scheme) :]
    known = schemes()
    for each in known:
        try:
            short = _load(each).recognize(text, environ)
        except Exception:
            log.debug("the source %s cannot say whether it knows an address", each, exc_info=True)
            continue
        if isinstance(short, str) and scheme_of(short) in known:
            return short
    return None


async def resolve(address: str, web: Web, *, newest: bool = False) -> Resolved:
    """Return what a short address leads to, or the newest version of it.

    Raises `UnknownSource` or `SourceFailed`, whatever the source raises or returns.
    """
    source = source_of(address)
    try:
        found = await (source.newest if newest else source.resolve)(address, web)
        _check(found)
    except (UnknownSource, SourceFailed) as error:
        _hide_secrets(web, error)
        raise
    except ValueError as error:
        _hide_secrets(web, error)
        what = "it refuses" if isinstance(error, HubRefusal) else "the answer makes no sense"
        reason = f"{what}: {safe_text(str(error))}"
        raise SourceFailed(_asked_last(web) or address, hub_of(source, address), reason) from error
    except Exception as error:
        _hide_secrets(web, error)
        log.debug("the source of %s failed", safe_text(address), exc_info=True)
        reason = f"the answer makes no sense ({type(error).__name__})"
        raise SourceFailed(_asked_last(web) or address, hub_of(source, address), reason) from error
    if not found.files:
        raise UnknownSource(address, "there are no files")
    return found


def _check(found: object) -> None:
    """Raise `TypeError` or `ValueError` unless a source has returned what it should: it may be somebody else's."""
    if not isinstance(found, Resolved) or not isinstance(found.files, tuple):
        raise TypeError("not a Resolved with a tuple of files")
    check_label(found.name)
    check_label(found.revision)
    for file in found.files:
        if not isinstance(file, SourceFile) or not isinstance(file.mirrors, tuple):
            raise TypeError("not a SourceFile")
        if not isinstance(file.checksum, Checksum | None) or not isinstance(file.stated, StatedDigest | None):
            raise TypeError("not a digest")
        if file.size is not None and (type(file.size) is not int or not 0 <= file.size <= MAX_SIZE_BYTES):
            raise ValueError("the size of a file is not a number of bytes")
        check_label(file.path)
        for url in (file.url, *file.mirrors):
            check_address(url)
        check_source(file.source)


def hub_of(source: AssetSource, address: str) -> str:
    """The name of a source's hub, for messages: its scheme if it has no proper one."""
    try:
        return safe_text(check_label(source.hub))
    except Exception:
        log.debug("the source of %s has no proper name", safe_text(address), exc_info=True)
        return f"the source {scheme_of(address)}"


def _hide_secrets(web: Web, error: Exception) -> None:
    """A source quotes what its hub says, which may be what it was sent."""
    if isinstance(web, HidesSecrets):
        web.hide_in(error)


def _asked_last(web: Web) -> str:
    """The address whose answer is complained about, if it is known: it says more than a short address."""
    return str(getattr(web, "asked", ""))
