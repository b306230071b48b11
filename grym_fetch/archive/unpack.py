"""Unpacks an archive next to itself; at every moment the folder is absent, the old tree, or the new one.

::

    <assets>/models/voices.tar.gz              the archive, verified
    <assets>/models/voices/                    what is in it
    <this user's state>/unpacked/<key>.json    what was unpacked, and from which content
    <this user's state>/unpack/<key>.<owner>.<nonce>/
        tree                                   the new tree while it is made; the old one after the exchange
        exchanged                              made just before the exchange

Rules: `grym_fetch.core.archives` decides what may be unpacked; symlinks are made last, so nothing is ever written
through one. A tree that is there already, whoever made it, is compared with the archive and used if unpacking would
make the same. The new tree is flushed and recorded before it takes the place of the old one, in one step. See tree.py
for what is then deleted, and what is kept.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from grym_fetch.archive.compare import compare
from grym_fetch.archive.reader import BLOCK_BYTES, kind_of, members, opened, reading
from grym_fetch.archive.tar import Read
from grym_fetch.archive.tree import (
    TreeStage,
    TreeStore,
    Unpacked,
    flush,
    is_folder,
    remove_known,
    signature_of,
)
from grym_fetch.core.archives import Census, Limits, Member, unpacked_path
from grym_fetch.core.errors import DiskFull, StorageError, UnsafeArchive
from grym_fetch.core.manifest import Asset
from grym_fetch.core.text import safe_text
from grym_fetch.core.world import Threads
from grym_fetch.disk.folders import (
    NEW_FILE,
    open_child,
    open_folder,
    storage_errors,
    usable_bytes,
    write_all,
)
from grym_fetch.disk.repository import check_is_not_gits, check_makes_no_repository
from grym_fetch.disk.verified import FileSignature, mark_time
from grym_fetch.runtime import system
from grym_fetch.runtime.system import flush_everything
from grym_fetch.runtime.waiting import wait_uncancelled

MAX_SINGLE_FLUSHES = 2000
"""Flush up to this many files one by one; if there are more, all at once: a million flushes would take hours."""

OnRead = Callable[[int, int], None]
"""Is told how many of how many bytes of an archive were read."""


def unheard(count: int, total: int) -> None:
    """Nobody wants to know."""


class Unpacker:
    """Keeps the unpacked trees of one assets folder in step with their archives."""

    def __init__(self, assets_dir: Path, threads: Threads, limits: Limits | None = None) -> None:
        self._assets_dir = assets_dir
        self._threads = threads
        self._limits = limits or Limits()

    async def ensure(self, asset: Asset, archive: Path, on_read: OnRead = unheard) -> None:
        """Unpack the asset's archive, which was verified at ``archive``, unless its tree is there and unchanged.

        Does nothing for an asset without ``extract``. ``on_read`` is told in the event loop how many of how many bytes
        of the archive were read. Raises `UnsafeArchive` or `StorageError`. A cancellation takes effect after the block
        that is being written.
        """
        if asset.extract:
            await self._run(ensure_unpacked, asset, archive, on_read)

    async def find(self, asset: Asset, archive: Path, on_read: OnRead = unheard) -> bool:
        """Whether the archive's content is there, whoever unpacked it: each byte is compared."""
        return await self._run(is_tree_right, asset, archive, on_read)

    async def _run(self, work_on: Callable[..., bool], asset: Asset, archive: Path, on_read: OnRead) -> bool:
        stopped = threading.Event()
        loop = asyncio.get_running_loop()

        def tell(count: int, total: int) -> None:
            if not stopped.is_set():
                loop.call_soon_threadsafe(on_read, count, total)

        work = asyncio.ensure_future(
            self._threads.compute(
                work_on,
                self._assets_dir,
                asset.local_path,
                str(asset.checksum) if asset.checksum is not None else None,
                archive,
                self._limits,
                stopped.is_set,
                tell,
            )
        )
        try:
            return await asyncio.shield(work)
        finally:
            stopped.set()
            await wait_uncancelled([work])
            if not work.cancelled():
                work.exception()  # mark it as retrieved: a cancelled task has no use for it


