"""``grym-fetch doctor``: each problem is found, named, and followed by what to do."""

from __future__ import annotations

import base64
import json
import os
import signal
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from yarl import URL

from grym_fetch import GrymFetchError
from grym_fetch.core.addresses import token_variables
from grym_fetch.core.digest import Checksum
from grym_fetch.core.manifest import Asset
from grym_fetch.project import diagnosis
from grym_fetch.project.diagnosis import Finding, environment_findings, origin_findings, space_finding
from grym_fetch.testing import (
    Answer,
    AssetServer,
    BodyFault,
    Fault,
    Gzip,
    HangBeforeHeaders,
    HtmlPage,
    NoRanges,
    NoValidator,
    RecordedRequest,
    Redirect,
    RefuseRanges,
    Status,
    WeakETag,
    seeded_bytes,
    serve_in_thread,
)
from tests.end_to_end.command import Done, Running, run
from tests.support.other_user import BERT, as_user
from tests.support.project import ImpatientClock, Project

CONTENT = seeded_bytes(300_000, seed=1)


def doctor(project: Project, *arguments: str, **more: str) -> tuple[Done, list[dict[str, object]]]:
    """Run the doctor; its findings, as a program reads them."""
    done = run(project.root, "doctor", "--json", *arguments, **more)
    return done, [json.loads(line) for line in done.out.splitlines()]


def of(findings: list[dict[str, object]], check: str) -> list[dict[str, object]]:
    """The findings of one check."""
    return [finding for finding in findings if finding["check"] == check]


def test_all_is_well(project: Project, server: AssetServer) -> None:
    """A good project: exit code 0, one line per check, one byte requested from each address, nothing written."""
    file = server.add("/a.bin", CONTENT)
    project.add("a", [file.url], CONTENT)
    done = run(project.root, "doctor")
    assert done.code == 0
    assert all(line.startswith("ok    ") for line in done.out.splitlines())
    assert "status 206, 300,000 bytes, ranges, validator strong" in done.out
    assert "clock: this machine's clock agrees" in done.out
    assert [request.range for request in server.stats.requests] == ["bytes=0-0"]
    assert server.stats.body_bytes_sent == 1
    assert not project.assets.exists()
    assert run(project.root, "doctor", "--quiet").out == ""


def test_a_broken_manifest(project: Project) -> None:
    """Every problem of a manifest is a finding, with exit code 2."""
    project.root.mkdir()
    project.manifest.write_text('{"assets": [{"id": "a", "url": "ftp://x/a", "localPath": "../a"}]}')
    done, findings = doctor(project)
    assert done.code == 2
    assert [finding["level"] for finding in findings] == ["fail", "fail"]
    assert "ftp" in done.out
    assert ".." in done.out


def test_no_manifest(tmp_path: Path) -> None:
    """Without a manifest the finding names the command that creates one."""
    (tmp_path / ".git").mkdir()
    done = run(tmp_path, "doctor")
    assert done.code == 2
    assert done.out.startswith("FAIL  manifest: no manifest")
    assert "grym-fetch setup" in done.out


def test_an_unknown_id(project: Project, server: AssetServer) -> None:
    """An id that does not exist is wrong usage; the nearest ones are named."""
    project.add("model", [server.add("/a.bin", CONTENT).url], CONTENT)
    done = run(project.root, "doctor", "modle")
    assert done.code == 2
    assert "model" in done.err
    assert not server.stats.requests


def test_only_the_named_assets(project: Project, server: AssetServer) -> None:
    """With ids, only the addresses of those assets are asked."""
    project.add("a", [server.add("/a.bin", CONTENT).url], CONTENT)
    project.add("b", [server.add("/b.bin", CONTENT).url], CONTENT)
    done, findings = doctor(project, "b")
    assert done.code == 0
    assert [finding["asset"] for finding in of(findings, "origin")] == ["b"]


@pytest.mark.package("obstore")
def test_a_bucket_whose_keys_are_not_named(project: Project) -> None:
    """It is not the address that is wrong."""
    project.add("a", ["az://models/a.bin"], CONTENT)
    _, findings = doctor(project)
    (found,) = of(findings, "origin")
    assert "AZURE_STORAGE_ACCOUNT_NAME does not name an account; set AZURE_STORAGE_ACCOUNT_NAME" in str(found["what"])
    assert found["advice"] == "set it where this runs"


