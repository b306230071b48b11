"""What an archive may hold that is unpacked next to itself: names, links, and how much.

Rules: nothing of an archive is believed. A member's path is one that an asset could have (see `grym_fetch.core.paths`);
no two members share a place, on any file system; links stay inside and nothing lies behind one; devices and pipes are
refused. What is doubtful is refused, never repaired, and one bad member refuses the whole archive.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from grym_fetch.core.errors import UnsafeArchive
from grym_fetch.core.paths import STAND_IN_FOLDER, check_local_path, collision_key
from grym_fetch.core.text import safe_text

ArchiveKind = Literal["zip", "tar", "tar.gz", "tar.zst"]
MemberKind = Literal["file", "folder", "symlink", "hardlink", "device"]

SUFFIXES: Mapping[str, ArchiveKind] = {
    ".zip": "zip",
    ".tar": "tar",
    ".tar.gz": "tar.gz",
    ".tgz": "tar.gz",
    ".tar.zst": "tar.zst",
}
ARCHIVE_RULE = "a localPath that ends in .zip, .tar, .tar.gz, .tgz or .tar.zst"

_STAND_IN = f"{STAND_IN_FOLDER}/"

MIB = 1024 * 1024
MAX_DEPTH = 100
"""Most folders inside each other."""
MAX_STEPS = 40
"""Most links that are followed from one, as Linux follows them."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an archive may hold. ``ratio`` is unpacked to packed bytes, and counts beyond ``ratio_free`` bytes."""

    members: int = 1_000_000
    bytes: int = 64 * 1024 * MIB
    ratio: int = 200
    ratio_free: int = 64 * MIB


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of an archive, as the archive says it. ``path`` has no ``./`` before it and no ``/`` behind it.

    ``size`` in bytes; ``target`` is where a link leads; ``is_executable`` is all of the mode that is kept.
    """

    path: str
    kind: MemberKind
    size: int = 0
    target: str = ""
    is_executable: bool = False


def archive_kind(local_path: str) -> ArchiveKind | None:
    """Return what kind of archive a file of this name is, None if it is none that can be unpacked."""
    name = local_path.lower()
    return next((kind for suffix, kind in SUFFIXES.items() if name.endswith(suffix)), None)


def unpacked_path(local_path: str) -> str:
    """Return the folder that an archive is unpacked into: its own path without the archive's suffix.

    Raises:
        ValueError: there is no such folder; the message says why.
    """
    if local_path.startswith(_STAND_IN):
        return _STAND_IN + unpacked_path(local_path.removeprefix(_STAND_IN))
    name = local_path.lower()
    suffix = max((suffix for suffix in SUFFIXES if name.endswith(suffix)), key=len, default="")
    if not suffix:
        raise ValueError(f"is true, but this is no archive that can be unpacked; needed: {ARCHIVE_RULE}")
    folder = local_path[: -len(suffix)]
    try:
        return check_local_path(folder)
    except ValueError as error:
        raise ValueError(f"is true, but the folder '{safe_text(folder)}' {error}") from None


def member_path(name: str) -> str:
    """Return a member's name as a path: without ``./`` before it and ``/`` behind it; empty for the top folder."""
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    name = name.rstrip("/") if not name.startswith("/") else name
    return "" if name == "." else name


