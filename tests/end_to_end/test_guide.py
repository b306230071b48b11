"""The guide, carried out: each section's commands run as printed, in a real repository against a real server."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from grym_fetch.core.manifest_parser import parse_manifest
from grym_fetch.testing import AssetServer, seeded_bytes, serve_in_thread
from tests.end_to_end.command import environment

# Each test starts several processes.
pytestmark = pytest.mark.sweep

GUIDE = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")
MODEL = seeded_bytes(400_000, seed=1)
SAMPLES = seeded_bytes(90_000, seed=2)
BIG = seeded_bytes(1_200_000, seed=3)
NEW = seeded_bytes(50_000, seed=4)


def section(name: str) -> str:
    """The text under a heading."""
    match = re.search(rf"^## {re.escape(name)}\n(.*?)(?=^## |\Z)", GUIDE, re.MULTILINE | re.DOTALL)
    assert match is not None, f"the guide has no section {name!r}"
    return match[1]


def blocks(name: str, language: str) -> list[str]:
    """A section's code blocks in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", section(name), re.MULTILINE | re.DOTALL)


class Repository:
    """A git repository with a manifest under ``config/`` and a large file in its tree."""

    def __init__(self, root: Path, server: AssetServer) -> None:
        self.root = root
        self.server = server
        (root / "src" / "data").mkdir(parents=True)
        (root / "config").mkdir()
        (root / "src" / "data" / "big.wav").write_bytes(BIG)
        model = server.add("/assets/small-model.bin", MODEL)
        tiny = server.add("/assets/tiny-model.bin", MODEL[:1000])
        samples = server.add("/assets/samples.bin", SAMPLES)
        server.add("/assets/new-model.bin", NEW)
        stand_in = {"url": tiny.url, "checksum": tiny.sha256, "size": tiny.size}
        entries = [
            {"id": "small-model", "url": model.url, "localPath": "models/small.bin", "checksum": model.sha256,
             "size": model.size, "required": True, "tags": ["model", "essential"], "minimal": stand_in},
            {"id": "test-samples", "url": samples.url, "localPath": "data/samples.bin", "checksum": samples.sha256,
             "size": samples.size, "required": True, "tags": ["samples"]},
        ]  # fmt: skip
        text = json.dumps({"version": "1.0", "assets": entries}, indent=2)
        (root / "config" / "assets.json").write_text(text)
        (root / "my-assets.json").write_text(text)
        (root / ".gitignore").write_text("/assets/\n/logs/\n/my-assets.json\n")
        for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "all of it"]):
            self.git(*command)

    def git(self, *arguments: str) -> str:
        """Run git."""
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        return subprocess.run(
            ["git", *who, *arguments], cwd=self.root, check=True, capture_output=True, text=True
        ).stdout

    def run(self, command: str, code: int = 0) -> str:
        """Run one line of the guide in a shell; return its output."""
        line = command.replace("https://example.org/assets", self.server.url("/assets"))
        line = line.replace("grym-fetch ", f"{sys.executable} -m grym_fetch ", 1)
        done = subprocess.run(
            ["bash", "-c", line], cwd=self.root, env=environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == code, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def follow(self, name: str) -> str:
        """Run every command of a section, in order."""
        lines = [line for block in blocks(name, "sh") for line in block.splitlines() if line.strip()]
        assert lines, f"{name} has no commands"
        return "".join(self.run(line) for line in lines)

    def python(self, name: str) -> str:
        """Run a section's Python."""
        (program,) = blocks(name, "python")
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=self.root,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with serve_in_thread() as server:
        yield Repository(tmp_path / "my-project", server)


def test_why_external_asset_management(repository: Repository, tmp_path: Path) -> None:
    """A clone of a cleaned repository is small, and builds the same bytes after a sync."""
    repository.run("grym-fetch clean 0.5 . ../moved --yes --gitignore")
    repository.git("add", "-A")
    repository.git("commit", "-q", "-m", "moved out")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{repository.root}", str(clone)], check=True)
    size = sum(path.stat().st_size for path in clone.rglob("*") if path.is_file())
    assert size < len(BIG) / 4
    there = Repository.__new__(Repository)
    there.root, there.server = clone, repository.server
    there.run("grym-fetch sync")
    there.run("grym-fetch restore --all --external-assets-dir ../moved")
    assert (clone / "assets" / "models" / "small.bin").read_bytes() == MODEL
    assert (clone / "src" / "data" / "big.wav").read_bytes() == BIG


def test_directory_structure(repository: Repository) -> None:
    """Files lie where the guide shows them. The external folder, which is outside, is created where it is named."""
    repository.run("grym-fetch setup")
    assert not (repository.root.parent / "assets").exists()
    repository.run("grym-fetch setup --external-assets-dir ../assets")
    assert (repository.root / "assets" / ".grym-fetch").is_dir()
    assert (repository.root / "assets" / "models" / "small.bin").is_file()
    assert (repository.root.parent / "assets" / "asset-manifest.json").is_file()
    assert "assets/" not in repository.git("status", "--porcelain")


def test_asset_configuration() -> None:
    """The guide's entry is a manifest without problems or warnings."""
    (text,) = blocks("Asset configuration", "json")
    parsed = parse_manifest(text.encode(), "guide")
    assert parsed.warnings == ()
    (asset,) = parsed.manifest.assets
    assert (asset.id, asset.size, asset.required, len(asset.urls)) == ("audioldm-s-full", 1342177280, True, 2)


def test_asset_types(repository: Repository) -> None:
    """A tag selects only its group."""
    assert "small-model" in repository.follow("Asset types")
    assert (repository.root / "assets" / "models" / "small.bin").is_file()
    assert not (repository.root / "assets" / "data" / "samples.bin").exists()


def test_using_the_asset_manager(repository: Repository) -> None:
    """The guide's program finds, downloads and checks."""
    printed = repository.python("Using the asset manager")
    assert "small-model: 100% complete" in printed
    assert str(Path("assets") / "models" / "small.bin") in printed
    assert (repository.root / "assets" / "data" / "samples.bin").read_bytes() == SAMPLES


def test_identifying_large_files(repository: Repository) -> None:
    """Large files are listed, in a folder and in history."""
    printed = repository.follow("Identifying large files")
    assert printed.count("big.wav") >= 2


def test_cleaning_the_repository(repository: Repository) -> None:
    """A large file is moved with a record and a placeholder, and brought back the same."""
    lines = [line for block in blocks("Cleaning the repository", "sh") for line in block.splitlines()]
    big = repository.root / "src" / "data" / "big.wav"
    repository.run(lines[0])
    assert big.is_file()
    repository.run(lines[1])
    assert not big.exists()
    assert "sha256" in big.with_name("big.wav.asset-ref").read_text().lower()
    assert (repository.root.parent / "my-assets" / "asset-manifest.json").is_file()
    repository.run(lines[2])
    assert big.read_bytes() == BIG


def test_setting_up_the_project(repository: Repository) -> None:
    """Every way of setting up works, even repeatedly."""
    repository.follow("Setting up the project")
    assert (repository.root / "assets" / "minimal" / "models" / "small.bin").read_bytes() == MODEL[:1000]
    assert (repository.root / "assets" / "data" / "samples.bin").read_bytes() == SAMPLES
    assert (repository.root.parent / "elsewhere" / "asset-manifest.json").is_file()


def test_downloading_assets(repository: Repository) -> None:
    """Required assets, essential ones, once more, and from another manifest."""
    repository.follow("Downloading assets")
    assert (repository.root / "assets" / "models" / "small.bin").read_bytes() == MODEL


def test_adding_new_assets(repository: Repository) -> None:
    """A new asset is measured, listed, and can be fetched by others."""
    repository.follow("Adding new assets")
    entries = json.loads((repository.root / "config" / "assets.json").read_text())["assets"]
    (added,) = [entry for entry in entries if entry["id"] == "new-model"]
    assert added["size"] == len(NEW)
    assert len(added["checksum"].removeprefix("sha256:")) == 64


def test_asset_download_fails(repository: Repository) -> None:
    """A failure names the address and the cause; the doctor finds nothing wrong with a good one."""
    repository.follow("Asset download fails")
    manifest = repository.root / "config" / "assets.json"
    manifest.write_text(manifest.read_text().replace("/assets/samples.bin", "/assets/gone.bin"))
    printed = repository.run("grym-fetch sync test-samples", code=1)
    assert "404" in printed
    assert "gone.bin" in printed


def test_checksum_validation_fails(repository: Repository) -> None:
    """Wrong content is refused with both digests; files on disk can be checked."""
    repository.server.add("/assets/samples.bin", SAMPLES[:-1] + b"?")
    printed = repository.run("grym-fetch sync test-samples", code=3)
    assert printed.count("sha256:") >= 2
    repository.server.add("/assets/samples.bin", SAMPLES)
    repository.run("grym-fetch sync")
    assert repository.follow("Checksum validation fails").startswith("verified")


def test_asset_not_found(repository: Repository) -> None:
    """A misspelt id is answered with the nearest."""
    assert "small-model" in repository.run("grym-fetch sync smal-model", code=2)


def test_logs(repository: Repository) -> None:
    """The log has one line per event, as text or as JSON."""
    repository.follow("Logs")
    lines = (repository.root / "logs" / "asset-manager.log").read_text().splitlines()
    assert any("asset_verified" in line for line in lines)
    records = [json.loads(line) for line in (repository.root / "logs" / "events.jsonl").read_text().splitlines()]
    assert {record["type"] for record in records if "type" in record} >= {"run_started", "asset_reused", "run_finished"}


def test_testing_with_minimal_assets(repository: Repository) -> None:
    """The stand-in is used, and never taken for the asset."""
    path = Path(repository.follow("Testing with minimal assets").splitlines()[0])
    assert path.read_bytes() == MODEL[:1000]
    assert "minimal" in path.parts


def test_creating_mock_assets(repository: Repository) -> None:
    """The mock returns the path it was given, without network or disk."""
    repository.python("Creating mock assets")
    assert not repository.server.stats.requests
