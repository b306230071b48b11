"""Secrets are planted wherever the program may meet one, and looked for wherever it writes."""

from __future__ import annotations

import base64
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
from yarl import URL

from grym_fetch.core.addresses import token_variables
from grym_fetch.testing import (
    Answer,
    AnswerFault,
    AssetServer,
    ExpiringRedirect,
    Gate,
    Hold,
    HtmlPage,
    RecordedRequest,
    RedirectLoop,
    Reset,
    Status,
    Throttle,
    WrongFile,
    seeded_bytes,
    serve_in_thread,
)
from tests.end_to_end.command import Done, Running, run
from tests.support.project import Project

pytestmark = pytest.mark.shows("U4", "M13", "S8")

CONTENT = seeded_bytes(400_000, seed=7)
MARK = "c4n4ry"
"""Part of every planted secret."""


def secret(name: str) -> str:
    """A secret that says where it was planted."""
    return f"{MARK}-{name}"


@dataclass(frozen=True)
class SecretFields(AnswerFault):
    """Answers truthfully, with fields that hold secrets."""

    combines: ClassVar[bool] = True

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        """Add the fields."""
        fields = (
            ("Set-Cookie", f"session={secret('cookie')}"),
            ("WWW-Authenticate", f"Bearer {secret('challenge')}"),
            ("X-Amz-Security-Token", secret("field")),
            ("Link", f"<https://example.org/?{secret('link')}>"),
        )
        return replace(answer, headers=answer.headers + fields)


@pytest.fixture
def hub() -> Iterator[AssetServer]:
    """The hub that HF_ENDPOINT names."""
    with serve_in_thread() as running:
        yield running


def secrets_of(project: Project, server: AssetServer, hub: AssetServer) -> dict[str, str]:
    """The environment of the runs, full of secrets."""
    netrc = project.root / "netrc"
    netrc.write_text(f"machine localhost login me password {secret('netrc')}\n")
    netrc.chmod(0o600)
    return {
        "NETRC": str(netrc),
        "HF_ENDPOINT": hub.url("").replace("127.0.0.1", "localhost"),
        "HF_TOKEN": secret("hf"),
        token_variables(URL(server.url("/")))[0]: secret("token"),
        "HTTP_PROXY": server.url("").replace("http://", f"http://me:{secret('proxy')}@"),
        "NO_PROXY": "127.0.0.1,localhost",
    }


def leaks(project: Project, *runs: Done) -> list[str]:
    """Where a planted secret was found: in the output, or in any file of the project's folder."""
    found = [f"stdout of run {n}" for n, done in enumerate(runs) if MARK in done.out]
    found += [f"stderr of run {n}" for n, done in enumerate(runs) if MARK in done.err]
    own = {project.manifest, project.root / "netrc"}
    files = [path for path in project.root.rglob("*") if path.is_file() and path not in own]
    assert any(path.name == "run.log" for path in files)
    return found + [str(path) for path in files if MARK.encode() in path.read_bytes() or MARK in path.name]


def authorizations(server: AssetServer, field: str = "authorization") -> set[str]:
    """The credentials that servers received, decoded."""
    told = {request.headers.get(field, "") for request in server.stats.requests}
    return {base64.b64decode(text[6:]).decode() if text.startswith("Basic ") else text for text in told}


@pytest.mark.sweep
def test_no_secret_is_found_anywhere(tmp_path: Path, server: AssetServer, hub: AssetServer) -> None:
    """None leaks after successes, retries, failures of all kinds, or kill -9, though each of them was in use."""
    project = Project(tmp_path / "project")
    project.root.mkdir()
    environ = secrets_of(project, server, hub)
    strange = SecretFields()

    def add(asset_id: str, url: str) -> None:
        project.add(asset_id, [url], CONTENT)

    signed = server.add("/signed", CONTENT, faults=[Reset(after=100_000, times=1), strange]).url
    login = f"http://me:{secret('userinfo')}@"
    add("signed", signed.replace("http://", login) + f"?sig={secret('query')}#{secret('end')}")
    server.add("/behind", CONTENT, faults=[strange])
    add("token", server.add("/token", CONTENT, faults=[ExpiringRedirect(f"/behind?{secret('location')}"), strange]).url)
    add("netrc", server.add("/netrc", CONTENT, faults=[strange]).url.replace("127.0.0.1", "localhost"))
    add("hub", hub.add("/hub", CONTENT, faults=[strange]).url.replace("127.0.0.1", "localhost"))
    query = f"?sig={secret('failing')}"
    forbidden = Status(403, body=secret("body").encode())
    add("refused", server.add("/refused", CONTENT, faults=[forbidden, strange]).url + query)
    add("wrong", server.add("/wrong", CONTENT, faults=[WrongFile(), strange]).url + query)
    add("page", server.add("/page", CONTENT, faults=[HtmlPage(page=secret("page").encode()), strange]).url + query)
    add("loop", server.add("/loop", CONTENT, faults=[RedirectLoop(), strange]).url + query)
    add("proxied", f"http://models.example.org/x{query}")
    tls = server.url("/tls").replace("http://", f"https://me:{secret('tls')}@")
    add("tls", tls + query)
    add("bad-port", f"http://me:{secret('port')}@127.0.0.1:9/x{query}")

    synced = run(project.root, "sync", "--all", "-vv", "--json", "--retries", "1", "--log-file", "run.log", **environ)
    assert synced.code == 3
    (finished,) = synced.of("run_finished")
    assert (finished["verified"], finished["failed"]) == (4, 7)
    looked = run(project.root, "info", "signed", "-vv", **environ)
    assert looked.code == 0
    asked = run(project.root, "doctor", "-vv", **environ)
    assert asked.code == 1

    slow = server.add("/slow", CONTENT, faults=[Throttle(200_000), Hold(Gate(), at=len(CONTENT) - 1), strange]).url
    add("slow", slow.replace("http://", login) + query)
    with Running(project.root, "sync", "slow", "--json", "-vv", "--log-file", "run.log", **environ) as running:
        running.until_bytes(100_000)
        running.send(signal.SIGKILL)
        killed = running.finish()
    assert killed.code == -signal.SIGKILL
    assert project.staged()

    assert leaks(project, synced, looked, asked, killed) == []
    # All of this proves something only because the secrets were there to leak.
    assert f"me:{secret('userinfo')}" in authorizations(server)
    assert f"me:{secret('netrc')}" in authorizations(server)
    assert f"Bearer {secret('token')}" in authorizations(server)
    assert f"Bearer {secret('hf')}" in authorizations(hub)
    assert f"me:{secret('proxy')}" in authorizations(server, "proxy-authorization")
    assert any(secret("query") in request.query for request in server.stats.requests)
    assert any(secret("location") in request.query for request in server.stats.requests)
    # Only where a redirect of the same server led, in the same chain.
    with_cookie = {request.path.partition("?")[0] for request in server.stats.requests if "cookie" in request.headers}
    assert with_cookie <= {"/behind", "/loop"}
    assert not any("referer" in request.headers for request in server.stats.requests)
