"""Finds an asset's file on this machine, and says whether it is right.

The places are, in this order: the assets folder, the external folder, and where ``asset-manifest.json`` in the external
folder says the file was moved. A file is right if its digest is the manifest's; the verified cache saves reading it
again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import StorageError, UnsafePath
from grym_fetch.core.manifest import Asset
from grym_fetch.core.paths import MOVED_FILES
from grym_fetch.core.piece_digests import piece_count
from grym_fetch.core.text import safe_text
from grym_fetch.disk.folders import file_path, storage_errors, sync
from grym_fetch.disk.moved_files import parse_storage, read_document
from grym_fetch.disk.piece_sums import PieceSumsStore
from grym_fetch.disk.state import StateFolder
from grym_fetch.disk.verified import FileSignature, VerifiedCache, wait_for_tick
from grym_fetch.disk.wrong_origins import WrongOrigins
from grym_fetch.runtime import system
from grym_fetch.runtime.system import read_ahead
from grym_fetch.runtime.waiting import wait_uncancelled

if TYPE_CHECKING:
    from grym_fetch.core.piece_digests import PieceSums
    from grym_fetch.core.world import Threads
    from grym_fetch.disk.damage import Damage

R = TypeVar("R")

log = logging.getLogger(__name__)

HASH_BLOCK_BYTES = 4 * 1024 * 1024
"""Bytes hashed at a time: enough that the call costs next to nothing, few enough to stop quickly."""
TOLD_EVERY_BYTES = 64 * 1024 * 1024
"""Report the progress of hashing a file after this many bytes, which is a few times a second."""
RECENT_S = 600.0
"""A file that changed this recently is flushed before it counts as verified; older ones are on the disk by now."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file that is there. ``error`` says what is wrong with it; it is None if it is right or cannot be verified.

    ``sums`` are those of its pieces, if it was read and found wrong.
    """

    path: Path
    error: str | None
    verified: bool
    sums: PieceSums | None = None

    @property
    def is_wrong(self) -> bool:
        """Whether it is known to be wrong."""
        return self.error is not None


class Updated(Protocol):
    """What takes the bytes of a file in order."""

    def update(self, data: bytes, /) -> object:
        """Add more bytes."""


class StoreCache(Protocol):
    """What the machine's store knows about its files, which may be those of the project under another name."""

    def judge(self, checksum: Checksum, figures: os.stat_result, /) -> bool | None:
        """Whether a file with these ``figures`` is the store's, and has this checksum; None if that is not known."""


class Presence(Enum):
    """What a look at the places of an asset has found, without reading it."""

    VERIFIED = auto()
    """A file that was found to be right, and has not changed since."""
    UNREAD = auto()
    """A file of the right size, or of any where nobody knows the right one; whether it is right is not known."""
    OTHER = auto()
    """Something that cannot be the asset: a file of another size or one known to be wrong, a folder."""
    NOTHING = auto()


class Look(NamedTuple):
    """What is there. ``path`` is that of a verified file, as text: a `Path` for each of 60,000 takes its time."""

    presence: Presence
    path: str | None = None

    @property
    def is_there(self) -> bool:
        """Whether a file is there that is right, or may be."""
        return self.presence in (Presence.VERIFIED, Presence.UNREAD)


_UNREAD, _OTHER, _NOTHING = (Look(each) for each in (Presence.UNREAD, Presence.OTHER, Presence.NOTHING))


