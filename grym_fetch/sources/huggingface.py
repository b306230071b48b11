"""Hugging Face: ``hf://[datasets/|spaces/]ORG/REPO[@REV][/FILE, FOLDER or PATTERN]``, and its pages.

Rules: a revision is first resolved to its commit, and every address contains the commit, so that the files fetched are
the files listed. The tree of that commit states the SHA-256 of large files, and for small ones the name that git gives
the content. The hub is `HF_ENDPOINT`. Only the parts of its API that `huggingface_hub` uses are
used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Self
from weakref import WeakKeyDictionary

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import SourceFailed, UnknownSource
from grym_fetch.core.nearest import as_path, nearest_names
from grym_fetch.core.stated import StatedDigest
from grym_fetch.sources.answers import HubAnswer, items
from grym_fetch.sources.choice import choose_paths, is_pattern, nearest_version, quoted, unquoted
from grym_fetch.sources.protocol import Page, Resolved, SourceFile, Web

HUB = "Hugging Face"
ENDPOINT = "https://huggingface.co"
MAX_PAGES = 100
"""The most pages of one tree; the hub lists a thousand files on each."""
MAX_FILES = 20_000
FORM = "hf://ORG/REPO, hf://ORG/REPO@REVISION/FILE, hf://datasets/ORG/REPO or hf://spaces/ORG/REPO"

_KINDS = ("models", "datasets", "spaces")
_NAME = r"[A-Za-z0-9_][\w.-]{0,95}"
_REVISION = r"refs/(?:pr/\d+|convert/[\w.-]+)|[^/@]+"
_SHORT = re.compile(
    rf"hf://(?:(?P<kind>models|datasets|spaces)/)?(?P<id>{_NAME}(?:/{_NAME})?)(?:@(?P<rev>{_REVISION}))?(?:/(?P<path>.*))?",
    re.ASCII,
)
_PAGE = re.compile(
    rf"/(?:(?P<kind>datasets|spaces)/)?(?P<id>{_NAME}/{_NAME})"
    rf"(?:/(?P<view>blob|tree)/(?P<rev>{_REVISION})(?:/(?P<path>[^?#]*))?)?/?(?:[?#].*)?",
    re.ASCII,
)
_COMMIT = r"[0-9a-f]{40}"


@dataclass(frozen=True, slots=True)
class _Place:
    """A parsed short address. ``kind`` is the word in the hub's addresses; ``path`` is still encoded."""

    kind: str
    id: str
    revision: str
    path: str

    @classmethod
    def read(cls, address: str) -> Self:
        """Parse a short address. Raises `UnknownSource`."""
        match = _SHORT.fullmatch(address)
        if match is None or (
            "/" not in match["id"] and not match["rev"] and "@" in (match["path"] or "").split("/")[0]
        ):
            # The second: what looks like a file of a repository without an owner is a name with an empty revision.
            raise UnknownSource(address, f"is not an address on {HUB}; allowed: {FORM}")
        try:
            revision = unquoted(match["rev"] or "main")
            unquoted(match["path"] or "")
        except ValueError:
            raise UnknownSource(address, "has a % that is not followed by UTF-8") from None
        return cls(match["kind"] or "models", match["id"], revision, match["path"] or "")

    @property
    def short_id(self) -> str:
        """Kind and id, as in a short address and in the address of a page."""
        return self.id if self.kind == "models" else f"{self.kind}/{self.id}"

    @property
    def quoted_revision(self) -> str:
        return quoted(self.revision).replace("/", "%2F").replace("@", "%40")

    def short(self, path: str = "") -> str:
        """The short address of one file, or of the repository at this revision."""
        behind = f"/{quoted(path)}" if path else ""
        return f"hf://{self.short_id}@{self.quoted_revision}{behind}"


