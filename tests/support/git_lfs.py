"""Real git and Git LFS servers on loopback: `git http-backend`, and giftless if it is asked for, behind one port.

Rules: repositories and objects are in the given folder. ``requests`` has everything that came. A client of these
servers is configured by `GitServer.git`, whatever the user's own configuration says.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

KEY = "key-of-the-giftless-of-the-tests-0123456789"
_FIELDS = ("content-type", "git-protocol", "authorization", "accept", "range", "content-length")


@dataclass(frozen=True)
class GitRequest:
    """A request: ``path`` as it came, with its query; names of fields in lower case."""

    method: str
    path: str
    fields: Mapping[str, str]
    body: bytes


Answer = tuple[int, Mapping[str, str], bytes]


def pointer_to(content: bytes) -> bytes:
    """The text that git has of a file in Git LFS."""
    oid = hashlib.sha256(content).hexdigest()
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(content)}\n".encode()


@dataclass
class GitServer:
    """One server. ``override`` answers first, if it returns anything; ``lfs`` answers what is below ``/info/lfs``."""

    home: Path
    url: str = ""
    requests: list[GitRequest] = field(default_factory=list)
    override: Callable[[GitRequest], Answer | None] = lambda _: None
    lfs: Callable[[GitRequest], Answer] = lambda _: (404, {}, b"")

    def repository(
        self, name: str, files: Mapping[str, bytes], *, allow_filter: bool = True, hash_name: str = "sha1"
    ) -> str:
        """Make a repository with one commit on its branch ``main``; return the commit."""
        self.git("init", "-q", "--bare", "-b", "main", f"--object-format={hash_name}", f"{name}.git")
        if allow_filter:
            self.git("config", "uploadpack.allowFilter", "true", within=f"{name}.git")
        return self.commit(name, files)

    def commit(self, name: str, files: Mapping[str, bytes], ref: str = "refs/heads/main") -> str:
        """Make a commit with exactly these files; return its name."""
        stream = bytearray(f"commit {ref}\ncommitter A <a@b.example> 1700000000 +0000\ndata 1\nm\ndeleteall\n".encode())
        for path, content in files.items():
            stream += f'M 100644 inline "{path}"\ndata {len(content)}\n'.encode() + content + b"\n"
        self.git("fast-import", "--quiet", "--force", within=f"{name}.git", stdin=bytes(stream))
        return self.git("rev-parse", ref, within=f"{name}.git").strip()

    def git(self, *arguments: str, within: str | Path = ".", stdin: bytes = b"", **environ: str) -> str:
        """Run git in this folder, with no configuration but its own."""
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.home / within,
            env=self._environ() | environ,
            input=stdin,
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def _environ(self) -> dict[str, str]:
        own = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), "LC_ALL": "C", **own}

    def answer(self, request: GitRequest) -> Answer:
        """Keep the request, and answer it."""
        self.requests.append(request)
        if (given := self.override(request)) is not None:
            return given
        return self.lfs(request) if "/info/lfs" in request.path else self._backend(request)

    def _backend(self, request: GitRequest) -> Answer:
        """Run the real server of git for one request, as a web server does (RFC 3875)."""
        parts = urlsplit(request.path)
        environ = {
            **self._environ(),
            "REQUEST_METHOD": request.method,
            "PATH_INFO": parts.path,
            "QUERY_STRING": parts.query,
            "CONTENT_TYPE": request.fields.get("content-type", ""),
            "CONTENT_LENGTH": str(len(request.body)),
            "GIT_PROTOCOL": request.fields.get("git-protocol", ""),
            "GIT_PROJECT_ROOT": str(self.home),
            "GIT_HTTP_EXPORT_ALL": "1",
        }
        done = subprocess.run(
            ["git", "http-backend"], env=environ, input=request.body, capture_output=True, check=False, timeout=60
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
        return int(fields.pop("Status", "200 OK").split()[0]), fields, body


@contextmanager
def serving_git(home: Path) -> Iterator[GitServer]:
    """Start a server; stop it at the end."""
    served = GitServer(home)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_GET(self) -> None:
            fields = {name.lower(): value for name, value in self.headers.items()}
            if fields.get("expect") == "100-continue":
                self.send_response_only(100)
                self.end_headers()
            body = self.rfile.read(int(fields.get("content-length", "0")))
            status, given, content = served.answer(GitRequest(self.command, self.path, fields, body))
            self.send_response_only(status)
            for name, value in {**given, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_PUT = do_GET  # noqa: N815 - the names that the standard library looks for

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    served.url = f"http://127.0.0.1:{running.server_port}"
    try:
        yield served
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


def anybody(_: object) -> object:
    """Let anybody read and write, under a name: today's PyJWT refuses the tokens that giftless makes for nobody."""
    from giftless.auth.identity import DefaultIdentity, Permission

    user = DefaultIdentity(name="anybody", id="anybody")
    user.allow(permissions=Permission.all())
    return user


def giftless(home: Path) -> Callable[[GitRequest], Answer]:
    """Answers of a real giftless, which keeps its objects in this folder, and lets anybody read and write."""
    from giftless.app import init_app

    adapter = {
        "factory": "giftless.transfer.basic_streaming:factory",
        "options": {"storage_options": {"path": str(home / "objects")}, "action_lifetime": 900},
    }
    app = init_app(
        additional_config={
            "AUTH_PROVIDERS": ["tests.support.git_lfs:anybody"],
            "TRANSFER_ADAPTERS": {"basic": adapter},
            "LEGACY_ENDPOINTS": False,
            "PRE_AUTHORIZED_ACTION_PROVIDER": {"options": {"private_key": KEY}},
        }
    )

    def answer(request: GitRequest) -> Answer:
        host = request.fields["host"]
        given = {name: value for name, value in request.fields.items() if name in _FIELDS}
        with app.test_client() as client:
            reply = client.open(
                request.path, method=request.method, headers=given, data=request.body, base_url=f"http://{host}"
            )
            fields = {name: value for name, value in reply.headers.items() if name.lower() != "content-length"}
            body = reply.get_data()
            reply.close()
            return reply.status_code, fields, body

    return answer


class RangedStore:
    """A Git LFS server for one content. It lends a key for each place, and sends nothing without it."""

    def __init__(self, server: GitServer, content: bytes) -> None:
        self._server = server
        self._content = content
        self.lent = 0
        """How often it was asked where the content is."""

    def __call__(self, request: GitRequest) -> Answer:
        """Answer a question, or send a range."""
        if request.method == "POST":
            self.lent += 1
            [wanted] = json.loads(request.body)["objects"]
            place = f"{self._server.url}/org/model.git/info/lfs/store?key={self.lent}"
            fields = {"Authorization": f"Bearer lent-to-you-{self.lent}"}
            found = {**wanted, "actions": {"download": {"href": place, "header": fields}}}
            return 200, {}, json.dumps({"transfer": "basic", "objects": [found]}).encode()
        if request.fields.get("authorization") != f"Bearer lent-to-you-{request.path.partition('key=')[2]}":
            return 403, {}, b""
        if "range" not in request.fields:
            return 200, {}, self._content
        first, _, last = request.fields["range"].removeprefix("bytes=").partition("-")
        part = self._content[int(first) : int(last) + 1]
        where = f"bytes {first}-{int(first) + len(part) - 1}/{len(self._content)}"
        return 206, {"Content-Range": where}, part
