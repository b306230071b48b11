"""Hubs on loopback: imitations of what `grym_fetch.sources` asks, as far as it asks.

`HuggingFaceHub` is good enough for `huggingface_hub` itself, as a test checks. The bytes of large files come
from another server, as from a CDN, so that a token sent there is noticed.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit


@dataclass(frozen=True)
class Reply:
    """An answer. ``Content-Length`` is added."""

    status: int = 200
    body: bytes = b""
    fields: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, value: object, **fields: str) -> Reply:
        """A value as JSON."""
        return cls(200, json.dumps(value).encode(), {"Content-Type": "application/json", **fields})


@dataclass(frozen=True)
class HubRequest:
    """A request: ``path`` is decoded, ``target`` as it came."""

    method: str
    target: str
    fields: Mapping[str, str]

    @property
    def path(self) -> str:
        """The path, decoded."""
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, str]:
        """The last value of each key."""
        return {key: values[-1] for key, values in parse_qs(urlsplit(self.target).query).items()}


class LoopbackServer:
    """Answers with what ``answer`` returns, in threads. ``requests`` has everything that came."""

    def __init__(self, answer: Callable[[HubRequest], Reply]) -> None:
        self.requests: list[HubRequest] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body in one packet: otherwise the second waits for the first to be acknowledged

            def do_GET(self) -> None:
                request = HubRequest(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
                owner.requests.append(request)
                reply = answer(request)
                self.send_response_only(reply.status)
                for name, value in {"Content-Length": str(len(reply.body)), **reply.fields}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(reply.body)

            do_HEAD = do_GET  # noqa: N815 - the name that the standard library looks for

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def url(self) -> str:
        """The address, without a slash at the end."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def git_blob(content: bytes) -> str:
    """Git's digest of this content."""
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()


def ranged(request: HubRequest, content: bytes, **fields: str) -> Reply:
    """The content, or the requested range of it."""
    wanted = request.fields.get("range", "")
    if not wanted.startswith("bytes=") or not content:
        return Reply(200, content, fields)
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    part = content[int(first) : int(last) + 1]
    where = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
    return Reply(206, part, {**fields, "Content-Range": where})


