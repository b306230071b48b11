"""File descriptors: how many this process may still open, and how many connections they allow.

Rules: they are counted once, before anything is fetched. With fewer connections a run is slower; without a free
descriptor it would fail. Only our own command raises the limit; the library leaves that to the program that uses it.
"""

from __future__ import annotations

import logging
import os

from grym_fetch.runtime import system
from grym_fetch.runtime.system import MAX_OPEN_FILES

log = logging.getLogger(__name__)

SPARE_DESCRIPTORS = 16
"""Reserved for the log, name resolution, threads, and files that the host program opens in the meantime."""
DESCRIPTORS_PER_ASSET = 6
"""Per asset: lock, part, journal, the folders of locks and stages, and the file's own folder while it is published."""
LEAST_SPARE = 4
"""Reserved in any case, even if there are not enough for all of the above."""
FEW_DESCRIPTORS = 64


def max_active_assets(connections: int) -> int:
    """How many assets to have in progress at once: enough to keep every connection busy while some are verified."""
    return 2 * connections + 2


def are_scarce() -> bool:
    """Whether this process may open so few files that each one counts."""
    return (limit := _limit()) is not None and limit < FEW_DESCRIPTORS


def affordable(connections: int) -> int:
    """Return how many of these connections the descriptors allow; at least one."""
    left = _left()
    if left is None:
        return connections
    most = max(
        1,
        (left - DESCRIPTORS_PER_ASSET * max_active_assets(0))
        // (1 + DESCRIPTORS_PER_ASSET * (max_active_assets(1) - max_active_assets(0))),
    )
    if most < connections:
        counted = "1 connection" if most == 1 else f"{most} connections"
        log.warning("only %s instead of %d: this process may open %d files", counted, connections, _limit())
    return min(most, connections)


def affordable_assets(connections: int) -> int:
    """Return how many assets may be under way at once, besides this many connections; at least one."""
    left = _left()
    wanted = max_active_assets(connections)
    if left is None:
        return wanted
    return max(1, min(wanted, (left + SPARE_DESCRIPTORS - LEAST_SPARE - connections) // DESCRIPTORS_PER_ASSET))


def spare_descriptors(files: int) -> int:
    """Return how many of these files may be open at once, besides everything else; at least one."""
    left = _left()
    return files if left is None else max(1, min(files, left // 4))


def _left() -> int | None:
    """How many more files this process may open; None if there is no limit or it is unknown."""
    if (limit := _limit()) is None:
        return None
    try:
        return limit - SPARE_DESCRIPTORS - len(os.listdir("/dev/fd"))
    except OSError:
        return None


def _limit() -> int | None:
    return system.file_limits()[0]


def raise_limit() -> None:
    """Raise the soft limit on open files to the hard one, within reason."""
    soft, hard = system.file_limits()
    wanted = MAX_OPEN_FILES if hard is None else min(hard, MAX_OPEN_FILES)
    if soft is not None and soft < wanted:
        system.allow_files(wanted)
