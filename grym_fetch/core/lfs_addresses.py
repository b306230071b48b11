"""Addresses of objects on Git LFS servers: ``lfs://HOST/PATH-OF-THE-SERVER/OID/SIZE``.

Rule: such an address names the content, by its SHA-256 and its size, and the server that is asked where it is now.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from grym_fetch.core.buckets import is_bucket_address

SCHEME = "lfs"
LFS_RULE = "lfs://HOST/ORG/REPO.git/info/lfs/OID/SIZE"
_FORM = re.compile(
    r"lfs://(?P<server>[^/?#@\\\s]+(?:/[!-\[\]-~]*?)?)/(?P<oid>[0-9a-f]{64})/(?P<size>0|[1-9][0-9]{0,17})"
)


def is_lfs_address(text: str) -> bool:
    """Whether an address begins with the scheme of a Git LFS server."""
    return text.startswith("lfs://")


def is_resolved_when_asked(text: str) -> bool:
    """Whether an address stands for another one, which is made or asked for each time a chain of redirects begins."""
    return is_lfs_address(text) or is_bucket_address(text)


@dataclass(frozen=True, slots=True)
class LfsAddress:
    """An object on a server. ``server`` is the host and path where its API begins; ``size`` is in bytes."""

    server: str
    oid: str
    size: int

    @classmethod
    def parse(cls, text: str) -> LfsAddress:
        """Read an address. Raises `ValueError` with what is allowed; the address is not repeated."""
        match = _FORM.fullmatch(text)
        if match is None or "?" in match["server"] or "#" in match["server"]:
            raise ValueError(f"is not the address of an object on a Git LFS server; allowed: {LFS_RULE}")
        return cls(match["server"], match["oid"], int(match["size"]))

    def __str__(self) -> str:
        return f"{SCHEME}://{self.server}/{self.oid}/{self.size}"