def test_a_dead_address(project: Project, server: AssetServer) -> None:
    """A dead address fails the asset, but is only a warning if a mirror works."""
    good = server.add("/a.bin", CONTENT).url
    project.add("a", [server.url("/gone.bin")], CONTENT)
    done, findings = doctor(project)
    assert done.code == 1
    (found,) = of(findings, "origin")
    assert (found["level"], found["status"]) == ("fail", 404)
    assert "no such file" in str(found["what"])
    assert "correct the url" in str(found["advice"])
    project.add("a", ["http://127.0.0.1:9/a.bin", good], CONTENT)
    done, findings = doctor(project)
    assert done.code == 0
    assert [finding["level"] for finding in of(findings, "origin")] == ["warn", "ok"]
    assert "cannot connect" in done.out


@pytest.mark.parametrize("status", [401, 403])
def test_a_missing_and_a_refused_token(project: Project, server: AssetServer, status: int) -> None:
    """A refusal names the variable from which a token would come; a token that was sent is named, not shown."""
    project.add("a", [server.add("/a.bin", CONTENT, faults=[Status(status)]).url], CONTENT)
    done, findings = doctor(project, HOME=str(project.root))
    assert done.code == 1
    (found,) = of(findings, "token")
    (variable,) = token_variables(URL(server.url("/")))
    assert found["variable"] == variable
    assert "no credentials were sent" in str(found["what"])
    done, findings = doctor(project, **{variable: "s3cret"})
    (found,) = of(findings, "token")
    assert f"{variable} were not accepted" in str(found["what"])
    assert "s3cret" not in done.out + done.err
    netrc = project.root / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password s3cret\n")
    netrc.chmod(0o600)
    done, findings = doctor(project, NETRC=str(netrc))
    assert "the netrc file were not accepted" in done.out
    endpoint = server.url("")
    done, findings = doctor(project, HF_ENDPOINT=endpoint, HF_TOKEN="s3cret")
    assert "HF_TOKEN were not accepted" in done.out
    done, findings = doctor(project, HF_ENDPOINT=endpoint, HOME=str(project.root))
    assert of(findings, "token")[0]["variable"] == "HF_TOKEN"


@pytest.mark.shows("M12", "S9")
def test_the_policies_of_a_sync_hold(project: Project, server: AssetServer) -> None:
    """The doctor asks nothing that a sync would not ask."""
    project.add("a", [server.add("/a.bin", CONTENT).url], CONTENT)
    project.add("b", ["http://169.254.170.2/a.bin"], CONTENT)
    done, findings = doctor(project, GRYM_FETCH_NO_PRIVATE_ADDRESSES="1")
    assert done.code == 1
    one, other = of(findings, "origin")
    assert "a private address" in str(one["what"])
    assert "cloud metadata" in str(other["what"])
    assert server.stats.connections_opened == 0


def test_offline_nothing_is_asked(project: Project, server: AssetServer) -> None:
    """The operator's word holds for the doctor, too; it says so."""
    project.add("a", [server.add("/a.bin", CONTENT).url], CONTENT)
    done, findings = doctor(project, GRYM_FETCH_OFFLINE="1")
    assert done.code == 0
    [finding] = of(findings, "origin")
    assert finding["level"] == "warn"
    assert "offline" in str(finding["what"])
    assert not server.stats.requests


def test_what_a_server_says(project: Project, server: AssetServer) -> None:
    """Size, ranges, validator, digests and redirects are in the figures; an obstacle to resuming is a warning."""
    server.add("/plain.bin", CONTENT, faults=[NoRanges(), NoValidator()])
    weak = server.add("/weak.bin", CONTENT, faults=[WeakETag()])
    server.add("/away.bin", CONTENT, faults=[Redirect(weak.url.replace("127.0.0.1", "localhost"))])
    for name in ("plain", "weak", "away"):
        project.add(name, [server.url(f"/{name}.bin")], CONTENT)
    done, findings = doctor(project)
    assert done.code == 0
    origins = {str(finding["asset"]): finding for finding in of(findings, "origin")}
    assert [origins[name]["ranges"] for name in ("plain", "weak", "away")] == [False, True, True]
    assert [origins[name]["validator"] for name in ("plain", "weak", "away")] == ["none", "weak", "weak"]
    assert [origins[name]["level"] for name in ("plain", "weak", "away")] == ["warn", "ok", "ok"]
    assert [origins[name]["size"] for name in ("plain", "weak", "away")] == [300_000] * 3
    assert origins["away"]["target_host"] == "localhost"


def test_a_changed_source(project: Project, server: AssetServer) -> None:
    """A size other than the manifest's fails, with both sizes; a web page in the file's place is called a page."""
    project.add("a", [server.add("/a.bin", CONTENT).url], CONTENT, size=299_999)
    project.add("b", [server.add("/b.bin", CONTENT, faults=[HtmlPage()]).url], CONTENT)
    done, findings = doctor(project)
    assert done.code == 1
    one, other = of(findings, "origin")
    assert "300,000 bytes, the manifest says 299,999" in str(one["what"])
    assert "correct size and checksum" in str(one["advice"])
    assert "web page" in str(other["what"])