class HuggingFace:
    """The source ``hf``."""

    hub = HUB

    def recognize(self, address: str, environ: Mapping[str, str], /) -> str | None:
        """Return the short address for the page of a repository, a folder or a file."""
        for endpoint in (_endpoint(environ), ENDPOINT, "https://hf.co", "https://www.huggingface.co"):
            if address.startswith(f"{endpoint}/"):
                match = _PAGE.fullmatch(address.removeprefix(endpoint))
                if match is None:
                    return None
                kind = f"{match['kind']}/" if match["kind"] else ""
                revision = match["rev"].replace("/", "%2F") if match["rev"] else ""
                return (
                    f"hf://{kind}{match['id']}"
                    + (f"@{revision}" if revision else "")
                    + (f"/{match['path'].rstrip('/')}" if match["path"] else "")
                )
        return None

    async def resolve(self, address: str, web: Web, /) -> Resolved:
        """Return the files at an address, at the commit that its revision refers to now."""
        return await _Repository(address, _Place.read(address), web).resolve()

    async def newest(self, address: str, web: Web, /) -> Resolved:
        """Return the same as `resolve`: a branch moves by itself."""
        return await self.resolve(address, web)


@dataclass(slots=True)
class _Trees:
    """The trees that were read of one repository at one revision, by their addresses. ``count``: files in all."""

    of: str
    files: dict[str, dict[str, SourceFile]] = field(default_factory=dict)
    count: int = 0


_LAST: WeakKeyDictionary[Web, _Trees] = WeakKeyDictionary()
"""What was read last over each connection: `outdated` asks for the files of a repository one by one."""


