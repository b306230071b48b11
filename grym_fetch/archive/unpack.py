"""Unpacks an archive next to itself, so that the folder is at every instant absent, the old tree, or the new one.

::

    <assets>/models/voices.tar.gz              the archive, verified
    <assets>/models/voices/                    what is in it
    <assets>/.grym-fetch/unpacked/<key>.json   what was unpacked, from which content
    <assets>/.grym-fetch/unpack/<key>.<owner>.<nonce>/
        tree                                   the new tree while it grows; the old one once they are exchanged
        exchanged                              there from just before that moment on

Rules: `grym_fetch.core.archives` decides what may be unpacked; symlinks are made last, so nothing is ever written
through one. The new tree is flushed and recorded before it takes the place of the old one, in one step. See tree.py for
what is deleted then, and what is kept.
"""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from grym_fetch.archive.reader import Read, members, reading
from grym_fetch.archive.tree import TreeStore, Unpacked, flush, mode_of, remove_known, signature_of
from grym_fetch.core.archives import MIB, Census, Limits, Member, archive_kind, unpacked_path
from grym_fetch.core.errors import DiskFull
from grym_fetch.core.manifest import Asset
from grym_fetch.core.text import safe_text
from grym_fetch.core.world import Threads
from grym_fetch.disk.folders import NEW_FILE, storage_errors, usable_bytes, write_all
from grym_fetch.runtime.waiting import wait_uncancelled

BLOCK_BYTES = MIB
MAX_SINGLE_FLUSHES = 2000
"""Flush up to so many files one by one, and more of them all at once: a million flushes would take hours."""


class Stopped(Exception):
    """The caller no longer wants the tree."""


class Unpacker:
    """Keeps the unpacked trees of one assets folder in step with their archives."""

    def __init__(self, assets_dir: Path, threads: Threads, limits: Limits | None = None) -> None:
        self._assets_dir = assets_dir
        self._threads = threads
        self._limits = limits or Limits()

    async def ensure(self, asset: Asset, archive: Path) -> None:
        """Unpack the asset's archive, which was verified at ``archive``, unless its tree is there and unchanged.

        Does nothing for an asset without ``extract``. Raises `UnsafeArchive` or `StorageError`. A cancellation takes
        effect after the block that is being written.
        """
        if not asset.extract:
            return
        stopped = threading.Event()
        work = asyncio.ensure_future(
            self._threads.compute(
                ensure_unpacked,
                self._assets_dir,
                asset.local_path,
                str(asset.checksum) if asset.checksum is not None else None,
                archive,
                self._limits,
                stopped.is_set,
            )
        )
        try:
            await asyncio.shield(work)
        finally:
            stopped.set()
            await wait_uncancelled([work])
            if not work.cancelled():
                work.exception()  # retrieved: a cancelled task has no use for it