def test_an_unpinned_asset_without_a_validator(project: Project, server: AssetServer) -> None:
    """Without a checksum and a strong ETag parts cannot be combined, which is a warning."""
    project.add("a", [server.add("/a.bin", CONTENT, faults=[WeakETag()]).url], CONTENT, pinned=False)
    _, findings = doctor(project)
    assert "pin a" in str(of(findings, "origin")[0]["advice"])


def test_permissions(project: Project, server: AssetServer) -> None:
    """A file in place of a folder, and a state folder that others may write to, are found."""
    project.add("a", [server.add("/a.bin", CONTENT).url], CONTENT)
    project.assets.write_bytes(b"")
    done, findings = doctor(project)
    assert done.code == 1
    assert "is not a folder" in str(of(findings, "permissions")[0]["what"])
    project.assets.unlink()
    (project.assets / ".grym-fetch").mkdir(parents=True)
    (project.assets / ".grym-fetch").chmod(0o777)
    if os.geteuid() == 0:
        os.chown(project.assets / ".grym-fetch", 12345, -1)  # a folder of ours would be corrected
    done, findings = doctor(project)
    assert done.code == 0
    assert "others may rename" in done.out
    assert "chmod +t" in done.out


@pytest.mark.shows("X7")
def test_a_folder_that_cannot_be_written() -> None:
    """A folder without write permission fails, and so does one that cannot be made there, with what to do."""
    above = Path(tempfile.mkdtemp(dir="/tmp", prefix="closed-"))
    folders = {"is not writable": above, f"cannot be created in {above}": above / "deep" / "assets"}

    def judged() -> list[Finding]:
        return [diagnosis._writable("assets folder", folder) for folder in folders.values()]

    try:
        above.chmod(0o755)
        assert [each.level for each in judged()] == ["ok", "ok"]
        above.chmod(0o555)
        # Root may write everywhere.
        for words, found in zip(folders, as_user(BERT, judged) if os.geteuid() == 0 else judged(), strict=True):
            assert found.level == "fail"
            assert words in found.what
            assert f"make {above} writable" in found.advice
    finally:
        above.rmdir()


def test_space() -> None:
    """Too little space is a failure that says how much is missing."""
    assert space_finding(10, 20, 0).level == "ok"
    short = space_finding(3000, 1000, 2)
    assert short.level == "fail"
    assert "2 of unknown size" in short.what
    assert short.advice.startswith("free 2.0 KiB")


def test_proxy_and_tls_settings(tmp_path: Path) -> None:
    """Settings are shown without their secrets; one that cannot work fails."""
    assert [finding.level for finding in environment_findings({})] == ["ok", "ok"]
    certificates = tmp_path / "ca.pem"
    certificates.write_text("")
    found = environment_findings(
        {
            "https_proxy": "http://me:s3cret@proxy.example.org:3128",
            "ALL_PROXY": "ftp://x",
            "NO_PROXY": "localhost",
            "SSL_CERT_FILE": str(certificates),
            "SSL_CERT_DIR": str(tmp_path / "not-there"),
        }
    )
    text = "\n".join(finding.what for finding in found)
    assert "s3cret" not in text
    assert "proxy.example.org:3128" in text
    assert [finding.level for finding in found] == ["ok", "fail", "ok", "ok", "fail"]
    assert all(finding.advice for finding in found if finding.level == "fail")


