"""The place of an unpacked tree: its record, its stages, and how a new tree takes an old one's place.

Rules: a tree is recorded before it is put in place, and it is put there in one step. A file is deleted only if a record
names it and nobody has changed it since; anything else in an old tree is kept next to the new one. The next process
clears up what a dead one left. A tree under way is reached through descriptors from this user's folder, see
`StateFolder`.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import logging
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from grym_fetch.core.archives import MIB
from grym_fetch.core.errors import StorageError, UnsafePath
from grym_fetch.core.text import safe_text
from grym_fetch.disk.atomic import PRIVATE, NewFile
from grym_fetch.disk.folders import (
    NEW_FILE,
    close_each,
    exists,
    make_root,
    open_child,
    open_folder,
    storage_errors,
    sync,
)
from grym_fetch.disk.owner import Owner, is_left_behind
from grym_fetch.disk.state import StateFolder, read_state
from grym_fetch.disk.verified import FileSignature
from grym_fetch.runtime import system
from grym_fetch.runtime.system import exchange

log = logging.getLogger(__name__)

MAX_RECORD_BYTES = 512 * MIB
_BATCH = 1000
"""How many entries of a record are written at a time."""
_UNMOVABLE = {
    errno.EBUSY: "cannot unpack: a file system is mounted there; mount it one folder higher, or remove it",
    errno.EXDEV: (
        "cannot unpack: the folder there belongs to another layer (overlay file system) or another mount, and cannot "
        "be moved away; delete it and run this again"
    ),
}


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What was unpacked: from which content into which folder, and the signature of each file then.

    A tree is recognised by whole signatures. A file that may be deleted is recognised by size and time alone, which a
    copy or a move to another disk can keep. ``earlier`` and ``earlier_links`` are the files and links of an older tree,
    kept until it is gone.
    """

    content: str
    folder: str
    files: Mapping[str, FileSignature]
    links: Mapping[str, str] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    earlier: frozenset[tuple[str, int, int]] = frozenset()
    earlier_links: frozenset[tuple[str, str]] = frozenset()

    def is_at(self, root: Path) -> bool:
        """Whether all of it is there, unchanged. Additions do not matter."""
        try:
            return (
                stat.S_ISDIR(os.lstat(root).st_mode)
                and all(signature_of(root / path) == signature for path, signature in self.files.items())
                and all(os.readlink(root / path) == target for path, target in self.links.items())
                and all(stat.S_ISDIR(os.lstat(root / path).st_mode) for path in self.folders)
            )
        except OSError:
            return False

    @property
    def all_files(self) -> frozenset[tuple[str, int, int]]:
        """Every file of it with its size and time, the earlier ones too."""
        return self.earlier | {(path, each.size, each.mtime_ns) for path, each in self.files.items()}

    @property
    def all_links(self) -> frozenset[tuple[str, str]]:
        """Every symlink of it with its target, the earlier ones too."""
        return self.earlier_links | frozenset(self.links.items())

    def after(self, older: Unpacked | None) -> Unpacked:
        """A copy of this record that also has the files and links of the older one."""
        return self if older is None else replace(self, earlier=older.all_files, earlier_links=older.all_links)


class TreeStage:
    """This process's own folder for a new tree: its ``tree`` is the new one, or the old one after the exchange.

    Reached only through descriptors, so that nobody can redirect it. A context manager that closes them.
    """

    def __init__(self, root: int, name: str) -> None:
        self._root = root
        self.name = name
        try:
            self.folder = open_child(root, name)
        except BaseException:
            os.close(root)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        close_each(self.folder, self._root)

    def remove(self) -> None:
        """Delete it. Raises ``OSError``."""
        system.rmtree(self.name, dir_fd=self._root)


