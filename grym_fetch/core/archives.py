"""What an archive that is unpacked next to itself may hold: names, links, and how much.

Rules: nothing in an archive is trusted. A member's path is one that an asset could have (see `grym_fetch.core.paths`);
no two members share a path, on any file system; links stay inside, and no member's path goes through one; devices,
pipes and anything that git would take for a repository are refused. Anything doubtful is refused, never repaired, and
one bad member means that the whole archive is refused.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from grym_fetch.core.errors import UnsafeArchive
from grym_fetch.core.git_folders import BESIDE_HEAD, HEAD, makes_a_repository, needed_of
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
"""The deepest nesting of folders."""
MAX_STEPS = 40
"""The most links that are followed in a chain, as in Linux."""
MAX_LINK_DEPTH = 2 * MAX_DEPTH + MAX_STEPS
"""The deepest nesting of folders on the way that a link leads."""
PLACE_BYTES = 700
"""Bytes of memory that a member takes besides its name, until the tree is recorded; measured, and rounded up."""
IMPLIED_FOLDER_BYTES = 4096
"""Added for a folder without a member of its own: it takes a disk block, and one name may imply a hundred."""
_NAME_COST = 2
"""How many copies of a name, or of its key, are held. A single wide character makes the whole string wide."""
_LOOK_EVERY = 1024
"""How many links are checked between two looks at the stop flag."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an archive may hold. ``ratio`` is unpacked to packed bytes, and applies beyond ``ratio_free`` bytes.

    ``memory`` is how much the list of members may take, in bytes; a large archive may take ``memory_ratio`` times its
    own size instead, since an honest archive with a million members is large.
    """

    members: int = 1_000_000
    bytes: int = 64 * 1024 * MIB
    ratio: int = 200
    ratio_free: int = 64 * MIB
    memory: int = 48 * MIB
    memory_ratio: int = 4


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of an archive, as the archive describes it. ``path`` has no leading ``./`` and no trailing ``/``.

    ``size`` in bytes; ``target`` is where a link leads; of the mode, only ``is_executable`` is kept.
    """

    path: str
    kind: MemberKind
    size: int = 0
    target: str = ""
    is_executable: bool = False


def archive_kind(local_path: str) -> ArchiveKind | None:
    """Return what kind of archive a file of this name is; None if it cannot be unpacked."""
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
    """Return a member's name as a path, without leading ``./`` and trailing ``/``; empty for the top folder."""
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    name = name.rstrip("/") if not name.startswith("/") else name
    return "" if name == "." else name


