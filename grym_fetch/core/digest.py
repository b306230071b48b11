"""Checksums as written in the manifest, and the hashers that recompute them.

Rules: internally, a checksum is always in lower case and names its algorithm; the only guess is that 64 hex digits are
SHA-256. blake2b is BLAKE2b-512, as printed by ``b2sum`` (RFC 7693).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Literal, Protocol, Self, cast, get_args

from grym_fetch.core.columns import Column, build_all, match_all

Algorithm = Literal["sha256", "sha512", "blake2b"]

CHECKSUM_RULE = "64 hex digits (SHA-256), or sha256: with 64, sha512: with 128 or blake2b: with 128 hex digits"
"""The allowed form of a checksum in a manifest, worded for an error."""

HEX_DIGITS: Mapping[str, int] = {"sha256": 64, "sha512": 128, "blake2b": 128}
"""How many hex digits each algorithm's digest has."""

_LOWER_HEX = re.compile(r"[0-9a-f]*")
_are_plain = match_all(re.compile("[0-9a-f]{64}"), max_characters=64)


class Hasher(Protocol):
    """The part of a ``hashlib`` object that we use."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Add more bytes. Releases the GIL for large buffers."""

    def digest(self) -> bytes:
        """Return the digest of all bytes so far."""

    def hexdigest(self) -> str:
        """Return the digest of all bytes so far, as lower-case hex digits."""

    def copy(self) -> Self:
        """Return an independent hasher with the same state."""


_HASHERS: Mapping[str, Callable[[], object]] = {
    "sha256": hashlib.sha256,
    "sha512": hashlib.sha512,
    "blake2b": hashlib.blake2b,
}


@dataclass(frozen=True, slots=True)
class Checksum:
    """The digest that identifies a file's content. ``hexdigest`` is in lower case."""

    algorithm: Algorithm
    hexdigest: str

    def __post_init__(self) -> None:
        digits = HEX_DIGITS.get(self.algorithm)
        if len(self.hexdigest) == digits and _LOWER_HEX.fullmatch(self.hexdigest):
            return
        if digits is None:
            raise ValueError(f"the algorithm {self.algorithm!r} is unknown; known: {', '.join(HEX_DIGITS)}")
        if not _LOWER_HEX.fullmatch(self.hexdigest):
            raise ValueError("has characters that are not lower-case hex digits")
        raise ValueError(f"has {len(self.hexdigest)} hex digits where {self.algorithm} has {digits}")

    @classmethod
    def parse(cls, text: str) -> Checksum:
        """Read a checksum in any case, with or without its prefix.

        Raises:
            ValueError: if ``text`` is not a checksum; the message says what is wrong and what is allowed.
        """
        prefix, colon, digits = text.rpartition(":")
        algorithm = prefix.lower() if colon else "sha256"
        # Some characters outside ASCII become ASCII letters in lower case (U+212A, the Kelvin sign, becomes k).
        if not text.isascii() or algorithm not in HEX_DIGITS:
            found = "does not start with a known algorithm" if colon else "is not made of hex digits"
            raise ValueError(f"{found}; allowed: {CHECKSUM_RULE}")
        try:
            return cls(cast("Algorithm", algorithm), digits.lower())
        except ValueError as error:
            found = str(error).replace("lower-case ", "")
            raise ValueError(f"{found}; allowed: {CHECKSUM_RULE}") from None

    @classmethod
    def of(cls, data: bytes, algorithm: Algorithm = "sha256") -> Checksum:
        """Return the checksum of ``data``."""
        hasher = new_hasher(algorithm)
        hasher.update(data)
        return cls(algorithm, hasher.hexdigest())

    @property
    def bare(self) -> str:
        """The shortest form that reads back the same: plain hex for SHA-256, else with the prefix."""
        return self.hexdigest if self.algorithm == "sha256" else str(self)

    @property
    def is_of_nothing(self) -> bool:
        """Whether this is the checksum of an empty file."""
        return self.hexdigest == DIGESTS_OF_NOTHING[self.algorithm]

    def is_of(self, data: bytes | bytearray) -> bool:
        """Whether ``data`` has this checksum."""
        hasher = self.new_hasher()
        hasher.update(data)
        return hasher.hexdigest() == self.hexdigest

    def new_hasher(self) -> Hasher:
        """Return a fresh hasher of this checksum's algorithm."""
        return new_hasher(self.algorithm)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hexdigest}"


def parse_all_checksums(texts: Column) -> list[Checksum] | None:
    """Read many checksums; None if any is not a plain SHA-256 in lower case."""
    if not _are_plain(texts):
        return None
    return build_all(Checksum, len(texts), {"algorithm": repeat("sha256"), "hexdigest": texts})


def new_hasher(algorithm: Algorithm) -> Hasher:
    """Return a fresh hasher. It releases the GIL while it hashes large buffers."""
    return cast("Hasher", _HASHERS[algorithm]())


DIGESTS_OF_NOTHING: Mapping[str, str] = {name: new_hasher(name).hexdigest() for name in get_args(Algorithm)}
"""The digest of an empty file, for each algorithm."""