def ensure_unpacked(
    assets_dir: Path,
    local_path: str,
    checksum: str | None,
    archive: Path,
    limits: Limits | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
    on_read: OnRead = unheard,
) -> bool:
    """Make the tree of an archive; False if it was there already. Blocking: for a thread.

    ``local_path`` is the asset's, and says where the tree goes; ``archive`` is where the file is. Without a
    ``checksum`` the archive counts as changed if its size or time has changed.
    """
    folder = unpacked_path(local_path)
    store = TreeStore(assets_dir, folder)
    check_makes_no_repository(assets_dir, folder)
    check_is_not_gits((assets_dir / folder).parent)
    with storage_errors(assets_dir / folder):
        store.clear_abandoned()
        content = _content(checksum, archive)
        known = store.read_record()
        if known is not None and known.content == content and known.is_at(store.place):
            return False
        if _find_tree(store, known, archive, local_path, content, limits or Limits(), is_stopped, on_read):
            return False
        if known is None:
            store.refuse_strangers()
        with store.make_stage() as stage:
            try:
                fresh = _unpack(archive, local_path, store, stage, content, limits or Limits(), is_stopped, on_read)
                both = fresh.after(known)
                store.write_record(both)
                store.put_in_place(stage)
                store.retire(stage, both)
                if both is not fresh:
                    store.write_record(fresh)
            except Exception:
                store.discard(stage)
                raise
    return True


def is_tree_right(
    assets_dir: Path,
    local_path: str,
    checksum: str | None,
    archive: Path,
    limits: Limits | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
    on_read: OnRead = unheard,
) -> bool:
    """Whether the tree of an archive is there, whoever made it. Compares every byte. Blocking: for a thread."""
    store = TreeStore(assets_dir, unpacked_path(local_path))
    try:
        content, known = _content(checksum, archive), store.read_record()
        return _find_tree(store, known, archive, local_path, content, limits or Limits(), is_stopped, on_read)
    except (OSError, StorageError, UnsafeArchive):
        return False


def _find_tree(
    store: TreeStore,
    known: Unpacked | None,
    archive: Path,
    local_path: str,
    content: str,
    limits: Limits,
    is_stopped: Callable[[], bool],
    on_read: OnRead,
) -> bool:
    """Compare what is in the tree's place with the archive, and remember it if it is the archive's content.

    What an older archive had stays in the record ``known``: it may be there too.
    """
    there = compare(store, archive, local_path, content, limits, is_stopped, on_read)
    if there is None:
        return False
    tree, is_settled = there
    if is_settled:
        store.write_record_somewhere(tree if known is None or known.content == content else tree.after(known))
    return True


def is_unpacked(assets_dir: Path, local_path: str, checksum: str | None, archive: Path) -> bool:
    """Whether the tree of an archive is there, unchanged. Reads no file. Blocking: for a thread."""
    store = TreeStore(assets_dir, unpacked_path(local_path))
    try:
        known = store.read_record()
        return known is not None and known.content == _content(checksum, archive) and known.is_at(store.place)
    except OSError:
        return False


def has_unpacked(assets_dir: Path, local_path: str) -> bool:
    """Whether anything that was unpacked from an archive is there. Blocking: for a thread."""
    try:
        store = TreeStore(assets_dir, unpacked_path(local_path))
        place = store.open_place() if store.read_record() is not None else None
    except (OSError, StorageError, ValueError):
        return False
    if place is None:
        return False
    os.close(place)
    return True


def _content(checksum: str | None, archive: Path) -> str:
    if checksum is not None:
        return checksum
    figures = os.stat(archive)
    return f"unverified {figures.st_size} {figures.st_mtime_ns}"


