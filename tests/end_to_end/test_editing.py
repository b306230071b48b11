"""Adding new assets, pinning, removing and pruning, as users type them."""

from __future__ import annotations

import hashlib
import json
import signal
from pathlib import Path

import pytest

from grym_fetch.testing import AssetServer, Gate, Hold, Throttle, seeded_bytes
from tests.end_to_end.command import Done, Running, run
from tests.repo.story import git
from tests.support.project import Project

CONTENT = seeded_bytes(300_000, seed=31)


@pytest.fixture
def project(tmp_path: Path, server: AssetServer) -> Project:
    made = Project(tmp_path / "project")
    made.add("model-a", [server.add("/a.bin", CONTENT).url], CONTENT)
    return made


def entry_of(folder: Path, asset_id: str) -> dict[str, object]:
    """An entry of the manifest."""
    found = [e for e in json.loads((folder / "assets.json").read_bytes())["assets"] if e["id"] == asset_id]
    assert len(found) == 1
    entry: dict[str, object] = found[0]
    return entry


def last(done: Done) -> dict[str, object]:
    """The last object in the output of `--json` that is not an event."""
    return [record for record in done.events if "type" not in record][-1]


def test_adding_new_assets(tmp_path: Path, server: AssetServer) -> None:
    """From an empty folder: add creates the manifest, fetches, measures and lists; check and sync agree with it."""
    (tmp_path / ".git").mkdir()
    file = server.add("/models/wav2vec2-base.tar.gz", CONTENT)
    done = run(
        tmp_path, "add", file.url, "--tag", "model", "--tag", "audio", "--required",
        "--fallback-url", "https://mirror.example.org/w.tar.gz", "--name", "Wav2Vec2", "--description", "Features",
        "--asset-version", "2.0",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "created" in done.err
    assert file.sha256 in done.out
    assert entry_of(tmp_path, "wav2vec2-base") == {
        "id": "wav2vec2-base", "name": "Wav2Vec2", "description": "Features", "url": file.url,
        "fallbackUrls": ["https://mirror.example.org/w.tar.gz"], "localPath": "wav2vec2-base.tar.gz",
        "checksum": file.sha256, "size": len(CONTENT), "version": "2.0", "required": True, "tags": ["model", "audio"],
    }  # fmt: skip
    assert (tmp_path / "assets/wav2vec2-base.tar.gz").read_bytes() == CONTENT
    requests = len(server.stats.requests)
    assert run(tmp_path, "check").code == 0
    assert run(tmp_path, "sync").code == 0
    assert len(server.stats.requests) == requests


def test_add_keeps_what_the_user_wrote(project: Project, server: AssetServer) -> None:
    """Everything except the new entry and `updated` stays, to the byte."""
    before = (
        '{\n\t"note": "ü",  "updated": "2025-03-09T12:00:00.000Z",\n\t"assets": [\n'
        '\t\t{"id": "x", "url": "https://h.example/x", "localPath": "x", "size": null, "mine": 1.50}\n\t]\n}'
    )
    project.manifest.write_text(before, encoding="utf-8")
    assert run(project.root, "add", server.add("/new.bin", CONTENT).url, "--id", "n").code == 0
    after = project.manifest.read_text(encoding="utf-8")
    assert after.startswith('{\n\t"note": "ü",  "updated": "2')
    line = before.splitlines()[3]
    assert f"{line},\n\t\t{{" in after
    assert after.endswith("}\n\t]\n}")


def test_add_a_file(project: Project, tmp_path: Path, server: AssetServer) -> None:
    """A file needs the address where others get it; it is copied into its place, and another clone can fetch it."""
    file = tmp_path / "weights.ckpt"
    file.write_bytes(CONTENT)
    done = run(project.root, "add", str(file))
    assert done.code == 2
    assert "--url" in done.err
    url = server.add("/weights.ckpt", CONTENT).url
    done = run(project.root, "add", str(file), "--url", url, "--local-path", "m/w.ckpt", "--json")
    assert done.code == 0, done.err
    assert last(done)["id"] == "weights"
    assert Path(str(last(done)["path"])).read_bytes() == CONTENT
    assert not server.stats.requests
    (project.assets / "m/w.ckpt").unlink()
    assert run(project.root, "sync", "weights").code == 0


def test_add_a_file_that_lies_in_the_assets_folder(project: Project) -> None:
    """The file stays where it is."""
    place = project.assets / "data" / "set.bin"
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT)
    assert run(project.root, "add", "assets/data/set.bin", "--url", "https://h.example/s").code == 0
    assert entry_of(project.root, "set")["localPath"] == "data/set.bin"


