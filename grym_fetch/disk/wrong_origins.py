"""Which addresses have sent wrong bytes, for `doctor` to name them later. One line each, appended.

Rules: no secret gets here, only addresses as they are shown. It is a hint to a person: nothing is decided by it, nobody
waits for it to reach the disk, and it stops growing at a limit.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from grym_fetch.core.checked_lines import decode_line, encode_line
from grym_fetch.core.errors import StorageError
from grym_fetch.disk.folders import close_each
from grym_fetch.disk.state import StateFolder, open_state, read_state

LOG = "wrong-origins.log"
MAX_LOG_BYTES = 64 * 1024


class WrongOrigins:
    """The addresses that this user has seen sending wrong bytes to one assets folder."""

    def __init__(self, state: StateFolder) -> None:
        self._state = state

    def record(self, asset_id: str, urls: Iterable[str], now: float) -> None:
        """Remember who sent wrong bytes for an asset, in seconds since the epoch. Failing to is harmless and silent."""
        lines = b"".join(encode_line([asset_id, url, int(now)]) for url in urls)
        if not lines:
            return
        with suppress(OSError, StorageError), self._state.opened(create=True) as folder:
            descriptor = open_state(folder, LOG, os.O_APPEND)
            try:
                if os.fstat(descriptor).st_size + len(lines) <= MAX_LOG_BYTES:
                    os.write(descriptor, lines)
            finally:
                close_each(descriptor)

    def find(self) -> dict[tuple[str, str], float]:
        """When each address last sent wrong bytes, by the asset's id and the address."""
        found: dict[tuple[str, str], float] = {}
        with suppress(OSError, StorageError), self._state.opened() as folder:
            for line in (read_state(folder, LOG, MAX_LOG_BYTES) or b"").splitlines():
                with suppress(ValueError):
                    match decode_line(line):
                        case [str(asset_id), str(url), int(when)]:
                            found[asset_id, url] = float(when)
        return found
