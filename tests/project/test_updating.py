"""Which assets have a newer version, and how the manifest moves to it: shown first, all or nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from grym_fetch import SyncFailed, UnknownAsset
from grym_fetch.cli.main import cli
from grym_fetch.core.digest import Algorithm, Checksum
from grym_fetch.core.manifest import Asset
from grym_fetch.errors import DigestMismatch, EditRefused, EntryUnsuited, PolicyRefused, StaleManifest
from grym_fetch.project.adding import Adder
from grym_fetch.reports import NewerVersion
from grym_fetch.testing import AssetServer, create_mock_asset_manager, seeded_bytes
from tests.project.editing import entries, manager_for
from tests.support.hubs import HuggingFaceHub, Reply, closing_hub
from tests.support.project import KIB, Project

OLD = {
    "big.bin": seeded_bytes(30 * KIB, seed=1),
    "same.bin": seeded_bytes(20 * KIB, seed=2),
    "config.json": b'{"v": 1}',
    "same.txt": b"the same",
}
NEW = {**OLD, "big.bin": seeded_bytes(31 * KIB, seed=3), "config.json": b'{"v": 2}', "more.bin": b"more"}


@pytest.fixture
def hub() -> Iterator[HuggingFaceHub]:
    """A model with one commit."""
    with closing_hub(HuggingFaceHub()) as made:
        made.add("models/org/model", OLD)
        yield made


@pytest.fixture
async def project(tmp_path: Path, hub: HuggingFaceHub) -> Project:
    """A project with the whole model and one asset without a source; then the hub gets a new commit."""
    made = Project(tmp_path / "project")
    made.write()
    async with manager_for(made, hub) as manager:
        await manager.add_from_source("hf://org/model")
        await manager.add_asset(Asset("plain", "https://h.example/plain", "plain.bin"))
        await manager.sync([asset.id for asset in manager.manifest.assets if asset.source])
    hub.repositories["models/org/model"].commit(NEW)
    hub.requests.clear()
    hub.cdn_requests.clear()
    return made


def files(project: Project) -> dict[str, bytes]:
    """The files in the model's folder."""
    folder = project.assets / "model"
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def test_what_is_outdated(project: Project, hub: HuggingFaceHub) -> None:
    """Only an asset with other content is outdated: a new commit alone does not count."""
    before = project.manifest.read_bytes()
    seen: list[NewerVersion] = []
    async with manager_for(project, hub) as manager:
        found = await manager.outdated(on_found=seen.append)
        assert [each.asset.id for each in found] == ["model-big.bin", "model-config.json"]
        assert seen == list(found)
        assert await manager.outdated(["model-same.bin"]) == ()
    big = found[0]
    repository = hub.repositories["models/org/model"]
    old, new = repository.versions
    assert (big.asset.version, big.newer.version) == (old, new)
    assert (big.asset.size, big.newer.size) == (30 * KIB, 31 * KIB)
    assert big.newer.checksum == Checksum.of(NEW["big.bin"])
    assert project.manifest.read_bytes() == before
    assert hub.downloads() == []


async def test_what_is_replaced_under_its_address(tmp_path: Path, hub: HuggingFaceHub) -> None:
    """A hub that lets others replace a file says so by its digest; the address is the same."""
    project = Project(tmp_path / "project")
    project.write()
    repository = hub.repositories["models/org/model"]
    async with manager_for(project, hub) as manager:
        await manager.add_from_source("hf://org/model")
        assert await manager.outdated() == ()
        before = entries(project)["model-big.bin"]
        repository.versions[repository.branches["main"]]["big.bin"] = NEW["big.bin"]
        [found] = await manager.update()
        assert (found.asset.id, found.newer.url) == ("model-big.bin", found.asset.url)
    checksum, size = Checksum.of(NEW["big.bin"]).hexdigest, len(NEW["big.bin"])
    assert entries(project)["model-big.bin"] == {**before, "checksum": checksum, "size": size}


async def test_pages_are_asked_once(project: Project, hub: HuggingFaceHub) -> None:
    """Many files of one repository cost as many requests as one."""
    async with manager_for(project, hub) as manager:
        await manager.outdated()
    assert len(hub.requests) == 2


