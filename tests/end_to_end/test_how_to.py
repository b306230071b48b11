"""The how-to pages, carried out: every block of code is run as printed, or a comment above it says why it is not.

What is printed is changed only where it names an address or a place of the reader's own.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import pytest
import trustme
import yaml

from grym_fetch.testing import AssetServer, seeded_bytes, serve_in_thread
from tests.end_to_end.command import environment
from tests.support.buckets import serving_s3, shared_by
from tests.support.hubs import HubRequest, HuggingFaceHub, LoopbackServer, Reply, closing_hub, ranged
from tests.support.project import Project

PAGES = Path(__file__).parents[2] / "docs" / "how-to"
RUN = {"buckets.md": 3, "ci.md": 3, "cluster.md": 0, "docker.md": 0, "git-lfs.md": 3, "huggingface.md": 3,
       "mirrors.md": 0, "networks.md": 4, "reading.md": 2, "store.md": 0, "web-services.md": 2,
       "workers.md": 1}  # fmt: skip
"""How many blocks of each page are run here."""
REASON = re.compile(r"<!-- not run: \S.*-->\n\s*\Z")
CONTENT = seeded_bytes(300_000, seed=1)


def runnable(page: str) -> list[str]:
    """The blocks of a page that nobody says are not run, in order."""
    text = (PAGES / page).read_text(encoding="utf-8")
    fences = re.finditer(r"^( *)```(\w+)\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(fence[3]) for fence in fences if not REASON.search(text[: fence.start()])]


def test_every_block_is_run_or_says_why_not() -> None:
    """A new block needs a test here, or a reason."""
    assert {path.name: len(runnable(path.name)) for path in PAGES.glob("*.md")} == RUN


class Reader:
    """Somebody who follows a page, in a project with the asset ``voice-model``."""

    def __init__(self, root: Path, server: AssetServer) -> None:
        self.server = server
        self.project = Project(root)
        self.root = root
        self.project.add("voice-model", [server.add("/voice.bin", CONTENT).url], CONTENT)
        bin_folder = root.parent / "bin"
        bin_folder.mkdir()
        (bin_folder / "grym-fetch").write_text(f'#!/bin/sh\nexec {sys.executable} -m grym_fetch "$@"\n')
        (bin_folder / "grym-fetch").chmod(0o755)
        self.environ = environment(PATH=f"{bin_folder}:{os.environ['PATH']}")

    def shell(self, text: str, *, folder: Path | None = None, more: Mapping[str, str] = MappingProxyType({})) -> str:
        """Run a block as printed; return what it says."""
        done = subprocess.run(
            ["bash", "-e", "-c", text],
            cwd=folder or self.root,
            env=self.environ | dict(more),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def git(self, *arguments: str) -> str:
        """Run git."""
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        return subprocess.run(
            ["git", *who, *arguments], cwd=self.root, check=True, capture_output=True, text=True
        ).stdout

    @property
    def model(self) -> Path:
        """Where the asset belongs."""
        return self.project.assets / "models" / "voice-model.bin"


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    with serve_in_thread() as server:
        yield Reader(tmp_path / "project", server)


@pytest.mark.sweep
@pytest.mark.package("moto", "flask", "flask_cors", "obstore")
def test_buckets(reader: Reader) -> None:
    """An object of each store is added and fetched: S3 by moto, the others by what checks a signature or a token."""
    s3, gs, az = runnable("buckets.md")
    key = base64.b64encode(b"the key of an account").decode()

    def answer(request: HubRequest) -> Reply:
        shared = request.path == "/mymodels/my-models/voices/v1.ckpt" and shared_by(key, request, datetime.now(UTC))
        emulated = request.path == "/my-models/voices/v1.ckpt"  # of Google, which asks an emulator without keys
        return ranged(request, CONTENT, ETag='"1"') if shared or emulated else Reply(403)

    with serving_s3() as server, closing(LoopbackServer(answer)) as other:
        server.add("my-models", "voices/v1.ckpt", CONTENT)
        told = reader.shell(s3.replace("…", "s3cr3t"), more={"AWS_ENDPOINT_URL_S3": server.endpoint})
        told += reader.shell(gs.replace("…", "s3cr3t"), more={"STORAGE_EMULATOR_HOST": other.url})
        account = re.sub(r"KEY=….*", f"KEY={key}", az)
        told += reader.shell(account, more={"AZURE_STORAGE_ENDPOINT": f"{other.url}/mymodels"})
    for name in ("s3", "gs", "az"):
        assert (reader.project.assets / name / "v1.ckpt").read_bytes() == CONTENT
    told += (reader.root / "assets.json").read_text()
    assert "s3cr3t" not in told
    assert key not in told


@pytest.mark.sweep
def test_ci(reader: Reader) -> None:
    """All of it is YAML, and what they run of ours works."""
    github, look, gitlab = map(yaml.safe_load, runnable("ci.md"))
    steps = [step["run"] for step in github["jobs"]["test"]["steps"] if "run" in step]
    commands = [line for line in [*steps, *gitlab["test"]["script"]] if line.startswith("grym-fetch")]
    assert len(commands) == 2
    for command in [look[0]["run"], *commands]:
        reader.shell(command)
    assert "voice-model" in (reader.root / "report.html").read_text()


@pytest.mark.sweep
def test_git_lfs(reader: Reader) -> None:
    """Moved out, uploaded, committed: a clone gets the files back, and the small ones from git."""
    (reader.root / "model.ckpt").write_bytes(b"ckpt" * 3_000_000)
    (reader.root / "small.ckpt").write_bytes(b"small")
    os.utime(reader.root / "small.ckpt", (0, 0))  # git reads again what has only just been written
    (reader.root / ".gitattributes").write_text("*.ckpt filter=point\n")
    pointing = ["config", "filter.point.clean", "cat >/dev/null; echo a pointer"]
    for command in (["init", "-q"], pointing, ["add", "-A"], ["commit", "-q", "-m", "all"]):
        reader.git(*command)
    assert reader.git("show", "HEAD:small.ckpt") == "a pointer\n"
    (reader.root / ".gitattributes").write_text("")  # as `git lfs untrack` does
    move, look, commit = (
        block.replace("https://files.example.org/project", reader.server.url("/files"))
        for block in runnable("git-lfs.md")
    )
    reader.shell(move)
    assert not (reader.root / "model.ckpt").exists()
    for path in (reader.root.parent / "assets").rglob("*.ckpt"):
        place = path.relative_to(reader.root.parent / "assets")
        reader.server.add(f"/files/{place}", path.read_bytes())
    assert "model.ckpt" in reader.shell(look)
    author = {f"GIT_{who}_{what}": "t@t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    reader.shell(commit, more=author)
    clone = reader.root.parent / "elsewhere" / "clone"
    subprocess.run(["git", "clone", "-q", str(reader.root), str(clone)], check=True)
    reader.shell("grym-fetch sync --all && grym-fetch restore --all", folder=clone)
    assert (clone / "model.ckpt").read_bytes() == b"ckpt" * 3_000_000
    assert (clone / "small.ckpt").read_bytes() == b"small"


@pytest.mark.sweep
def test_hugging_face(reader: Reader) -> None:
    """With a token, a private repository is listed and fetched."""
    with closing_hub(HuggingFaceHub(token="hf_secret")) as hub:
        hub.add("models/ORG/REPO", {"model.safetensors": CONTENT, "config.json": b"{}  "}, private=True)
        token, add, sync = runnable("huggingface.md")
        told = reader.shell(token.replace("…", "hf_secret") + add + sync, more={"HF_ENDPOINT": hub.url})
    assert "hf_secret" not in told
    assert "hf_secret" not in (reader.root / "assets.json").read_text()
    assert any(path.read_bytes() == CONTENT for path in reader.project.assets.rglob("*.safetensors"))


@pytest.mark.sweep
def test_networks(reader: Reader, tmp_path: Path) -> None:
    """Certificates of one's own, a mirror inside, and a folder that is carried to where there is no network."""
    certificates, mirror, pack, unpack = runnable("networks.md")
    trustme.CA().cert_pem.write_to_path(tmp_path / "company.pem")
    reader.shell(certificates.replace("/etc/ssl/certs/company.pem", str(tmp_path / "company.pem")))
    url = reader.server.add("/voices.ckpt", CONTENT).url
    reader.shell(
        mirror.replace("https://files.internal.example.org/voices.ckpt", url).replace(
            "https://example.org/voices.ckpt", f"{url}?other"
        )
    )
    reader.shell(pack)
    there = tmp_path / "closed"
    there.mkdir()
    for name in ("assets.json", "assets.tar"):
        (there / name).write_bytes((reader.root / name).read_bytes())
    asked = len(reader.server.stats.requests)
    reader.shell(unpack, folder=there)
    assert len(reader.server.stats.requests) == asked


