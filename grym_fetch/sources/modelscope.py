"""ModelScope: ``modelscope:ORG/REPO[@REVISION][/FILE, FOLDER or PATTERN]``, and its pages.

Rules: the list of a revision has for each file its SHA-256 and the commit that last changed it; the address names that
commit. Only what the hub's own client uses is used. The hub is `MODELSCOPE_ENDPOINT`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import SourceFailed, UnknownSource
from grym_fetch.sources.answers import HubAnswer
from grym_fetch.sources.choice import choose_paths, quoted, unquoted
from grym_fetch.sources.protocol import Resolved, SourceFile, Web

HUB = "ModelScope"
ENDPOINT = "https://modelscope.cn"
MAX_FILES = 20_000
FORM = "modelscope:ORG/REPO, modelscope:ORG/REPO@REVISION or modelscope:ORG/REPO/FILE"
_NAME = r"[A-Za-z0-9_.-]{1,100}"
_SHORT = re.compile(
    rf"modelscope:(?://)?(?P<id>{_NAME}/{_NAME})(?:@(?P<rev>[A-Za-z0-9_.%-]{{1,200}}))?(?:/(?P<path>.*))?", re.ASCII
)
_PAGE = re.compile(
    rf"/models/(?P<id>{_NAME}/{_NAME})(?:/(?:summary|files|file/view/(?P<rev>[^/?#]+)/(?P<path>[^?#]+)))?/?(?:[?#].*)?",
    re.ASCII,
)


class ModelScope:
    """The source ``modelscope``."""

    hub = HUB

    def recognize(self, address: str, environ: Mapping[str, str], /) -> str | None:
        """Return the short address for the page of a model or a file."""
        for endpoint in (_endpoint(environ), ENDPOINT, "https://www.modelscope.cn"):
            if (match := _PAGE.fullmatch(address.removeprefix(endpoint))) is not None:
                return (
                    f"modelscope:{match['id']}"
                    + (f"@{match['rev']}" if match["rev"] else "")
                    + (f"/{match['path'].rstrip('/')}" if match["path"] else "")
                )
        return None

    async def resolve(self, address: str, web: Web, /) -> Resolved:
        """Return the files of a revision."""
        match = _SHORT.fullmatch(address)
        if match is None:
            raise UnknownSource(address, f"is not an address on {HUB}; allowed: {FORM}")
        try:
            revision, wanted = unquoted(match["rev"] or "master"), match["path"] or ""
            unquoted(wanted)
        except ValueError:
            raise UnknownSource(address, "has a % that is not followed by UTF-8") from None
        base = _endpoint(web.environ)
        asked = f"Revision={quote(revision, safe='')}&Recursive=true"
        page = await web.get(f"{base}/api/v1/models/{match['id']}/repo/files?{asked}")
        if page.status == 404:
            raise UnknownSource(address, "there is no such repository or revision, or it is private")
        if page.status != 200:
            raise SourceFailed(page.url, HUB, page.refusal)
        answer = HubAnswer(page.json())
        if answer.has("Code") and answer.number("Code") != 200:
            raise UnknownSource(address, "there is no such repository or revision, or it is private")
        short = f"modelscope:{match['id']}@{quote(revision, safe='')}"
        entries = answer.inner("Data").each("Files", most=MAX_FILES)
        files = {
            file.path: file
            for file in (_file(entry, f"{base}/models/{match['id']}", short) for entry in entries)
            if file is not None
        }
        chosen = choose_paths(wanted, list(files), address)
        name = match["id"].partition("/")[2]
        return Resolved(name, revision, tuple(files[path] for path in chosen.paths), is_whole=chosen.is_whole)

    async def newest(self, address: str, web: Web, /) -> Resolved:
        """Return the same as `resolve`: a branch moves by itself."""
        return await self.resolve(address, web)


def _file(entry: HubAnswer, base: str, short: str) -> SourceFile | None:
    """One file; None for a folder."""
    if entry.text("Type", "blob|tree") == "tree":
        return None
    path = entry.text("Path")
    commit = entry.text("Revision", "[0-9a-f]{40}")
    checksum = Checksum("sha256", entry.text("Sha256", "[0-9a-f]{64}")) if entry.has("Sha256") else None
    return SourceFile(
        path, f"{base}/resolve/{commit}/{quoted(path)}", f"{short}/{quoted(path)}", entry.size("Size"), checksum
    )


def _endpoint(environ: Mapping[str, str]) -> str:
    return (environ.get("MODELSCOPE_ENDPOINT") or ENDPOINT).rstrip("/")