class TreeStore:
    """One tree: its place, its stages and its record. The methods raise ``OSError`` and `StorageError`."""

    def __init__(self, assets_dir: Path, folder: str) -> None:
        self._assets_dir = assets_dir
        self._state = StateFolder(assets_dir)
        self.folder = folder
        self.place = assets_dir / folder
        self._key = hashlib.sha256(folder.encode()).hexdigest()[:24]
        self._record = f"{self._key}.json"
        self.shown_stages = self._state.own / "unpack"

    def read_record(self) -> Unpacked | None:
        """This user's record of the tree; None if there is none that can be used."""
        return self._read_in(lambda: self._state.open("unpacked")) or self._read_in(self._state.open_elsewhere)

    def _read_in(self, open_folder: Callable[[], int]) -> Unpacked | None:
        try:
            folder = open_folder()
        except (OSError, StorageError):
            return None
        try:
            data = read_state(folder, self._record, MAX_RECORD_BYTES)
        finally:
            os.close(folder)
        return None if data is None else decode_record(data, self.folder)

    def write_record(self, unpacked: Unpacked) -> None:
        """Put the record in place, whole and durable."""
        shown = self._state.own / "unpacked" / self._record
        with self._state.opened("unpacked", create=True) as folder, storage_errors(shown):
            self._write_in(folder, unpacked)

    def _write_in(self, folder: int, unpacked: Unpacked) -> None:
        with NewFile(folder, self._record, mode=PRIVATE) as new:
            for piece in encode_record(unpacked):
                new.write(piece)
            new.replace()

    def write_record_somewhere(self, unpacked: Unpacked) -> None:
        """Record a tree that was found in place, wherever this user can write; if that is nowhere, do without."""
        try:
            self.write_record(unpacked)
        except (OSError, StorageError):
            with suppress(OSError):
                folder = self._state.open_elsewhere(create=True)
                try:
                    self._write_in(folder, unpacked)
                finally:
                    os.close(folder)

    def forget_record(self) -> None:
        """Delete the record."""
        with suppress(FileNotFoundError), self._state.opened("unpacked") as folder:
            system.unlink(self._record, dir_fd=folder)
        with suppress(OSError):
            folder = self._state.open_elsewhere()
            try:
                system.unlink(self._record, dir_fd=folder)
            finally:
                os.close(folder)

    def open_place(self) -> int | None:
        """Return a descriptor of the folder that is in the tree's place; None if there is nothing.

        Raises `UnsafePath` if something else is there.
        """
        *parents, name = self.folder.split("/")
        try:
            above = open_folder(self._assets_dir, tuple(parents), create=False)
        except FileNotFoundError:
            return None
        try:
            mode = system.stat(name, dir_fd=above, follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                return open_child(above, name)
        except FileNotFoundError:
            return None
        finally:
            os.close(above)
        raise UnsafePath(safe_text(str(self.place)), "cannot unpack: something that is not a folder is in the way")

    def refuse_strangers(self) -> None:
        """Raise `UnsafePath` if there is anything in the tree's place. For a tree without a record."""
        place = self.open_place()
        if place is None:
            return
        try:
            names = system.listdir(place)
        finally:
            os.close(place)
        if names:
            raise UnsafePath(
                safe_text(str(self.place)),
                "cannot unpack: a folder that did not come from the archive is in the way; move it elsewhere",
            )

    def make_stage(self) -> TreeStage:
        """Make this process's own folder for a new tree."""
        if not self._assets_dir.is_dir():
            make_root(self._assets_dir)  # the archive is elsewhere
        root = self._state.open("unpack", create=True)
        name = f"{self._key}.{Owner.this().encode()}.{secrets.token_hex(4)}"
        try:
            system.mkdir(name, 0o700, dir_fd=root)
        except BaseException:
            os.close(root)
            raise
        return TreeStage(root, name)

    def put_in_place(self, stage: TreeStage) -> None:
        """Exchange the new tree for whatever is in its place. Raises `StorageError` if the system does not allow it."""
        try:
            self._exchange(stage)
        except OSError as error:
            if error.errno not in _UNMOVABLE:
                raise
            raise StorageError(safe_text(str(self.place)), _UNMOVABLE[error.errno]) from error

    def _exchange(self, stage: TreeStage) -> None:
        os.close(system.open_descriptor("exchanged", NEW_FILE, 0o600, dir_fd=stage.folder))
        sync(stage.folder)
        *parents, name = self.folder.split("/")
        above = open_folder(self._assets_dir, tuple(parents), create=True)
        here = stage.folder
        try:
            if not exists(above, name):
                system.rename("tree", name, folder=here, into=above)
            elif not exchange(here, "tree", above, name):
                # Not possible here: for an instant there is no tree; after a crash right then, the next run makes it.
                system.rename(name, "old", folder=above, into=here)
                system.rename("tree", name, folder=here, into=above)
            sync(above)
            sync(here)
        finally:
            close_each(above)

    def retire(self, stage: TreeStage, known: Unpacked | None = None) -> None:
        """Delete the old tree and the stage; keep whatever in it is not ours next to the new tree.

        ``known`` is the record, which is read if not given.
        """
        for old in ("old", "tree"):
            if not is_folder(stage.folder, old):
                continue
            if known is None:
                known = self.read_record()
            if known is not None:
                # If this is the new tree, which never got to its place, that is all of it.
                remove_known(stage.folder, old, known)
            if exists(stage.folder, old):
                self._keep(stage, old)
        stage.remove()

    def discard(self, stage: TreeStage) -> None:
        """Clear up after a failure."""
        with suppress(OSError):
            if exists(stage.folder, "exchanged"):
                self.retire(stage)
            else:
                stage.remove()

    def clear_abandoned(self) -> None:
        """Clear up after processes that died."""
        try:
            root = self._state.open("unpack")
        except (FileNotFoundError, StorageError):
            return  # a folder that cannot be used holds nothing of ours
        try:
            for name in system.listdir(root):
                if not name.startswith(f"{self._key}."):
                    continue
                if is_left_behind(Owner.parse(name.split(".")[1]), Path(name), above=root):
                    with TreeStage(os.dup(root), name) as stage:
                        self.discard(stage)
        finally:
            os.close(root)

    def _keep(self, stage: TreeStage, old: str) -> None:
        *parents, name = self.folder.split("/")
        above = open_folder(self._assets_dir, tuple(parents), create=True)
        try:
            number = 1
            while exists(above, kept := f"{name}.old{number if number > 1 else ''}"):
                number += 1
            system.rename(old, kept, folder=stage.folder, into=above)
        finally:
            os.close(above)
        place = safe_text(str(self.place.with_name(kept)), limit=1000)
        log.warning("%s holds what was added or changed in %s before it was unpacked anew", place, self.place)


def remove_known(above: int, name: str, known: Unpacked) -> None:
    """Delete the unchanged files of a tree, its links, and the folders that this leaves empty.

    The tree is the folder ``name`` in the open folder ``above``.
    """
    files, links = known.all_files, known.all_links
    for at, folders, names, here in system.fwalk(name, above):
        for each in (*names, *folders):
            relative = f"{at}/{each}".removeprefix(f"{name}/")
            figures = system.stat(each, dir_fd=here, follow_symlinks=False)
            if stat.S_ISLNK(figures.st_mode):
                if (relative, system.readlink(each, dir_fd=here)) in links:
                    system.unlink(each, dir_fd=here)
            elif stat.S_ISDIR(figures.st_mode):
                with suppress(OSError):
                    system.rmdir(each, dir_fd=here)
            elif (relative, figures.st_size, figures.st_mtime_ns) in files:
                system.unlink(each, dir_fd=here)
    with suppress(OSError):
        system.rmdir(name, dir_fd=above)


def signature_of(path: Path | str, above: int | None = None) -> FileSignature | None:
    """A file's signature; None for anything else. ``path`` is relative to the open folder ``above``, if given."""
    figures = system.stat(path, dir_fd=above, follow_symlinks=False)
    return FileSignature.of(figures) if stat.S_ISREG(figures.st_mode) else None


def is_folder(above: int, name: str) -> bool:
    """Whether an open folder has a folder of this name."""
    try:
        return stat.S_ISDIR(system.stat(name, dir_fd=above, follow_symlinks=False).st_mode)
    except OSError:
        return False


def encode_record(unpacked: Unpacked) -> Iterator[bytes]:
    """Yield the record's JSON in pieces: with a million members it is long."""
    yield b'{"v":2,"content":%b,"folder":%b' % (_json(unpacked.content), _json(unpacked.folder))
    lists: dict[str, Iterable[object]] = {
        "files": ((path, *signature) for path, signature in unpacked.files.items()),
        "links": unpacked.links.items(),
        "folders": unpacked.folders,
        "earlier": sorted(unpacked.earlier),
        "earlier_links": sorted(unpacked.earlier_links),
    }
    for key, values in lists.items():
        yield b',"%b":[' % key.encode()
        entries, comma = iter(values), b""
        while batch := list(itertools.islice(entries, _BATCH)):
            yield comma + _json(batch)[1:-1]
            comma = b","
        yield b"]"
    yield b"}"


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def decode_record(data: bytes, folder: str) -> Unpacked | None:
    try:
        record = json.loads(data)
        if record["v"] not in (1, 2) or record["folder"] != folder:
            return None
        if record["v"] == 1:
            # It recorded only size and time: enough for deleting, and the tree is compared once.
            record["files"] = [[*each, 0, 0, 0] for each in record["files"]]
        return Unpacked(
            content=str(record["content"]),
            folder=folder,
            files={str(path): FileSignature(*map(_whole, figures)) for path, *figures in record["files"]},
            links={str(path): str(target) for path, target in record["links"]},
            folders=tuple(map(str, record["folders"])),
            earlier=frozenset((str(path), _whole(size), _whole(mtime)) for path, size, mtime in record["earlier"]),
            earlier_links=frozenset((str(path), str(target)) for path, target in record["earlier_links"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _whole(value: object) -> int:
    if type(value) is not int:
        raise TypeError("not a whole number")
    return value


def flush(path: str, above: int) -> None:
    """Flush one file or folder to the disk. ``path`` is relative to an open folder."""
    descriptor = system.open_descriptor(path, os.O_RDONLY | system.O_NOFOLLOW | system.O_NONBLOCK, dir_fd=above)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)
