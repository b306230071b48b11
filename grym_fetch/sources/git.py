"""Asks a git server what a commit has, without git: its version 2 of the protocol, over https (gitprotocol-v2).

Rules: two questions are enough: what a name refers to, and the commit itself, alone, with its folders and with the
files that may be pointers of Git LFS. Large files that git itself stores are not sent, if the server knows how to leave
them out. A repository whose objects are named by SHA-256 is asked as one: each question says which names are meant.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from grym_fetch.core.errors import SourceFailed
from grym_fetch.core.suspicion import MAX_POINTER_BYTES
from grym_fetch.sources.git_pack import (
    DELIMITER,
    FLUSH,
    GitFile,
    files_of,
    hash_named_like,
    pack_in,
    packet,
    read_pack,
    read_refs,
)
from grym_fetch.sources.protocol import Page, Web

HUB = "the git server"
MAX_SENT_BYTES = MAX_POINTER_BYTES
"""Files of up to this many bytes are sent with a commit."""
_ASKED = "application/x-git-upload-pack-request"
_NAMES_ARE = "object-format={}"
_ANSWERED = "application/x-git-upload-pack-result"


@dataclass(frozen=True, slots=True)
class GitCommit:
    """The files of a commit, and the content of those that were sent, by the name of the content."""

    name: str
    files: tuple[GitFile, ...]
    contents: dict[str, bytes]


class GitRefused(Exception):
    """The server has no such repository, or does not let us read it."""

    def __init__(self, page: Page) -> None:
        super().__init__(page)
        self.page = page


async def list_refs(repository: str, web: Web, *prefixes: str) -> dict[str, tuple[str, str]]:
    """Return the commits of the names with one of these beginnings. Raises `GitRefused` or `SourceFailed`."""
    about = [None, "peel", "symrefs", *(f"ref-prefix {each}" for each in prefixes)]
    body = await _ask(repository, web, ["command=ls-refs", *about])
    if not body:
        # git's own server says nothing at all to a question about names of the other kind.
        body = await _ask(repository, web, ["command=ls-refs", _NAMES_ARE.format("sha256"), *about])
    return read_refs(body)


async def read_commit(repository: str, web: Web, commit: str) -> GitCommit:
    """Return what a commit has. Raises `GitRefused`, `SourceFailed`, or `ValueError` for an answer without sense."""
    hash_name = hash_named_like(commit)
    about_names = [_NAMES_ARE.format(hash_name)] if hash_name != "sha1" else []
    lines = ["command=fetch", *about_names, None, "no-progress", f"want {commit}", "deepen 1"]
    small = f"filter blob:limit={MAX_SENT_BYTES + 1}"
    pack = None
    with suppress(ValueError):
        pack = pack_in(await _ask(repository, web, [*lines, small, "done"]))
    if pack is None:
        # A server that cannot leave files out says so, or only breaks off.
        pack = pack_in(await _ask(repository, web, [*lines, "done"]))
    objects = read_pack(pack, hash_name)
    contents = {name: content for name, (kind, content) in objects.items() if kind == "blob"}
    return GitCommit(commit, tuple(files_of(commit, objects)), contents)


async def _ask(repository: str, web: Web, lines: list[str | None]) -> bytes:
    """Ask for a command; None separates its name from what it is about."""
    body = b"".join(DELIMITER if line is None else packet(line) for line in lines) + FLUSH
    page = await web.post(
        f"{repository}/git-upload-pack",
        body,
        accept=_ANSWERED,
        fields={"Content-Type": _ASKED, "Git-Protocol": "version=2"},
    )
    if page.status != 200:
        raise GitRefused(page)
    if page.fields.get("content-type", "").partition(";")[0] != _ANSWERED:
        raise SourceFailed(page.url, HUB, "the answer is not one of git's: is this the address of a repository?")
    return page.body
