"""Adding from a short address: all of it or nothing, downloading only what the hub has no SHA-256 for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from grym_fetch import MirrorsExhausted, SyncFailed
from grym_fetch.cli.main import cli
from grym_fetch.core.digest import Checksum
from grym_fetch.core.manifest import Asset
from grym_fetch.core.stated import StatedDigest
from grym_fetch.errors import DigestMismatch, EditRefused, SourceFailed, StaleManifest, UnknownSource
from grym_fetch.testing import AssetServer, create_mock_asset_manager, seeded_bytes
from tests.project.editing import entries, manager_for
from tests.support.hubs import HuggingFaceHub, Reply, closing_hub
from tests.support.invariants import Recorder
from tests.support.project import KIB, Project

TWELVE = {
    **{f"weights-{n}.safetensors": seeded_bytes(20 * KIB + n, seed=n) for n in range(3)},
    **{f"text/{n}.txt": seeded_bytes(100 + n, seed=50 + n) for n in range(7)},
    "config.json": b"{}",
    "empty.txt": b"",
}
SMALL_ONES = [path for path in TWELVE if not path.endswith(".safetensors")]


@pytest.fixture
def hub() -> Iterator[HuggingFaceHub]:
    """A model of twelve files, three of them in LFS storage."""
    with closing_hub(HuggingFaceHub()) as made:
        made.add("models/org/model", TWELVE)
        yield made


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project without assets."""
    made = Project(tmp_path / "project")
    made.write()
    return made


async def test_a_repository_of_twelve_files(project: Project, hub: HuggingFaceHub) -> None:
    """Twelve right entries with a download of only the small files; then a sync verifies all, fetching the rest."""
    async with manager_for(project, hub) as manager:
        recorder = Recorder(manager)
        added = await manager.add_from_source("hf://org/model", tags=["model"])
        recorder.check()
        assert len(added) == 12
        assert sorted(hub.downloads()) == sorted(path for path in SMALL_ONES if TWELVE[path])
        [finished] = recorder.of("run_finished")
        assert (finished["verified"], finished["failed"]) == (9, 0)
        hub.requests.clear()
        report = await manager.sync(all=True)
        assert len(report.paths) == 12
        large = set(TWELVE) - set(SMALL_ONES)
        assert {path.rpartition("/")[2] for path in hub.downloads()} == large
    commit = hub.repositories["models/org/model"].branches["main"]
    for path, content in TWELVE.items():
        entry = entries(project)[f"model-{path.replace('/', '-')}"]
        assert (project.assets / entry["localPath"]).read_bytes() == content
        assert entry["checksum"] == Checksum.of(content).hexdigest
        assert (entry["size"], entry["version"], entry["tags"]) == (len(content), commit, ["model"])
        assert entry["source"] == f"hf://org/model@main/{path}"
        assert entry["localPath"] == f"model/{path}"


async def test_one_large_file_is_listed_and_not_fetched(project: Project, hub: HuggingFaceHub) -> None:
    """Its digest is known: nothing is downloaded just to write one line."""
    async with manager_for(project, hub) as manager:
        [asset] = await manager.add_from_source("hf://org/model/weights-1.safetensors", asset_id="w", required=True)
        assert (asset.id, asset.local_path, asset.required) == ("w", "weights-1.safetensors", True)
        assert manager.state_of(asset) == "missing"
        assert hub.downloads() == []
        assert (await manager.get_asset_path("w")).read_bytes() == TWELVE["weights-1.safetensors"]


async def test_a_page(project: Project, hub: HuggingFaceHub) -> None:
    """The address of a browser's page is understood; an address that is not a hub's is not asked."""
    async with manager_for(project, hub) as manager:
        [asset] = await manager.add_from_source(f"{hub.url}/org/model/blob/main/config.json")
        assert asset.source == "hf://org/model@main/config.json"
        with pytest.raises(UnknownSource, match="not a short address"):
            await manager.add_from_source("https://h.example/x")


@pytest.mark.shows("C14", "S1")
@pytest.mark.parametrize("name", ["config.json", "text/3.txt"])
async def test_other_bytes_than_the_hub_states(project: Project, hub: HuggingFaceHub, name: str) -> None:
    """If the hub delivers other bytes than its digest says, of the same length, there is no entry and no file."""
    hub.delivered[name] = bytes(len(TWELVE[name]))
    before = project.manifest.read_bytes()
    async with manager_for(project, hub) as manager:
        with pytest.raises(DigestMismatch, match="git-blob:"):
            await manager.add_from_source(f"hf://org/model/{name}")
        with pytest.raises(SyncFailed) as caught:
            await manager.add_from_source("hf://org/model")
    assert [type(error) for error in caught.value.failures.values()] == [DigestMismatch]
    assert project.manifest.read_bytes() == before
    assert not (project.assets / "model" / name).exists()
    assert not (project.assets / Path(name).name).exists()
    assert project.staged() == []


