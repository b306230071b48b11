"""Changes to the manifest that depend on content: add, pin, remove, and prune what is left over.

Rules: an entry is written only once its file is in place and measured, and every measured one at once, so that an
interruption loses no finished work and leaves no entry without its file. What is plainly not an asset (`suspicion`) is
refused, and what was fetched of it deleted. Bytes that came over plain http from
another machine are never measured: that would make whatever arrived right forever. Nothing of the user's is
overwritten: neither a file that is in the way nor an entry that someone else has changed meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

from yarl import URL

from grym_fetch.archive.unpack import forget_unpacked, has_unpacked
from grym_fetch.core.addresses import is_loopback
from grym_fetch.core.archives import unpacked_path
from grym_fetch.core.digest import Checksum, Hasher
from grym_fetch.core.errors import (
    DigestMismatch,
    EditRefused,
    GrymFetchError,
    Locked,
    NotWritable,
    PolicyRefused,
    Problem,
    StorageError,
    SyncFailed,
    UnsafePath,
)
from grym_fetch.core.events import AssetFailed, AssetReused, AssetVerifying, Event, RunFinished, RunStarted
from grym_fetch.core.fingerprint import content_fingerprint
from grym_fetch.core.git_folders import find_git_folders, makes_a_repository
from grym_fetch.core.manifest import Asset, Manifest
from grym_fetch.core.manifest_parser import ParsedManifest, parse_manifest
from grym_fetch.core.manifest_schema import ASSET
from grym_fetch.core.manifest_text import ManifestText, Setting
from grym_fetch.core.manifest_values import has_login
from grym_fetch.core.paths import find_collisions
from grym_fetch.core.stated import StatedDigest
from grym_fetch.core.suspicion import BEGINNING_BYTES, suspicion
from grym_fetch.core.text import safe_text
from grym_fetch.core.world import Clock
from grym_fetch.disk.folders import open_folder, storage_errors
from grym_fetch.disk.local_files import HASH_BLOCK_BYTES
from grym_fetch.disk.manifest_file import Change, edit_manifest
from grym_fetch.disk.project import Project
from grym_fetch.disk.prune import PruneReport
from grym_fetch.disk.prune import prune as prune_folder
from grym_fetch.disk.stage import StageKey
from grym_fetch.disk.verified import FileSignature
from grym_fetch.engine.engine import Engine
from grym_fetch.runtime.threads import WorkerThreads
from grym_fetch.transfer.fetcher import Judge

log = logging.getLogger(__name__)

LOCK_TIMEOUT_S = 30.0
"""How long to wait for another process that changes the manifest."""
POLL_INTERVAL_S = 0.05
_SHA256 = Checksum.of(b"")
"""Stands for the algorithm that new checksums have."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """An asset, or its stand-in, whose checksum and size are in the manifest now. ``fetched``: it was not there."""

    id: str
    checksum: Checksum
    size: int
    path: Path
    fetched: bool
    is_stand_in: bool = False


@dataclass(frozen=True, slots=True)
class PinReport:
    """What `AssetManager.pin` did."""

    pinned: tuple[Pinned, ...]
    failed: Mapping[str, GrymFetchError]


@dataclass(frozen=True, slots=True)
class _Measured:
    """A file that is there: what its bytes are."""

    path: Path
    checksum: Checksum
    size: int
    signature: FileSignature | None
    downloaded: int | None = None


@dataclass(eq=False, slots=True)
class _Record:
    """What was found for an asset, on its way into the manifest. ``error`` says why it was not taken."""

    asset: Asset
    measured: _Measured
    is_written: bool = False
    error: EditRefused | None = None


class Editor:
    """Changes the manifest of one project. A context manager, whose end gives its thread back.

    ``engine`` looks at files that are there; ``lenient_engine`` makes one that also fetches what has no checksum yet.
    """

    def __init__(
        self,
        project: Project,
        *,
        engine: Engine,
        lenient_engine: Callable[[], Engine],
        clock: Clock,
        emit: Callable[[Event], None],
    ) -> None:
        self._project = project
        self._source = safe_text(str(project.manifest_path))
        self._engine = engine
        self._lenient_engine = lenient_engine
        self._clock = clock
        self._emit = emit
        self._threads = WorkerThreads("edit", 1)
        self._writing = asyncio.Lock()
        self._records: list[_Record] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._threads.close()

    # -- adding and removing ----------------------------------------------------------------------------------------

    async def add_asset(
        self,
        manifest: Manifest,
        asset: Asset,
        *,
        fetch: bool,
        file: Path | None,
        allow_suspicious: bool = False,
        before_fetch: Callable[[], Awaitable[None]],
    ) -> ParsedManifest:
        """Append an entry, measured if it is fetched or taken from ``file``; return the manifest that has it.

        Raises `EditRefused` if it cannot be added; then nothing was fetched.
        """
        self.check_new(manifest, asset)
        if file is not None:
            if not allow_suspicious:
                await self._refuse_suspicious(asset, file)
            asset = await self.take_in(asset, file)
        elif fetch:
            await before_fetch()
            asset = await self.fetch(asset, allow_suspicious=allow_suspicious)
        return await self._add(asset)

    async def remove_asset(
        self, manifest: Manifest, asset_id: str, *, delete_file: bool, on_change: Callable[[ParsedManifest], None]
    ) -> tuple[Path, ...]:
        """Drop an entry, and with ``delete_file`` its files; return those deleted. Raises `UnknownAsset`."""
        asset = manifest.get(asset_id)
        on_change(await self._remove(asset_id))
        return await self._delete_files(asset) if delete_file else ()

    def check_new(self, manifest: Manifest, *assets: Asset) -> None:
        """Raise `EditRefused` if these cannot be added: something is wrong with one, or its id or place is taken.

        Call this before anything is fetched for them. It is checked again when they are added.
        """
        data = json.dumps({"assets": [ASSET.write(asset) for asset in assets]}).encode()
        named = f"the new asset {assets[0].id}" if len(assets) == 1 else f"the {len(assets)} new assets"
        parse_manifest(data, safe_text(named, limit=120))
        problems = []
        taken = {other.id for other in manifest.assets}
        for asset in assets:
            if (key := _key_with_login(asset)) is not None:
                reason = (
                    "an address with a user or password in it would be there for everyone to read; leave it out, and "
                    "put it into GRYM_FETCH_TOKEN_<HOST> or ~/.netrc"
                )
                problems.append(Problem(_where(asset), key, reason))
            if asset.id in taken:
                reason = "is taken; choose another id, or remove the old asset first"
                problems.append(Problem(_where(asset), "id", reason))
        both = [*manifest.assets, *assets]
        for collision in find_collisions([each.local_path for each in both]):
            if collision.second >= len(manifest.assets):
                reason = f"clashes with that of asset '{both[collision.first].id}': {collision.why}"
                problems.append(Problem(_where(both[collision.second]), "localPath", reason))
        for found in find_git_folders([each.local_path for each in both]):
            for part in found.parts:
                if part >= len(manifest.assets):
                    others = (both[other].local_path for other in found.parts if other != part)
                    reason = f"{makes_a_repository(others)}; choose another folder"
                    problems.append(Problem(_where(both[part]), "localPath", reason))
        if problems:
            raise EditRefused(self._source, problems)

    async def _add(self, *assets: Asset) -> ParsedManifest:
        def change(text: ManifestText, manifest: Manifest) -> ManifestText:
            self.check_new(manifest, *assets)
            return text.add(*assets).touch(self._clock.wall(), insert=True)

        return await self._edit(change)

    async def _remove(self, asset_id: str) -> ParsedManifest:
        def change(text: ManifestText, manifest: Manifest) -> ManifestText:
            return text.remove(manifest.assets.index(manifest.get(asset_id))).touch(self._clock.wall())

        return await self._edit(change)

    async def _edit(self, change: Change) -> ParsedManifest:
        path = self._project.manifest_path
        deadline = self._clock.monotonic() + LOCK_TIMEOUT_S
        while (parsed := await self._threads.compute(edit_manifest, path, change)) is None:
            if self._clock.monotonic() >= deadline:
                raise Locked(self._source, "another process has been changing the manifest for too long")
            await self._clock.sleep(POLL_INTERVAL_S)
        return parsed

    # -- content ----------------------------------------------------------------------------------------------------

    async def fetch(self, asset: Asset, *, allow_suspicious: bool = False) -> Asset:
        """Download a new asset into its place, and return it with its checksum and size.

        Raises `EditRefused` if a file is there already: it may be another one. Also if it is plainly not
        an asset; then it is deleted.
        """
        self._refuse_taken(asset)
        refuse_bare_http(asset)
        async with self._fetching() as engine:
            return await self._fetch_new(engine, asset, allow_suspicious=allow_suspicious)

    def _refuse_taken(self, asset: Asset) -> None:
        place = self._project.assets_dir / asset.local_path
        if _is_taken(place):
            shown = safe_text(str(place), limit=1000)
            reason = (
                f"there is a file already at {shown}. If it is this asset, add the file itself and name its address "
                "with --url; otherwise choose another place with --local-path"
            )
            raise EditRefused(self._source, [Problem(_where(asset), "localPath", reason)])

    async def _fetch_new(self, engine: Engine, asset: Asset, *, allow_suspicious: bool) -> Asset:
        judge = self._judge_for(asset, allow_suspicious=allow_suspicious)
        result = await engine.fetcher.fetch(_packed(asset), force=True, judge=judge)
        fetched = result.fetched
        assert fetched is not None, "what is forced is fetched"
        self._note_verified(result.path, fetched.checksum, fetched.signature)
        return replace(asset, checksum=fetched.checksum, size=fetched.size)

    def _note_verified(self, path: Path, checksum: Checksum, signature: FileSignature | None) -> None:
        if signature is not None:
            self._engine.local_files.verified_cache.record(path, checksum, signature)

    async def take_in(self, asset: Asset, file: Path) -> Asset:
        """Measure a file, copy it into the asset's place if it is not there, and return the asset with what it has.

        Raises `DigestMismatch` if the asset has another checksum already, `UnsafePath` if another file is in its place.
        """
        measured = await self._measure(asset, file)
        place = self._project.assets_dir / asset.local_path
        if asset.checksum is not None and asset.checksum != measured.checksum:
            raise DigestMismatch(asset.id, str(asset.checksum), str(measured.checksum))
        if asset.stated is not None:
            actual = await self._stated_digest(file, asset.stated)
            if actual != asset.stated.hexdigest:
                raise DigestMismatch(asset.id, str(asset.stated), f"{asset.stated.kind}:{actual}")
        if _is_taken(place):
            there = None
            if place.is_file():
                there = measured if place.samefile(file) else await self._measure(asset, place)
            if there is None or there.checksum != measured.checksum:
                reason = "another file is there already; move it away, or choose another place with --local-path"
                raise UnsafePath(safe_text(str(place)), reason)
            signature = there.signature
        else:
            signature = await self._copy(file, StageKey(asset.local_path, f"copy of {measured.checksum}"), measured)
        self._note_verified(place, measured.checksum, signature)
        return replace(asset, checksum=measured.checksum, size=measured.size)

    async def _stated_digest(self, file: Path, stated: StatedDigest) -> str:
        """The digest of a file, of the kind that a hub states."""
        hasher = stated.new_hasher()
        await self._threads.compute(_hash_file, file, hasher)
        return hasher.hexdigest()

    async def _refuse_suspicious(self, asset: Asset, path: Path, *, was_fetched: bool = False) -> None:
        """Raise `EditRefused` for what is plainly not an asset; what was fetched of it is deleted."""
        beginning, size = await self._threads.compute(_begins_with, path)
        found = suspicion(beginning, size, name=asset.local_path, url=asset.url)
        if found is None:
            return
        if was_fetched:
            await self._threads.compute(_delete, self._project.assets_dir, asset.local_path)
        stop = "" if found.endswith("?") else "."
        raise EditRefused(
            self._source, [Problem(_where(asset), "", f"{found}{stop} If it is meant to be: --allow-suspicious")]
        )

    def _judge_for(self, asset: Asset, *, allow_suspicious: bool) -> Judge | None:
        """Return what judges a file that was fetched for an asset before it is reported as verified."""
        if allow_suspicious or asset.pinned or asset.stated is not None:
            return None
        return partial(self._refuse_suspicious, asset, was_fetched=True)

    async def _copy(self, file: Path, key: StageKey, measured: _Measured) -> FileSignature:
        """Copy a file into the assets folder as a download would get there: flushed, then renamed."""
        store = self._engine.store
        await store.check_destination(key.local_path)
        await store.prepare()
        stage = await store.open_stage(key, exclusive=False)
        try:
            hasher, at = measured.checksum.new_hasher(), 0
            await stage.note_size(measured.size)
            with storage_errors(file):
                descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                while block := await self._threads.compute(_read_at, file, descriptor, at):
                    hasher.update(block)
                    await stage.write(at, block, 0)
                    at += len(block)
            finally:
                os.close(descriptor)
            if hasher.hexdigest() != measured.checksum.hexdigest:
                raise _changed_meanwhile(file)
            await stage.publish(measured.size)
            assert stage.published is not None, "what is published has a signature"
            return stage.published
        except BaseException:
            await stage.discard()
            raise

    async def _measure(self, asset: Asset, file: Path) -> _Measured:
        """Hash a file. Refuses one that is being written: its checksum is not worth recording."""
        with storage_errors(file):
            figures = os.stat(file)
        if not stat.S_ISREG(figures.st_mode):
            raise UnsafePath(safe_text(str(file)), "this is not a file")
        self._emit(AssetVerifying(asset=asset.id, bytes=0, total=figures.st_size))

        def on_read(count: int) -> None:
            self._emit(AssetVerifying(asset=asset.id, bytes=min(count, figures.st_size), total=figures.st_size))

        digest, signature = await self._engine.local_files.digest(file, asset.checksum or _SHA256, on_read=on_read)
        with storage_errors(file):
            after = FileSignature.of(os.stat(file))
        if not signature == after == FileSignature.of(figures):
            raise _changed_meanwhile(file)
        return _Measured(file, replace(asset.checksum or _SHA256, hexdigest=digest), signature.size, signature)

    @asynccontextmanager
    async def _fetching(self) -> AsyncIterator[Engine]:
        engine = self._lenient_engine()
        try:
            yield engine
        finally:
            await engine.aclose()

    # -- pinning ----------------------------------------------------------------------------------------------------

    async def pin(
        self,
        manifest: Manifest,
        ids: Collection[str] | None,
        *,
        exclude: Collection[str] = (),
        minimal: bool,
        allow_suspicious: bool = False,
        before_fetch: Callable[[], Awaitable[None]],
        on_change: Callable[[ParsedManifest], None],
        on_pinned: Callable[[Pinned], object],
    ) -> PinReport:
        """Write the checksums and sizes that are missing into the manifest, fetching what is not there.

        Of the assets named, or of all if ``ids`` is None, without ``exclude``, and of their stand-ins; with ``minimal``
        of the stand-ins only. Of an asset that is named its size is wanted as well.

        Raises `SyncFailed` if any of them failed; the others are pinned nevertheless.
        """
        wanted = _to_pin(manifest, ids, exclude, minimal=minimal)
        await before_fetch()
        if not wanted:
            return PinReport((), {})
        return await self._pin(wanted, on_change, on_pinned, allow_suspicious=allow_suspicious)

    async def _pin(
        self,
        assets: Collection[Asset],
        on_change: Callable[[ParsedManifest], None],
        on_pinned: Callable[[Pinned], object],
        *,
        allow_suspicious: bool,
    ) -> PinReport:
        began = self._clock.monotonic()
        self._emit(RunStarted(assets=len(assets), bytes=sum(asset.size or 0 for asset in assets)))
        pinned: list[Pinned] = []
        failed: dict[str, GrymFetchError] = {}
        verified = unverified = downloaded = 0
        queue = iter(assets)

        async def pin_some(engine: Engine) -> None:
            nonlocal verified, unverified, downloaded
            for asset in queue:
                try:
                    measured = await self._find_or_fetch(asset, engine, allow_suspicious=allow_suspicious)
                    downloaded += measured.downloaded or 0
                    await self._record(asset, measured, on_change)
                except GrymFetchError as error:
                    failed[f"{asset.id} (stand-in)" if asset.is_stand_in else asset.id] = error
                    continue
                self._note_verified(measured.path, measured.checksum, measured.signature)
                fetched = measured.downloaded is not None
                # Nothing said what the bytes of an unpinned asset had to be: they are pinned, and not verified.
                verified += fetched and asset.pinned
                unverified += fetched and not asset.pinned
                done = Pinned(asset.id, measured.checksum, measured.size, measured.path, fetched, asset.is_stand_in)
                pinned.append(done)
                on_pinned(done)

        try:
            async with self._fetching() as engine, asyncio.TaskGroup() as group:
                for _ in range(min(self._engine.max_active_assets, len(assets))):
                    group.create_task(pin_some(engine))
        finally:
            self._emit(
                RunFinished(
                    verified=verified,
                    unverified=unverified,
                    reused=len(pinned) - verified - unverified,
                    failed=len(failed),
                    downloaded_bytes=downloaded,
                    seconds=round(self._clock.monotonic() - began, 3),
                )
            )
        if failed:
            raise SyncFailed(failed)
        return PinReport(tuple(pinned), failed)

    async def _find_or_fetch(self, asset: Asset, engine: Engine, *, allow_suspicious: bool) -> _Measured:
        try:
            if (present := await self._find(asset)) is not None:
                if not allow_suspicious and not asset.pinned:
                    await self._refuse_suspicious(asset, present.path)
                unverified = None if asset.pinned else True
                self._emit(AssetReused(asset=asset.id, path=str(present.path), unverified=unverified))
                return present
            if not asset.pinned:
                refuse_bare_http(asset)
        except GrymFetchError as error:
            error.asset_id = error.asset_id or asset.id
            self._emit(AssetFailed(asset=asset.id, error=type(error).__name__, message=str(error)))
            raise
        judge = self._judge_for(asset, allow_suspicious=allow_suspicious)
        result = await engine.fetcher.fetch(_packed(asset), judge=judge)
        if result.fetched is None:  # somebody else has fetched it meanwhile
            if not allow_suspicious and not asset.pinned:
                await self._refuse_suspicious(asset, result.path)
            return await self._measure(asset, result.path)
        fetched = result.fetched
        return _Measured(result.path, fetched.checksum, fetched.size, fetched.signature, fetched.downloaded)

    async def _find(self, asset: Asset) -> _Measured | None:
        """The asset's file, measured, if there is one and nothing is known to be wrong with it."""
        for place in self._engine.local_files.places(asset):
            try:
                figures = os.stat(place)
            except OSError:
                continue
            if stat.S_ISREG(figures.st_mode) and asset.size in (None, figures.st_size):
                measured = await self._measure(asset, place)
                if asset.checksum in (None, measured.checksum):
                    return measured
        return None

    async def _record(self, asset: Asset, measured: _Measured, on_change: Callable[[ParsedManifest], None]) -> None:
        """Write what was found into the asset's entry, with what others have found while the file was being written."""
        mine = _Record(asset, measured)
        self._records.append(mine)
        try:
            async with self._writing:
                if not mine.is_written:
                    waiting = list(self._records)
                    on_change(await self._edit(partial(self._with_records, waiting)))
                    for record in waiting:
                        record.is_written = True
                    del self._records[: len(waiting)]
        except BaseException:
            if not mine.is_written:
                # The others are still in line, and write theirs themselves.
                self._records.remove(mine)
            raise
        if mine.error is not None:
            raise mine.error

    def _with_records(self, records: list[_Record], text: ManifestText, manifest: Manifest) -> ManifestText:
        """Return the change that writes these. Refuses what was found for an entry that has changed since."""
        numbers = {asset.id: number for number, asset in enumerate(manifest.assets)}
        settings = []
        for record in records:
            asset, found = record.asset, record.measured
            number = numbers.get(asset.id)
            entry = manifest.assets[number] if number is not None else None
            now = entry.stand_in() if entry is not None and asset.is_stand_in else entry
            record.error = None
            if number is None or now is None or not _is_about(now, asset) or now.checksum not in (None, found.checksum):
                reason = "has been changed meanwhile by somebody else; look at it, and pin it again"
                record.error = EditRefused(self._source, [Problem(f"asset '{safe_text(asset.id)}'", "", reason)])
                continue
            values: dict[str, object] = {"size": found.size}
            if now.checksum is None:
                values = {"checksum": found.checksum.bare, **values}
            settings.append(Setting(number, values, asset.is_stand_in))
        return text.set_all(settings).touch(self._clock.wall()) if settings else text

    # -- leftovers --------------------------------------------------------------------------------------------------

    async def _delete_files(self, asset: Asset) -> tuple[Path, ...]:
        """Delete the files of an asset and of its stand-in from the assets folder; return those that were there.

        What was unpacked from them goes as well, except what someone has changed or added.
        """
        root = self._project.assets_dir
        trees = [root / path for path in await self._threads.compute(unpacked_folders, root, asset)]
        for each in (asset, asset.stand_in()) if asset.extract else ():
            if left := await self._threads.compute(forget_unpacked, root, each.local_path):
                log.warning("%s: %d changed or added files were left (%s)", asset.id, len(left), safe_text(left[0]))
        places = dict.fromkeys((asset.local_path, asset.stand_in().local_path))
        deleted = [root / each for each in places if await self._threads.compute(_delete, root, each)]
        return (*deleted, *(tree for tree in trees if not _is_taken(tree)))

    async def prune(self, manifest: Manifest, *, dry_run: bool) -> PruneReport:
        """Remove what earlier runs left behind and no one needs; with ``dry_run``, only report it."""
        wanted = {}
        for asset in manifest.assets:
            for each in (asset, asset.stand_in()):
                key = StageKey(each.local_path, content_fingerprint(each))
                wanted[key.path_key, key.content_key] = each.id
        return await self._threads.compute(partial(prune_folder, self._project.assets_dir, wanted, dry_run=dry_run))


