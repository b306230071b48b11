"""Measures an asset's checksum and size: its file is hashed if it exists, and fetched if it does not.

Rules: a file that is plainly not an asset (`suspicion`) is refused, and deleted if it was fetched. Bytes that came over
plain http from another machine are never measured: that would make whatever arrived right forever. Neither is a file
that changes in the meantime.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from yarl import URL

from grym_fetch.core.addresses import is_loopback
from grym_fetch.core.content_hasher import sha256_summer
from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import (
    EditRefused,
    GrymFetchError,
    NotWritable,
    PolicyRefused,
    Problem,
    StorageError,
    UnsafePath,
)
from grym_fetch.core.events import AssetFailed, AssetReused, AssetVerifying, Event
from grym_fetch.core.manifest import Asset
from grym_fetch.core.piece_digests import PieceDigests
from grym_fetch.core.stated import StatedDigest
from grym_fetch.core.suspicion import BEGINNING_BYTES, read_pointer, suspicion
from grym_fetch.core.text import safe_text
from grym_fetch.disk.folders import delete_file, read_beginning, storage_errors
from grym_fetch.disk.local_files import HASH_BLOCK_BYTES, Updated
from grym_fetch.disk.verified import FileSignature
from grym_fetch.engine.engine import Engine
from grym_fetch.manifest_files.project import Project
from grym_fetch.project.entries import where
from grym_fetch.runtime.threads import WorkerThreads
from grym_fetch.transfer.fetcher import Fetcher, Judge

_SHA256 = Checksum.of(b"")
"""Stands for the algorithm of new checksums."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurements of a file that is there. ``downloaded`` is None if it was there before."""

    path: Path
    checksum: Checksum
    size: int
    signature: FileSignature | None
    downloaded: int | None = None