def test_wrong_usage_of_add(project: Project, server: AssetServer) -> None:
    """An asset that cannot be added is exit code 2 with the reason; nothing is fetched, and no secret is shown."""
    url = server.add("/new.bin", CONTENT).url
    cases = [
        ((url, "--id", "model-a"), "is taken"),
        ((url, "--local-path", "models/model-a.bin"), "clashes"),
        ((url, "--local-path", "../x"), "localPath"),
        ((server.url("/"),), "--local-path"),
        (("https://me:s3cret@h.example/a.bin",), "GRYM_FETCH_TOKEN"),
        (("missing.bin", "--url", url), "no file"),
        ((".", "--url", url), "not a file"),
        ((url, "--url", url), "--fallback-url"),
        (("ftp://h.example/a.bin",), "there is no source"),
    ]
    before = project.manifest.read_bytes()
    for arguments, named in cases:
        done = run(project.root, "add", *arguments)
        assert done.code == 2, done
        assert named in done.err
        assert "s3cret" not in done.err + done.out
    assert project.manifest.read_bytes() == before
    assert not server.stats.requests


def test_a_signed_address_is_warned_of(project: Project, server: AssetServer) -> None:
    """An address with a signature is accepted, with a warning that does not show it."""
    url = server.add("/new.bin", CONTENT).url + "?X-Signature=s3cret"
    done = run(project.root, "add", url, "-v")
    assert done.code == 0
    assert "signed" in done.err
    assert "s3cret" not in done.err + done.out


def test_add_with_a_manifest_that_is_not_there(tmp_path: Path) -> None:
    """A manifest that was named must exist; none is created in its place."""
    done = run(tmp_path, "add", "https://h.example/a.bin", "--config", "other.json")
    assert done.code == 2
    assert "other.json" in done.err
    assert list(tmp_path.iterdir()) == []


def test_pin(project: Project, server: AssetServer) -> None:
    """sync refuses an unpinned asset and names pin; pin fetches it and writes what it is; then sync succeeds."""
    file = server.add("/u.bin", CONTENT)
    project.add("u", [file.url], CONTENT, pinned=False, size=None)
    refused = run(project.root, "sync", "u")
    assert refused.code == 1
    assert "grym-fetch pin u" in refused.err
    done = run(project.root, "pin", "--json")
    assert done.code == 0, done.err
    assert last(done) | {"path": ""} == {
        "id": "u", "checksum": f"sha256:{file.sha256}", "size": len(CONTENT), "path": "", "fetched": True,
        "stand_in": False,
    }  # fmt: skip
    assert entry_of(project.root, "u")["checksum"] == file.sha256
    assert run(project.root, "sync", "u").code == 0
    assert "nothing to pin" in run(project.root, "pin").err
    assert run(project.root, "pin", "uu").code == 2


def test_an_interrupted_pin_is_resumed(project: Project, server: AssetServer) -> None:
    """Ctrl-C in the middle keeps what has arrived; the manifest does not change until the end."""
    content = seeded_bytes(6_000_000, seed=32)
    file = server.add("/u.bin", content, faults=[Throttle(3_000_000), Hold(Gate(), at=len(content) - 1)])
    project.add("u", [file.url], content, pinned=False)
    before = project.manifest.read_bytes()
    with Running(project.root, "pin", "--json") as running:
        running.until_bytes(3_000_000)
        running.send(signal.SIGINT)
        assert running.finish().code == 130
    assert project.manifest.read_bytes() == before
    file.faults = ()
    sent = server.stats.body_bytes_sent
    assert run(project.root, "pin").code == 0
    assert server.stats.body_bytes_sent - sent < len(content)
    assert entry_of(project.root, "u")["checksum"] == file.sha256


def test_remove(project: Project) -> None:
    """The entry goes without a question; the file only if that is requested and confirmed."""
    run(project.root, "sync")
    place = project.assets / "models/model-a.bin"
    assert run(project.root, "remove", "model-b").code == 2
    done = run(project.root, "remove", "model-a", "--delete-file")
    assert done.code == 2
    assert "--yes" in done.err
    assert place.exists()
    assert entry_of(project.root, "model-a")
    done = run(project.root, "remove", "model-a", "--delete-file", "-y", "--json")
    assert done.code == 0, done.err
    assert last(done) == {"id": "model-a", "deleted": [str(place)]}
    assert not place.exists()
    assert json.loads(project.manifest.read_bytes())["assets"] == []