class Census:
    """Checks an archive's members one by one and refuses what is not safe. `close` judges them together.

    ``archive`` names it in errors; ``packed`` is its size in bytes. ``check_stopped`` is called often during long work
    that yields no member; it raises if the caller no longer wants the tree.
    """

    def __init__(
        self, archive: str, packed: int, limits: Limits, check_stopped: Callable[[], None] = lambda: None
    ) -> None:
        self._archive = archive
        self._limits = limits
        self.packed = packed
        self.check_stopped = check_stopped
        self._most_memory = max(limits.memory, limits.memory_ratio * packed)
        self._memory = 0
        self._most = min(limits.bytes, max(limits.ratio_free, limits.ratio * packed))
        self._count = 0
        self._bytes = 0
        # By collision key, under which some file system would see one file: the original path, and the kind of member.
        self._places: dict[str, tuple[str, MemberKind]] = {}
        self._heads: list[str] = []
        """The keys of all members named ``HEAD``."""
        self._links: dict[str, str] = {}
        self._targets: dict[str, str] = {}
        """The same, by the key of the link's path."""

    @property
    def links(self) -> Mapping[str, str]:
        """The symlinks admitted so far: path to target."""
        return self._links

    def admit(self, member: Member) -> bool:
        """Accept a member; False for a folder that is there already. Raises `UnsafeArchive`."""
        self._count += 1
        if self._count > self._limits.members:
            raise self.refusal(f"has more than {self._limits.members:,} members")
        if member.path == "" and member.kind == "folder":
            return False
        self._check_path(member)
        if member.kind == "device":
            raise self._refused(member, "is a device, a pipe or something else that is no file")
        key = collision_key(member.path)
        self._take_parents(member, key)
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
        self._take_place(key, member.path, member.kind)
        self._charge(_NAME_COST * sys.getsizeof(member.target))
        if self._bytes + member.size > self._most:
            raise self._too_much()
        return True

    def count(self, size: int) -> None:
        """Count unpacked bytes. Raises `UnsafeArchive` past the limit."""
        self._bytes += size
        if self._bytes > self._most:
            raise self._too_much()

    def check_directory(self, entries: int, size: int) -> None:
        """Refuse a list of members that would take too much memory, before it is made. ``size`` in bytes."""
        if entries > self._limits.members:
            raise self.refusal(f"has more than {self._limits.members:,} members")
        if size + entries * PLACE_BYTES > self._most_memory:
            raise self._too_large_a_list()

    def check_stream(self, position: int) -> None:
        """Refuse a stream that, headers included, is longer than any allowed content. Also checks the stop flag."""
        self.check_stopped()
        if position > self._most + 2048 * (self._count + 16) + MIB:
            raise self._too_much()

    def close(self) -> None:
        """Judge the members together, now that all of them are known.

        No folder may be a git repository, and no symlink may lead out of the tree, directly or not. The work grows with
        the length of the links' targets: each is followed once, and its end is remembered.
        """
        for head in self._heads:
            self._check_git_folder(head)
        ways = _Ways(self._targets)
        for number, path in enumerate(self._links):
            if number % _LOOK_EVERY == 0:
                self.check_stopped()
            try:
                ways.end_of(collision_key(path))
            except ValueError as error:
                raise self.refusal(f"its member '{safe_text(path)}' is a symlink that {error}") from None

    def refusal(self, reason: str) -> UnsafeArchive:
        """An error about the archive as a whole."""
        return UnsafeArchive(self._archive, reason if reason.startswith("its ") else f"it {reason}")

    def _refused(self, member: Member, reason: str) -> UnsafeArchive:
        return UnsafeArchive(self._archive, f"its member '{safe_text(member.path)}' {reason}")

    def _too_much(self) -> UnsafeArchive:
        if self._most == self._limits.bytes:
            return self.refusal(f"unpacks to more than {self._limits.bytes:,} bytes")
        return self.refusal(
            f"unpacks to more than {self._most:,} bytes from {self.packed:,}, which no honest archive does"
        )

    def _check_path(self, member: Member) -> None:
        if member.path.startswith("/"):
            raise self._refused(member, "has an absolute name")
        if member.path.count("/") > MAX_DEPTH:
            raise self._refused(member, f"lies more than {MAX_DEPTH} folders deep")
        try:
            # Below a made-up folder, so that names reserved at the top of the assets folder are allowed here.
            check_local_path(f"x/{member.path}")
        except ValueError as error:
            raise self._refused(member, str(error)) from None

    def _take_parents(self, member: Member, key: str) -> None:
        # The key of a folder is the beginning of the member's key: no rule for keys crosses a "/".
        for parent, parent_key in zip(_parents(member.path), _parents(key), strict=True):
            there = self._places.get(parent_key)
            if there is None:
                self._take_place(parent_key, parent, "folder")
                self._charge(IMPLIED_FOLDER_BYTES)
                continue
            if there[1] != "folder":
                raise self._refused(member, f"lies behind '{safe_text(there[0])}', which is no folder")
            if there[0] != parent:
                raise self._refused(
                    member, f"clashes with '{safe_text(there[0])}' where case or form is not told apart"
                )

    def _take_place(self, key: str, path: str, kind: MemberKind) -> None:
        if len(self._places) >= self._limits.members:
            raise self.refusal(f"has more than {self._limits.members:,} files and folders")
        self._places[key] = (path, kind)
        if kind != "folder" and key[-len(HEAD) :] == HEAD and key.rpartition("/")[2] == HEAD:
            self._heads.append(key)
        self._charge(PLACE_BYTES + _NAME_COST * (sys.getsizeof(path) + sys.getsizeof(key)))

    def _charge(self, size: int) -> None:
        self._memory += size
        if self._memory > self._most_memory:
            raise self._too_large_a_list()

    def _too_large_a_list(self) -> UnsafeArchive:
        return self.refusal("has more members, or longer names, than an honest archive of its size")

    def _check_git_folder(self, head: str) -> None:
        above = head[: -len(HEAD)]
        there = {name: self._places[above + name][0] for name in BESIDE_HEAD if above + name in self._places}
        if needed := needed_of(there):
            shown = safe_text(self._places[head][0])
            raise self.refusal(f"its member '{shown}' {makes_a_repository(there[name] for name in needed)}")

    def _check_hard_link(self, member: Member) -> None:
        if self._places.get(collision_key(member.target)) not in ((member.target, "file"), (member.target, "hardlink")):
            raise self._refused(member, "is a hard link to what is no earlier file of the archive")

    def _check_symlink(self, member: Member) -> None:
        target = member.target
        if not target or len(target) > 1024 or any(ord(char) < 32 for char in target):
            raise self._refused(member, "is a symlink with an unusable target")
        if target.startswith(("/", "~")) or "\\" in target or target[1:2] == ":":
            raise self._refused(member, "is a symlink that leads out of the archive")