@pytest.mark.shows("A28")
def test_a_socks_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A SOCKS proxy is shown with its default port; if the extra for it is missing, the advice is to install it."""
    environ = {"ALL_PROXY": "socks5h://me:s3cret@localhost"}
    assert environment_findings(environ)[0].what == "ALL_PROXY: requests go through localhost:1080"
    monkeypatch.setattr(diagnosis, "find_spec", lambda name: None)
    found = environment_findings(environ)[0]
    assert (found.level, found.advice) == ("fail", "pip install 'grym-fetch[socks]'")


@dataclass(frozen=True)
class Field(BodyFault):
    """Sends an additional field, or another value for it."""

    name: str
    value: str

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        return answer.with_header(self.name, self.value)


@pytest.mark.shows("A29", "R34")
@pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "unpinned"])
@pytest.mark.parametrize(
    "fault",
    [
        *(
            Field("Content-Encoding", label)
            for label in ("gzip", "x-gzip", "aws-chunked", "UTF-8", "none", "binary", "identity")
        ),
        Field("Repr-Digest", f"sha-256=:{base64.b64encode(bytes(32)).decode()}:"),
        Gzip(),
        NoRanges(),
        RefuseRanges(),
        HtmlPage(),
        Status(202, b"wait"),
        Status(204),
        Status(403, b"<html>", {"Content-Type": "text/html"}),
        Status(451),
        Status(511),
        Redirect("ftp://x/"),
    ],
    ids=repr,
)
async def test_doctor_and_sync_never_disagree(project: Project, fault: Fault, pinned: bool) -> None:
    """Both judge an address alike, whatever the server sends, and for the same reason."""
    async with AssetServer() as server:
        url = server.add("/a.bin", CONTENT, faults=[fault]).url
        project.add("a", [url], CONTENT, pinned=pinned)
        entry = project.entries[0]
        checksum = Checksum("sha256", str(entry["checksum"]).removeprefix("sha256:")) if pinned else None
        asset = Asset("a", url, "a.bin", size=len(CONTENT), checksum=checksum)
        findings = await origin_findings([asset], environ={"HOME": "/"}, clock=ImpatientClock(), version="0")
        failure = None
        async with project.manager(allow_unpinned=True) as manager:
            try:
                await manager.get_asset_path("a")
            except GrymFetchError as error:
                failure = error
    if pinned and isinstance(fault, Field) and fault.name == "Content-Encoding":
        assert failure is None, str(failure)
    assert (findings[0].level == "fail") is (failure is not None), f"{findings[0]}, but {failure}"


def test_tls(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over https the certificate's remaining days are counted; an untrusted one fails, with what to do."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    certificates = project.root / "ca.pem"
    project.root.mkdir()
    authority.cert_pem.write_to_path(str(certificates))
    with serve_in_thread(ssl_context=context) as server:
        project.add("a", [server.add("/a.bin", CONTENT).url], CONTENT)
        done, findings = doctor(project, SSL_CERT_FILE=str(certificates))
        assert done.code == 0
        (found,) = of(findings, "origin")
        assert found["tls"] == "verified"
        assert isinstance(found["certificate_days"], int)
        assert server.stats.connections_opened == 1, "it is the certificate of the connection that was judged"
        done, findings = doctor(project)
    assert done.code == 1
    assert "certificate was rejected" in done.out
    assert "SSL_CERT_FILE" in done.out


class WrongClock(ImpatientClock):
    """A clock ten minutes ahead."""

    def wall(self) -> float:
        return super().wall() + 600


async def test_a_wrong_clock() -> None:
    """A clock more than five minutes off from the servers' is a warning that says in which direction."""
    async with AssetServer() as server:
        asset = Asset("a", server.add("/a.bin", CONTENT).url, "a.bin", size=len(CONTENT))
        findings = await origin_findings([asset], environ={"HOME": "/"}, clock=WrongClock(), version="0")
    assert findings[-1].level == "warn"
    assert findings[-1].what.startswith("this machine's clock is 10 minutes ahead of")


def test_stand_ins_are_asked_too(project: Project, server: AssetServer) -> None:
    """A stand-in with a dead address is found, and reported apart from the asset."""
    file = server.add("/a.bin", CONTENT)
    project.add("a", [file.url], CONTENT, minimal={"url": server.url("/missing.bin"), "size": 3})
    done, findings = doctor(project)
    assert done.code == 1
    full, tiny = of(findings, "origin")
    assert (full["level"], "stand_in" in full) == ("ok", False)
    assert (tiny["level"], tiny["stand_in"], tiny["asset"]) == ("fail", True, "a")
    assert str(tiny["what"]).startswith("stand-in: ")


def test_ended_in_order(project: Project, server: AssetServer) -> None:
    """SIGTERM leads to the documented exit code, not to the bare signal."""
    project.add("a", [server.add("/a.bin", CONTENT, faults=[HangBeforeHeaders()]).url], CONTENT)
    with Running(project.root, "doctor", "--json") as running:
        assert any(finding["check"] == "space" for finding in running.events())
        running.send(signal.SIGTERM)
        assert running.finish().code == 143


def test_who_sent_wrong_bytes_is_named(project: Project, server: AssetServer) -> None:
    """A mirror that sent wrong bytes during a sync, which were replaced, has a warning of its own."""
    wrong = server.add("/wrong", CONTENT[:-1] + b"?").url
    project.add("a", [wrong, server.add("/right", CONTENT).url], CONTENT)
    assert run(project.root, "sync").code == 0
    done, findings = doctor(project)
    assert done.code == 0
    [named] = [each for each in findings if "sent wrong bytes" in str(each["what"])]
    assert (named["level"], named["check"], named["asset"]) == ("warn", "origin", "a")
    assert str(named["what"]).startswith(f"{wrong}: it sent wrong bytes on ")