@pytest.mark.sweep
def test_reading(reader: Reader) -> None:
    """A header and a table of contents are read from files that are still on their way."""
    header = json.dumps({"weight": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode()
    model = len(header).to_bytes(8, "little") + header + bytes(4) + CONTENT
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("weights.bin", CONTENT)
        archive.writestr("README.txt", "read me")
    for name, content in (("model", model), ("archive", packed.getvalue())):
        reader.project.add(name, [reader.server.add(f"/{name}", content).url], content)
    pin, read = runnable("reading.md")
    reader.shell(pin.replace(" model", " model archive"))
    done = subprocess.run(
        [sys.executable, "-c", f"{read}\nprint(header, text)"],
        cwd=reader.root,
        env=reader.environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "['weights.bin', 'README.txt']" in done.stdout
    assert "b'read me'" in done.stdout
    assert "'dtype': 'U8'" in done.stdout


@pytest.mark.sweep
@pytest.mark.package("fastapi", "uvicorn")
def test_web_services(reader: Reader) -> None:
    """An asset is fetched and served; Ctrl-C ends the server although a stream of events is open."""
    program, command = runnable("web-services.md")
    (reader.root / "app.py").write_text(program)
    arguments = command.replace("--port 8000", "--port 0").split()
    with subprocess.Popen(
        [sys.executable, "-m", *arguments], cwd=reader.root, env=reader.environ, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stderr is not None
            said = iter(server.stderr.readline, "")
            port = next(int(found[1]) for line in said if (found := re.search(r"running on http://[\d.]+:(\d+)", line)))
            stream = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            stream.request("GET", "/events")
            events = stream.getresponse()
            assert events.readline() == b": connected\n"
            other = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            other.request("GET", "/assets/voice-model")
            assert other.getresponse().read() == CONTENT
            other.close()
            server.send_signal(signal.SIGINT)
            lines = [line for line in events.read().decode().splitlines() if line]
            events.close()
            stream.close()
            assert server.wait(60) in (0, -signal.SIGINT)
        finally:
            server.kill()
    kinds = [json.loads(line.removeprefix("data: "))["type"] for line in lines]
    assert kinds[-1] == "asset_verified"


@pytest.mark.sweep
def test_workers(reader: Reader) -> None:
    """The notebook's cell shows bars on stderr and leaves the file there."""
    (cell,) = runnable("workers.md")
    done = subprocess.run(
        [sys.executable, "-c", cell], cwd=reader.root, env=reader.environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "1/1" in done.stderr
    assert reader.model.read_bytes() == CONTENT
