"""Releases on GitHub: ``github:OWNER/REPO[@TAG][/ASSET or PATTERN]``, and the page of a release.

Rules: without a tag, the latest release that is not a draft or a pre-release is used, as the API says. An asset's
``digest`` is its SHA-256; assets uploaded before June 2025 have none. `GITHUB_API_URL` names the API, as in GitHub
Actions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import SourceFailed, UnknownSource
from grym_fetch.core.nearest import as_path, nearest_names
from grym_fetch.sources.answers import HubAnswer, items
from grym_fetch.sources.choice import choose_paths, nearest_version, quoted, unquoted
from grym_fetch.sources.protocol import Page, Resolved, SourceFile, Web

HUB = "GitHub"
API = "https://api.github.com"
MAX_ASSETS = 1000
"""The most assets in a release, as GitHub itself allows."""
FORM = "github:OWNER/REPO@TAG/ASSET, github:OWNER/REPO@TAG or github:OWNER/REPO"

_NAME = r"[A-Za-z0-9_.-]{1,100}"
_SHORT = re.compile(rf"github:(?://)?(?P<repo>{_NAME}/{_NAME})(?:@(?P<tag>[^/@]+))?(?:/(?P<path>[^/]*))?", re.ASCII)
_PAGE = re.compile(
    rf"https://(?:www\.)?github\.com/(?P<repo>{_NAME}/{_NAME})/releases"
    r"(?:/(?:tag/(?P<tag>[^/?#@]+)|latest))?/?(?:[?#].*)?",
    re.ASCII,
)


class GitHub:
    """The source ``github``."""

    hub = HUB

    def recognize(self, address: str, environ: Mapping[str, str], /) -> str | None:  # noqa: ARG002 - the Protocol's
        """Return the short address for the page of a release."""
        match = _PAGE.fullmatch(address)
        if match is None:
            return None
        return f"github:{match['repo']}" + (f"@{match['tag']}" if match["tag"] else "")

    async def resolve(self, address: str, web: Web, /) -> Resolved:
        """Return the assets of a release."""
        repository, tag, wanted = _read(address)
        return await _Releases(address, repository, web).resolve(tag, wanted)

    async def newest(self, address: str, web: Web, /) -> Resolved:
        """Return the asset of the same name in the latest release."""
        repository, _, wanted = _read(address)
        return await _Releases(address, repository, web).resolve(None, wanted)


def _read(address: str) -> tuple[str, str | None, str]:
    """The repository, the tag, and the wanted assets, still encoded. Raises `UnknownSource`."""
    match = _SHORT.fullmatch(address)
    if match is None:
        raise UnknownSource(address, f"is not an address on {HUB}; allowed: {FORM}")
    try:
        unquoted(match["path"] or "")
        tag = unquoted(match["tag"]) if match["tag"] else None
    except ValueError:
        raise UnknownSource(address, "has a % that is not followed by UTF-8") from None
    return match["repo"], tag, match["path"] or ""


class _Releases:
    """The releases of one repository, asked for one address."""

    def __init__(self, address: str, repository: str, web: Web) -> None:
        self._address = address
        self._repository = repository
        self._web = web
        self._api = (web.environ.get("GITHUB_API_URL") or API).rstrip("/")

    async def resolve(self, tag: str | None, wanted: str) -> Resolved:
        which = "latest" if tag is None else f"tags/{_encoded(tag)}"
        page = await self._web.get(f"{self._api}/repos/{self._repository}/releases/{which}")
        if page.status != 200:
            raise await self._missing(page, tag)
        release = HubAnswer(page.json())
        found = release.text("tag_name")
        assets = release.each("assets", most=MAX_ASSETS)
        files = {file.path: file for file in (self._file(asset, found) for asset in assets)}
        chosen = choose_paths(wanted, list(files), self._address)
        name = self._repository.partition("/")[2]
        return Resolved(name, found, tuple(files[path] for path in chosen.paths), is_whole=chosen.is_whole)

    def _file(self, asset: HubAnswer, tag: str) -> SourceFile:
        name = asset.text("name", r"[^/\0]{1,1000}")
        checksum = None
        if asset.has("digest") and (digest := asset.text("digest")).startswith("sha256:"):
            checksum = Checksum.parse(digest)
        source = f"github:{self._repository}@{_encoded(tag)}/{quoted(name)}"
        return SourceFile(name, asset.url("browser_download_url"), source, asset.size("size"), checksum)

    async def _missing(self, page: Page, tag: str | None) -> UnknownSource | SourceFailed:
        if page.status != 404:
            return SourceFailed(page.url, HUB, page.refusal)
        exists = await self._names(f"/repos/{self._repository}/releases?per_page=100", "tag_name")
        if exists is not None:
            if not exists:
                return UnknownSource(self._address, "this repository has no releases with files")
            reason = "there is no latest release" if tag is None else f"there is no release {tag!r}"
            near = nearest_version(tag or "", exists)
            return UnknownSource(
                self._address, reason, [f"github:{self._repository}@{_encoded(each)}" for each in near]
            )
        owner = self._repository.partition("/")[0]
        known = await self._names(f"/users/{owner}/repos?per_page=100", "full_name") or []
        near = [f"github:{each}" for each in nearest_names(self._repository, known, forms=as_path)]
        return UnknownSource(self._address, f"there is no such repository, or it is private: {page.refusal}", near)

    async def _names(self, behind: str, key: str) -> list[str] | None:
        """The names in a list from the API; None if it does not answer."""
        with suppress(SourceFailed, ValueError):
            page = await self._web.get(f"{self._api}{behind}")
            if page.status == 200:
                return [item.text(key) for item in items(page.json(), most=MAX_ASSETS)]
        return None


def _encoded(tag: str) -> str:
    return quoted(tag).replace("/", "%2F").replace("@", "%40")
