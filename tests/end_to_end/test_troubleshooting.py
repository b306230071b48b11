"""Every problem on the troubleshooting page is made to happen, and the page quotes what the program then says."""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path

import pytest

from grym_fetch.testing import AssetServer, HtmlPage, Stall, Status, seeded_bytes
from tests.end_to_end.command import Done, run
from tests.support.project import Project

# Each test starts several processes.
pytestmark = pytest.mark.sweep

PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
CONTENT = seeded_bytes(300_000, seed=1)
OTHER = seeded_bytes(300_000, seed=2)
NOBODY = "http://127.0.0.1:9/base.bin"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path / "project")
    made.root.mkdir()
    (made.root / ".git").mkdir()
    return made


def plain(text: str) -> str:
    """A text without what differs between machines: addresses, folders, digests, numbers."""
    text = re.sub(r"https?://[^\s:;,)]+(:\d+)?[^\s:;,)]*", "URL", text)
    text = re.sub(r"/\S*?(?=/assets\b|/project\b| or above)(/project)?", "ROOT", text)
    text = re.sub(r"GRYM_FETCH_TOKEN_\w+", "VARIABLE", text)
    text = re.sub(r"sha256:[0-9a-f]{4}[0-9a-f…]*", "DIGEST", text)
    return re.sub(r"\d+(\.\d+)?", "N", text)


QUOTED = {plain(line) for line in PAGE.read_text(encoding="utf-8").splitlines()}


def messages(text: str) -> set[str]:
    """Each error in a text, with the lines that belong to it."""
    return {plain(found[0]) for found in re.finditer(r"^error: .*(?:\n(?:  |hint: ).*)*", text, re.MULTILINE)}


SHOWN = messages(PAGE.read_text(encoding="utf-8"))
ALWAYS = "\nhint: `grym-fetch doctor base-model` asks every address and says what to do."
"""What the page says once, and every download that has failed."""


def assert_quoted(done: Done, *parts: str) -> None:
    """The page has the error from its first line to its last, and the error has these parts."""
    assert done.code != 0
    (told,) = messages(done.err)
    assert told.removesuffix(ALWAYS) in SHOWN
    assert [part for part in parts if part not in done.err] == []


def test_what_every_failed_download_says(project: Project) -> None:
    """The page quotes it once."""
    project.add("base-model", [NOBODY], CONTENT)
    assert ALWAYS.strip() in QUOTED
    assert ALWAYS in run(project.root, "sync", "--retries", "0").err


def test_connection(project: Project, server: AssetServer) -> None:
    """No connection: refused, no such host, or silence."""
    project.add("base-model", [NOBODY], CONTENT)
    assert_quoted(run(project.root, "sync", "--retries", "0"), "connection refused")
    project.add("base-model", ["http://models.invalid/base.bin"], CONTENT)
    assert_quoted(run(project.root, "sync", "--retries", "0"), "host name cannot be resolved")
    project.add("base-model", [server.add("/s.bin", CONTENT, faults=[Stall(after=0)]).url], CONTENT)
    done = run(project.root, "sync", "--retries", "0", "--stall-timeout", "0.3")
    assert_quoted(done, "nothing arrived for 0.3 s")


def test_a_dead_address(project: Project, server: AssetServer) -> None:
    """The address is no longer valid."""
    project.add("base-model", [server.url("/gone.bin")], CONTENT)
    assert_quoted(run(project.root, "sync"), "404")


def test_no_access(project: Project, server: AssetServer) -> None:
    """The server requires credentials; the doctor says which variable."""
    project.add("base-model", [server.add("/t.bin", CONTENT, faults=[Status(401)]).url], CONTENT)
    assert_quoted(run(project.root, "sync"), "401")
    done = run(project.root, "doctor", HOME=str(project.root))
    (line,) = [line for line in done.out.splitlines() if line.startswith("FAIL")]
    assert plain(line) in QUOTED


@pytest.mark.shows("A21")
def test_an_expired_signed_address(project: Project, server: AssetServer) -> None:
    """A signed address that is refused has expired; sync and doctor both say so."""
    url = server.add("/s.bin", CONTENT, faults=[Status(403)]).url
    project.add("base-model", [f"{url}?X-Amz-Signature=abc"], CONTENT)
    assert_quoted(run(project.root, "sync"), "signed and has probably expired")
    assert "signed and has probably expired" in run(project.root, "doctor").out


