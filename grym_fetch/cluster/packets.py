"""What goes from process to process: a version, and bytes that only the same version reads.

Rule: the version is looked at first. Another one may have other classes, which would be read wrongly or not at all.
"""

from __future__ import annotations

import pickle
from typing import TypeVar

from grym_fetch._version import __version__
from grym_fetch.core.errors import ClusterError
from grym_fetch.core.text import safe_text

Packet = tuple[str, bytes]
T = TypeVar("T")


class OtherVersion(Exception):
    """A packet comes from another version of this program, or is for one."""

    def __init__(self, version: str) -> None:
        self.version = version
        super().__init__(version)


def pack(thing: object) -> Packet:
    """Return what the other end reads with `unpack`."""
    return __version__, pickle.dumps(thing)


def unpack(packet: Packet, kind: type[T]) -> T:
    """Return what was packed. Only from a process that runs our own code. Raises `OtherVersion`."""
    version, data = packet
    if version != __version__:
        raise OtherVersion(version)
    thing = pickle.loads(data)  # noqa: S301 - from our own workers or driver, which the engine lets run any code here
    assert isinstance(thing, kind)
    return thing


def wrong_version(other: OtherVersion) -> ClusterError:
    """The error of a task whose worker has another version."""
    return ClusterError(f"a worker has grym-fetch {safe_text(other.version)}, and the driver {__version__}")


def cannot_import(why: str) -> ClusterError:
    """The error of a task whose worker has no such program, or an incomplete one."""
    return ClusterError(f"a worker cannot import grym-fetch ({safe_text(why)}): install {__version__} there")