class _Repository:
    """One repository on the hub, asked for one address."""

    def __init__(self, address: str, place: _Place, web: Web) -> None:
        self._address = address
        self._place = place
        self._web = web
        self._endpoint = _endpoint(web.environ)

    async def resolve(self) -> Resolved:
        commit = await self._find_commit()
        place, wanted = self._place, self._place.path
        files: dict[str, SourceFile] = {}
        if wanted and not is_pattern(wanted):
            # One folder is enough if the file is in it: a dataset may have a million others.
            folder = unquoted(wanted).rpartition("/")[0]
            files = await self._tree(commit, folder)
        if not wanted or is_pattern(wanted) or unquoted(wanted) not in files:
            files = await self._tree(commit)
        chosen = choose_paths(wanted, list(files), self._address)
        name = place.id.rpartition("/")[2]
        return Resolved(name, commit, tuple(files[path] for path in chosen.paths), is_whole=chosen.is_whole)

    def _api(self, behind: str) -> str:
        return f"{self._endpoint}/api/{self._place.kind}/{self._place.id}{behind}"

    async def _find_commit(self) -> str:
        """Ask for the revision's commit and the repository's current name."""
        page = await self._web.get(self._api(f"/revision/{self._place.quoted_revision}?expand=sha&expand=gated"))
        if page.status != 200:
            raise await self._missing(page)
        answer = HubAnswer(page.json())
        # A renamed repository answers under its new name (by a redirect).
        self._place = replace(self._place, id=answer.text("id", f"{_NAME}(?:/{_NAME})?"))
        if answer.has("gated"):
            access = await self._web.get(self._api("/auth-check"))
            if access.status in (401, 403):
                raise self._gated(access)
        return answer.text("sha", _COMMIT)

    async def _tree(self, commit: str, folder: str | None = None) -> dict[str, SourceFile]:
        """The files of the repository, or only those in one folder ("": the top one); none if it does not exist."""
        below = f"/{quoted(folder)}" if folder else ""
        first = self._api(f"/tree/{commit}{below}?recursive={'true' if folder is None else 'false'}&expand=false")
        trees = _LAST.get(self._web)
        if trees is None or trees.of != self._place.short() or trees.count > MAX_FILES:
            trees = _LAST[self._web] = _Trees(self._place.short())
        if first not in trees.files:
            trees.files[first] = {file.path: file for file in await self._read_tree(first, commit, folder)}
            trees.count += len(trees.files[first])
        return trees.files[first]

    async def _read_tree(self, first: str, commit: str, folder: str | None) -> list[SourceFile]:
        url: str | None = first
        files: list[SourceFile] = []
        for _ in range(MAX_PAGES):
            assert url is not None
            page = await self._web.get(url)
            if page.status == 404 and folder:
                return []
            if page.status != 200:
                raise await self._missing(page)
            entries = items(page.json(), most=MAX_FILES)
            files += [self._file(entry, commit) for entry in entries if entry.text("type", "file|directory") == "file"]
            if len(files) > MAX_FILES:
                raise SourceFailed(page.url, HUB, f"more than {MAX_FILES} files; name a folder or a pattern")
            url = page.next_url
            if url is None:
                return files
        raise SourceFailed(self._api(""), HUB, f"the list of files has more than {MAX_PAGES} pages")

    def _file(self, entry: HubAnswer, commit: str) -> SourceFile:
        path, size = entry.text("path"), entry.size("size")
        url = f"{self._endpoint}/{self._place.short_id}/resolve/{commit}/{quoted(path)}"
        checksum = stated = None
        if entry.has("lfs"):
            lfs = entry.inner("lfs")
            checksum, size = Checksum("sha256", lfs.text("oid", "[0-9a-f]{64}")), lfs.size("size")
        elif not entry.has("xetHash"):  # with Xet, git has only a pointer, whose name says nothing about the content
            stated = StatedDigest("git-blob", entry.text("oid", _COMMIT), size)
        return SourceFile(path, url, self._place.short(path), size, checksum, stated)

    # -- what is not there ------------------------------------------------------------------------------------------

    async def _missing(self, page: Page) -> UnknownSource | SourceFailed:
        code = page.fields.get("x-error-code", "")
        if code == "GatedRepo":
            return self._gated(page)
        if code == "RevisionNotFound":
            revision = self._place.revision
            return UnknownSource(
                self._address,
                f"there is no revision {revision!r}",
                [
                    replace(self._place, revision=each).short()
                    for each in nearest_version(revision, await self._revisions())
                ],
            )
        if page.fields.get("x-error-message") == "Access to this resource is disabled.":
            return SourceFailed(page.url, HUB, "the hub has disabled this repository")
        if page.status == 401 and "invalid" in page.fields.get("x-error-message", "").lower():
            return SourceFailed(page.url, HUB, f"the token is not valid; {page.refusal}")
        if page.status not in (401, 403, 404):
            return SourceFailed(page.url, HUB, page.refusal)
        reason = "there is no such repository"
        if page.status in (401, 403):
            reason += f", or it is private: {page.refusal}"
        return UnknownSource(self._address, reason, await self._similar())

    def _gated(self, page: Page) -> SourceFailed:
        return SourceFailed(
            page.url,
            HUB,
            f"{page.reason}; {self._place.short_id} is gated: accept its conditions at "
            f"{self._endpoint}/{self._place.short_id}, then set HF_TOKEN to a token of that account, or log in with "
            "`hf auth login`",
        )

    async def _revisions(self) -> list[str]:
        """Branches and tags; empty if the hub does not answer."""
        with suppress(SourceFailed, ValueError):
            page = await self._web.get(self._api("/refs"))
            if page.status == 200:
                answer = HubAnswer(page.json())
                return [ref.text("name") for key in ("branches", "tags") for ref in answer.each(key, most=MAX_FILES)]
        return []

    async def _similar(self) -> list[str]:
        """Short addresses that may be meant: the same name with another kind, and similar names of the same owner."""
        place = self._place
        owner, slash, _ = place.id.partition("/")
        if f"{owner}s" in _KINDS and place.path:
            return [f"hf://{owner}s{self._address.removeprefix(f'hf://{owner}')}"]
        found = [
            replace(place, kind=kind)
            for kind in _KINDS
            if kind != place.kind and await self._exists(f"{self._endpoint}/api/{kind}/{place.id}")
        ]
        if slash:
            ids = await self._repositories(owner)
            found += [replace(place, id=each) for each in nearest_names(place.id, ids, forms=as_path)]
        return [f"hf://{each.short_id}" for each in found][:3]

    async def _exists(self, url: str) -> bool:
        with suppress(SourceFailed):
            return (await self._web.get(url)).status == 200
        return False

    async def _repositories(self, owner: str) -> Iterable[str]:
        with suppress(SourceFailed, ValueError):
            page = await self._web.get(f"{self._endpoint}/api/{self._place.kind}?author={quoted(owner)}&limit=500")
            if page.status == 200:
                return [entry.text("id") for entry in items(page.json(), most=MAX_FILES)]
        return []


def _endpoint(environ: Mapping[str, str]) -> str:
    return (environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")