class LocalFiles:
    """Finds and verifies the files of one project."""

    def __init__(
        self, assets_dir: Path, external_dir: Path, threads: Threads, *, store_cache: StoreCache | None = None
    ) -> None:
        self._assets_dir = assets_dir
        self._store_cache = store_cache
        self._external_dir = external_dir
        self._folders = str(assets_dir), str(external_dir)
        self._threads = threads
        self._state = StateFolder(assets_dir)
        self._moved_places: dict[str, Path] | None = None
        self.verified_cache = VerifiedCache(self._state)
        self.piece_sums = PieceSumsStore(self._state)
        self.wrong_origins = WrongOrigins(self._state)

    def places(self, asset: Asset) -> list[Path]:
        """Where this asset may lie, best first."""
        return [Path(place) for place in self._places(asset, self._folders)]

    def _places(self, asset: Asset, folders: Iterable[str]) -> Iterator[str]:
        for folder in folders:
            yield file_path(folder, asset.local_path)
        if asset.checksum is not None and (moved := self._moved_files().get(asset.checksum.hexdigest)) is not None:
            yield str(moved)

    def look(self, asset: Asset) -> Look:
        """Return what is in the asset's places now. Reads no bytes of it."""
        return self._look(asset, self._folders, None)

    def look_at(self, assets: Iterable[Asset]) -> Iterator[Look]:
        """`look` at many, one after the other. A folder that is not there is asked for once, and not for each asset."""
        folders, gone = [folder for folder in self._folders if os.path.isdir(folder)], set[str]()
        # Nearly all of them lie in the first folder, and were verified there.
        first = folders[0] if folders else ""
        for asset in assets:
            place = file_path(first, asset.local_path)
            if asset.checksum is not None and self.verified_cache.is_verified(place, asset.checksum):
                yield Look(Presence.VERIFIED, place)
            else:
                yield self._look(asset, folders, gone)

    def _look(self, asset: Asset, folders: Iterable[str], gone: set[str] | None) -> Look:
        """``gone``: folders known not to be there; more are added to it. None if it is not worth remembering them."""
        is_other = False
        for place in self._places(asset, folders):
            if gone and place.rpartition(os.sep)[0] in gone:
                continue
            try:
                figures = os.stat(place)
            except OSError:
                if gone is not None and not os.path.isdir(folder := place.rpartition(os.sep)[0]):
                    gone.add(folder)
                continue
            known = None
            if asset.checksum is not None:
                known = self._judge(place, asset.checksum, figures)
                if known:
                    return Look(Presence.VERIFIED, place)
            if known is None and stat.S_ISREG(figures.st_mode) and asset.size in (None, figures.st_size):
                # Also where a verified one comes after it: this may be the right one, as for `find`.
                return _UNREAD
            is_other = True
        return _OTHER if is_other else _NOTHING

    def _judge(self, place: str, checksum: Checksum, figures: os.stat_result) -> bool | None:
        """`VerifiedCache.judge`. A name that is added to a file changes its signature, which the store then knows."""
        known = self.verified_cache.judge(place, checksum, figures)
        if known is None and figures.st_nlink > 1 and self._store_cache is not None:
            return self._store_cache.judge(checksum, figures)
        return known

    def find_verified(self, asset: Asset) -> str | None:
        """The path of the asset's file, if it was verified and has not changed since. Does not read the file.

        Also None if an earlier place has a file that has yet to be read.
        """
        return self.look(asset).path if asset.checksum is not None else None

    def has_stages(self) -> bool:
        """Whether there are any unfinished downloads."""
        try:
            with self._state.opened("stage") as folder:
                return bool(system.listdir(folder))
        except (OSError, StorageError):
            return False

    def are_occupied(self, assets: Iterable[Asset]) -> Iterator[bool]:
        """Whether there is anything at all in one of each asset's places."""
        folders: dict[str, bool] = {}
        for asset in assets:
            yield any(_is_in(folders, place) for place in self._places(asset, self._folders))

    async def find(self, asset: Asset, *, full: bool = False, on_hashing: Callable[[int, int], None]) -> Found | None:
        """Look for the asset and verify it: the first right file, else the first wrong one, else None.

        ``full`` reads every byte, whatever the verified cache says. ``on_hashing`` is called with the bytes read so far
        and the file's size: once before the first byte, and then from time to time.
        """
        wrong: Found | None = None
        for place in self.places(asset):
            found = await self._examine(asset, place, full=full, on_hashing=on_hashing)
            if found is not None and not found.is_wrong:
                return found
            wrong = wrong or found
        return wrong

    async def _examine(
        self, asset: Asset, place: Path, *, full: bool, on_hashing: Callable[[int, int], None]
    ) -> Found | None:
        try:
            figures = os.stat(place)
        except OSError:
            return None
        if asset.checksum is not None and not full and self._judge(str(place), asset.checksum, figures):
            return Found(place, None, verified=True)
        if not stat.S_ISREG(figures.st_mode):
            return Found(place, "something that is not a file is in its place", verified=False)
        size = figures.st_size
        if asset.size is not None and size != asset.size:
            return Found(place, f"size mismatch: expected {asset.size} bytes, found {size}", verified=False)
        if asset.checksum is None:
            return Found(place, None, verified=False)
        on_hashing(0, size)
        await self._threads.compute(wait_for_tick, figures)
        began_ns = time.time_ns()
        from grym_fetch.core.content_hasher import ContentHasher  # most runs read no file

        content = ContentHasher(asset.checksum.new_hasher(), size)
        signature = await self._read(place, content, on_read=lambda count: on_hashing(count, size))
        digest = content.whole.hexdigest()
        if digest != asset.checksum.hexdigest:
            actual = Checksum(asset.checksum.algorithm, digest)
            # Replaces an earlier entry: the next run must not trust a file that a full check has found to be damaged.
            self.verified_cache.record(place, actual, signature)
            error = f"checksum mismatch: expected {asset.checksum}, found {actual}"
            return Found(place, error, verified=False, sums=content.sums)
        # If it was written to a moment ago, it is hashed again the next time: see `was_settled`.
        if signature.was_settled(began_ns) and await self._threads.compute(_is_durable, place, signature):
            self.verified_cache.record(place, asset.checksum, signature)
            self.piece_sums.record(asset.checksum, size, content.sums)
        return Found(place, None, verified=True)

    async def find_damage(self, asset: Asset, wrong: Found) -> Damage | None:
        """Return what of a wrong file can be used; None if nothing can. Cancelling ends it soon."""
        from grym_fetch.disk.damage import find_damage  # most runs find no damage

        size, checksum = asset.size, asset.checksum
        if size is None or checksum is None:
            return None
        sums = self.piece_sums.find(checksum)
        if sums is not None and len(sums.xxh3) != piece_count(size, sums.length):
            sums = None

        def look(stopped: threading.Event) -> Damage | None:
            return find_damage(
                wrong.path,
                size,
                sums=sums,
                found=wrong.sums,
                digests=asset.pieces,
                go_on=lambda _: not stopped.is_set(),
            )

        return await self._stoppable(look)

    async def digest(
        self, path: Path, checksum: Checksum, *, on_read: Callable[[int], None] = lambda _: None
    ) -> tuple[str, FileSignature]:
        """Hash a file as ``checksum`` was made; return the hex digest and the signature. Stops soon if cancelled.

        ``on_read`` is called in the event loop with the bytes read so far, every `TOLD_EVERY_BYTES`.
        """
        hasher = checksum.new_hasher()
        signature = await self._read(path, hasher, on_read=on_read)
        return hasher.hexdigest(), signature

    async def digest_open(
        self, descriptor: int, path: Path, checksum: Checksum, on_read: Callable[[int], None]
    ) -> tuple[str, FileSignature]:
        """`digest` of an open file; ``path`` is for messages."""
        hasher = checksum.new_hasher()
        signature = await self._read(path, hasher, on_read=on_read, descriptor=descriptor)
        return hasher.hexdigest(), signature

    async def _read(
        self, path: Path, hasher: Updated, *, on_read: Callable[[int], None], descriptor: int | None = None
    ) -> FileSignature:
        loop = asyncio.get_running_loop()

        def read(stopped: threading.Event) -> os.stat_result:
            def go_on(count: int) -> bool:
                if count % TOLD_EVERY_BYTES == 0 and not stopped.is_set():
                    loop.call_soon_threadsafe(on_read, count)
                return not stopped.is_set()

            if descriptor is None:
                return hash_file(path, hasher, go_on)
            with storage_errors(path):
                return hash_open(descriptor, hasher, go_on)

        return FileSignature.of(await self._stoppable(read))

    async def _stoppable(self, work: Callable[[threading.Event], R]) -> R:
        """Do the work in a thread. If this is cancelled, the event is set, and it returns when the work has ended."""
        stopped = threading.Event()
        working = asyncio.ensure_future(self._threads.compute(work, stopped))
        try:
            return await asyncio.shield(working)
        finally:
            stopped.set()
            await wait_uncancelled([working])

    def _moved_files(self) -> dict[str, Path]:
        """The paths of the files that were moved out of the repository, by their digest."""
        if self._moved_places is None:
            self._moved_places = {}
            document = None
            with suppress(OSError, ValueError):  # an unusable record finds nothing
                document = read_document(self._external_dir / MOVED_FILES)
            _, entries = document or ({}, [])
            for entry in entries:
                with suppress(ValueError):
                    storage_path, checksum = parse_storage(entry)
                    self._moved_places[checksum.hexdigest] = self._external_dir / storage_path
        return self._moved_places