def test_prune(project: Project, server: AssetServer) -> None:
    """A dry run shows a killed download's parts and a real one removes them; a running download is left alone."""
    content = seeded_bytes(12_000_000, seed=33)
    file = server.add("/slow.bin", content, faults=[Throttle(3_000_000), Hold(Gate(), at=len(content) - 1)])
    project.add("slow", [file.url], content)
    with Running(project.root, "sync", "slow", "--json", "--stall-timeout", "600") as running:
        running.until_stored(project, 500_000)
        under_way = run(project.root, "prune", "--json")
        assert last(under_way) == {"bytes": 0, "in_use": 1, "dry_run": False}
        running.send(signal.SIGKILL)
    assert len(project.staged()) == 1
    dry = run(project.root, "prune", "--dry-run", "--json")
    assert dry.events[0]["id"] == "slow"
    assert int(str(last(dry)["bytes"])) >= 500_000
    assert len(project.staged()) == 1
    done = run(project.root, "prune")
    assert done.code == 0
    assert "slow" in done.out
    assert "freed" in done.out
    assert project.staged() == []
    assert list((project.assets / ".grym-fetch/locks").iterdir()) == []
    assert "0 B freed" in run(project.root, "prune").out


@pytest.mark.shows("S17")
def test_no_manifest_is_made_among_what_is_git_s(tmp_path: Path, server: AssetServer) -> None:
    """In a repository without a work tree, `add` makes none and fetches nothing."""
    git(tmp_path, "init", "-q", "--bare")
    before = sorted(tmp_path.rglob("*"))
    refused = run(tmp_path, "add", server.add("/there.bin", CONTENT).url)
    assert (refused.code, "git's own folder" in refused.err) == (4, True)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_failed_add_leaves_no_manifest(tmp_path: Path, server: AssetServer) -> None:
    """A manifest created for an asset is removed with it; one with assets stays."""
    (tmp_path / ".git").mkdir()
    missing = server.url("/missing.bin")
    refused = run(tmp_path, "add", missing, "--retries", "0")
    assert refused.code == 1
    assert f"nothing was added: removed {tmp_path / 'assets.json'} again" in refused.err
    assert not (tmp_path / "assets.json").exists()
    (tmp_path / "assets.json").write_text('{"assets": []}')  # without the version that the removed one had
    assert run(tmp_path, "add", server.add("/there.bin", CONTENT).url).code == 0
    assert run(tmp_path, "add", missing, "--retries", "0").code == 1
    assert entry_of(tmp_path, "there")


def test_pin_tells_what_it_has_pinned(project: Project, server: AssetServer) -> None:
    """Even if another asset fails, every asset that is in the manifest now is on stdout."""
    project.add("u", [server.add("/u.bin", CONTENT).url], CONTENT, pinned=False)
    project.add("lost", [server.url("/missing.bin")], CONTENT, pinned=False)
    done = run(project.root, "pin", "--json", "--retries", "0")
    assert done.code == 1
    assert last(done)["id"] == "u"
    assert last(done)["checksum"] == f"sha256:{entry_of(project.root, 'u')['checksum']}"


def test_add_with_the_digest_of_the_publisher(project: Project, server: AssetServer) -> None:
    """Anything else is refused with exit code 3 and leaves neither entry nor file; nonsense is wrong usage."""
    url = server.add("/new.bin", CONTENT).url
    right, wrong = hashlib.sha256(CONTENT).hexdigest(), "0" * 64
    refused = run(project.root, "add", url, "--checksum", f"sha256:{wrong}")
    assert refused.code == 3
    assert "new" not in project.manifest.read_text()
    assert not (project.assets / "new.bin").exists()
    assert run(project.root, "add", url, "--checksum", "nonsense").code == 2
    assert run(project.root, "add", url, "--checksum", f"sha256:{right}").code == 0
    assert right in project.manifest.read_text()


def test_pin_says_where_its_bytes_are_from(project: Project, server: AssetServer) -> None:
    """A file that was there is pinned as such; `--update` fetches what the address has, and shows the change first."""
    server.add("/b.bin", b"second version" * 9)
    place = project.add("b", [server.url("/b.bin")], None, pinned=False, size=None)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"first version" * 9)
    with_pieces = run(project.root, "pin", "b", "--pieces").out
    assert "(the file that was there)" in with_pieces
    project.add("b", [server.url("/b.bin")], None, pinned=False, size=None)
    assert "(the file that was there)" in run(project.root, "pin", "b").out
    assert "(the file that was there)" not in run(project.root, "pin", "b", "--pieces").out
    done = run(project.root, "pin", "b", "--update")
    assert done.code == 0
    old, new = (hashlib.sha256(text * 9).hexdigest() for text in (b"first version", b"second version"))
    assert f"b: sha256:{old}  117 B -> sha256:{new}  126 B" in done.err
    assert f"(was sha256:{old[:12]}…)" in done.out
    assert place.read_bytes() == b"second version" * 9
    assert "(unchanged)" in run(project.root, "pin", "b", "--update").out
    assert run(project.root, "pin", "--update", "--pieces").code == 2