def forget_unpacked(assets_dir: Path, local_path: str) -> tuple[str, ...]:
    """Undo the unpacking of an archive: delete the files that nobody has changed since, and the record.

    Returns the paths, relative to the assets folder, of the files that are left because they are not ours or were
    changed. Does nothing if nothing was unpacked. Blocking: for a thread. Raises `StorageError`.
    """
    try:
        folder = unpacked_path(local_path)
    except ValueError:
        return ()
    store = TreeStore(assets_dir, folder)
    with storage_errors(assets_dir / folder):
        store.clear_abandoned()
        known = store.read_record()
        if known is None:
            return ()
        left: list[Path] = []
        *parents, name = folder.split("/")
        try:
            above = open_folder(assets_dir, tuple(parents), create=False)
        except FileNotFoundError:
            above = -1
        if above >= 0:
            try:
                if is_folder(above, name):
                    remove_known(above, name, known)
            finally:
                os.close(above)
            left = [path for path in store.place.rglob("*") if path.is_symlink() or not path.is_dir()]
        store.forget_record()
        return tuple(sorted(path.relative_to(assets_dir).as_posix() for path in left))


# --- From an archive to a tree ------------------------------------------------------------------------------


def _unpack(
    archive: Path,
    local_path: str,
    store: TreeStore,
    stage: TreeStage,
    content: str,
    limits: Limits,
    is_stopped: Callable[[], bool],
    on_read: OnRead,
) -> Unpacked:
    shown = store.shown_stages / stage.name
    free = usable_bytes(shown)
    files: list[str] = []
    folders: list[str] = []
    made: set[str] = set()
    system.mkdir("tree", dir_fd=stage.folder)
    tree = open_child(stage.folder, "tree")

    def make_folder(path: str) -> None:
        if path and path not in made:
            make_folder(path.rpartition("/")[0])
            system.mkdir(path, dir_fd=tree)
            made.add(path)
            folders.append(path)

    try:
        written = 0
        with opened(archive, limits, is_stopped, on_read) as (file, census), reading(archive, census):
            for member, read in members(file, kind_of(local_path), census):
                if not census.admit(member):
                    continue
                make_folder(member.path if member.kind == "folder" else member.path.rpartition("/")[0])
                if member.kind == "file":
                    for size in _write(tree, shown, member, read, census):
                        census.count(size)
                        written += size
                        if written > free:
                            raise DiskFull(
                                safe_text(str(shown)),
                                f"not enough space to unpack {safe_text(archive.name)}: it needs more than the {free} "
                                "bytes that are free; free some space and run this again",
                            )
                        census.check_stopped()
                    files.append(member.path)
                elif member.kind == "hardlink":
                    with storage_errors(shown):
                        system.link(member.target, member.path, src_dir_fd=tree, dst_dir_fd=tree)
                    files.append(member.path)
            census.close()
        for path, target in census.links.items():
            system.symlink(target, path, dir_fd=tree)
        _flush(tree, files, folders)
        return Unpacked(
            content=content,
            folder=store.folder,
            files=_signatures(tree, files),
            links=dict(census.links),
            folders=tuple(folders),
        )
    finally:
        os.close(tree)


def _signatures(tree: int, files: Iterable[str]) -> dict[str, FileSignature]:
    return {path: signature for path in files if (signature := signature_of(path, tree)) is not None}


# --- Writing ------------------------------------------------------------------------------------------------


def _write(tree: int, shown: Path, member: Member, read: Read, census: Census) -> Iterable[int]:
    """Write one member; yield the size of each block before it is written."""
    with storage_errors(shown):
        # Less the umask, as for any new file: neither setuid bits nor other permissions are taken from the archive.
        mode = 0o777 if member.is_executable else 0o666
        descriptor = system.open_descriptor(member.path, NEW_FILE, mode, dir_fd=tree)
    try:
        total = 0
        while data := read(BLOCK_BYTES):
            total += len(data)
            yield len(data)
            with storage_errors(shown):
                write_all(descriptor, data)
        if total != member.size:
            raise census.refusal(f"is damaged: its member '{safe_text(member.path)}' is cut off")
        mark_time(descriptor)
    finally:
        os.close(descriptor)


def _flush(tree: int, files: list[str], folders: list[str]) -> None:
    if len(files) + len(folders) > MAX_SINGLE_FLUSHES and flush_everything():
        return
    for path in files:
        flush(path, tree)
    for path in [*reversed(folders), "."]:
        flush(path, tree)