def _is_durable(path: Path, signature: FileSignature) -> bool:
    """Flush a file that was changed or renamed recently, and its folder: whoever put it there may not have done so.

    Otherwise a power cut could leave the cache's entry beside other bytes of the same length. Blocking: for a thread.
    """
    if time.time() - signature.ctime_ns / 1e9 > RECENT_S:
        return True
    try:
        for place in (path, path.parent):
            descriptor = system.open_descriptor(place, os.O_RDONLY)
            try:
                sync(descriptor)
            finally:
                os.close(descriptor)
    except OSError as error:
        log.warning("a file could not be flushed and is hashed again next time: %s", os.strerror(error.errno or 0))
        return False
    return True


def hash_file(path: Path, hasher: Updated, on_progress: Callable[[int], bool]) -> os.stat_result:
    """Feed a whole file to ``hasher``; return its ``stat`` from when it was opened. Blocking: for a thread.

    ``on_progress`` is called with the bytes read so far; reading ends early if it returns False.
    """
    with storage_errors(path):
        # It was checked before, but may be something else by now: do not wait for a pipe.
        descriptor = system.open_descriptor(path, os.O_RDONLY | system.O_NONBLOCK | system.O_NOCTTY)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UnsafePath(safe_text(str(path)), "this is not a file")
            return hash_open(descriptor, hasher, on_progress)
        finally:
            os.close(descriptor)


def hash_open(descriptor: int, hasher: Updated, on_progress: Callable[[int], bool]) -> os.stat_result:
    """`hash_file` for an open file. Raises ``OSError``."""
    figures = os.fstat(descriptor)
    read_ahead(descriptor)
    at = 0
    while block := system.pread(descriptor, HASH_BLOCK_BYTES, at):
        hasher.update(block)
        at += len(block)
        if not on_progress(at):
            break
    return figures


def _is_in(folders: dict[str, bool], place: str) -> bool:
    """Whether anything is there. ``folders``: which are there; each is asked for once, and not for each file."""
    folder = place.rpartition(os.sep)[0]
    if folder not in folders:
        folders[folder] = os.path.isdir(folder)
    return folders[folder] and os.path.lexists(place)
