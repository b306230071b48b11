"""The verified cache: which files were hashed and found right, and each one's signature at that moment.

Rules: an entry is trusted only while the file's signature (size, times, inode, device) is the same as when it was
verified, so a file that was changed behind our back is hashed again. The cache saves time and proves nothing: a lost or
damaged log costs a hash, never a wrong answer. Each entry is one line, appended; the last one for a path counts. If the
assets folder does not exist or cannot be written to, the log is kept in this user's state folder.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from grym_fetch.core.checked_lines import are_undamaged, decode_line, encode_line
from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import StorageError
from grym_fetch.core.text import safe_text
from grym_fetch.disk.atomic import PRIVATE, replace_file
from grym_fetch.disk.folders import close_each, exists, is_at
from grym_fetch.disk.stamps import Stamps
from grym_fetch.disk.state import StateFolder, is_private, open_state, state_lines
from grym_fetch.runtime import system

log = logging.getLogger(__name__)

MAX_LOG_BYTES = 4 * 1024 * 1024 * 1024
"""At most this much of the log is read: the entries of ten million files. The rest is ignored."""
LOG = "verified.log"
_CANNOT_WRITE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP, errno.ENOENT})
TICK_NS = 20_000_000
"""Longer than a tick of the kernel's clock: two writes within one tick leave a file with the same times."""
_COARSE_TICK_NS = 2_000_000_000
"""The same for a file system that keeps whole seconds (FAT: every other second)."""
_FILE_TIME_NS = 100
"""The steps in which NTFS counts."""
_LINES_AT_ONCE = 1000
_CHECK_DIGITS = 8
_SPARE_LINES = 4096
"""Rewrite the log once it has this many outdated lines, and more outdated lines than current ones."""


