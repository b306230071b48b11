"""Changing the manifest through the manager: what cannot be added, and simultaneous changes."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace

import pytest

from grym_fetch import ManifestError
from grym_fetch.core.manifest import Asset, StandIn
from grym_fetch.errors import EditRefused, Locked
from grym_fetch.runtime.clock import SystemClock
from grym_fetch.testing import AssetServer
from tests.project.editing import entries
from tests.support.project import Project


@pytest.mark.parametrize(
    ("asset", "named"),
    [
        (Asset("a", "https://h.example/b", "b"), "id: is taken; choose another with --id"),
        (Asset("b", "https://h.example/b", "models/A.bin"), "asset 'a': .*; choose another with --local-path"),
        (Asset("b", "https://h.example/b", "models"), "folder"),
        (Asset("b", "ftp://h.example/b", "b"), "url"),
        (Asset("b", "https://h.example/b", "../b"), r"\.\."),
        (Asset("", "https://h.example/b", "b"), "id"),
    ],
    ids=["id", "same place", "a folder", "scheme", "outside", "no id"],
)
async def test_what_cannot_be_added(project: Project, server: AssetServer, asset: Asset, named: str) -> None:
    """A duplicate or a bad value is refused before anything is fetched, and the manifest stays unchanged."""
    before = project.manifest.read_bytes()
    async with project.manager() as manager:
        with pytest.raises(ManifestError, match=named):
            await manager.add_asset(asset, fetch=True)
    assert project.manifest.read_bytes() == before
    assert not server.stats.requests


async def test_a_manifest_that_is_held_too_long(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process that keeps changing the manifest is waited for, but not forever."""
    monkeypatch.setattr("grym_fetch.project.entries.edit_manifest", lambda path, change: None)
    async with project.manager() as manager:
        with pytest.raises(Locked, match="another process"):
            await manager.remove_asset("a")


async def test_edits_at_once(project: Project, server: AssetServer) -> None:
    """Many simultaneous edits by two managers all end up in the file."""
    async with project.manager(SystemClock()) as one, project.manager(SystemClock()) as two:
        edits = [
            manager.add_asset(Asset(f"n{number}", "https://h.example/n", f"n{number}"))
            for number, manager in enumerate([one, two] * 5)
        ]
        await asyncio.gather(*edits)
    assert set(entries(project)) == {"a", *(f"n{number}" for number in range(10))}


@pytest.mark.shows("M13", "S8")
async def test_a_password_never_gets_into_the_manifest(project: Project) -> None:
    """Everybody can read the manifest: an address with a user or password is refused, wherever it appears."""
    before = project.manifest.read_bytes()
    secret = "https://me:hunter2@models.example.org/a.bin"
    plain = "https://models.example.org/a.bin"
    async with project.manager() as manager:
        for key, asset in (
            ("url", Asset("new", secret, "new.bin")),
            ("fallbackUrls", Asset("new", plain, "new.bin", fallback_urls=(plain, secret.replace(":hunter2", "")))),
            ("minimal", Asset("new", plain, "new.bin", minimal=StandIn(secret))),
        ):
            with pytest.raises(EditRefused, match=f"{key}: .*for everyone to read") as caught:
                await manager.add_asset(asset)
            assert "hunter2" not in str(caught.value)
    assert project.manifest.read_bytes() == before


async def test_what_is_listed_already(project: Project, server: AssetServer) -> None:
    """The entry is named, and what to do instead; nothing is fetched."""
    async with project.manager() as manager:
        listed = manager.manifest.get("a")
        again = "asset 'a': is listed already; `grym-fetch pin --update a` takes what is there now"
        with pytest.raises(EditRefused, match=re.escape(again)) as refused:
            await manager.add_asset(replace(listed), fetch=True)
        assert len(refused.value.problems) == 1
        with pytest.raises(EditRefused, match="asset 'b': is listed already as 'a'"):
            await manager.add_asset(replace(listed, id="b"), fetch=True)
        await manager.add_asset(Asset("c d", "https://h.example/v1", "c", source="hf://org/model@main/c"))
        new = Asset("c d", "https://h.example/v2", "c", source="hf://org/model@main/c")
        with pytest.raises(EditRefused, match=r"is listed already; `grym-fetch update 'c d'` takes"):
            await manager.add_asset(new)
    assert not server.stats.requests
