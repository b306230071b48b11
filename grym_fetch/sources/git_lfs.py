"""Files in Git LFS, of any git server: ``git-lfs:https://HOST/OWNER/REPO[@REVISION][/FILE, FOLDER or PATTERN]``.

Rules: the commit that a revision refers to now is read from the git server itself, and the SHA-256 and size of each
file from its pointer there, so that they are as good as the commit's name. Where the bytes are is asked when they are
fetched: the address ``lfs://…`` names the content and its server. GitHub and GitLab also have plain addresses for
public repositories, which then come first. The server is the one in the repository's `.lfsconfig`, or else the usual.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Self
from weakref import WeakKeyDictionary

from grym_fetch.core.errors import SourceFailed, UnknownSource
from grym_fetch.core.lfs import server_at, server_of_repository
from grym_fetch.core.lfs_addresses import LfsAddress
from grym_fetch.core.suspicion import read_pointer
from grym_fetch.sources.answers import HubRefusal
from grym_fetch.sources.choice import choose_paths, nearest_version, quoted, unquoted
from grym_fetch.sources.git import HUB, MAX_SENT_BYTES, GitCommit, GitRefused, list_refs, read_commit
from grym_fetch.sources.git_pack import is_commit_name
from grym_fetch.sources.protocol import Resolved, SourceFile, Web

SCHEME = "git-lfs"
FORM = "git-lfs:https://HOST/OWNER/REPO, git-lfs:https://HOST/OWNER/REPO@REVISION/FILE or …/REPO.git/FILE"

_SHORT = re.compile(r"git-lfs:(?P<host>https?://[^/@?#\s]+/)(?P<below>[^#\s]+)")
_NAMED_GIT = re.compile(r"[^@]+?\.git(?=[@/]|\Z)")
_ON_GITHUB = re.compile(r"https://(?:www\.)?github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?", re.ASCII)
_GITHUB = re.compile(
    r"https://(?:www\.)?github\.com/(?P<repo>[\w.-]+/[\w.-]+)/blob/(?P<rev>[^/?#]+)/(?P<path>[^?#]+)", re.ASCII
)
_GITLAB = re.compile(r"https://(?P<repo>[^/@?#\s]+/[^?#\s@]+?)/-/blob/(?P<rev>[^/?#]+)/(?P<path>[^?#]+)")


@dataclass(frozen=True, slots=True)
class _LfsPlace:
    """A parsed short address. ``path`` is still encoded; ``revision`` is empty for the usual branch."""

    repository: str
    revision: str
    path: str

    @classmethod
    def read(cls, address: str) -> Self:
        """Parse a short address. Raises `UnknownSource`."""
        match = _SHORT.fullmatch(address)
        below = match["below"].strip("/") if match is not None else ""
        if (named := _NAMED_GIT.match(below)) is not None:
            end = named.end()
        elif "@" in below:
            end = below.index("@")
        else:
            end = len("/".join(below.split("/")[:2]))
        repository, rest = below[:end], below[end:]
        revision, _, path = rest[1:].partition("/") if rest.startswith("@") else ("", "", rest[1:])
        if match is None or not repository or (rest.startswith("@") and not revision):
            raise UnknownSource(address, f"is not a repository with files in Git LFS; allowed: {FORM}")
        try:
            server_at(match["host"] + repository)
        except ValueError as error:
            raise UnknownSource(address, str(error)) from None
        try:
            unquoted(path)
            return cls(match["host"] + repository, unquoted(revision), path)
        except ValueError:
            raise UnknownSource(address, "has a % that is not followed by UTF-8") from None

    @property
    def name(self) -> str:
        """The last part of the repository's name."""
        return self.repository.rpartition("/")[2].removesuffix(".git")

    def short(self, revision: str, path: str = "") -> str:
        """The short address of one file, or of the repository, at a revision."""
        encoded = quoted(revision).replace("/", "%2F").replace("@", "%40")
        return f"git-lfs:{self.repository}@{encoded}" + (f"/{quoted(path)}" if path else "")


class GitLfs:
    """The source ``git-lfs``."""

    hub = HUB

    def recognize(self, address: str, environ: Mapping[str, str], /) -> str | None:  # noqa: ARG002 - the Protocol's
        """Return the short address for the page of a file on GitHub or a GitLab."""
        if (match := _GITHUB.fullmatch(address.partition("?")[0].partition("#")[0])) is not None:
            return f"git-lfs:https://github.com/{match['repo']}@{match['rev']}/{match['path']}"
        if (match := _GITLAB.fullmatch(address.partition("?")[0].partition("#")[0])) is not None:
            return f"git-lfs:https://{match['repo']}.git@{match['rev']}/{match['path']}"
        return None

    async def resolve(self, address: str, web: Web, /) -> Resolved:
        """Return the files in Git LFS at an address, at the commit that its revision refers to now."""
        try:
            return await _LfsRepository(address, _LfsPlace.read(address), web).resolve()
        except GitRefused as refused:
            if refused.page.status in (401, 403, 404):
                reason = f"there is no such repository, or it is private: {refused.page.refusal}"
                raise UnknownSource(address, reason) from None
            raise SourceFailed(refused.page.url, HUB, refused.page.refusal) from None

    async def newest(self, address: str, web: Web, /) -> Resolved:
        """Return the same as `resolve`: a branch moves by itself."""
        return await self.resolve(address, web)


def pointed_at(address: str, oid: str, size: int) -> str:
    """Return the address of the content of a pointer that is in the repository with this short address.

    Raises `UnknownSource`.
    """
    return str(LfsAddress(server_of_repository(_LfsPlace.read(address).repository), oid, size))


@dataclass(frozen=True, slots=True)
class _Read:
    """What was read of one commit of a repository."""

    repository: str
    revision: str
    commit: GitCommit
    files: Mapping[str, SourceFile]


