"""The main jobs on Windows, each by the real command."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from grym_fetch.testing import AssetServer, Gate, Hold, ServedFile, seeded_bytes, serve_in_thread

MIB = 1024 * 1024
CONTENT = seeded_bytes(9 * MIB, seed=1)


@pytest.fixture
def origin() -> Iterator[AssetServer]:
    """A server in a thread."""
    with serve_in_thread() as running:
        yield running


def start(root: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the command there."""
    return subprocess.Popen(
        [sys.executable, "-m", "grym_fetch", *arguments],
        cwd=root,
        env=os.environ | {"XDG_STATE_HOME": str(root / "state")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(root: Path, *arguments: str, code: int = 0) -> str:
    """Run the command there; return what it prints."""
    process = start(root, *arguments)
    told, _ = process.communicate(timeout=120)
    assert process.returncode == code, told
    return told


def listed(root: Path, name: str, file: ServedFile, path: str, size: int, **more: object) -> Path:
    """List an asset; return where it belongs."""
    manifest = root / "assets.json"
    there = json.loads(manifest.read_text())["assets"] if manifest.exists() else []
    entry = {"id": name, "url": file.url, "localPath": path, "checksum": f"sha256:{file.sha256}", "size": size}
    manifest.write_text(json.dumps({"assets": [*there, entry | more]}))
    return root / "assets" / path


def test_what_is_fetched_is_verified_known_and_repaired(tmp_path: Path, origin: AssetServer) -> None:
    """A second run reads and fetches nothing; a damaged file is found, and only its damaged part fetched again."""
    small = [seeded_bytes(1000 + number, seed=number) for number in range(20)]
    for number, data in enumerate(small):
        listed(tmp_path, f"s{number}", origin.add(f"/s{number}", data), f"small/{number}.bin", len(data))
    path = listed(tmp_path, "big", origin.add("/big", CONTENT), "models/big.bin", len(CONTENT))
    run(tmp_path, "sync")
    assert path.read_bytes() == CONTENT
    assert [(tmp_path / f"assets/small/{number}.bin").read_bytes() for number in range(20)] == small
    origin.stats.reset()
    told = [json.loads(line) for line in run(tmp_path, "sync", "--json").splitlines() if line.startswith("{")]
    assert {each["type"] for each in told if "asset" in each} == {"asset_reused"}, "nothing is read"
    assert run(tmp_path, "path", "big").strip().endswith("big.bin")
    with path.open("r+b") as file:
        file.seek(5 * MIB)
        file.write(b"damaged")
    run(tmp_path, "check", "--full", code=3)
    assert not origin.stats.requests
    run(tmp_path, "repair", "big")
    assert path.read_bytes() == CONTENT
    assert 0 < origin.stats.body_bytes_sent < len(CONTENT)
    assert "verified" in run(tmp_path, "check", "--full", "big")


def test_a_killed_run_is_resumed(tmp_path: Path, origin: AssetServer) -> None:
    """Nothing has the final name; the next run goes on, and leaves nothing behind."""
    gate = Gate()
    file = origin.add("/big", CONTENT, faults=[Hold(gate, at=len(CONTENT) - 1)])
    path = listed(tmp_path, "big", file, "models/big.bin", len(CONTENT))
    process = start(tmp_path, "sync", "--json", "--parallel", "1")
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line) if line.startswith("{") else {}
        if event.get("bytes", 0) > 6 * MIB and event["type"] == "progress":
            break
    process.kill()
    process.communicate(timeout=60)
    assert not path.exists()
    gate.open()
    told = run(tmp_path, "sync", "--json")
    [planned] = [json.loads(line) for line in told.splitlines() if '"asset_planned"' in line]
    assert planned["resumed_bytes"] >= MIB
    assert path.read_bytes() == CONTENT
    assert list((tmp_path / "assets").glob(".grym-fetch/*/stage/*/*")) == []


def test_a_wrong_file_and_a_missing_one(tmp_path: Path, origin: AssetServer) -> None:
    """Nothing unverified gets a final name."""
    file = origin.add("/big", CONTENT)
    path = listed(tmp_path, "big", file, "big.bin", len(CONTENT), checksum="sha256:" + "0" * 64)
    run(tmp_path, "sync", code=3)
    assert not path.exists()
    listed(tmp_path, "gone", file, "gone.bin", len(CONTENT), url=file.url.replace("big", "gone"))
    run(tmp_path, "sync", "gone", code=1)
    assert not (tmp_path / "assets/gone.bin").exists()


@pytest.mark.parametrize("place", ["../out.bin", "C:/out.bin", "a\\..\\..\\out.bin", "nul", "a/con.txt", "x:stream"])
def test_paths_that_lead_out_or_to_devices(tmp_path: Path, origin: AssetServer, place: str) -> None:
    """A manifest that names one is refused as a whole."""
    listed(tmp_path, "a", origin.add("/a", b"x"), place, 1)
    run(tmp_path, "sync", code=2)
    assert not origin.stats.requests


def test_archives_are_unpacked(tmp_path: Path, origin: AssetServer) -> None:
    """And put right when a file of theirs has changed."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name, data in (("data/a.txt", b"a\r\n"), ("data/deep/b.bin", CONTENT[:MIB])):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    data = made.getvalue()
    listed(tmp_path, "set", origin.add("/set.tar.gz", data), "set.tar.gz", len(data), extract=True)
    run(tmp_path, "sync")
    tree = tmp_path / "assets/set"
    assert (tree / "data/a.txt").read_bytes() == b"a\r\n"
    assert (tree / "data/deep/b.bin").read_bytes() == CONTENT[:MIB]
    assert "already there" in run(tmp_path, "sync")


def test_assets_are_added_and_removed(tmp_path: Path, origin: AssetServer) -> None:
    """With the checksum that was measured."""
    (tmp_path / "assets.json").write_text('{"assets": []}')
    run(tmp_path, "add", origin.add("/new.bin", CONTENT).url)
    [entry] = json.loads((tmp_path / "assets.json").read_text())["assets"]
    assert entry["checksum"] == hashlib.sha256(CONTENT).hexdigest()
    run(tmp_path, "sync")
    run(tmp_path, "remove", entry["id"], "--delete-file", "--yes")
    assert not (tmp_path / "assets" / entry["localPath"]).exists()


def test_files_are_moved_out_and_brought_back(tmp_path: Path) -> None:
    """Large files of a folder, with placeholders in their place."""
    root = tmp_path / "project"
    root.mkdir()
    (root / "model.ckpt").write_bytes(CONTENT)
    run(root, "clean", "1", ".", str(tmp_path / "elsewhere"), "--yes")
    assert not (root / "model.ckpt").exists()
    assert (tmp_path / "elsewhere/model.ckpt").read_bytes() == CONTENT
    run(root, "restore", "--all", "--external-assets-dir", str(tmp_path / "elsewhere"))
    assert (root / "model.ckpt").read_bytes() == CONTENT


def test_two_projects_share_a_store(tmp_path: Path, origin: AssetServer) -> None:
    """The second one fetches nothing."""
    file = origin.add("/big", CONTENT)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        path = listed(tmp_path / name, "big", file, "big.bin", len(CONTENT))
        origin.stats.reset()
        run(tmp_path / name, "sync", "--store", str(tmp_path / "store"))
        assert path.read_bytes() == CONTENT
    assert not origin.stats.requests