def _to_pin(manifest: Manifest, ids: Collection[str] | None, exclude: Collection[str], *, minimal: bool) -> list[Asset]:
    """The assets and stand-ins that lack a checksum, or a size if they are named. Raises `UnknownAsset`."""
    chosen = manifest.pick(ids, exclude=exclude)
    kinds = [kind for asset in chosen for kind in dict.fromkeys((asset, asset.stand_in()))]
    return [
        kind
        for kind in kinds
        if (kind.is_stand_in or not minimal) and (not kind.pinned or (ids is not None and kind.size is None))
    ]


def unpacked_folders(root: Path, asset: Asset) -> list[str]:
    """What was unpacked from an asset and its stand-in, and is there; relative to the assets folder ``root``."""
    kinds = dict.fromkeys((asset, asset.stand_in())) if asset.extract else ()
    return [unpacked_path(each.local_path) for each in kinds if has_unpacked(root, each.local_path)]


def deletable(root: Path, asset: Asset) -> list[Path]:
    """What removing an asset with its files would delete from the assets folder ``root``."""
    files = [root / path for path in dict.fromkeys((asset.local_path, asset.stand_in().local_path))]
    return [
        *(file for file in files if os.path.lexists(file)),
        *(root / path for path in unpacked_folders(root, asset)),
    ]