_LAST: WeakKeyDictionary[Web, _Read] = WeakKeyDictionary()
"""What was read last over each connection: `outdated` asks for the files of a repository one by one."""


class _LfsRepository:
    """One repository, asked for one address."""

    def __init__(self, address: str, place: _LfsPlace, web: Web) -> None:
        self._address = address
        self._place = place
        self._web = web

    async def resolve(self) -> Resolved:
        place = self._place
        revision, commit_name = await self._find_commit()
        known = _LAST.get(self._web)
        if known is None or (known.repository, known.revision, known.commit.name) != (
            place.repository,
            revision,
            commit_name,
        ):
            commit = await self._read_commit(commit_name)
            known = _LAST[self._web] = _Read(place.repository, revision, commit, self._pointers(commit, revision))
        commit, files = known.commit, known.files
        self._refuse_ordinary(commit, files)
        chosen = choose_paths(place.path, list(files), self._address)
        found = tuple(files[path] for path in chosen.paths)
        return Resolved(place.name, commit_name, found, is_whole=chosen.is_whole)

    async def _read_commit(self, name: str) -> GitCommit:
        try:
            return await read_commit(self._place.repository, self._web, name)
        except HubRefusal as refusal:
            if "not our ref" in str(refusal):
                raise UnknownSource(self._address, f"there is no commit {name}") from None
            raise

    def _pointers(self, commit: GitCommit, revision: str) -> dict[str, SourceFile]:
        """The files that a commit has in Git LFS, by their paths."""
        place, server = self._place, self._server(commit)
        files: dict[str, SourceFile] = {}
        for file in commit.files:
            content = commit.contents.get(file.oid, b"")
            if (pointer := read_pointer(content, len(content))) is not None:
                checksum, size = pointer
                listed = str(LfsAddress(server, checksum.hexdigest, size))
                plain = _plain_address(place.repository, commit.name, file.path)
                files[file.path] = SourceFile(
                    file.path,
                    plain or listed,
                    place.short(revision, file.path),
                    size,
                    checksum,
                    mirrors=(listed,) if plain is not None else (),
                )
        return files

    async def _find_commit(self) -> tuple[str, str]:
        """The revision as it is written into sources, and its commit. Raises `UnknownSource` with the nearest."""
        repository, wanted = self._place.repository, self._place.revision
        if is_commit_name(wanted):
            return wanted, wanted
        asked = [f"refs/heads/{wanted}", f"refs/tags/{wanted}"] if wanted else ["HEAD"]
        refs = await list_refs(repository, self._web, *asked)
        for name in asked:
            if name in refs:
                commit, target = refs[name]
                return wanted or target.removeprefix("refs/heads/") or commit, commit
        if not wanted:
            raise UnknownSource(self._address, "this repository has no commits")
        every = await list_refs(repository, self._web, "refs/heads/", "refs/tags/")
        names = [name.split("/", 2)[2] for name in every if name.count("/") >= 2]
        near = [self._place.short(each) for each in nearest_version(wanted, names)]
        raise UnknownSource(self._address, f"there is no revision {wanted!r}", near)

    def _server(self, commit: GitCommit) -> str:
        """The repository's Git LFS server (`docs/api/server-discovery.md`)."""
        content = next((commit.contents.get(file.oid) for file in commit.files if file.path == ".lfsconfig"), b"")
        if content is None or len(content) > MAX_SENT_BYTES:
            # Not the usual server then: that may be another one, with other files.
            reason = f"its .lfsconfig, which may name another server, is longer than {MAX_SENT_BYTES:,} bytes"
            raise SourceFailed(self._place.repository, HUB, reason)
        if content:
            parser = configparser.ConfigParser(interpolation=None, strict=False, allow_no_value=True)
            with suppress(configparser.Error, UnicodeDecodeError):
                parser.read_string("\n".join(line.strip() for line in content.decode().splitlines()))
            if url := (parser.get("lfs", "url", fallback="") or "").strip().strip('"'):
                try:
                    return server_at(url)
                except ValueError as error:
                    reason = f"the lfs.url in its .lfsconfig {error}"
                    raise SourceFailed(self._place.repository, HUB, reason) from None
        return server_of_repository(self._place.repository)

    def _refuse_ordinary(self, commit: GitCommit, files: Mapping[str, SourceFile]) -> None:
        """Raise `UnknownSource` if the file that is named is one of git itself, or if there are no others."""
        wanted = unquoted(self._place.path)
        if wanted not in files and any(file.path == wanted for file in commit.files):
            raw = _raw_address(self._place.repository, commit.name, wanted)
            reason = f"{wanted!r} is in git itself, not in Git LFS: name its plain address"
            raise UnknownSource(self._address, reason, [raw] if raw is not None else [])
        if not files:
            raise UnknownSource(self._address, "this commit has no files in Git LFS")


def _plain_address(repository: str, commit: str, path: str) -> str | None:
    """The plain address of the content of a pointer in a public repository, where there is one."""
    if (found := _ON_GITHUB.fullmatch(repository)) is not None:
        return f"https://media.githubusercontent.com/media/{found[1]}/{commit}/{quoted(path)}"
    return _raw_address(repository, commit, path)  # of a pointer, GitLab sends the content


def _raw_address(repository: str, commit: str, path: str) -> str | None:
    """The plain address of a file that git itself has, where there is one."""
    if (found := _ON_GITHUB.fullmatch(repository)) is not None:
        return f"https://raw.githubusercontent.com/{found[1]}/{commit}/{quoted(path)}"
    if repository.startswith("https://gitlab.com/"):
        return f"{repository.removesuffix('.git')}/-/raw/{commit}/{quoted(path)}"
    return None