class Measurer:
    """Measures the assets of one project. ``engine`` checks existing files, and fetches over its connections."""

    def __init__(
        self,
        project: Project,
        *,
        engine: Engine,
        threads: WorkerThreads,
        emit: Callable[[Event], None],
    ) -> None:
        self._root = project.assets_dir
        self._source = safe_text(str(project.manifest_path))
        self._engine = engine
        self._threads = threads
        self._emit = emit
        self.received = 0
        """Bytes received by what was fetched to be measured."""

    @cached_property
    def _fetcher(self) -> Fetcher:
        return self._engine.lenient(self._count)

    def _count(self, received: int) -> None:
        self.received += received

    # -- a file that is there ---------------------------------------------------------------------------------------

    async def measure(self, asset: Asset, file: Path, *, is_ended: bool = False) -> Measured:
        """Hash a file. Refuses a file that is being written to: its checksum is not worth recording.

        ``is_ended``: it was told already how the asset ended, so nothing more is told of it.
        """
        with storage_errors(file):
            figures = os.stat(file)
        if not stat.S_ISREG(figures.st_mode):
            raise UnsafePath(safe_text(str(file)), "this is not a file")

        def on_read(count: int) -> None:
            if not is_ended:
                self._emit(AssetVerifying(asset=asset.id, bytes=min(count, figures.st_size), total=figures.st_size))

        on_read(0)
        digest, signature = await self._engine.local_files.digest(file, asset.checksum or _SHA256, on_read=on_read)
        with storage_errors(file):
            after = FileSignature.of(os.stat(file))
        if not signature == after == FileSignature.of(figures):
            raise changed_meanwhile(file)
        return Measured(file, replace(asset.checksum or _SHA256, hexdigest=digest), signature.size, signature)

    async def stated_digest(self, file: Path, stated: StatedDigest) -> str:
        """The digest of a file, of the kind that the hub states."""
        hasher = stated.new_hasher()
        await self._threads.compute(_hash_file, file, hasher)
        return hasher.hexdigest()

    async def has_stated(self, path: Path, asset: Asset) -> bool:
        """Whether a file has the digest that the hub states."""
        assert asset.stated is not None, "asked only where there is one"
        return await self.stated_digest(path, asset.stated) == asset.stated.hexdigest

    async def pieces(self, path: Path, checksum: Checksum, size: int) -> PieceDigests:
        """The digests of the pieces of a file, which must have this checksum in the same pass."""
        hasher, summer = checksum.new_hasher(), sha256_summer(size)
        await self._threads.compute(_hash_file, path, hasher, summer)
        if hasher.hexdigest() != checksum.hexdigest:
            raise changed_meanwhile(path)
        return PieceDigests(summer.length, summer.digests())

    def note_verified(self, path: Path, checksum: Checksum, signature: FileSignature | None) -> None:
        """Remember a file's checksum, so that nobody has to hash it again."""
        if signature is not None:
            self._engine.local_files.verified_cache.record(path, checksum, signature)

    async def keep(self, assets: Sequence[Asset]) -> None:
        """Put the files of these into the store, if there is one: once the manifest names what they are."""
        known = self._engine.local_files.look_at(assets)
        await self._engine.keep(
            [
                asset
                for asset, look in zip(assets, known, strict=True)
                if look.path == str(self._root / asset.local_path)
            ]
        )

    async def pointed_at(self, path: Path) -> tuple[Checksum, int] | None:
        """The digest and size of the content that a git-lfs pointer stands for; None if the file is not one."""
        return read_pointer(*await self._threads.compute(read_beginning, path, BEGINNING_BYTES))

    async def refuse_suspicious(self, asset: Asset, path: Path, *, was_fetched: bool = False) -> None:
        """Raise `EditRefused` for a file that is plainly not an asset; delete it if it was fetched."""
        beginning, size = await self._threads.compute(read_beginning, path, BEGINNING_BYTES)
        found = suspicion(beginning, size, name=asset.local_path, url=asset.url)
        if found is None:
            return
        if was_fetched:
            await self._threads.compute(delete_file, self._root, asset.local_path)
        stop = "" if found.endswith("?") else "."
        raise EditRefused(
            self._source, [Problem(where(asset), "", f"{found}{stop} If it is meant to be: --allow-suspicious")]
        )

    # -- one that is not --------------------------------------------------------------------------------------------

    async def fetch_new(self, asset: Asset, *, allow_suspicious: bool) -> Asset:
        """Download an asset into place, and return it with its checksum and size."""
        judge = self._judge_for(asset, allow_suspicious=allow_suspicious)
        result = await self._fetcher.fetch(_packed(asset), force=True, judge=judge)
        fetched = result.fetched
        assert fetched is not None, "what is forced is fetched"
        self.note_verified(result.path, fetched.checksum, fetched.signature)
        return replace(asset, checksum=fetched.checksum, size=fetched.size)

    async def find_or_fetch(self, asset: Asset, *, allow_suspicious: bool) -> Measured:
        """Measure the asset's file where it is; if there is none, download it."""
        try:
            if (present := await self._find(asset)) is not None:
                if not allow_suspicious and not asset.pinned:
                    await self.refuse_suspicious(asset, present.path)
                unverified = None if asset.pinned else True
                self._emit(AssetReused(asset=asset.id, path=str(present.path), unverified=unverified))
                return present
            if not asset.pinned:
                refuse_bare_http(asset)
        except GrymFetchError as error:
            self.tell_failed(asset, error)
            raise
        judge = self._judge_for(asset, allow_suspicious=allow_suspicious)
        result = await self._fetcher.fetch(_packed(asset), judge=judge)
        if result.fetched is None:  # somebody else has fetched it in the meantime
            if not allow_suspicious and not asset.pinned:
                await self.refuse_suspicious(asset, result.path)
            return await self.measure(asset, result.path, is_ended=True)
        fetched = result.fetched
        return Measured(result.path, fetched.checksum, fetched.size, fetched.signature, fetched.downloaded)

    async def _find(self, asset: Asset) -> Measured | None:
        """The asset's file, measured, if there is one and nothing is known to be wrong with it."""
        for place in self._engine.local_files.places(asset):
            try:
                figures = os.stat(place)
            except OSError:
                continue
            if stat.S_ISREG(figures.st_mode) and asset.size in (None, figures.st_size):
                measured = await self.measure(asset, place)
                if asset.checksum in (None, measured.checksum):
                    return measured
        return None

    def _judge_for(self, asset: Asset, *, allow_suspicious: bool) -> Judge | None:
        """Return a function that judges a fetched file before it is reported as verified."""
        if allow_suspicious or asset.pinned or asset.stated is not None:
            return None
        return partial(self.refuse_suspicious, asset, was_fetched=True)

    def tell_failed(self, asset: Asset, error: GrymFetchError) -> None:
        """Emit the failure of an asset that never got to the fetcher, which reports its own failures."""
        error.asset_id = error.asset_id or asset.id
        self._emit(AssetFailed(asset=asset.id, error=type(error).__name__, message=str(error)))


def refuse_bare_http(asset: Asset) -> None:
    """Raise `PolicyRefused` for an asset with a plain http address that is not on this machine."""
    for text in asset.urls:
        url = URL(text)
        if url.scheme == "http" and not is_loopback(url):
            raise PolicyRefused(
                text,
                f"{asset.id}: over plain http anybody on the way could change the bytes, and their checksum would be "
                "taken for the right one. Use an https address, or get the file in a way you trust and put it in place",
            )


def changed_meanwhile(file: Path) -> StorageError:
    """The error for a file that changes while it is measured."""
    return NotWritable(safe_text(str(file)), "the file was changed while it was read; try again when it is finished")


def _packed(asset: Asset) -> Asset:
    """The asset without unpacking its archive, since its bytes have not been confirmed as right yet."""
    return replace(asset, extract=False)


def _hash_file(path: Path, *hashers: Updated) -> None:
    with storage_errors(path), open(path, "rb") as file:
        while block := file.read(HASH_BLOCK_BYTES):
            for hasher in hashers:
                hasher.update(block)
