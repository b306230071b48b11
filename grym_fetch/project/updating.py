"""Moves assets to the newest versions at their sources: all are looked up first, and all are written or none.

Rules: the old file stays in place until the manifest names the new one. A file is not downloaded for this if the hub
has its SHA-256. Any other is downloaded next to the old file, compared with what the hub states, and renamed after the
manifest is written. Mirrors of the old version are dropped, since they do not have the new one.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from grym_fetch.core.errors import GrymFetchError, Problem, SyncFailed
from grym_fetch.core.manifest import Asset, ManifestSource
from grym_fetch.core.manifest_parser import ParsedManifest
from grym_fetch.core.manifest_text import Setting
from grym_fetch.core.manifest_values import check_address, has_login
from grym_fetch.core.text import safe_text
from grym_fetch.disk.folders import delete_file, is_taken, open_folder, storage_errors, sync
from grym_fetch.disk.local_files import LocalFiles
from grym_fetch.manifest_files.project import Project
from grym_fetch.project.adding import Adder
from grym_fetch.project.entries import Entries, numbered
from grym_fetch.project.measuring import Measurer
from grym_fetch.project.pinning import Pinned
from grym_fetch.project.sourced import Sources
from grym_fetch.runtime import system
from grym_fetch.runtime.threads import WorkerThreads
from grym_fetch.sources.protocol import Resolved
from grym_fetch.sources.registry import hub_of, resolve, source_of
from grym_fetch.sources.web import HubWeb

_BESIDE = ".update"
"""Appended to the name of a new file until it takes the place of the old one."""


@dataclass(frozen=True, slots=True)
class NewerVersion:
    """An asset, and its entry as it would be after an update. ``newer.checksum`` is None until it has been fetched."""

    asset: Asset
    newer: Asset


class Updater:
    """Looks for newer versions of one project's assets, and moves the manifest to them."""

    def __init__(
        self,
        project: Project,
        *,
        local_files: LocalFiles,
        entries: Entries,
        measurer: Measurer,
        sources: Sources,
        adder: Adder,
        threads: WorkerThreads,
    ) -> None:
        self._root = project.assets_dir
        self._local_files = local_files
        self._entries = entries
        self._measurer = measurer
        self._sources = sources
        self._adder = adder
        self._threads = threads

    async def find_newer(
        self,
        manifest: ManifestSource,
        ids: Collection[str] | None,
        on_found: Callable[[NewerVersion], object],
        *,
        exclude: Collection[str] = (),
    ) -> list[NewerVersion]:
        """Return the assets that have a newer version: of these, or of all that have a source, without ``exclude``.

        Raises `UnknownAsset`, `EditRefused` if a named asset has no source, and at the end `SyncFailed` with those that
        could not be looked up; ``on_found`` is called with the others before that.
        """
        chosen = manifest.pick(ids, exclude=exclude)
        if ids is not None and (without := [asset for asset in chosen if asset.source is None and asset.id in ids]):
            reason = "is missing, so nobody can be asked for a newer version; name its new address"
            problems = [Problem(f"asset '{safe_text(asset.id)}'", "source", reason) for asset in without]
            raise self._entries.unsuited(*problems)
        found: list[NewerVersion] = []
        failed: dict[str, GrymFetchError] = {}
        async with AsyncExitStack() as stack:
            webs: dict[str, HubWeb] = {}
            for asset in chosen:
                if asset.source is None:
                    continue
                try:
                    hub = hub_of(source_of(asset.source), asset.source)
                    if hub not in webs:
                        webs[hub] = await stack.enter_async_context(self._sources.asking(hub))
                    newest = await resolve(asset.source, webs[hub], newest=True)
                    newer = await self._compared(asset, newest)
                except GrymFetchError as error:
                    failed[asset.id] = error
                    continue
                if newer is not None:
                    found.append(newer)
                    on_found(newer)
        if failed:
            raise SyncFailed(failed)
        return found

    async def find_at(self, manifest: ManifestSource, asset_id: str, address: str) -> NewerVersion:
        """Return what this asset would be at another address, plain or short. Raises `UnknownAsset`, or as `find`."""
        asset = manifest.get(asset_id)
        short = self._sources.recognize(address)
        if short is None:
            try:
                check_address(address)
                if has_login(address):
                    raise ValueError("has a user or a password in it, which everyone could read")
            except ValueError as error:
                raise self._entries.refused(Problem("the new address", "", str(error))) from None
            moved = replace(asset, url=address, fallback_urls=(), checksum=None, size=None, source=None, pieces=None)
            return NewerVersion(asset, moved)
        return NewerVersion(asset, self._at(asset, await self._sources.resolve(short)))

    async def _compared(self, asset: Asset, newest: Resolved) -> NewerVersion | None:
        """The newer version, if its content differs."""
        newer = self._at(asset, newest)
        old, new = asset.checksum, newer.checksum
        if new is not None and new == old:
            return None
        if newer.url == asset.url and (old is None or new is None or old.algorithm != new.algorithm):
            return None  # digests that can be compared say more than the address: a release's file may be replaced
        if newer.checksum is None and newer.stated is not None and newer.size in (None, asset.size):
            # The hub has no SHA-256 of the new version, but the old file may be here to compare with.
            path = self._local_files.find_verified(asset)
            if path is not None and await self._measurer.has_stated(Path(path), newer):
                return None
        return NewerVersion(asset, newer)

    async def fetch_anew(
        self,
        manifest: ManifestSource,
        ids: Collection[str] | None,
        *,
        exclude: Collection[str] = (),
        allow_suspicious: bool,
        before_fetch: Callable[[], Awaitable[None]],
        on_measured: Callable[[NewerVersion], object],
    ) -> tuple[ParsedManifest[ManifestSource], list[NewerVersion]]:
        """Fetch what the addresses of these assets have now, and write it into the manifest, all or none.

        Raises `UnknownAsset`, and as `update`.
        """
        chosen = manifest.pick(ids, exclude=exclude)
        found = [NewerVersion(asset, replace(asset, checksum=None, size=None, pieces=None)) for asset in chosen]
        return await self.update(
            found, allow_suspicious=allow_suspicious, before_fetch=before_fetch, on_measured=on_measured
        )

    async def update(
        self,
        found: Sequence[NewerVersion],
        *,
        allow_suspicious: bool,
        before_fetch: Callable[[], Awaitable[None]],
        on_measured: Callable[[NewerVersion], object] = lambda _: None,
    ) -> tuple[ParsedManifest[ManifestSource], list[NewerVersion]]:
        """Write these into the manifest, all or none. Those without a checksum are fetched first.

        ``on_measured`` is called with each before anything is written.
        Raises `EditRefused` if an entry was changed in the meantime. If one could not be fetched, raises the error
        itself if it is the only asset, else `SyncFailed`.
        """
        self._entries.check_editable()
        await before_fetch()
        root = self._root
        to_fetch = [self._beside(each.newer) for each in found if not each.newer.pinned]
        came: list[str] = []
        try:
            measured = {}
            if to_fetch:
                came = [each.local_path for each in to_fetch if not is_taken(root / each.local_path)]
                measured = await self._adder.fetch_all(to_fetch, allow_suspicious=allow_suspicious)
            done = [
                await self._as_fetched(each, measured[each.asset.id]) if each.asset.id in measured else each
                for each in found
            ]
            for each in done:
                on_measured(each)
            parsed = await self._entries.set_values(partial(self._settings_of, done))
        except BaseException:
            for path in came:
                with suppress(GrymFetchError):
                    await self._threads.compute(delete_file, root, path)
            raise
        for asset in to_fetch:
            if asset.local_path.endswith(_BESIDE):
                place = await self._threads.compute(_take_place, root, asset.local_path)
                # A rename changes the signature, so the file must be read again for the verified cache.
                there = await self._measurer.measure(asset, place, is_ended=True)
                self._measurer.note_verified(place, there.checksum, there.signature)
        await self._measurer.keep([each.newer for each in done])
        return parsed, done

    async def _as_fetched(self, found: NewerVersion, there: Asset) -> NewerVersion:
        measured = replace(found, newer=replace(found.newer, checksum=there.checksum, size=there.size))
        return _unless_same(await self._in_old_words(measured))

    async def _in_old_words(self, found: NewerVersion) -> NewerVersion:
        """With a digest of the algorithm that the entry has: else the same content would look like another one."""
        old, new = found.asset.checksum, found.newer.checksum
        if old is None or new is None or old.algorithm == new.algorithm or found.newer.url != found.asset.url:
            return found
        path = self._root / f"{found.newer.local_path}{_BESIDE}"
        place = path if is_taken(path) else self._root / found.newer.local_path
        there = await self._measurer.measure(found.asset, place, is_ended=True)
        return replace(found, newer=replace(found.newer, checksum=there.checksum))

    def _beside(self, asset: Asset) -> Asset:
        """The asset at the path where its new file waits: its own path if that is free."""
        is_free = not is_taken(self._root / asset.local_path)
        return asset if is_free else replace(asset, local_path=f"{asset.local_path}{_BESIDE}")

    def _settings_of(self, done: Sequence[NewerVersion], manifest: ManifestSource) -> list[Setting]:
        """Return what to write for these. Raises `EditRefused` if one of their entries has changed since."""
        entries = numbered(manifest, [each.asset.id for each in done])
        settings, problems = [], []
        for each in done:
            number, entry = entries.get(each.asset.id, (None, None))
            if number is None or entry != each.asset:
                reason = "has been changed meanwhile by somebody else; look at it, and update it again"
                problems.append(Problem(f"asset '{safe_text(each.asset.id)}'", "", reason))
                continue
            if each.newer != each.asset:
                settings.append(Setting(number, _values(each)))
        if problems:
            raise self._entries.refused(*problems)
        return settings

    def _at(self, asset: Asset, resolved: Resolved) -> Asset:
        """The asset as its source has it now."""
        if len(resolved.files) != 1:
            reason = f"leads to {len(resolved.files)} files; an asset is one"
            raise self._entries.refused(Problem(f"asset '{safe_text(asset.id)}'", "source", reason))
        [file] = resolved.files
        return replace(
            asset,
            url=file.url,
            fallback_urls=file.mirrors,
            checksum=file.checksum,
            size=file.size,
            version=resolved.revision,
            source=file.source,
            pieces=None,
            stated=file.stated,
        )