def ensure_unpacked(
    assets_dir: Path,
    local_path: str,
    checksum: str | None,
    archive: Path,
    limits: Limits | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> bool:
    """Make the tree of an archive; False if it was there. Blocking: for a thread.

    Where the record of it was lost it is unpacked once more beside the tree, to see whether that is the same.
    ``local_path`` is the asset's, and says where the tree goes; ``archive`` is where the file is. Without a
    ``checksum`` the archive counts as changed if its size or time has changed.
    """
    folder = unpacked_path(local_path)
    store = TreeStore(assets_dir, folder)
    with storage_errors(assets_dir / folder):
        store.clear_abandoned()
        content = _content(checksum, archive)
        known = store.read_record()
        if known is not None and known.content == content and known.is_at(store.place):
            return False
        is_taken = store.is_taken(known)
        stage = store.open_stage()
        try:
            tree = stage / "tree"
            fresh = _unpack(archive, local_path, tree, content, folder, limits or Limits(), is_stopped)
            if is_taken:
                store.adopt(fresh, tree)
                store.discard(stage)
                return False
            store.write_record(fresh.after(known))
            store.put_in_place(stage)
            store.retire(stage)
            store.write_record(fresh)
        except Exception:
            store.discard(stage)
            raise
    return True


def is_unpacked(assets_dir: Path, local_path: str, checksum: str | None, archive: Path) -> bool:
    """Whether the tree of an archive is there, unchanged. Reads none of its files. Blocking: for a thread."""
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
        return store.read_record() is not None and stat.S_ISDIR(mode_of(store.place))
    except (OSError, ValueError):
        return False


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
        if stat.S_ISDIR(mode_of(store.place)):
            remove_known(store.place, known)
            left = [path for path in store.place.rglob("*") if not stat.S_ISDIR(mode_of(path))]
        store.forget_record()
        return tuple(sorted(str(path.relative_to(assets_dir)) for path in left))


# --- From an archive to a tree ------------------------------------------------------------------------------


def _unpack(
    archive: Path,
    local_path: str,
    tree: Path,
    content: str,
    folder: str,
    limits: Limits,
    is_stopped: Callable[[], bool],
) -> Unpacked:
    kind = archive_kind(local_path)
    assert kind is not None, "the manifest's parser refuses anything else"
    free = usable_bytes(tree.parent)
    files: list[str] = []
    folders: list[str] = []
    made: set[str] = set()

    def make_folder(path: str) -> None:
        if path and path not in made:
            make_folder(path.rpartition("/")[0])
            os.mkdir(tree / path)
            made.add(path)
            folders.append(path)

    with open(archive, "rb") as file:
        packed = os.fstat(file.fileno()).st_size
        census = Census(safe_text(str(archive), limit=1000), packed, limits)
        os.mkdir(tree)
        written = 0
        with reading(archive, census):
            for member, read in members(file, kind, census):
                if is_stopped():
                    raise Stopped
                if not census.admit(member):
                    continue
                make_folder(member.path if member.kind == "folder" else member.path.rpartition("/")[0])
                if member.kind == "file":
                    for size in _write(tree / member.path, member, read, census):
                        census.count(size)
                        written += size
                        if written > free:
                            raise DiskFull(
                                safe_text(str(tree.parent)),
                                f"not enough space to unpack {safe_text(archive.name)}: more than the {free} bytes "
                                "that are free are needed; free some and run it again",
                            )
                        if is_stopped():
                            raise Stopped
                    files.append(member.path)
                elif member.kind == "hardlink":
                    with storage_errors(tree):
                        os.link(tree / member.target, tree / member.path, follow_symlinks=False)
                    files.append(member.path)
            census.close()
        for path, target in census.links.items():
            os.symlink(target, tree / path)
    _flush(tree, files, folders)
    return Unpacked(
        content=content,
        folder=folder,
        files={path: signature_of(tree / path) for path in files},
        links=dict(census.links),
        folders=tuple(folders),
    )


def _write(path: Path, member: Member, read: Read, census: Census) -> Iterable[int]:
    """Write one member, yielding the size of each block before it is written."""
    with storage_errors(path):
        # Less the umask, as for any new file: neither setuid bits nor any other permissions of the archive's.
        mode = 0o777 if member.is_executable else 0o666
        descriptor = os.open(path, NEW_FILE, mode)
    try:
        total = 0
        while data := read(BLOCK_BYTES):
            total += len(data)
            yield len(data)
            with storage_errors(path):
                write_all(descriptor, data)
        if total != member.size:
            raise census.refusal(f"is damaged: its member '{safe_text(member.path)}' is cut off")
    finally:
        os.close(descriptor)


def _flush(tree: Path, files: list[str], folders: list[str]) -> None:
    if len(files) + len(folders) > MAX_SINGLE_FLUSHES:
        os.sync()
        return
    for path in files:
        flush(tree / path)
    for path in [*reversed(folders), ""]:
        flush(tree / path)
