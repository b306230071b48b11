"""The entries of a manifest: which may be added, and how the file is changed.

Rules: only one process changes the file at a time; each change is made to the file's content at that time. An entry
that somebody else has added or changed in the meantime is not overwritten. No password gets into the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence

from grym_fetch.core.command_lines import command_line
from grym_fetch.core.errors import EditRefused, EntryUnsuited, Locked, Problem
from grym_fetch.core.git_folders import find_git_folders, makes_a_repository
from grym_fetch.core.manifest import Asset, Manifest, ManifestSource
from grym_fetch.core.manifest_line_edits import ManifestEdits
from grym_fetch.core.manifest_parser import ParsedManifest, parse_manifest
from grym_fetch.core.manifest_schema import ASSET
from grym_fetch.core.manifest_text import Setting
from grym_fetch.core.manifest_values import has_login
from grym_fetch.core.paths import find_collisions
from grym_fetch.core.text import safe_text
from grym_fetch.core.world import Clock
from grym_fetch.manifest_files.changes import Change, check_editable, edit_manifest
from grym_fetch.manifest_files.project import Project
from grym_fetch.runtime.threads import WorkerThreads

LOCK_TIMEOUT_S = 30.0
"""How long to wait for another process that is changing the manifest."""
POLL_INTERVAL_S = 0.05
ID_TAKEN = "is taken; choose another with --id, or remove the old asset first"
OTHER_PATH = "choose another with --local-path"


class Entries:
    """Changes the entries of one project's manifest. Each change returns the manifest as it is afterwards."""

    def __init__(self, project: Project, *, clock: Clock, threads: WorkerThreads) -> None:
        self._path = project.manifest_path
        self._source = safe_text(str(project.manifest_path))
        self._clock = clock
        self._threads = threads

    def refused(self, *problems: Problem) -> EditRefused:
        """Return the error that says why the manifest was not changed."""
        return EditRefused(self._source, problems)

    def unsuited(self, *problems: Problem) -> EntryUnsuited:
        """Return the error for what cannot be done with an entry, where no change was meant."""
        return EntryUnsuited(self._source, problems)

    def check_new(self, manifest: ManifestSource, *assets: Asset) -> None:
        """Raise `EditRefused` if these cannot be added: something is wrong with one, or its id or path is taken.

        Call this before anything is fetched for them. It is checked again when they are added.
        """
        self.check_editable()
        data = json.dumps({"assets": [ASSET.write(asset) for asset in assets]}).encode()
        named = f"the new asset {assets[0].id}" if len(assets) == 1 else f"the {len(assets)} new assets"
        parse_manifest(data, safe_text(named, limit=120))
        problems = []
        for asset in assets:
            if (key := _key_with_login(asset)) is not None:
                reason = (
                    "an address with a user or password in it would be there for everyone to read; leave it out, and "
                    "put it into GRYM_FETCH_TOKEN_<HOST> or ~/.netrc"
                )
                problems.append(Problem(where(asset), key, reason))
        problems += _taken(manifest, assets) if isinstance(manifest, Manifest) else _taken_of_many(manifest, assets)
        if problems:
            raise self.refused(*problems)

    def check_editable(self) -> None:
        """Raise `EditRefused` if a manifest of this kind cannot be edited."""
        check_editable(self._path)

    async def add(self, *assets: Asset) -> ParsedManifest[ManifestSource]:
        """Append an entry for each of these. Raises `EditRefused`."""

        def change(text: ManifestEdits, manifest: ManifestSource) -> ManifestEdits:
            self.check_new(manifest, *assets)
            return text.add(*assets).touch(self._clock.wall(), insert=True)

        return await self._edit(change)

    async def remove(self, asset_id: str) -> ParsedManifest[ManifestSource]:
        """Drop an entry. Raises `UnknownAsset`."""

        def change(text: ManifestEdits, manifest: ManifestSource) -> ManifestEdits:
            number = manifest.number_of(manifest.get(asset_id).id)
            assert number is not None, "it is there"
            return text.remove(number).touch(self._clock.wall())

        return await self._edit(change)

    async def set_values(self, choose: Callable[[ManifestSource], list[Setting]]) -> ParsedManifest[ManifestSource]:
        """Write what ``choose`` returns for the manifest as it is at that time; if it raises, nothing is changed."""

        def change(text: ManifestEdits, manifest: ManifestSource) -> ManifestEdits:
            settings = choose(manifest)
            return text.set_all(settings).touch(self._clock.wall()) if settings else text

        return await self._edit(change)

    async def _edit(self, change: Change) -> ParsedManifest[ManifestSource]:
        deadline = self._clock.monotonic() + LOCK_TIMEOUT_S
        while (parsed := await self._threads.compute(edit_manifest, self._path, change)) is None:
            if self._clock.monotonic() >= deadline:
                raise Locked(self._source, "another process has been changing the manifest for too long")
            await self._clock.sleep(POLL_INTERVAL_S)
        return parsed