Place = tuple[int, int]
"""A point on the way: a node in the tree of links, and the number of folders below it that contain no link."""


class _Ways:
    """Follows symlinks, through other symlinks, as the kernel would on any file system.

    ``targets`` says where each link leads, by the key of its path.
    """

    def __init__(self, targets: Mapping[str, str]) -> None:
        self._children: dict[tuple[int, str], int] = {}
        self._parents = [0]
        self._depths = [0]
        self._leading: dict[int, str] = {}
        self._ends: dict[int, tuple[Place, int]] = {}
        self._nodes: dict[str, int] = {}
        for key, target in targets.items():
            node = 0
            for part in key.split("/"):
                node = self._child(node, part)
            self._leading[node] = target
            self._nodes[key] = node

    def _child(self, node: int, part: str) -> int:
        child = self._children.setdefault((node, part), len(self._parents))
        if child == len(self._parents):
            self._parents.append(node)
            self._depths.append(self._depths[node] + 1)
        return child

    def end_of(self, key: str) -> tuple[Place, int]:
        """Where the link with this key ends, and how many links were followed.

        Raises:
            ValueError: it leads outside, or nowhere; the message continues "a symlink that …".
        """
        return self._follow(self._nodes[key], 1)

    def _follow(self, link: int, depth: int) -> tuple[Place, int]:
        if (known := self._ends.get(link)) is not None:
            return known
        if depth > MAX_STEPS:
            raise ValueError("leads nowhere")
        steps = 1
        node, below = self._parents[link], 0
        for part in self._leading[link].split("/"):
            if part in ("", "."):
                continue
            if part == "..":
                if below:
                    below -= 1
                elif node:
                    node = self._parents[node]
                else:
                    raise ValueError("leads out of the archive")
                continue
            child = None if below else self._children.get((node, collision_key(part)))
            if child is None:
                below += 1
            elif child in self._leading:
                (node, below), more = self._follow(child, depth + 1)
                steps += more
            else:
                node = child
            if steps > MAX_STEPS or self._depths[node] + below > MAX_LINK_DEPTH:
                raise ValueError("leads nowhere")
        self._ends[link] = ((node, below), steps)
        return self._ends[link]


def _parents(path: str) -> Iterator[str]:
    at = path.find("/")
    while at >= 0:
        yield path[:at]
        at = path.find("/", at + 1)
