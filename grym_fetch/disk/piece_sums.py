"""The sums of the pieces of verified files: one small file for each content, beside the verified cache.

Rules: sums are kept of what was verified as a whole, and only found under that checksum. They say which part of a file
is damaged, and prove nothing: what they pass is verified as a whole again. A lost or damaged file of sums costs bytes,
never a wrong answer, so nothing waits for it to reach the disk.
"""

from __future__ import annotations

import os
from contextlib import suppress

from grym_fetch.core.checked_lines import decode_line, encode_line
from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import StorageError
from grym_fetch.core.piece_digests import MAX_PIECE_BYTES, PieceSums, piece_count
from grym_fetch.disk.folders import close_each, write_all
from grym_fetch.disk.state import StateFolder, open_state, read_state

FOLDER = "pieces"
MAX_SUMS_BYTES = 64 * 1024 * 1024
"""At most this much of a file of sums is read: enough for the pieces of 10 TB."""


def sums_name(checksum: Checksum) -> str:
    """The name of the file with the sums of this content."""
    from grym_fetch.disk.stage import StageKey  # most runs need no sums

    return StageKey("", str(checksum)).content_key


class PieceSumsStore:
    """The sums that one user keeps for one assets folder."""

    def __init__(self, state: StateFolder) -> None:
        self._state = state

    def record(self, checksum: Checksum, size: int, sums: PieceSums) -> None:
        """Remember the sums of a content that was verified. Failing to is harmless and silent."""
        if len(sums.xxh3) < 2 or len(sums.xxh3) != piece_count(size, sums.length):
            return  # of a single piece, the checksum itself says enough
        line = encode_line([str(checksum), size, sums.length, *sums.xxh3])
        with suppress(OSError, StorageError), self._state.opened(FOLDER, create=True) as folder:
            descriptor = open_state(folder, sums_name(checksum), os.O_TRUNC)
            try:
                write_all(descriptor, line)
            finally:
                close_each(descriptor)

    def find(self, checksum: Checksum) -> PieceSums | None:
        """Return the sums of the content with this checksum, if they are known."""
        with suppress(OSError, StorageError, ValueError), self._state.opened(FOLDER) as folder:
            match decode_line(read_state(folder, sums_name(checksum), MAX_SUMS_BYTES) or b""):
                case [str(of), int(size), int(length), *xxh3] if (
                    of == str(checksum)
                    and 0 < length <= MAX_PIECE_BYTES
                    and len(xxh3) == piece_count(size, length)
                    and all(type(each) is str for each in xxh3)
                ):
                    return PieceSums(length, tuple(map(str, xxh3)))
        return None
