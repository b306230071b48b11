"""What a source is: it turns a short address (``hf://org/repo/file``) into files with plain addresses.

Rules: a source asks its hub only through `Web`. `resolve` and `newest` raise `UnknownSource` or `SourceFailed`; any
other exception of theirs becomes a `SourceFailed`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from yarl import URL

from grym_fetch.core.digest import Checksum
from grym_fetch.core.stated import StatedDigest
from grym_fetch.core.strict_json import read_json

MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""The most bytes in one answer of a hub."""
_NEXT = re.compile(r"<([^<>]{1,8192})>\s*;(?:[^,<>]*;)?\s*rel=\"?next\"?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file that a short address leads to.

    ``path`` is its path in the repository, ``url`` its plain address, ``source`` the short address of this file alone,
    which is asked again for newer versions. ``size`` in bytes. ``checksum`` is the digest that the hub states, if a
    manifest accepts it; otherwise it is ``stated``. A file without a checksum is measured when it is added. ``mirrors``
    are further addresses of the same bytes.
    """

    path: str
    url: str
    source: str
    size: int | None = None
    checksum: Checksum | None = None
    stated: StatedDigest | None = None
    mirrors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ListedFile:
    """One file in a list that another tool has written. ``name`` may have folders; the best of ``urls`` is first."""

    name: str
    urls: tuple[str, ...] = ()
    size: int | None = None
    checksum: Checksum | None = None
    stated: StatedDigest | None = None


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a short address leads to now. ``name`` is the repository's name, ``revision`` its version: the
    exact one, if the hub tells it.

    ``is_whole``: the address named the repository, a folder or a pattern, not a single file.
    """

    name: str
    revision: str
    files: tuple[SourceFile, ...]
    is_whole: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """A hub's answer. ``status`` is 200, or says that something does not exist or is not allowed.

    ``url`` is its address; after a GET, where redirects have led. ``fields`` are the header fields, names in lower
    case. ``refusal`` says why the status is not 200, and what to do about it; ``reason`` is only why.
    """

    url: str
    status: int = 200
    fields: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)
    refusal: str = ""
    reason: str = ""

    def json(self) -> object:
        """Read the body as strict JSON. Raises `ValueError`."""
        file = read_json(self.body, max_bytes=MAX_ANSWER_BYTES)
        if file.problems:
            place, problem = file.problems[0]
            raise ValueError(f"{'.'.join(map(str, place))} {problem}")
        return file.value

    @property
    def next_url(self) -> str | None:
        """The address of the next page, from the ``Link`` field (RFC 8288), or None.

        Raises `ValueError` if it is not of the same origin as this one.
        """
        found = _NEXT.search(self.fields.get("link", ""))
        if found is None:
            return None
        here = URL(self.url, encoded=True)
        there = here.join(URL(found[1], encoded=True))
        if there.origin() != here.origin():
            raise ValueError("the next page is on another host")
        return str(there)


class Web(Protocol):
    """A source's access to the network."""

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment variables."""

    async def get(self, url: str, *, accept: str = "") -> Page:
        """Ask for an address, with the token that belongs to its host, following redirects.

        ``accept``: the media types to ask for, as in the field ``Accept``, if not any.

        A page may also say that something is not there or not allowed (statuses such as 401 and 404). Any other failure
        is a `SourceFailed`.
        """

    async def post(self, url: str, body: bytes, *, accept: str = "", fields: Mapping[str, str] | None = None) -> Page:
        """Ask a question with a POST, which may be repeated. The rest is as for `get`.

        ``fields``: further header fields, such as ``Content-Type``. A transport that cannot send a POST is a
        `SourceFailed`.
        """


class AssetSource(Protocol):
    """Turns short addresses into files.

    An entry point in the group ``grym_fetch.sources`` has the scheme as its name, and leads to a class of such objects,
    which is called without arguments.
    """

    @property
    def hub(self) -> str:
        """The hub's name, for messages."""

    def recognize(self, address: str, environ: Mapping[str, str], /) -> str | None:
        """Return the short address for one of this hub's pages, or None if it is not one.

        Called with http and https addresses.
        """

    async def resolve(self, address: str, web: Web, /) -> Resolved:
        """Return what a short address leads to; or fail with `UnknownSource` or `SourceFailed`."""

    async def newest(self, address: str, web: Web, /) -> Resolved:
        """Return the newest version of the file at a short address: for most hubs, the same as `resolve`.

        Called with an asset's ``source``.
        """