@pytest.mark.shows("S2")
async def test_update(project: Project, hub: HuggingFaceHub) -> None:
    """Entries name the new version; the small file is in its place, and the old large one stays for the sync."""
    async with manager_for(project, hub) as manager:
        done = await manager.update()
        assert [each.asset.id for each in done] == ["model-big.bin", "model-config.json"]
        assert files(project) == {**OLD, "config.json": NEW["config.json"]}
        assert sorted(hub.downloads()) == ["config.json"]
        assert await manager.outdated() == ()
        assert manager.state_of(manager.manifest.get("model-config.json")) == "verified"
        await manager.sync(["model-big.bin", "model-config.json"])
        assert all(status.valid for status in await manager.check_all_assets(full=True) if status.id != "plain")
    assert files(project) == {name: NEW[name] for name in OLD}
    commit = hub.repositories["models/org/model"].branches["main"]
    for name in ("big.bin", "config.json"):
        entry = entries(project)[f"model-{name}"]
        assert (entry["checksum"], entry["size"]) == (Checksum.of(NEW[name]).hexdigest, len(NEW[name]))
        assert (entry["version"], entry["source"]) == (commit, f"hf://org/model@main/{name}")
        assert f"/resolve/{commit}/" in entry["url"]


async def test_a_dry_run(project: Project, hub: HuggingFaceHub) -> None:
    """Nothing is written or fetched."""
    before = project.manifest.read_bytes()
    async with manager_for(project, hub) as manager:
        assert len(await manager.update(dry_run=True)) == 2
        assert await manager.update_asset("model-big.bin", dry_run=True) is not None
    assert project.manifest.read_bytes() == before
    assert files(project) == OLD
    assert hub.downloads() == []


@pytest.mark.shows("C14", "S2")
async def test_whole_or_not_at_all(project: Project, hub: HuggingFaceHub) -> None:
    """If one cannot be fetched as stated, no entry changes, and every old file stays as it was."""
    hub.delivered["config.json"] = b'{"v": 9}'
    before = project.manifest.read_bytes()
    async with manager_for(project, hub) as manager:
        with pytest.raises(DigestMismatch):
            await manager.update()
    assert project.manifest.read_bytes() == before
    assert files(project) == OLD


async def test_a_hub_that_fails(project: Project, hub: HuggingFaceHub) -> None:
    """A failed look-up is an error of its own; nothing is updated then."""
    async with manager_for(project, hub) as manager:
        await manager.add_asset(Asset("gone", "https://h.example/g", "g", source="hf://org/gone@main/x"))
        seen: list[NewerVersion] = []
        with pytest.raises(SyncFailed, match="no such repository") as caught:
            await manager.outdated(on_found=seen.append)
        assert list(caught.value.failures) == ["gone"]
        assert len(seen) == 2
        before = project.manifest.read_bytes()
        with pytest.raises(SyncFailed):
            await manager.update()
        assert project.manifest.read_bytes() == before
        assert len(await manager.update(["model-big.bin"])) == 1


