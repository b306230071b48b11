"""The result of fetching an asset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from grym_fetch.core.digest import Checksum
from grym_fetch.core.events import LinkMode
from grym_fetch.core.piece_digests import PieceSums
from grym_fetch.disk.verified import FileSignature


@dataclass(frozen=True, slots=True)
class TransferResult:
    """A file that is in place. ``checksum`` was computed from its bytes; ``downloaded`` counts bytes received.

    ``signature`` is the file's, taken from the descriptor that the bytes were written through; None if it is not known.
    ``sums`` are those of its pieces. ``wrong_origins``: the addresses, without secrets, that sent other bytes.
    """

    path: Path
    checksum: Checksum
    size: int
    downloaded: int
    signature: FileSignature | None = None
    sums: PieceSums | None = None
    wrong_origins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Repaired:
    """How much of a damaged file could be used: of its ``pieces``, ``bad`` were, and ``fetched`` had to be fetched."""

    pieces: int
    bad: int
    fetched: int
    saved_bytes: int


@dataclass(frozen=True, slots=True)
class Taken:
    """A file that was on this machine and was put in place: where, from where, and how."""

    path: Path
    source: Path
    link: LinkMode
    signature: FileSignature


@dataclass(frozen=True, slots=True)
class FetchResult:
    """The asset is at ``path``. ``fetched`` describes the transfer; None if the file was there already.

    ``repaired``: what a damaged file contributed, if it did. ``taken``: from where else on this machine it came.
    """

    path: Path
    fetched: TransferResult | None
    repaired: Repaired | None = None
    taken: Taken | None = None
