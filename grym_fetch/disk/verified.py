"""The verified cache: which files were hashed and found right, and each one's signature at that moment.

Rules: an entry is trusted only while the file's signature (size, times, inode, device) is the one of the moment it was
verified, so a file that was changed behind our back is hashed again. The cache saves time and proves nothing: a lost or
damaged log costs a hash, never a wrong answer. One line an entry, appended; the last one for a path counts. Where there
is no assets folder to keep the log in, since all files lie elsewhere, a spare one in the user's state folder is kept.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from grym_fetch.core.checked_lines import decode_line, encode_line
from grym_fetch.core.digest import Checksum
from grym_fetch.disk.atomic import PRIVATE, replace_file
from grym_fetch.disk.folders import open_state
from grym_fetch.disk.user_state import open_user_state

MAX_LOG_BYTES = 64 * 1024 * 1024
"""As much of the log is read; what is behind that counts for nothing."""
_READ_BYTES = 1024 * 1024
_SPARE_LINES = 4096
"""Lines that may say nothing new before the log is written anew."""


class FileSignature(NamedTuple):
    """What changes whenever a file does. A tuple, since a run makes and compares two for each file."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int

    @classmethod
    def of(cls, figures: os.stat_result) -> FileSignature:
        """Take what matters out of a ``stat``."""
        return cls(figures.st_size, figures.st_mtime_ns, figures.st_ctime_ns, figures.st_ino, figures.st_dev)


class VerifiedFile(NamedTuple):
    """A file that was found to have this checksum, and its signature then."""

    path: str
    checksum: str
    signature: FileSignature

    @property
    def is_unchanged(self) -> bool:
        """Whether the file is there and still has this signature."""
        try:
            return FileSignature.of(os.stat(self.path)) == self.signature
        except OSError:
            return False


class VerifiedCache:
    """The log of one assets folder, and the ``spare`` one for where that is missing. Read once, on first use."""

    def __init__(self, log: Path, spare: Path | None = None) -> None:
        self._log = log
        self._spare = spare
        self._entries: dict[str, VerifiedFile] | None = None

    def is_verified(self, path: Path | str, checksum: Checksum) -> bool:
        """Whether the file at ``path`` is the one that was found to have this checksum."""
        entry = self._load().get(str(path))
        return entry is not None and entry.checksum == str(checksum) and entry.is_unchanged

    def is_known_wrong(self, path: Path | str, checksum: Checksum) -> bool:
        """Whether the file at ``path`` was found to have another checksum of this kind, and is still the same."""
        entry = self._load().get(str(path))
        if entry is None or entry.checksum == str(checksum) or not entry.is_unchanged:
            return False
        return entry.checksum.partition(":")[0] == str(checksum).partition(":")[0]

    def record(self, path: Path, checksum: Checksum, signature: FileSignature) -> None:
        """Remember that this file has this checksum. Failing to is harmless and silent."""
        self.record_all([VerifiedFile(str(path), str(checksum), signature)])

    def record_all(self, files: Iterable[VerifiedFile]) -> None:
        """`record` for several files, in one write."""
        entries, lines = self._load(), []
        for file in files:
            entries[file.path] = file
            lines.append(encode_entry(file))
        with suppress(OSError):
            self._append(b"".join(lines))

    def _append(self, lines: bytes) -> None:
        # O_APPEND puts lines in whole, also when several processes write; a torn one is recognised by its checksum.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        # Files may have been there before anything was ever fetched: then our own folder is not.
        log = self._log
        try:
            folder = open_state(log.parent)
        except FileNotFoundError:
            if self._spare is None:
                raise
            log = self._spare
            folder = open_user_state(log.parent)
        try:
            descriptor = os.open(log.name, flags, PRIVATE, dir_fd=folder)
            try:
                os.write(descriptor, lines)
            finally:
                os.close(descriptor)
        finally:
            os.close(folder)

    def _load(self) -> dict[str, VerifiedFile]:
        if self._entries is None:
            lines = [] if self._spare is None else _read(self._spare).splitlines()
            lines += _read(self._log).splitlines()
            self._entries = decode_entries(lines)
            if len(lines) > 2 * len(self._entries) + _SPARE_LINES:
                is_spare = self._spare is not None and not self._log.parent.parent.is_dir()
                with suppress(OSError):
                    replace_log(self._spare if is_spare and self._spare else self._log, self._entries.values())
        return self._entries


def _read(log: Path) -> bytes:
    try:
        descriptor = os.open(log, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        # Another user's word on what is verified is not taken.
        if os.fstat(descriptor).st_uid != os.geteuid():
            return b""
        data = bytearray()
        while len(data) < MAX_LOG_BYTES and (block := os.read(descriptor, _READ_BYTES)):
            data += block
        return bytes(data)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


_FIELDS = 2 + len(FileSignature._fields)


def replace_log(log: Path, files: Iterable[VerifiedFile]) -> None:
    """Put a new log in the place of the old one, whole. Raises ``OSError``, and leaves the old one then.

    An entry that another process adds at this very moment is lost; then its file is hashed once more.
    """
    folder = open_state(log.parent)
    try:
        replace_file(folder, log.name, b"".join(map(encode_entry, files)), mode=PRIVATE)
    finally:
        os.close(folder)


def encode_entry(file: VerifiedFile) -> bytes:
    """Return the log's line for a file."""
    return encode_line([file.path, file.checksum, *file.signature])


def decode_entry(line: bytes) -> VerifiedFile | None:
    """Read a line of the log; None if it is damaged or not one of ours."""
    with suppress(ValueError):
        record = decode_line(line)
        if isinstance(record, list) and len(record) == _FIELDS:
            path, checksum, *figures = record
            if isinstance(path, str) and isinstance(checksum, str):
                return VerifiedFile(path, checksum, FileSignature._make(figures))
    return None


def decode_entries(lines: Iterable[bytes]) -> dict[str, VerifiedFile]:
    """Read the lines of a log: the last entry for each path."""
    return {entry.path: entry for line in lines if (entry := decode_entry(line)) is not None}