@pytest.mark.shows("S2")
async def test_an_entry_that_was_changed_meanwhile(
    project: Project, hub: HuggingFaceHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's change is not overwritten, and the old file stays."""
    real = Adder.fetch_all

    async def fetch_and_change(self: Adder, assets: Any, **more: Any) -> Any:
        text = project.manifest.read_text().replace("model/config.json", "model/settings.json")
        project.manifest.write_text(text)
        return await real(self, assets, **more)

    monkeypatch.setattr(Adder, "fetch_all", fetch_and_change)
    async with manager_for(project, hub) as manager:
        with pytest.raises(EditRefused, match=r"'model-config.json': has been changed meanwhile"):
            await manager.update()
    assert files(project) == OLD
    assert entries(project)["model-big.bin"]["size"] == 30 * KIB


async def test_what_cannot_be_asked(project: Project, hub: HuggingFaceHub) -> None:
    """An asset without a source, one that does not exist, and a manifest that has expired are refused."""
    async with manager_for(project, hub) as manager:
        # Looking changes nothing, so nothing is said of a change.
        with pytest.raises(EntryUnsuited, match=r"assets\.json: asset 'plain': source: is missing"):
            await manager.outdated(["plain"])
        with pytest.raises(UnknownAsset):
            await manager.update(["nothing"])
    project.manifest.write_text(project.manifest.read_text().replace("{", '{"expires": "2001-01-01T00:00:00Z",', 1))
    async with manager_for(project, hub) as manager:
        with pytest.raises(StaleManifest):
            await manager.update()
    assert files(project) == OLD


async def test_another_address(project: Project, hub: HuggingFaceHub, server: AssetServer) -> None:
    """The content of a new address is fetched and measured; a mirror and a source of the old one are dropped.

    What changes is told while the entry is still the old one.
    """
    content = seeded_bytes(40 * KIB, seed=9)
    url = server.add("/new.bin", content).url
    told = []

    def tell(found: NewerVersion) -> None:
        told.append(found)
        assert entries(project)[found.asset.id]["url"] == found.asset.url

    async with manager_for(project, hub) as manager:
        mirrored = Asset("m", "https://h.example/m", "m.bin", fallback_urls=("https://mirror.example/m",))
        await manager.add_asset(mirrored)
        for asset_id in ("m", "model-big.bin"):
            done = await manager.update_asset(asset_id, url, on_found=tell)
            assert done is not None
            assert told.pop() == done
            assert (await manager.get_asset_path(asset_id)).read_bytes() == content
        moved = await manager.update_asset("m", "hf://org/model/big.bin")
        assert moved is not None
        assert entries(project)["m"]["checksum"] == Checksum.of(NEW["big.bin"]).hexdigest
        for bad in ("https://me:pw@h.example/x", "ftp://h.example/x"):
            with pytest.raises((EditRefused, LookupError)):
                await manager.update_asset("m", bad)
        with pytest.raises(PolicyRefused, match="plain http"):
            await manager.update_asset("m", "http://h.example/x")
        with pytest.raises(EditRefused, match="leads to 5 files"):
            await manager.update_asset("m", "hf://org/model")
    assert entries(project)["m"]["fallbackUrls"] == []
    assert entries(project)["model-big.bin"].get("source") is None
    assert len(server.stats.requests) == 2


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_the_address_it_has_already(
    project: Project, hub: HuggingFaceHub, server: AssetServer, algorithm: Algorithm
) -> None:
    """An asset that is moved to its own address is as it was: nothing is told or written, and its mirrors stay."""
    content = seeded_bytes(40 * KIB, seed=9)
    file = server.add("/new.bin", content)
    hexdigest = hashlib.new(algorithm, content).hexdigest()
    checksum, mirrors = Checksum(algorithm, hexdigest), ("https://mirror.example/m",)
    plain = Asset("m", file.url, "m.bin", fallback_urls=mirrors)

    def never(found: NewerVersion) -> None:
        pytest.fail(f"{found} is told")

    async with manager_for(project, hub) as manager:
        await manager.add_asset(replace(plain, checksum=checksum, size=len(content)))
        before = project.manifest.read_bytes()
        assert await manager.update_asset("m", file.url, on_found=never) is None
        assert (project.manifest.read_bytes(), manager.manifest.get("m").fallback_urls) == (before, mirrors)

        file = server.add("/new.bin", content + b"more")
        done = await manager.update_asset("m", file.url)
        assert done is not None
        assert (done.newer.size, done.newer.fallback_urls) == (len(content) + 4, ())


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_nothing_is_told_of_an_asset_after_its_end(
    project: Project, hub: HuggingFaceHub, server: AssetServer, algorithm: Algorithm
) -> None:
    """A file that takes the place of the old one is read once more, which nobody has to see."""
    content = seeded_bytes(40 * KIB, seed=9)
    file = server.add("/new.bin", content)
    checksum = Checksum(algorithm, hashlib.new(algorithm, content).hexdigest())
    async with manager_for(project, hub) as manager:
        await manager.add_asset(Asset("m", file.url, "m.bin", checksum=checksum, size=len(content)))
        await manager.sync(["m"])
        server.add("/new.bin", content[::-1])
        async with manager.events() as events:
            await manager.pin(["m"], update=True)
            told = [event.type for event in events.drain() if event.asset == "m"]
        assert (await manager.get_asset_path("m")).read_bytes() == content[::-1]
    assert told[-1] == "asset_verified"


@pytest.mark.shows("S8")
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_no_token_in_an_address_is_shown(project: Project, hub: HuggingFaceHub, more: list[str]) -> None:
    """Neither the old address nor the new one is printed with its query: CI keeps what is printed."""
    text = project.manifest.read_text().replace("https://h.example/plain", "https://h.example/plain?sig=0123456789")
    project.manifest.write_text(text)
    code, done = run(project, hub, "update", "plain", "https://h.example/other?token=9876543210", "--dry-run", *more)
    assert code == 0
    assert "https://h.example/other" in done.stdout
    assert "0123456789" not in done.output
    assert "9876543210" not in done.output


async def test_a_mock_is_never_outdated() -> None:
    """It knows its assets, and has nothing newer."""
    mock = create_mock_asset_manager({"a": "/mock/a"})
    assert (await mock.outdated(), await mock.update(["a"]), await mock.update_asset("a")) == ((), (), None)
    with pytest.raises(UnknownAsset):
        await mock.update(["b"])


# -- the commands ---------------------------------------------------------------------------------------------------


def run(project: Project, hub: HuggingFaceHub, *arguments: str) -> tuple[int, Result]:
    """Run a command in this process; its exit code and output."""
    environ = {"HF_ENDPOINT": hub.url, "GRYM_FETCH_CONFIG": str(project.manifest)}
    done = CliRunner().invoke(cli, arguments, env=environ, standalone_mode=False)
    if isinstance(done.exception, click.ClickException):
        return done.exception.exit_code, done
    return done.return_value, done


def test_the_commands(project: Project, hub: HuggingFaceHub) -> None:
    """Both show old and new, and a dry run changes nothing."""
    old, new = hub.repositories["models/org/model"].versions
    lines = [
        f"model-big.bin  {old[:12]} -> {new[:12]}  30.0 KiB -> 31.0 KiB  hf://org/model@main/big.bin",
        f"model-config.json  {old[:12]} -> {new[:12]}  8 B -> 8 B  hf://org/model@main/config.json",
    ]
    before = project.manifest.read_bytes()
    for command in (["outdated"], ["update", "-n"]):
        code, done = run(project, hub, *command)
        assert (code, done.stdout.splitlines()) == (0, lines), done.stderr
    assert project.manifest.read_bytes() == before
    code, done = run(project, hub, "update")
    assert (code, done.stdout.splitlines()) == (0, lines)
    assert "2 updated; 1 to be fetched by the next sync" in done.stderr
    code, done = run(project, hub, "outdated")
    assert (code, done.stdout) == (0, "")
    assert "nothing newer" in done.stderr


def test_the_command_says_that_a_failure_stops_all(project: Project, hub: HuggingFaceHub) -> None:
    """What is newer is shown, and that it was not written; the others can be updated."""
    del hub.repositories["models/org/model"].versions[hub.repositories["models/org/model"].branches["main"]]["big.bin"]
    before = project.manifest.read_bytes()
    for command, said in ((["update", "-n"], "nothing would be updated"), (["update"], "nothing was updated")):
        code, done = run(project, hub, *command)
        assert code == 2  # wrong usage: there is no such file
        assert done.stdout.startswith("model-config.json  ")
        assert f"{said}, because some failed; --exclude leaves them out" in done.stderr
    assert project.manifest.read_bytes() == before
    assert run(project, hub, "update", "--exclude", "model-big.bin")[0] == 0


def test_the_commands_for_programs(project: Project, hub: HuggingFaceHub) -> None:
    """With --json there is one object for each, which says whether it was written."""
    for command, is_written in ((["outdated"], False), (["update", "model-big.bin"], True)):
        _, done = run(project, hub, *command, "--json")
        records = [each for each in map(json.loads, done.stdout.splitlines()) if "written" in each]
        assert {each["written"] for each in records} == {is_written}
        assert records[0]["new"]["checksum"] == str(Checksum.of(NEW["big.bin"]))
        assert records[0]["old"]["size"] == 30 * KIB


def test_exit_codes(project: Project, hub: HuggingFaceHub) -> None:
    """No source is wrong usage (2), a failing hub is not (1), other bytes than stated are an integrity error (3)."""
    assert run(project, hub, "update", "plain")[0] == 2
    assert run(project, hub, "update", "plain", "https://me:pw@h.example/")[0] == 2
    hub.delivered["config.json"] = b'{"v": 9}'
    assert run(project, hub, "update")[0] == 3
    hub.override = lambda _: Reply(200, b"<html>")
    assert run(project, hub, "outdated")[0] == 1