class Census:
    """Takes an archive's members one by one and refuses what is not safe. `close` judges them together.

    ``archive`` names it in errors; ``packed`` is its size in bytes.
    """

    def __init__(self, archive: str, packed: int, limits: Limits) -> None:
        self._archive = archive
        self._limits = limits
        self._most = min(limits.bytes, max(limits.ratio_free, limits.ratio * packed))
        self._packed = packed
        self._count = 0
        self._bytes = 0
        # By the key under which two names are one file somewhere: the path as it was, and what is there.
        self._places: dict[str, tuple[str, MemberKind]] = {}
        self._links: dict[str, str] = {}
        self._targets: dict[str, str] = {}
        """The same by the key of the link's path."""

    @property
    def links(self) -> Mapping[str, str]:
        """The symlinks admitted so far: path to target."""
        return self._links

    def admit(self, member: Member) -> bool:
        """Take a member; False for a folder that is there already. Raises `UnsafeArchive`."""
        self._count += 1
        if self._count > self._limits.members:
            raise self.refusal(f"has more than {self._limits.members:,} members")
        if member.path == "" and member.kind == "folder":
            return False
        self._check_path(member)
        if member.kind == "device":
            raise self._refused(member, "is a device, a pipe or something else that is no file")
        key = collision_key(member.path)
        self._take_parents(member)
        there = self._places.get(key)
        if there is not None:
            if there == (member.path, "folder") and member.kind == "folder":
                return False
            raise self._refused(member, f"is there twice, or clashes with '{safe_text(there[0])}'")
        if member.kind == "hardlink":
            self._check_hard_link(member)
        elif member.kind == "symlink":
            self._check_symlink(member)
            self._links[member.path] = self._targets[key] = member.target
        self._places[key] = (member.path, member.kind)
        if self._bytes + member.size > self._most:
            raise self._too_much()
        return True

    def count(self, size: int) -> None:
        """Take note of bytes that were unpacked. Raises `UnsafeArchive` past the limit."""
        self._bytes += size
        if self._bytes > self._most:
            raise self._too_much()

    def check_stream(self, position: int) -> None:
        """Refuse a decompressed stream that is longer than any content allowed, headers and all."""
        if position > self._most + 2048 * (self._count + 16) + MIB:
            raise self._too_much()

    def close(self) -> None:
        """Judge the symlinks now that all of them are known: none may lead out, by whatever way."""
        for path in self._links:
            self._follow(path)

    def refusal(self, reason: str) -> UnsafeArchive:
        """An error about the archive as a whole."""
        return UnsafeArchive(self._archive, reason if reason.startswith("its ") else f"it {reason}")

    def _refused(self, member: Member, reason: str) -> UnsafeArchive:
        return UnsafeArchive(self._archive, f"its member '{safe_text(member.path)}' {reason}")

    def _too_much(self) -> UnsafeArchive:
        if self._most == self._limits.bytes:
            return self.refusal(f"unpacks to more than {self._limits.bytes:,} bytes")
        return self.refusal(
            f"unpacks to more than {self._most:,} bytes from {self._packed:,}, which no honest archive does"
        )

    def _check_path(self, member: Member) -> None:
        if member.path.startswith("/"):
            raise self._refused(member, "has an absolute name")
        if member.path.count("/") >= MAX_DEPTH:
            raise self._refused(member, f"lies more than {MAX_DEPTH} folders deep")
        try:
            # Behind a folder of ours, so that names that are reserved at the top of the assets folder are free here.
            check_local_path(f"x/{member.path}")
        except ValueError as error:
            raise self._refused(member, str(error)) from None

    def _take_parents(self, member: Member) -> None:
        for parent in _parents(member.path):
            there = self._places.setdefault(collision_key(parent), (parent, "folder"))
            if there[1] != "folder":
                raise self._refused(member, f"lies behind '{safe_text(there[0])}', which is no folder")
            if there[0] != parent:
                raise self._refused(
                    member, f"clashes with '{safe_text(there[0])}' where case or form is not told apart"
                )

    def _check_hard_link(self, member: Member) -> None:
        if self._places.get(collision_key(member.target)) not in ((member.target, "file"), (member.target, "hardlink")):
            raise self._refused(member, "is a hard link to what is no earlier file of the archive")

    def _check_symlink(self, member: Member) -> None:
        target = member.target
        if not target or len(target) > 1024 or any(ord(char) < 32 for char in target):
            raise self._refused(member, "is a symlink with an unusable target")
        if target.startswith(("/", "~")) or "\\" in target or target[1:2] == ":":
            raise self._refused(member, "is a symlink that leads out of the archive")

    def _follow(self, path: str) -> None:
        """Walk the way a symlink leads, through other symlinks, as the kernel would: on any file system."""
        here = path.split("/")[:-1]
        ahead = self._links[path].split("/")[::-1]
        steps = 1
        while ahead:
            part = ahead.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if not here:
                    raise self.refusal(f"its member '{safe_text(path)}' is a symlink that leads out of the archive")
                here.pop()
                continue
            here.append(part)
            if (target := self._targets.get(collision_key("/".join(here)))) is not None:
                steps += 1
                if steps > MAX_STEPS:
                    raise self.refusal(f"its member '{safe_text(path)}' is a symlink that leads nowhere")
                here.pop()
                ahead.extend(target.split("/")[::-1])


def _parents(path: str) -> Iterator[str]:
    at = path.find("/")
    while at >= 0:
        yield path[:at]
        at = path.find("/", at + 1)
