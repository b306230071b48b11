"""The place of an unpacked tree: its record, its stages, and how a new tree takes an old one's place.

Rules: a tree is recorded before it is put in place, and put there in one step. A file is deleted only if a record names
it and nobody has changed it since; anything else in an old tree is kept beside the new one. A tree with no record left
is recorded anew if it has every byte of the archive's. The next process clears up what a dead one has left.
"""

from __future__ import annotations

import ctypes
import errno
import filecmp
import hashlib
import json
import logging
import os
import secrets
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from grym_fetch.core.archives import MIB
from grym_fetch.core.errors import UnsafePath
from grym_fetch.core.paths import STATE_FOLDER
from grym_fetch.core.text import safe_text
from grym_fetch.disk.atomic import replace_file
from grym_fetch.disk.folders import close_each, exists, open_folder, sync
from grym_fetch.disk.owner import Owner, is_left_behind

log = logging.getLogger(__name__)

MAX_RECORD_BYTES = 512 * MIB
_RENAME_EXCHANGE = 2
_NO_EXCHANGE = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP})

Signature = tuple[int, int]
"""Size in bytes and mtime in nanoseconds."""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What was unpacked: from which content into which folder, and the signature of each file then.

    ``earlier`` and ``earlier_links`` are those of an older tree, kept until that tree is gone.
    """

    content: str
    folder: str
    files: Mapping[str, Signature]
    links: Mapping[str, str] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    earlier: frozenset[tuple[str, int, int]] = frozenset()
    earlier_links: frozenset[tuple[str, str]] = frozenset()

    def is_at(self, root: Path) -> bool:
        """Whether all of it is there, unchanged since. Additions do not matter."""
        try:
            return (
                stat.S_ISDIR(os.lstat(root).st_mode)
                and all(signature_of(root / path) == signature for path, signature in self.files.items())
                and all(os.readlink(root / path) == target for path, target in self.links.items())
                and all(stat.S_ISDIR(os.lstat(root / path).st_mode) for path in self.folders)
            )
        except OSError:
            return False

    def same_at(self, root: Path, tree: Path) -> Unpacked | None:
        """Return this one as it is at ``root``, if all of it is there as in ``tree``: every byte is compared."""
        try:
            here = replace(self, files={path: signature_of(root / path) for path in self.files})
            is_same = here.is_at(root) and all(
                stat.S_ISREG(os.lstat(root / path).st_mode) and filecmp.cmp(tree / path, root / path, shallow=False)
                for path in self.files
            )
            return here if is_same and here.is_at(root) else None
        except OSError:
            return None

    @property
    def all_files(self) -> frozenset[tuple[str, int, int]]:
        """Every file of it with its signature, the earlier ones too."""
        return self.earlier | {(path, *signature) for path, signature in self.files.items()}

    @property
    def all_links(self) -> frozenset[tuple[str, str]]:
        """Every symlink of it with its target, the earlier ones too."""
        return self.earlier_links | frozenset(self.links.items())

    def after(self, older: Unpacked | None) -> Unpacked:
        """This one, which also knows what the one before it had."""
        return self if older is None else replace(self, earlier=older.all_files, earlier_links=older.all_links)


class TreeStore:
    """Where one tree lies, grows and is remembered. Its methods raise ``OSError``."""

    def __init__(self, assets_dir: Path, folder: str) -> None:
        self._assets_dir = assets_dir
        self.folder = folder
        self.place = assets_dir / folder
        self._key = hashlib.sha256(folder.encode()).hexdigest()[:24]
        self._stages = assets_dir / STATE_FOLDER / "unpack"
        self._record = assets_dir / STATE_FOLDER / "unpacked" / f"{self._key}.json"

    def read_record(self) -> Unpacked | None:
        """What is known of the tree; None if there is no record that can be used."""
        try:
            descriptor = os.open(self._record, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with open(descriptor, "rb") as file:
            # Another user does not decide what is deleted.
            data = file.read(MAX_RECORD_BYTES) if os.fstat(descriptor).st_uid == os.geteuid() else b""
        return decode_record(data, self.folder)

    def write_record(self, unpacked: Unpacked) -> None:
        """Put the record in place, whole and durable."""
        folder = open_folder(self._assets_dir, (STATE_FOLDER, "unpacked"), create=True)
        try:
            replace_file(folder, self._record.name, encode_record(unpacked))
        finally:
            os.close(folder)

    def forget_record(self) -> None:
        """Delete the record."""
        self._record.unlink(missing_ok=True)

    def is_taken(self, known: Unpacked | None) -> bool:
        """Whether a folder is in the place that no record names. Raises `UnsafePath` if it is no folder."""
        *parents, name = self.folder.split("/")
        try:
            above = open_folder(self._assets_dir, tuple(parents), create=False)
        except FileNotFoundError:
            return False
        try:
            mode = os.stat(name, dir_fd=above, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return False
        finally:
            os.close(above)
        if not stat.S_ISDIR(mode):
            raise UnsafePath(safe_text(str(self.place)), "cannot unpack: something that is not a folder is in the way")
        return known is None and bool(os.listdir(self.place))

    def adopt(self, fresh: Unpacked, tree: Path) -> None:
        """Record the tree that is there, if it is the same as ``tree``. Raises `UnsafePath` if it is another one."""
        same = fresh.same_at(self.place, tree)
        if same is None:
            raise UnsafePath(
                safe_text(str(self.place)),
                "cannot unpack: a folder that did not come from the archive is in the way; move it elsewhere",
            )
        self.write_record(same)

    def open_stage(self) -> Path:
        """Make a folder for a new tree, this process's own."""
        os.close(open_folder(self._assets_dir, (STATE_FOLDER, "unpack"), create=True))
        stage = self._stages / f"{self._key}.{Owner.this().encode()}.{secrets.token_hex(4)}"
        stage.mkdir(mode=0o700)
        return stage

    def put_in_place(self, stage: Path) -> None:
        """Exchange the new tree for whatever is in its place."""
        with open(stage / "exchanged", "xb"):
            pass
        flush(stage)
        *parents, name = self.folder.split("/")
        above = open_folder(self._assets_dir, tuple(parents), create=True)
        here = os.open(stage, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if not exists(above, name):
                os.rename("tree", name, src_dir_fd=here, dst_dir_fd=above)
            elif not swap_folders(here, "tree", above, name):
                # Not possible here: for an instant there is no tree; after a crash then, the next run makes it.
                os.rename(name, "old", src_dir_fd=above, dst_dir_fd=here)
                os.rename("tree", name, src_dir_fd=here, dst_dir_fd=above)
            sync(above)
            sync(here)
        finally:
            close_each(here, above)

    def retire(self, stage: Path) -> None:
        """Delete the old tree and the stage; keep whatever is not ours in the tree beside the new one."""
        known = self.read_record()
        for old in (stage / "old", stage / "tree"):
            if not stat.S_ISDIR(mode_of(old)):
                continue
            if known is not None:
                # That is all of it if it is the new tree, which never got to its place.
                remove_known(old, known)
            if old.exists():
                self._keep(old)
        shutil.rmtree(stage)

    def discard(self, stage: Path) -> None:
        """Clear up after a failure."""
        if (stage / "exchanged").exists():
            with suppress(OSError):
                self.retire(stage)
        else:
            shutil.rmtree(stage, ignore_errors=True)

    def clear_abandoned(self) -> None:
        """Clear up after processes that died."""
        try:
            names = [entry.name for entry in os.scandir(self._stages) if entry.name.startswith(f"{self._key}.")]
        except FileNotFoundError:
            return
        for name in names:
            if is_left_behind(Owner.parse(name.split(".")[1]), self._stages / name):
                self.discard(self._stages / name)

    def _keep(self, old: Path) -> None:
        number = 0
        while True:
            number += 1
            place = self.place.with_name(f"{self.place.name}.old{number if number > 1 else ''}")
            if not os.path.lexists(place):
                break
        os.rename(old, place)
        log.warning("%s holds what was added or changed in %s before it was unpacked anew", place, self.place)


def swap_folders(here: int, name: str, there: int, other: str) -> bool:
    """Exchange two folders in one step (renameat2(2)); False if the system or the file system cannot."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(here, os.fsencode(name), there, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), other)


def remove_known(root: Path, known: Unpacked) -> None:
    """Delete the files of a tree that are unchanged since, its links, and the folders that this leaves empty."""
    files, links = known.all_files, known.all_links
    for at, folders, names in os.walk(root, topdown=False):
        for name in (*names, *folders):
            path = os.path.join(at, name)
            relative = os.path.relpath(path, root)
            figures = os.lstat(path)
            if stat.S_ISLNK(figures.st_mode):
                if (relative, os.readlink(path)) in links:
                    os.unlink(path)
            elif stat.S_ISDIR(figures.st_mode):
                with suppress(OSError):
                    os.rmdir(path)
            elif (relative, figures.st_size, figures.st_mtime_ns) in files:
                os.unlink(path)
    with suppress(OSError):
        os.rmdir(root)


def signature_of(path: Path) -> Signature:
    """A file's signature; (-1, -1) for anything else."""
    figures = os.lstat(path)
    return (figures.st_size, figures.st_mtime_ns) if stat.S_ISREG(figures.st_mode) else (-1, -1)


def mode_of(path: Path) -> int:
    """The mode of what is there, without following links; 0 if there is nothing."""
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0


def encode_record(unpacked: Unpacked) -> bytes:
    record = {
        "v": 1,
        "content": unpacked.content,
        "folder": unpacked.folder,
        "files": [[path, *signature] for path, signature in unpacked.files.items()],
        "links": [[path, target] for path, target in unpacked.links.items()],
        "folders": list(unpacked.folders),
        "earlier": sorted(list(signature) for signature in unpacked.earlier),
        "earlier_links": sorted(list(link) for link in unpacked.earlier_links),
    }
    return json.dumps(record, separators=(",", ":")).encode("ascii")


def decode_record(data: bytes, folder: str) -> Unpacked | None:
    try:
        record = json.loads(data)
        if record["v"] != 1 or record["folder"] != folder:
            return None
        return Unpacked(
            content=str(record["content"]),
            folder=folder,
            files={str(path): (int(size), int(mtime)) for path, size, mtime in record["files"]},
            links={str(path): str(target) for path, target in record["links"]},
            folders=tuple(map(str, record["folders"])),
            earlier=frozenset((str(path), int(size), int(mtime)) for path, size, mtime in record["earlier"]),
            earlier_links=frozenset((str(path), str(target)) for path, target in record["earlier_links"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def flush(path: Path) -> None:
    """Flush one file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)