@dataclass
class HubRepository:
    """A repository. ``versions`` has the files of each commit, ``branches`` the commit for each name."""

    versions: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False

    def commit(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Replace all files by these; return the commit."""
        name = hashlib.sha1(repr((sorted(files.items()), len(self.versions))).encode()).hexdigest()
        self.versions[name] = dict(files)
        self.branches[branch] = name
        return name


class HuggingFaceHub:
    """The parts of the Hub's API that a client reads. Files whose name ends in one of ``large`` are in LFS storage.

    ``override`` answers first, if it returns anything.
    """

    def __init__(
        self, *, page_size: int = 1000, token: str = "", large: tuple[str, ...] = (".bin", ".safetensors")
    ) -> None:
        self.repositories: dict[str, HubRepository] = {}
        self.renamed: dict[str, str] = {}
        self.page_size = page_size
        self.token = token
        self.large = large
        self.override: Callable[[HubRequest], Reply | None] = lambda _: None
        self.delivered: dict[str, bytes] = {}
        """What is delivered instead of a file, by its path."""
        self._server = LoopbackServer(self._answer)
        self._cdn = LoopbackServer(self._deliver)

    @property
    def url(self) -> str:
        """``HF_ENDPOINT``."""
        return self._server.url

    @property
    def requests(self) -> list[HubRequest]:
        """The requests that the hub received."""
        return self._server.requests

    @property
    def cdn_requests(self) -> list[HubRequest]:
        """The requests to the server that has the large files."""
        return self._cdn.requests

    def add(
        self, repository: str, files: Mapping[str, bytes], *, gated: bool = False, private: bool = False
    ) -> HubRepository:
        """Make a repository, by its kind and id (``models/org/name``), with one commit."""
        made = HubRepository(gated=gated, private=private)
        made.commit(files)
        self.repositories[repository] = made
        return made

    def close(self) -> None:
        """Stop both servers."""
        self._server.close()
        self._cdn.close()

    def downloads(self) -> list[str]:
        """The paths whose bytes were requested with GET, from the hub itself and from the CDN."""
        own = [r.path.split("/resolve/")[1].partition("/")[2] for r in self.requests if "/resolve/" in r.path]
        return [*own, *(request.path for request in self.cdn_requests)]

    # -- answers ----------------------------------------------------------------------------------------------------

    def _answer(self, request: HubRequest) -> Reply:
        if (reply := self.override(request)) is not None:
            return reply
        path = urlsplit(request.target).path
        if path.startswith("/api/"):
            return self._api(request, path.removeprefix("/api/"))
        name, _, rest = path.strip("/").partition("/resolve/")
        repository = name if name.startswith(("datasets/", "spaces/")) else f"models/{name}"
        revision, _, file = rest.partition("/")
        return self._file(request, repository, unquote(revision), unquote(file))

    def _api(self, request: HubRequest, path: str) -> Reply:
        kind, _, rest = path.partition("/")
        if not rest:
            author = request.query.get("author", "")
            return Reply.json(
                [{"id": r.partition("/")[2]} for r in self.repositories if r.startswith(f"{kind}/{author}/")]
            )
        owner, repository, *below = [*rest.split("/"), ""][:2] + rest.split("/")[2:]
        name = f"{kind}/{owner}/{repository}".rstrip("/")
        if name in self.renamed:
            return Reply(307, b"", {"Location": request.target.replace(name, self.renamed[name], 1)})
        found = self._allowed(request, name)
        if isinstance(found, Reply):
            return found
        if below == ["refs"]:
            refs = [
                {"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": c}
                for branch, c in found.branches.items()
            ]
            return Reply.json({"branches": refs, "tags": [], "converts": []})
        if below == ["auth-check"]:
            return self._gate(request, found) or Reply.json({})
        commit = self._commit(found, unquote(below[1]) if len(below) > 1 else "main")
        if isinstance(commit, Reply):
            return commit
        if below and below[0] == "tree":
            return self._tree(request, found.versions[commit], unquote("/".join(below[2:])))
        siblings = [{"rfilename": path} for path in found.versions[commit]]
        about = {"id": name.partition("/")[2], "sha": commit, "gated": "auto" if found.gated else False}
        return Reply.json({**about, "private": found.private, "siblings": siblings, "tags": [], "downloads": 0})

    def _allowed(self, request: HubRequest, name: str) -> HubRepository | Reply:
        found = self.repositories.get(name)
        is_known = self.token and request.fields.get("authorization") == f"Bearer {self.token}"
        if found is not None and (is_known or not found.private):
            return found
        status = 404 if is_known else 401  # like the Hub, which does not reveal whether it exists
        return Reply(status, b'{"error":"not found"}', {"X-Error-Code": "RepoNotFound"})

    def _gate(self, request: HubRequest, repository: HubRepository) -> Reply | None:
        if repository.gated and request.fields.get("authorization") != f"Bearer {self.token}":
            return Reply(401, b"", {"X-Error-Code": "GatedRepo"})
        return None

    def _commit(self, repository: HubRepository, revision: str) -> str | Reply:
        commit = repository.branches.get(revision, revision)
        return commit if commit in repository.versions else Reply(404, b"", {"X-Error-Code": "RevisionNotFound"})

    def _is_large(self, path: str) -> bool:
        return path.endswith(self.large)

    def _tree(self, request: HubRequest, files: Mapping[str, bytes], folder: str) -> Reply:
        prefix = f"{folder}/" if folder else ""
        entries: dict[str, dict[str, object]] = {}
        for path, content in files.items():
            if not path.startswith(prefix):
                continue
            below = path.removeprefix(prefix).split("/")
            for depth in range(1, len(below)):
                if request.query.get("recursive") == "true" or depth == 1:
                    name = prefix + "/".join(below[:depth])
                    entries[name] = {"type": "directory", "oid": git_blob(name.encode()), "size": 0, "path": name}
            if request.query.get("recursive") == "true" or len(below) == 1:
                entries[path] = self._entry(path, content)
        if folder and not entries:
            return Reply(404, b"", {"X-Error-Code": "EntryNotFound"})
        start = int(request.query.get("cursor", "0"))
        fields = {}
        if start + self.page_size < len(entries):
            following = f"recursive={request.query.get('recursive', 'false')}&cursor={start + self.page_size}"
            fields["Link"] = f'<{self.url}{urlsplit(request.target).path}?{following}>; rel="next"'
        return Reply.json([*entries.values()][start : start + self.page_size], **fields)

    def _entry(self, path: str, content: bytes) -> dict[str, object]:
        entry: dict[str, object] = {"type": "file", "oid": git_blob(content), "size": len(content), "path": path}
        if self._is_large(path):
            sha256 = hashlib.sha256(content).hexdigest()
            entry |= {
                "oid": git_blob(sha256.encode()),
                "lfs": {"oid": sha256, "size": len(content), "pointerSize": 134},
            }
        return entry

    def _file(self, request: HubRequest, name: str, revision: str, path: str) -> Reply:
        found = self._allowed(request, name)
        if isinstance(found, Reply):
            return found
        if (refused := self._gate(request, found)) is not None:
            return refused
        commit = self._commit(found, revision)
        if isinstance(commit, Reply):
            return commit
        content = found.versions[commit].get(path)
        if content is None:
            return Reply(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        if not self._is_large(path):
            etag = f'"{git_blob(content)}"'
            return ranged(request, self.delivered.get(path, content), **{"X-Repo-Commit": commit, "ETag": etag})
        sha256 = hashlib.sha256(content).hexdigest()
        place = f"{self._cdn.url}/{name}/{commit}/{quote(path)}?X-Amz-Signature=secret"
        fields = {"Location": place, "X-Repo-Commit": commit, "X-Linked-Size": str(len(content))}
        return Reply(302, b"", {**fields, "X-Linked-Etag": f'"{sha256}"', "ETag": f'"{sha256}"'})

    def _deliver(self, request: HubRequest) -> Reply:
        kind, owner, name, commit, path = request.path.strip("/").split("/", 4)
        content = self.repositories[f"{kind}/{owner}/{name}"].versions[commit][path]
        return ranged(request, self.delivered.get(path, content), ETag=f'"{hashlib.sha256(content).hexdigest()}"')


@contextmanager
def closing_hub(hub: HuggingFaceHub) -> Iterator[HuggingFaceHub]:
    """The hub, stopped at the end."""
    try:
        yield hub
    finally:
        hub.close()