def _key_with_login(asset: Asset) -> str | None:
    """The first key with an address that has a user or password in it."""
    stand_in = asset.minimal
    keys = {
        "url": (asset.url,),
        "fallbackUrls": asset.fallback_urls,
        "minimal": (stand_in.url, *stand_in.fallback_urls) if stand_in is not None else (),
    }
    return next((key for key, urls in keys.items() if any(map(has_login, urls))), None)


def _where(asset: Asset) -> str:
    return f"asset '{safe_text(asset.id, limit=80)}'"


def _is_about(entry: Asset, asset: Asset) -> bool:
    """Whether what the entry says about the content has stayed the same since that was fetched."""
    return (entry.url, entry.local_path, entry.is_stand_in) == (asset.url, asset.local_path, asset.is_stand_in)


def _packed(asset: Asset) -> Asset:
    """The asset without unpacking its archive: these bytes have not been confirmed yet as the right ones."""
    return replace(asset, extract=False)


def refuse_bare_http(asset: Asset) -> None:
    """Raise `PolicyRefused` for an asset with a plain http address that is not this machine's."""
    for text in asset.urls:
        url = URL(text)
        if url.scheme == "http" and not is_loopback(url):
            raise PolicyRefused(
                text,
                f"{asset.id}: over plain http anybody on the way could change the bytes, and their checksum would be "
                "taken for the right one. Use an https address, or get the file in a way you trust and put it in place",
            )


def _changed_meanwhile(file: Path) -> StorageError:
    return NotWritable(safe_text(str(file)), "the file was changed while it was read; try again when it is finished")


def _is_taken(place: Path) -> bool:
    return os.path.lexists(place)


def _hash_file(path: Path, hasher: Hasher) -> None:
    with storage_errors(path), open(path, "rb") as file:
        while block := file.read(HASH_BLOCK_BYTES):
            hasher.update(block)


def _read_at(file: Path, descriptor: int, at: int) -> bytes:
    with storage_errors(file):
        return os.pread(descriptor, HASH_BLOCK_BYTES, at)


def _begins_with(file: Path) -> tuple[bytes, int]:
    with storage_errors(file):
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return os.pread(descriptor, BEGINNING_BYTES, 0), os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)


def _delete(root: Path, local_path: str) -> bool:
    *parents, name = local_path.split("/")
    with storage_errors(root / local_path):
        try:
            folder = open_folder(root, tuple(parents), create=False)
        except FileNotFoundError:
            return False
        try:
            os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            return False
        finally:
            os.close(folder)
    return True