def pinned_anew(found: Sequence[NewerVersion], root: Path) -> list[Pinned]:
    """What was done by `Updater.fetch_anew`, as a pin tells it."""
    done = []
    for each in found:
        new = each.newer
        assert new.checksum is not None, "it was measured"
        assert new.size is not None, "as before"
        done.append(Pinned(new.id, new.checksum, new.size, root / new.local_path, True, before=each.asset.checksum))
    return done


def _unless_same(found: NewerVersion) -> NewerVersion:
    """Nothing has changed if the old address still has what it had: the mirrors and the pieces are right, too."""
    old, new = found.asset, found.newer
    is_same = (new.url, new.source, new.checksum) == (old.url, old.source, old.checksum)
    return NewerVersion(old, replace(old, size=new.size)) if is_same else found


def _values(found: NewerVersion) -> dict[str, object]:
    """The keys of the entry that change."""
    old, new = found.asset, found.newer
    values: dict[str, object] = {"url": new.url}
    if new.fallback_urls != old.fallback_urls:
        values["fallbackUrls"] = list(new.fallback_urls)
    values["checksum"] = None if new.checksum is None else new.checksum.bare
    values["size"] = new.size
    if old.pieces is not None and new.checksum != old.checksum:
        values["pieces"] = None  # those of the old content; `pin --pieces` writes the new ones
    if new.version != old.version:
        values["version"] = new.version
    if new.source != old.source:
        values["source"] = new.source
    return values


def _take_place(root: Path, waiting: str) -> Path:
    """Rename a file that waits next to the old one over the old one, and return its path."""
    *parents, name = waiting.split("/")
    with storage_errors(root / waiting):
        folder = open_folder(root, tuple(parents), create=False)
        try:
            system.rename(name, name.removesuffix(_BESIDE), folder=folder, into=folder)
            sync(folder)
        finally:
            os.close(folder)
    return root / waiting.removesuffix(_BESIDE)
