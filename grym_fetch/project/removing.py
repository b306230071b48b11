"""Removes entries and their files, and what earlier runs left behind.

Rule: files are deleted only in the assets folder, and none that somebody has changed or added in an unpacked tree.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from pathlib import Path

from grym_fetch.archive.unpack import forget_unpacked, has_unpacked
from grym_fetch.core.archives import unpacked_path
from grym_fetch.core.errors import GrymFetchError
from grym_fetch.core.fingerprint import content_fingerprint
from grym_fetch.core.manifest import Asset, ManifestSource
from grym_fetch.core.manifest_parser import ParsedManifest
from grym_fetch.core.text import safe_text
from grym_fetch.disk.folders import check_deletable, delete_file, is_taken, storage_errors
from grym_fetch.disk.prune import Pruned, PruneReport
from grym_fetch.disk.prune import prune as prune_folder
from grym_fetch.disk.stage import StageKey
from grym_fetch.disk.state import StateFolder
from grym_fetch.manifest_files.neighbours import READERS, USERS, Neighbours, named_paths
from grym_fetch.manifest_files.project import Project, project_root
from grym_fetch.project.entries import Entries
from grym_fetch.project.orphans import find_orphans
from grym_fetch.repo.git import GitUnusable
from grym_fetch.runtime.threads import WorkerThreads

log = logging.getLogger(__name__)


class Remover:
    """Removes what one project no longer needs."""

    def __init__(self, project: Project, *, entries: Entries, threads: WorkerThreads) -> None:
        self._root = project.assets_dir
        self._manifest_path = project.manifest_path
        self._entries = entries
        self._threads = threads

    async def remove_asset(
        self,
        manifest: ManifestSource,
        asset_id: str,
        *,
        delete_files: bool,
        on_change: Callable[[ParsedManifest[ManifestSource]], None],
    ) -> tuple[Path, ...]:
        """Remove an entry, and with ``delete_files`` its files; return those deleted. Raises `UnknownAsset`.

        Raises `StorageError` before anything is removed, if a file can be seen not to be deletable.
        """
        asset = manifest.get(asset_id)
        if delete_files:
            for place in _files_of(asset):
                await self._threads.compute(check_deletable, self._root, place)
        on_change(await self._entries.remove(asset_id))
        return await self._delete_files(asset) if delete_files else ()

    async def _delete_files(self, asset: Asset) -> tuple[Path, ...]:
        """Delete the files of an asset and of its stand-in from the assets folder; return those that were there.

        Also deletes what was unpacked from them, except what somebody has changed or added.
        """
        root = self._root
        trees = [root / path for path in await self._threads.compute(_unpacked_folders, root, asset)]
        for each in (asset, asset.stand_in()) if asset.extract else ():
            if left := await self._threads.compute(forget_unpacked, root, each.local_path):
                log.warning("%s: %d changed or added files were left (%s)", asset.id, len(left), safe_text(left[0]))
        deleted = [root / each for each in _files_of(asset) if await self._threads.compute(delete_file, root, each)]
        return (*deleted, *(tree for tree in trees if not is_taken(tree)))

    async def prune(self, manifest: ManifestSource, *, dry_run: bool, orphans: bool | Collection[str]) -> PruneReport:
        """Remove what earlier runs left behind and nobody needs; with ``dry_run``, only report it.

        ``orphans``: also files that no asset names, of this manifest or of another one used with the assets folder;
        if it is names, only these of them.
        """
        wanted = {}
        for asset in manifest.assets:
            for each in (asset, asset.stand_in()):
                key = StageKey(each.local_path, content_fingerprint(each))
                wanted[key.path_key, key.content_key] = each.id
        report = await self._threads.compute(
            partial(prune_folder, self._root, wanted, dry_run=dry_run, also_listed=self._contents_of_others)
        )
        if not dry_run and orphans is False:
            return report
        try:
            found = await self._threads.compute(self._find_orphans, manifest)
        except GitUnusable as error:
            if orphans is not False:
                raise
            log.warning("files that no asset names are not listed: %s", error)
            return report
        if orphans is False:
            return replace(report, orphans=found)
        if orphans is not True:
            found = tuple(orphan for orphan in found if orphan.name in orphans)
        if not dry_run:
            for orphan in found:
                await self._threads.compute(delete_file, self._root, orphan.name)
        return replace(report, removed=(*report.removed, *found), orphans=found)

    def _contents_of_others(self) -> set[str] | None:
        """The content keys of the other manifests whose files come here; None if one of them cannot be read now."""
        try:
            return {
                StageKey("", content_fingerprint(each)).content_key
                for _, other in Neighbours(StateFolder(self._root), self._manifest_path).others(strict=True)
                for asset in other.assets
                for each in (asset, asset.stand_in())
            }
        except GrymFetchError:
            return None

    def _find_orphans(self, manifest: ManifestSource) -> tuple[Pruned, ...]:
        state = StateFolder(self._root)
        lists = [Neighbours(state, self._manifest_path, name=name) for name in (USERS, READERS)]
        others = [other for each in lists for other in each.others(strict=True)]
        named = {path for each in (manifest, *(other for _, other in others)) for path in named_paths(each)}
        homes = {project_root(each) for each in (self._manifest_path, *(place for place, _ in others))}
        with storage_errors(self._root):
            return tuple(find_orphans(self._root, named, homes))


def deletable(root: Path, asset: Asset) -> list[Path]:
    """What removing an asset with its files would delete from the assets folder ``root``."""
    files = [root / path for path in _files_of(asset)]
    return [
        *(file for file in files if is_taken(file)),
        *(root / path for path in _unpacked_folders(root, asset)),
    ]


def _files_of(asset: Asset) -> tuple[str, ...]:
    return tuple(dict.fromkeys((asset.local_path, asset.stand_in().local_path)))


def _unpacked_folders(root: Path, asset: Asset) -> list[str]:
    """The existing folders unpacked from an asset and its stand-in, relative to the assets folder ``root``."""
    kinds = dict.fromkeys((asset, asset.stand_in())) if asset.extract else ()
    return [unpacked_path(each.local_path) for each in kinds if has_unpacked(root, each.local_path)]