@pytest.mark.shows("C14")
async def test_another_length_than_the_hub_states(project: Project, hub: HuggingFaceHub) -> None:
    """It is noticed before anything is kept."""
    hub.delivered["config.json"] = b"{} "
    async with manager_for(project, hub) as manager:
        with pytest.raises(MirrorsExhausted, match="size mismatch"):
            await manager.add_from_source("hf://org/model/config.json")
    assert entries(project) == {}
    assert not (project.assets / "config.json").exists()


async def test_an_interrupted_add_goes_on(project: Project, hub: HuggingFaceHub) -> None:
    """Fetched files are used if they are what the hub states, and the rest is fetched."""
    hub.override = lambda request: Reply(404) if request.path.endswith("/config.json") else None
    async with manager_for(project, hub) as manager:
        with pytest.raises(SyncFailed, match="404"):
            await manager.add_from_source("hf://org/model")
        assert entries(project) == {}
        hub.override = lambda _: None
        hub.requests.clear()
        await manager.add_from_source("hf://org/model")
    assert hub.downloads() == ["config.json"]
    assert len(entries(project)) == 12


@pytest.mark.shows("C14")
async def test_a_file_in_the_way(project: Project, hub: HuggingFaceHub) -> None:
    """A different file where one of them belongs stays, and nothing is added."""
    place = project.assets / "model" / "config.json"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"mine")
    async with manager_for(project, hub) as manager:
        with pytest.raises(SyncFailed, match="a file already"):
            await manager.add_from_source("hf://org/model")
    assert place.read_bytes() == b"mine"
    assert entries(project) == {}


async def test_what_cannot_be_listed_is_not_fetched(project: Project, hub: HuggingFaceHub) -> None:
    """A taken id or place, or one name for many, is refused before a byte is requested."""
    async with manager_for(project, hub) as manager:
        await manager.add_asset(Asset("model-config.json", "https://h.example/a", "a"))
        await manager.add_asset(Asset("b", "https://h.example/a", "other/TEXT"))
        with pytest.raises(EditRefused, match=r"'model-config.json': id: is taken"):
            await manager.add_from_source("hf://org/model")
        with pytest.raises(EditRefused, match=r"localPath: clashes with that of asset 'b'"):
            await manager.add_from_source("hf://org/model/text", local_path="other/text")
        with pytest.raises(EditRefused, match="single file"):
            await manager.add_from_source("hf://org/model", name="one name")
    assert hub.downloads() == []
    assert set(entries(project)) == {"model-config.json", "b"}


@pytest.mark.shows("C15", "S5")
async def test_names_that_lead_elsewhere(project: Project, hub: HuggingFaceHub) -> None:
    """A hub cannot cause anything to be written outside the assets folder."""
    hub.add("models/org/evil", {"../../escaped.txt": b"x", "ok.txt": b"y"})
    async with manager_for(project, hub) as manager:
        with pytest.raises(EditRefused, match=r"escaped"):
            await manager.add_from_source("hf://org/evil")
    assert entries(project) == {}
    assert hub.downloads() == []


@pytest.mark.shows("M16", "S16")
async def test_a_stale_manifest(project: Project, hub: HuggingFaceHub) -> None:
    """Nothing is fetched for a manifest that must no longer be used."""
    project.manifest.write_text('{"expires": "2001-01-01T00:00:00Z", "assets": []}')
    async with manager_for(project, hub) as manager:
        with pytest.raises(StaleManifest):
            await manager.add_from_source("hf://org/model")
    assert hub.downloads() == []


async def test_offline(project: Project, hub: HuggingFaceHub) -> None:
    """The hub is not asked."""
    async with manager_for(project, hub, offline=True) as manager:
        with pytest.raises(SourceFailed, match="--offline"):
            await manager.add_from_source("hf://org/model")
    assert hub.requests == []


@pytest.mark.shows("C14")
async def test_a_stated_digest_of_an_address(project: Project, server: AssetServer) -> None:
    """A known MD5 of a file is compared, and the SHA-256 is written."""
    content = seeded_bytes(300 * KIB, seed=9)
    url = server.add("/a.bin", content).url
    wrong = StatedDigest("md5", "0" * 32)
    async with project.manager() as manager:
        with pytest.raises(DigestMismatch, match="md5:0000"):
            await manager.add_asset(Asset("a", url, "a.bin", stated=wrong), fetch=True)
        assert not (project.assets / "a.bin").exists()
        right = StatedDigest.parse(f"md5:{hashlib.md5(content).hexdigest()}")
        added = await manager.add_asset(Asset("a", url, "a.bin", stated=right), fetch=True)
    assert added.checksum == Checksum.of(content)
    assert "stated" not in entries(project)["a"]