def _taken(manifest: ManifestSource, assets: Sequence[Asset]) -> Iterator[Problem]:
    there = {other.id: other for other in manifest.assets}
    both = [*manifest.assets, *assets]
    clashes = {each.second: each for each in find_collisions([each.local_path for each in both])}
    for number, asset in enumerate(assets, len(there)):
        clash = clashes.get(number)
        in_place = both[clash.first] if clash is not None and clash.first < len(there) else None
        if (listed := _listed_already(asset, there.get(asset.id), in_place)) is not None:
            yield listed
            continue
        if asset.id in there:
            yield Problem(where(asset), "id", ID_TAKEN)
        if clash is not None:
            reason = f"clashes with that of {where(both[clash.first])}: {clash.why}; {OTHER_PATH}"
            yield Problem(where(asset), "localPath", reason)
    for found in find_git_folders([each.local_path for each in both]):
        for part in found.parts:
            if part >= len(manifest.assets):
                others = (both[other].local_path for other in found.parts if other != part)
                yield Problem(where(both[part]), "localPath", f"{makes_a_repository(others)}; choose another folder")


def _taken_of_many(manifest: ManifestSource, assets: Sequence[Asset]) -> Iterator[Problem]:
    """The same for a manifest that is not held. What only several assets together do is found when it is written."""
    for asset in assets:
        namesake = manifest.get(asset.id) if manifest.number_of(asset.id) is not None else None
        owner = manifest.owner_of(asset.local_path)
        in_place = manifest.get(owner) if owner is not None else None
        if (listed := _listed_already(asset, namesake, in_place)) is not None:
            yield listed
            continue
        if namesake is not None:
            yield Problem(where(asset), "id", ID_TAKEN)
        if in_place is not None:
            yield Problem(where(asset), "localPath", f"clashes with that of {where(in_place)}; {OTHER_PATH}")


def _listed_already(asset: Asset, *others: Asset | None) -> Problem | None:
    """The problem of an asset that is in the manifest, as one of the others: it is named with what to do."""
    for other in others:
        if other is None:
            continue
        # Of one source, the addresses of two versions may differ.
        is_same = asset.source == other.source if asset.source and other.source else asset.url == other.url
        if is_same:
            name = "" if other.id == asset.id else f" as '{safe_text(other.id, limit=80)}'"
            words = ("update",) if other.source else ("pin", "--update")
            command = command_line("grym-fetch", *words, names=(other.id,))
            return Problem(where(asset), "", f"is listed already{name}; `{command}` takes what is there now")
    return None


def numbered(manifest: ManifestSource, ids: Sequence[str]) -> dict[str, tuple[int, Asset]]:
    """Return the entries with these ids, as far as there are any, and which entry each is."""
    if isinstance(manifest, Manifest):
        wanted = set(ids)
        return {each.id: (number, each) for number, each in enumerate(manifest.assets) if each.id in wanted}
    numbers = {each: manifest.number_of(each) for each in ids}
    return {each: (number, manifest.get(each)) for each, number in numbers.items() if number is not None}


def where(asset: Asset) -> str:
    """How a `Problem` names an asset."""
    return f"asset '{safe_text(asset.id, limit=80)}'"


def _key_with_login(asset: Asset) -> str | None:
    """The first key with an address that contains a user or a password."""
    stand_in = asset.minimal
    keys = {
        "url": (asset.url,),
        "fallbackUrls": asset.fallback_urls,
        "minimal": (stand_in.url, *stand_in.fallback_urls) if stand_in is not None else (),
    }
    return next((key for key, urls in keys.items() if any(map(has_login, urls))), None)
