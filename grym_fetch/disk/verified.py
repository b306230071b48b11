"""Verified stamps: which files were hashed and found right, and how they looked then.

Rules: a stamp is trusted only while size, times, inode and device are those of the moment the file was verified, so a
file that was changed behind our back is hashed again. Stamps save time and prove nothing: a lost or damaged log costs
a hash, never a wrong answer. One line a stamp, appended; the last one for a path counts.
"""

from __future__ import annotations

import json
import os
import secrets
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from grym_fetch.core.digest import Checksum
from grym_fetch.disk.folders import open_state

MAX_BLOCKS = 64
"""Most MiB of the log that are read."""
_SLACK = 4096
_read_json = json.JSONDecoder().decode


class FileSignature(NamedTuple):
    """How a file looks without reading it. A tuple, since a run makes and compares two for each file."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int

    @classmethod
    def of(cls, figures: os.stat_result) -> FileSignature:
        """Take what matters out of a ``stat``."""
        return cls(figures.st_size, figures.st_mtime_ns, figures.st_ctime_ns, figures.st_ino, figures.st_dev)


class Stamp(NamedTuple):
    """A file at ``path`` that was found to have this checksum, and how it looked then."""

    path: str
    checksum: str
    signature: FileSignature


class VerifiedCache:
    """The log of one assets folder. Read once, on first use."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._known: dict[str, tuple[str, FileSignature]] | None = None

    def is_verified(self, path: Path | str, checksum: Checksum) -> bool:
        """Whether the file at ``path`` is the one that was found to have this checksum."""
        stamp = self._load().get(str(path))
        if stamp is None or stamp[0] != str(checksum):
            return False
        try:
            return FileSignature.of(os.stat(path)) == stamp[1]
        except OSError:
            return False

    def record(self, path: Path, checksum: Checksum, fingerprint: FileSignature) -> None:
        """Remember that this file has this checksum. Failing to is harmless and silent."""
        self.record_all([Stamp(str(path), str(checksum), fingerprint)])

    def record_all(self, stamps: Iterable[Stamp]) -> None:
        """`record` for several files, in one write."""
        known, lines = self._load(), []
        for stamp in stamps:
            known[stamp.path] = (stamp.checksum, stamp.signature)
            lines.append(encode_stamp(stamp.path, stamp.checksum, stamp.signature))
        with suppress(OSError):
            self._append(b"".join(lines))

    def _append(self, lines: bytes) -> None:
        # O_APPEND puts lines in whole, also when several processes write; one that got torn is no stamp, by its sum.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        # Files may have been there before anything was ever fetched: then the folder of our own is not.
        folder = open_state(self._log.parent)
        try:
            descriptor = os.open(self._log.name, flags, 0o600, dir_fd=folder)
            try:
                os.write(descriptor, lines)
            finally:
                os.close(descriptor)
        finally:
            os.close(folder)

    def _load(self) -> dict[str, tuple[str, FileSignature]]:
        if self._known is None:
            self._known = {}
            lines = 0
            for line in self._read().splitlines():
                lines += 1
                stamp = decode_stamp(line)
                if stamp is not None:
                    self._known[stamp[0]] = (stamp[1], stamp[2])
            if lines > 2 * len(self._known) + _SLACK:
                self._compact()
        return self._known

    def _read(self) -> bytes:
        try:
            descriptor = os.open(self._log, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            # Another user's word on what is verified is not taken.
            if os.fstat(descriptor).st_uid != os.geteuid():
                return b""
            blocks: list[bytes] = []
            while len(blocks) < MAX_BLOCKS and (block := os.read(descriptor, 1 << 20)):
                blocks.append(block)
            return b"".join(blocks)
        except OSError:
            return b""
        finally:
            os.close(descriptor)

    def _compact(self) -> None:
        with suppress(OSError):
            replace_log(self._log, b"".join(encode_stamp(path, *stamp) for path, stamp in (self._known or {}).items()))


def replace_log(log: Path, lines: bytes) -> None:
    """Put a new log in the place of the old one, whole. Raises ``OSError``, and leaves the old one then.

    A stamp that another process adds in this very moment is lost, which costs it one more look at the file's bytes.
    """
    fresh = log.with_name(f"{log.name}.{secrets.token_hex(4)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(fresh, flags, 0o600), "wb") as file:
            file.write(lines)
        os.rename(fresh, log)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def encode_stamp(path: str, checksum: str, signature: FileSignature) -> bytes:
    """Return the log's line for a file."""
    record = [path, checksum, signature.size, signature.mtime_ns, signature.ctime_ns, signature.inode, signature.device]
    text = json.dumps(record, separators=(",", ":")).encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(text), text)


def decode_stamp(line: bytes) -> tuple[str, str, FileSignature] | None:
    """Read a line: path, checksum and look of the file; None if it is none of ours."""
    try:
        if line[:9] != b"%08x " % zlib.crc32(line[9:]):
            return None
        path, checksum, *figures = _read_json(line[9:].decode("utf-8"))
        if not (isinstance(path, str) and isinstance(checksum, str) and len(figures) == 5):
            return None
        return path, checksum, FileSignature(*figures)
    except (ValueError, TypeError):
        return None