async def test_a_mock_has_no_hub() -> None:
    """A mock says so, and asks no one."""
    with pytest.raises(NotImplementedError, match="network"):
        await create_mock_asset_manager({}).add_from_source("hf://org/model")


# -- the command ----------------------------------------------------------------------------------------------------


def run(project: Project | None, hub: HuggingFaceHub, *arguments: str) -> tuple[int, Result]:
    """Run the command in this process; its exit code and output."""
    environ = {"HF_ENDPOINT": hub.url}
    if project is not None:
        environ["GRYM_FETCH_CONFIG"] = str(project.manifest)
    done = CliRunner().invoke(cli, arguments, env=environ, standalone_mode=False)
    if isinstance(done.exception, click.ClickException):
        return done.exception.exit_code, done
    return done.return_value, done


def test_the_command(project: Project, hub: HuggingFaceHub) -> None:
    """It lists what was added, and what the next sync has to fetch."""
    code, done = run(project, hub, "add", "hf://org/model/*.safetensors", "--id", "m", "--local-path", "weights")
    assert code == 0, done.output
    assert [line.split()[1] for line in done.stdout.splitlines()] == [f"m-weights-{n}.safetensors" for n in range(3)]
    assert "3 of 3 are not fetched yet: grym-fetch sync --all" in done.stderr
    assert entries(project)["m-weights-0.safetensors"]["localPath"] == "weights/weights-0.safetensors"
    _, done = run(project, hub, "add", "hf://org/model/*[g0].[js]*", "--id", "k", "--local-path", "k")
    assert "1 of 2 is not fetched yet: grym-fetch sync --all" in done.stderr
    _, done = run(project, hub, "add", "hf://org/model/weights-0.safetensors", "--id", "a b", "--local-path", "w")
    assert "it is not fetched yet: grym-fetch sync 'a b'" in done.stderr
    _, done = run(project, hub, "add", "hf://org/model/config.json", "--json")
    last = next(each for each in map(json.loads, done.stdout.splitlines()) if "source" in each)
    assert (last["id"], last["source"], last["size"]) == ("config", "hf://org/model@main/config.json", 2)
    assert Path(last["path"]).read_bytes() == b"{}"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["hff://org/model"], 2, "there is no source 'hff:'; known are"),
        (["s3://bucket/"], 2, "s3://bucket/ is not the address of an object in a bucket"),
        (["gs://models/v1/"], 2, "gs://models/v1/: a bucket is not listed; name one object"),
        (["az://models/*.bin"], 2, "az://models/*.bin: a bucket is not listed; name one object"),
        (["s3://models/a.bin?versionId=1"], 2, "has a ? or a #, which an address in a bucket has only as %3F"),
        (["S3://models/a.bin"], 2, "starts with s3: in capitals; allowed: "),
        (["hf://org/modle"], 2, "Nearest: hf://org/model"),
        ([f"hf://{'a' * 5000}"], 2, "is not an address on Hugging Face"),
        ([f"https://h.example/{'a' * 9000}"], 2, "characters long; at most 8192 are allowed"),
        (["https:///a.bin"], 2, "https:///a.bin has no host"),
        (["lfs://git.example/a"], 2, "is not the address of an object on a Git LFS server"),
        (["HF://org/modle"], 2, "Nearest: hf://org/model"),
        (["hf://org/model/config.json", "--url", "https://h.example/"], 2, "--url is for a file"),
        (["hf://org/model", "--fallback-url", "https://h.example/a"], 2, "single file"),
        (["hf://org/model", "--fallback-url", "https://me:pw@h.example/a"], 2, "a user or password"),
    ],
)
def test_wrong_usage(project: Project, hub: HuggingFaceHub, arguments: list[str], code: int, said: str) -> None:
    """The error is one line, and nothing is written."""
    before = project.manifest.read_bytes()
    actual, done = run(project, hub, "add", *arguments)
    assert actual == code
    assert said in f"{done.stderr}{done.exception}"
    assert project.manifest.read_bytes() == before


@pytest.mark.shows("C14", "C15")
def test_exit_codes(project: Project, hub: HuggingFaceHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Other bytes than stated are an integrity error (3), a failing hub is not (1); a new manifest is removed again."""
    monkeypatch.chdir(tmp_path)
    project.manifest.unlink()
    hub.delivered["config.json"] = b"[]"
    assert run(None, hub, "add", "hf://org/model/config.json")[0] == 3
    hub.override = lambda _: Reply(200, b"<html>")
    code, done = run(None, hub, "add", "hf://org/model/config.json")
    assert code == 1
    assert "error: Hugging Face: the answer makes no sense: is not valid JSON" in done.stderr
    assert not (tmp_path / "assets.json").exists()
