"""Digests that hubs state but manifests do not accept: MD5, SHA-1, and git's name of a blob.

Rules: such a digest can condemn what arrives, but never pins it. It is computed along with the SHA-256 while the bytes
arrive, in one pass; the SHA-256 goes into the manifest.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Literal, Self, cast

from grym_fetch.core.digest import Hasher

StatedKind = Literal["md5", "sha1", "git-blob"]
_HEX_DIGITS = {"md5": 32, "sha1": 40, "git-blob": 40}
_LOWER_HEX = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class StatedDigest:
    """A digest of the whole content, as a hub states it. ``hexdigest`` is in lower case.

    ``git-blob`` is the SHA-1 of ``blob SIZE``, a zero byte, and the content: git's name for a file. It needs ``size``,
    the content's length in bytes. Raises `ValueError` for anything that is not such a digest.
    """

    kind: StatedKind
    hexdigest: str
    size: int | None = None

    def __post_init__(self) -> None:
        digits = _HEX_DIGITS.get(self.kind)
        if digits is None:
            raise ValueError(f"the kind {self.kind!r} is unknown; known: {', '.join(_HEX_DIGITS)}")
        if len(self.hexdigest) != digits or not _LOWER_HEX.fullmatch(self.hexdigest):
            raise ValueError(f"is not {digits} lower-case hex digits, as {self.kind} has")
        if self.kind == "git-blob" and self.size is None:
            raise ValueError("needs the size of the content, which git's digest covers")

    @classmethod
    def parse(cls, text: str) -> StatedDigest:
        """Read ``md5:…`` or ``sha1:…``, in any case. Raises `ValueError` for anything else."""
        kind, _, digits = text.strip().lower().partition(":")
        if not text.isascii() or kind not in ("md5", "sha1"):
            raise ValueError("does not start with md5: or sha1:")
        return cls(cast("StatedKind", kind), digits)

    def new_hasher(self) -> Hasher:
        """Return a fresh hasher for it."""
        if self.kind == "md5":
            return cast("Hasher", hashlib.md5(usedforsecurity=False))
        hasher = hashlib.sha1(usedforsecurity=False)
        if self.kind == "git-blob":
            hasher.update(b"blob %d\0" % (self.size or 0))
        return cast("Hasher", hasher)

    def is_of(self, data: bytes) -> bool:
        """Whether ``data`` has this digest."""
        hasher = self.new_hasher()
        hasher.update(data)
        return hasher.hexdigest() == self.hexdigest

    def __str__(self) -> str:
        return f"{self.kind}:{self.hexdigest}"


class PairedHasher:
    """Hashes for a checksum and for a stated digest at once. Its `Hasher` methods return the checksum's digest."""

    def __init__(self, hasher: Hasher, beside: Hasher) -> None:
        self._hasher = hasher
        self.beside = beside
        """The hasher for the stated digest."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Add more bytes to both."""
        self._hasher.update(data)
        self.beside.update(data)

    def digest(self) -> bytes:
        """Return the checksum's digest."""
        return self._hasher.digest()

    def hexdigest(self) -> str:
        """Return the checksum's digest, as lower-case hex digits."""
        return self._hasher.hexdigest()

    def copy(self) -> Self:
        """Return an independent pair with the same state."""
        return type(self)(self._hasher.copy(), self.beside.copy())