@pytest.mark.shows("A20")
def test_a_fallback(project: Project, server: AssetServer) -> None:
    """A fallback is used automatically; if all fail, the reason for each is given."""
    project.add("base-model", [server.url("/gone.bin"), server.add("/ok.bin", CONTENT).url], CONTENT)
    done = run(project.root, "sync")
    assert done.code == 0
    assert any(plain(line) in QUOTED for line in done.err.splitlines() if "mirror 2 of 2" in line)
    project.assets.joinpath("models/base-model.bin").unlink()
    project.add("base-model", [server.url("/gone.bin"), NOBODY], CONTENT)
    assert_quoted(run(project.root, "sync", "--retries", "0"), "404", "refused")


def test_disk_space(project: Project, server: AssetServer) -> None:
    """There is not enough space, and nothing is fetched."""
    project.add("base-model", [server.add("/ok.bin", CONTENT).url], CONTENT, size=10**15)
    done = run(project.root, "sync")
    assert done.code == 4
    assert_quoted(done, "not enough space")
    assert not server.stats.requests


def test_a_changed_source(project: Project, server: AssetServer) -> None:
    """The source has other content of the same size: both checksums are shown."""
    project.add("base-model", [server.add("/ok.bin", CONTENT).url], OTHER)
    done = run(project.root, "sync")
    assert done.code == 3
    assert_quoted(done, "update the checksum")


def test_a_wrong_version(project: Project, server: AssetServer) -> None:
    """The source has another size, or is a web page."""
    project.add("base-model", [server.add("/ok.bin", CONTENT).url], CONTENT, size=299_999)
    assert_quoted(run(project.root, "sync"), "299999", "300000")
    project.add("base-model", [server.add("/h.bin", CONTENT, faults=[HtmlPage()]).url], CONTENT)
    assert_quoted(run(project.root, "sync"), "web page")


def test_a_damaged_file(project: Project, server: AssetServer) -> None:
    """A file changed after it was verified is found, and fetched again."""
    path = project.add("base-model", [server.add("/ok.bin", CONTENT).url], CONTENT)
    run(project.root, "sync")
    path.write_bytes(OTHER)
    done = run(project.root, "check")
    assert plain(done.out.strip()) in QUOTED
    assert run(project.root, "sync").code == 0
    assert path.read_bytes() == CONTENT


def test_an_unsafe_archive(project: Project, server: AssetServer) -> None:
    """An archive that would write outside its folder is refused."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        header = tarfile.TarInfo("../escape")
        header.size = 1
        tar.addfile(header, io.BytesIO(b"x"))
    url = server.add("/v.tar", out.getvalue()).url
    project.add("voices", [url], out.getvalue(), localPath="models/voices.tar", extract=True)
    done = run(project.root, "sync")
    assert done.code == 3
    assert_quoted(done, "../escape")


def test_an_unknown_id(project: Project) -> None:
    """The id is not in the manifest: the nearest ones are named."""
    project.add("base-model", [NOBODY], CONTENT)
    assert_quoted(run(project.root, "sync", "base-modle"), "Did you mean base-model?")


def test_no_manifest(project: Project) -> None:
    """There is no manifest: the error says where it was searched for, and what to do."""
    assert_quoted(run(project.root, "sync"), "--config")


def test_a_bad_configuration(project: Project) -> None:
    """The manifest has problems: all of them are listed, with what is allowed."""
    project.manifest.write_text('{"assets": [{"id": "base-model", "url": "ftp://x/a", "localpath": "a"}]}')
    assert_quoted(run(project.root, "sync"), "2 problems", "is 'localpath' meant?")


def test_no_checksum(project: Project) -> None:
    """The asset is unpinned."""
    project.add("base-model", [NOBODY], CONTENT, pinned=False)
    assert_quoted(run(project.root, "sync"), "--allow-unpinned")


def test_offline(project: Project) -> None:
    """The file is missing, and fetching is forbidden."""
    project.add("base-model", [NOBODY], CONTENT)
    assert_quoted(run(project.root, "sync", "--offline"), "--offline")


def test_something_in_the_way(project: Project) -> None:
    """A file has the name of a folder that is needed."""
    project.add("base-model", [NOBODY], CONTENT)
    project.assets.mkdir()
    (project.assets / "models").write_bytes(b"")
    done = run(project.root, "sync")
    assert done.code == 4
    assert_quoted(done, "not a folder")