class FileSignature(NamedTuple):
    """Changes whenever the file does. A tuple, since a run makes and compares two for each file."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int

    @classmethod
    def of(cls, figures: os.stat_result) -> FileSignature:
        """Take what matters out of a ``stat``."""
        return cls(figures.st_size, figures.st_mtime_ns, figures.st_ctime_ns, figures.st_ino, figures.st_dev)

    @classmethod
    def at(cls, path: str) -> FileSignature | None:
        """The signature of the file that is there now, if there is one."""
        try:
            return cls.of(os.stat(path))
        except OSError:
            return None

    def was_settled(self, now_ns: int) -> bool:
        """Whether any write after ``now_ns``, when the file had this signature, must change the signature.

        False if the file was written to within the clock tick that contains ``now_ns``, or seemingly after it. Then its
        bytes may differ from those read, like a racy entry of git's index (gitformat-index(5)).
        """
        is_coarse = self.mtime_ns % 1_000_000_000 == self.ctime_ns % 1_000_000_000 == 0
        return self.ctime_ns + (_COARSE_TICK_NS if is_coarse else TICK_NS) <= now_ns


def mark_time(descriptor: int) -> None:
    """Give a complete file an exact modification time before it gets its name.

    The kernel's clock ticks every few milliseconds, so a second write within a tick would not change the time. A later
    write never sets this exact time. A file system that keeps only whole seconds gets a time in the past, which no
    later write can set. If the time cannot be set, we have to rely on the tick.
    """
    with suppress(OSError):
        now = time.time_ns() // _FILE_TIME_NS * _FILE_TIME_NS
        system.utime(descriptor, ns=(now, now))
        if os.fstat(descriptor).st_mtime_ns != now:
            system.utime(descriptor, ns=(now, now - 2 * _COARSE_TICK_NS))


def wait_for_tick(figures: os.stat_result) -> None:
    """If a file was written to in the current tick, wait for the tick to end: what is read then can be remembered."""
    age_ns = time.time_ns() - figures.st_ctime_ns  # a little below 0 where programs see a coarser clock than files
    if -TICK_NS < age_ns < TICK_NS:
        time.sleep((TICK_NS - age_ns) / 1e9)


class ReplacedMeanwhile(StorageError):
    """A verified file was just given its name, which now refers to another file; or the file was written to."""


def signature_in_place(descriptor: int, before: os.stat_result, folder: int, name: str, shown: object) -> FileSignature:
    """Return the signature of an open file that was just given its name.

    Raises `ReplacedMeanwhile` if the name refers to another file by now, or the file was written to since ``before``:
    then its bytes are not those that were verified.
    """
    after = os.fstat(descriptor)
    is_unchanged = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    if not is_unchanged or not is_at(descriptor, folder, name):
        reason = "somebody else changed or replaced this file while it was put in place; run it again"
        raise ReplacedMeanwhile(safe_text(str(shown)), reason)
    return FileSignature.of(after)


class VerifiedFile(NamedTuple):
    """A file that was found to have this checksum, and its signature then."""

    path: str
    checksum: str
    signature: FileSignature

    @property
    def is_unchanged(self) -> bool:
        """Whether the file is there and still has this signature."""
        return FileSignature.at(self.path) == self.signature


class VerifiedCache:
    """The log of one user for one assets folder. Read once, on first use.

    A line is not parsed but compared with what would be written now: tens of thousands are asked for at once. If an
    assets folder exists but cannot be written to, that is logged once.
    """

    def __init__(self, state: StateFolder) -> None:
        self._state = state
        self._entries: Stamps | None = None

    def is_verified(self, path: Path | str, checksum: Checksum) -> bool:
        """Whether the file at ``path`` is the one that was found to have this checksum."""
        line = self._load().get(place := str(path))
        if line is None:
            return False
        try:
            return line.endswith(_end_of_line(checksum, os.stat(place)))
        except OSError:
            return False

    def judge(self, path: str, checksum: Checksum, figures: os.stat_result) -> bool | None:
        """Whether the file, which has these ``figures`` now, has this checksum; None if that is not known.

        False if it was found to have another checksum of this kind and is still the same.
        """
        line = self._load().get(path)
        if line is None:
            return None
        if line.endswith(_end_of_line(checksum, figures)):
            return True
        entry = decode_entry(line)
        if entry is None or entry.signature != FileSignature.of(figures):
            return None
        is_another = entry.checksum != str(checksum)
        return False if is_another and entry.checksum.partition(":")[0] == checksum.algorithm else None

    def record(self, path: Path, checksum: Checksum, signature: FileSignature) -> None:
        """Remember that this file has this checksum. Failing to do so is harmless and silent."""
        self.record_all([VerifiedFile(str(path), str(checksum), signature)])

    def record_all(self, files: Iterable[VerifiedFile]) -> None:
        """`record` for several files, in one write."""
        entries, lines = self._load(), []
        for file in files:
            lines.append(encode_entry(file))
            entries.put(file.path, lines[-1].removesuffix(b"\n"))
        with suppress(OSError, StorageError):
            self._append(b"".join(lines))

    def _append(self, lines: bytes) -> None:
        # Files may have been there before anything was ever fetched: then our own folder does not exist yet.
        try:
            with self._state.opened(create=True) as folder:
                if not is_private(folder):
                    raise PermissionError(errno.EACCES, "its file system does not say who has written a file")
                _append_to(folder, lines)
        except (OSError, StorageError) as error:
            why = error.__cause__ if isinstance(error, StorageError) else error
            if isinstance(why, OSError) and why.errno not in _CANNOT_WRITE:
                raise  # a disk that fails now may work the next time
            folder = self._state.open_elsewhere(create=True)
            try:
                is_first = not exists(folder, LOG)
                _append_to(folder, lines)
            finally:
                close_each(folder)
            if is_first and not isinstance(error, FileNotFoundError):
                (log.warning if system.HAS_MODES else log.debug)(
                    "what was verified is remembered in %s, since it cannot be in the assets folder: %s",
                    safe_text(str(self._state.elsewhere)),
                    error,
                )

    def _load(self) -> Stamps:
        if self._entries is None:
            self._entries = Stamps()
            self._read(self._entries, self._state.open_elsewhere)
            self._read(self._entries, self._state.open)
        return self._entries

    @staticmethod
    def _read(into: Stamps, open_folder: Callable[[], int]) -> None:
        try:
            folder = open_folder()
        except (OSError, StorageError):
            return
        try:
            mine, count = Stamps(), 0
            waiting = state_lines(folder, LOG, MAX_LOG_BYTES)
            while lines := list(islice(waiting, _LINES_AT_ONCE)):
                count += len(lines)
                if not are_undamaged(lines):
                    lines = [line for line in lines if are_undamaged([line])]
                paths = zip(map(_path_of, lines), lines, strict=True)
                mine.put_all({path: line for path, line in paths if path is not None})
            if count > 2 * len(mine) + _SPARE_LINES and not mine.is_spilled:
                with suppress(OSError):
                    replace_log(folder, decode_entries(mine.lines()).values())
            into.add(mine)
        finally:
            close_each(folder)


def _append_to(folder: int, lines: bytes) -> None:
    # O_APPEND writes whole lines, even when several processes write; a torn line is recognised by its checksum.
    descriptor = open_state(folder, LOG, os.O_APPEND)
    try:
        os.write(descriptor, lines)
    finally:
        close_each(descriptor)


_FIELDS = 2 + len(FileSignature._fields)


def replace_log(folder: int, files: Iterable[VerifiedFile]) -> None:
    """Replace the whole log with a new one. Raises ``OSError``; the old log then stays.

    An entry that another process adds at this very moment is lost; its file is then hashed once more.
    """
    replace_file(folder, LOG, b"".join(map(encode_entry, files)), mode=PRIVATE)


def encode_entry(file: VerifiedFile) -> bytes:
    """Return the log's line for a file."""
    return encode_line([file.path, file.checksum, *file.signature])


def _end_of_line(checksum: Checksum, at: os.stat_result) -> bytes:
    """What an entry ends with, after its path. No path can look like it: JSON writes its quotes as ``\\"``."""
    signature = f"{at.st_size},{at.st_mtime_ns},{at.st_ctime_ns},{at.st_ino},{at.st_dev}"
    return f'","{checksum.algorithm}:{checksum.hexdigest}",{signature}]'.encode("ascii")


def _path_of(line: bytes) -> str | None:
    """The path in an undamaged line, whatever else the line says; None if there is none."""
    before, _, text = line.partition(b' ["')
    path, comma, _ = text.rpartition(b'","')
    if not comma or len(before) != _CHECK_DIGITS:
        return None
    if b"\\" not in path:
        return path.decode("ascii", "replace")
    try:
        return str(json.loads(b'"%s"' % path))
    except ValueError:
        return None


def decode_entry(line: bytes) -> VerifiedFile | None:
    """Read a line of the log; None if it is damaged or not one of ours."""
    with suppress(ValueError):
        record = decode_line(line)
        if isinstance(record, list) and len(record) == _FIELDS:
            path, checksum, *figures = record
            if isinstance(path, str) and isinstance(checksum, str) and all(type(each) is int for each in figures):
                return VerifiedFile(path, checksum, FileSignature._make(figures))
    return None


def decode_entries(lines: Iterable[bytes]) -> dict[str, VerifiedFile]:
    """Read the lines of a log: the last entry for each path."""
    return {entry.path: entry for line in lines if (entry := decode_entry(line)) is not None}
