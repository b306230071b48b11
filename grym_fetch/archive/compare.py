"""Compares an archive with the tree that is in the place of its content, whoever made it.

Rules: every byte is compared, no symlink is followed on the way, and nothing is written. Files added to the tree do not
matter.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from grym_fetch.archive.reader import BLOCK_BYTES, kind_of, members, opened, reading
from grym_fetch.archive.tar import Read
from grym_fetch.archive.tree import TreeStore, Unpacked
from grym_fetch.core.archives import Census, Limits, Member
from grym_fetch.disk.folders import FILE, open_below
from grym_fetch.disk.verified import FileSignature, wait_for_tick
from grym_fetch.runtime import system


class _Differs(Exception):
    """The tree is not what unpacking the archive would make."""


def compare(
    store: TreeStore,
    archive: Path,
    local_path: str,
    content: str,
    limits: Limits,
    is_stopped: Callable[[], bool],
    on_read: Callable[[int, int], None],
) -> tuple[Unpacked, bool] | None:
    """The tree in place if it is what unpacking the archive would make, else None.

    Also returns whether each file was settled when it was read, so that it can be recognised later: see
    `FileSignature.was_settled`.
    """
    place = store.open_place()
    if place is None:
        return None
    files: dict[str, FileSignature] = {}
    folders: dict[str, None] = {}
    is_settled = True
    try:
        with opened(archive, limits, is_stopped, on_read) as (file, census), reading(archive, census):
            for member, read in members(file, kind_of(local_path), census):
                if not census.admit(member):
                    continue
                parent = member.path if member.kind == "folder" else member.path.rpartition("/")[0]
                while parent and parent not in folders:
                    folders[parent] = None
                    parent = parent.rpartition("/")[0]
                if member.kind in ("file", "hardlink"):
                    files[member.path], was_settled = _compare(place, member, read, census)
                    is_settled = is_settled and was_settled
            census.close()
        if not files:
            return None  # nothing says that this is one of our trees
        for path in folders:
            os.close(open_below(place, path.split("/")))
        for path, target in census.links.items():
            above = open_below(place, path.split("/")[:-1])
            try:
                if system.readlink(path.rpartition("/")[2], dir_fd=above) != target:
                    return None
            finally:
                os.close(above)
        tree = Unpacked(
            content=content, folder=store.folder, files=files, links=dict(census.links), folders=tuple(folders)
        )
        return tree, is_settled
    except (_Differs, OSError):
        return None
    finally:
        os.close(place)


def _compare(place: int, member: Member, read: Read, census: Census) -> tuple[FileSignature, bool]:
    """Return the signature of the member's file in an open tree, and whether it was settled.

    Raises `_Differs` unless it has the member's bytes.
    """
    descriptor = _open_member(place, member.path)
    try:
        wait_for_tick(os.fstat(descriptor))
        began_ns, before = time.time_ns(), os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise _Differs
        if member.kind == "hardlink":
            other = _open_member(place, member.target)
            try:
                is_same = os.path.samestat(before, os.fstat(other))
            finally:
                os.close(other)
        else:
            is_same = before.st_size == member.size
            at = 0
            while data := read(BLOCK_BYTES):
                census.count(len(data))
                if system.pread(descriptor, len(data), at) != data:
                    raise _Differs
                at += len(data)
                census.check_stopped()
        signature = FileSignature.of(before)
        if not is_same or FileSignature.of(os.fstat(descriptor)) != signature:
            raise _Differs
        return signature, signature.was_settled(began_ns)
    finally:
        os.close(descriptor)


def _open_member(place: int, path: str) -> int:
    *parents, name = path.split("/")
    try:
        above = open_below(place, parents)
        try:
            return system.open_descriptor(name, FILE, dir_fd=above)
        finally:
            os.close(above)
    except OSError:
        raise _Differs from None
