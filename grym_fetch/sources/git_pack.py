"""Reads what a git server sends: lines with their length, and packs of objects (gitprotocol-common, gitformat-pack).

Rules: everything is bounded, in memory and in time: what an answer stands for may be far larger than the answer. Each
object gets the name that its content has, so what a commit names cannot be changed on the way. Names are SHA-1 or
SHA-256, as their length tells. A `ValueError` means that the server has sent something else than a pack.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from grym_fetch.sources.answers import HubRefusal

MAX_UNPACKED_BYTES = 128 * 1024 * 1024
MAX_CHANGES_BYTES = 4 * 1024 * 1024
"""The most bytes of objects that are written as changes of others: each takes several steps to apply."""
MAX_OBJECTS = 200_000
MAX_LINES = 400_000
"""The most lines of one answer: a large pack takes a few hundred, and each name of a commit one."""
MAX_TREE_ENTRIES = 500_000
"""The most files and folders of one commit. A tree may name another one many times, so this is not the objects."""
MAX_PATHS_CHARACTERS = 64 * 1024 * 1024
"""The most characters of all paths of one commit: each folder's path is repeated in those below it."""
FLUSH, DELIMITER = b"0000", b"0001"
_PORTION_BYTES = 4096
_KINDS = {1: "commit", 2: "tree", 3: "blob", 4: "tag"}
_OFFSET_DELTA, _NAMED_DELTA = 6, 7
_LENGTH = re.compile(rb"[0-9a-f]{4}")
_OID = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class GitFile:
    """A file in a commit: its path, and the name of its content."""

    path: str
    oid: str


def is_commit_name(text: str) -> bool:
    """Whether this is the whole name of a commit."""
    return _OID.fullmatch(text) is not None


def hash_named_like(oid: str) -> str:
    """The hash that a repository uses, from the name of one of its objects."""
    return "sha1" if len(oid) == 40 else "sha256"


def packet(text: str) -> bytes:
    """A line with its length."""
    data = f"{text}\n".encode()
    return b"%04x%b" % (len(data) + 4, data)


def packets(data: bytes) -> Iterator[bytes | str]:
    """Yield the lines in an answer, as bytes, and what separates sections, as text."""
    at = count = 0
    while at < len(data):
        count += 1
        if count > MAX_LINES:
            raise ValueError(f"it has more than {MAX_LINES:,} lines")
        digits = data[at : at + 4]
        if not _LENGTH.fullmatch(digits):
            raise ValueError("the length of a line is not one")
        length = int(digits, 16)
        if length < 4:
            yield digits.decode()
            at += 4
            continue
        if at + length > len(data):
            raise ValueError("it ends in the middle of a line")
        yield data[at + 4 : at + length]
        at += length


def read_refs(data: bytes) -> dict[str, tuple[str, str]]:
    """Read the answer to ``ls-refs``: for each name, the commit, and where a symbolic one leads."""
    refs: dict[str, tuple[str, str]] = {}
    for line in packets(data):
        if isinstance(line, str):
            break
        _raise_refusal(line)
        oid, name, *more = line.decode("utf-8").rstrip("\n").split(" ")
        given = dict(each.partition(":")[::2] for each in more)
        oid = given.get("peeled", oid)  # the commit that a tag object names
        if not is_commit_name(oid):
            raise ValueError("the name of an object is neither a SHA-1 nor a SHA-256")
        refs[name] = oid, given.get("symref-target", "")
    return refs


def _complaint(words: bytes) -> HubRefusal:
    return HubRefusal(words.decode("utf-8", "replace").strip())


def _raise_refusal(line: bytes) -> None:
    if line.startswith(b"ERR "):
        raise _complaint(line[4:])


def pack_in(data: bytes) -> bytes:
    """Return the pack in the answer to ``fetch``. Raises `HubRefusal` if it refuses, else `ValueError`."""
    pack = bytearray()
    is_pack = False
    for line in packets(data):
        if isinstance(line, str):
            continue
        if not is_pack:
            _raise_refusal(line)
            is_pack = line.rstrip(b"\n") == b"packfile"
        elif line[:1] == b"\x01":
            pack += line[1:]
        elif line[:1] == b"\x03":
            raise _complaint(line[1:])
    if not is_pack:
        raise ValueError("there is no pack in the answer")
    return bytes(pack)


def read_pack(pack: bytes, hash_name: str) -> dict[str, tuple[str, bytes]]:
    """Return the kind and the content of each object, by its name, which is this hash of it."""
    try:
        return _Pack(hash_name).read(pack)
    except IndexError:
        raise ValueError("it ends in the middle of an object") from None


class _Pack:
    """The objects of one pack. ``room``: how many more bytes they may be unpacked to."""

    def __init__(self, hash_name: str) -> None:
        self._hash = hash_name
        self._room = MAX_UNPACKED_BYTES
        self._room_for_changes = MAX_CHANGES_BYTES
        self._objects: dict[str, tuple[str, bytes]] = {}
        self._changes: defaultdict[str, list[bytes]] = defaultdict(list)
        """What is still to be applied, by the name of the object that it changes."""

    def read(self, pack: bytes) -> dict[str, tuple[str, bytes]]:
        name_bytes = len(self._digest(b""))
        if pack[:8] != b"PACK\0\0\0\x02" or self._digest(pack[:-name_bytes]) != pack[-name_bytes:]:
            raise ValueError("it is not a pack, or a damaged one")
        count, at = int.from_bytes(pack[8:12]), 12
        if count > MAX_OBJECTS:
            raise ValueError(f"it has more than {MAX_OBJECTS:,} objects")
        for _ in range(count):
            kind, size, at = _entry_head(pack, at)
            base = ""
            if kind == _NAMED_DELTA:
                base, at = pack[at : at + name_bytes].hex(), at + name_bytes
            elif kind not in _KINDS:
                raise ValueError("it has an object of a kind that was not asked for")
            self._room -= size
            content, at = _inflated(pack, at, size, self._room)
            if base:
                self._room_for_changes -= size
                if self._room_for_changes < 0:
                    raise ValueError(f"its changes are longer than {MAX_CHANGES_BYTES:,} bytes")
                self._changes[base].append(content)
            else:
                self._keep(_KINDS[kind], content)
        self._apply_changes()
        return self._objects

    def _apply_changes(self) -> None:
        """Each once, as soon as what it changes is there: there may be as many changes of changes as objects."""
        due = [name for name in self._changes if name in self._objects]
        while due:
            base = due.pop()
            kind, content = self._objects[base]
            for change in self._changes.pop(base, ()):
                made = _applied(change, content, self._room)
                self._room -= len(made)
                name = self._keep(kind, made)
                if name in self._changes:
                    due.append(name)
        if self._changes:
            raise ValueError("it has a change of an object that is not there")

    def _keep(self, kind: str, content: bytes) -> str:
        name = self._digest(b"%b %d\0%b" % (kind.encode(), len(content), content)).hex()
        self._objects[name] = kind, content
        return name

    def _digest(self, data: bytes) -> bytes:
        return hashlib.new(self._hash, data, usedforsecurity=False).digest()


def files_of(commit: str, objects: dict[str, tuple[str, bytes]]) -> list[GitFile]:
    """Return the files of a commit: no links, no submodules. A byte that is not UTF-8 becomes half a surrogate pair."""
    kind, content = objects.get(commit, ("", b""))
    match = re.match(rb"tree ([0-9a-f]+)\n", content)
    if kind != "commit" or match is None:
        raise ValueError("the commit that was asked for is not in the pack")
    files: list[GitFile] = []
    folders = [("", match[1].decode())]
    name_bytes = len(commit) // 2
    seen = characters = 0
    while folders:
        prefix, oid = folders.pop()
        kind, content = objects.get(oid, ("", b""))
        if kind != "tree":
            raise ValueError("a folder is not in the pack")
        at = 0
        while at < len(content):
            end = content.index(b"\0", at)
            mode, _, name = content[at:end].partition(b" ")
            oid, at = content[end + 1 : end + 1 + name_bytes].hex(), end + 1 + name_bytes
            seen += 1
            if seen > MAX_TREE_ENTRIES:
                raise ValueError(f"it has more than {MAX_TREE_ENTRIES:,} files and folders")
            path = prefix + name.decode("utf-8", "surrogateescape")
            characters += len(path)
            if characters > MAX_PATHS_CHARACTERS:
                raise ValueError(f"its paths have more than {MAX_PATHS_CHARACTERS:,} characters")
            if mode == b"40000":
                folders.append((f"{path}/", oid))
            elif mode.startswith(b"100"):
                files.append(GitFile(path, oid))
    return sorted(files, key=lambda each: each.path)


def _entry_head(pack: bytes, at: int) -> tuple[int, int, int]:
    """Kind and size of an entry, and where it goes on."""
    byte = pack[at]
    kind, size, shift = byte >> 4 & 7, byte & 15, 4
    while byte & 128:
        at += 1
        byte = pack[at]
        size |= (byte & 127) << shift
        shift += 7
        if shift > 63:
            raise ValueError("the size of an object is not one")
    return kind, size, at + 1


def _inflated(pack: bytes, at: int, size: int, room: int) -> tuple[bytes, int]:
    if room < 0:
        raise ValueError(f"it is longer than {MAX_UNPACKED_BYTES:,} bytes")
    unpacker, content, rest = zlib.decompressobj(), bytearray(), memoryview(pack)
    try:
        while not unpacker.eof:
            # In portions: what follows an object is copied each time.
            if not (portion := rest[at : at + _PORTION_BYTES]):
                raise ValueError("it ends in the middle of an object")
            content += unpacker.decompress(portion, size + 1 - len(content))
            at += len(portion) - len(unpacker.unused_data) - len(unpacker.unconsumed_tail)
            if len(content) > size:
                break
    except zlib.error:
        raise ValueError("an object cannot be unpacked") from None
    if len(content) != size:
        raise ValueError("an object does not have the size that it states")
    return bytes(content), at


def _applied(delta: bytes, base: bytes, room: int) -> bytes:
    """Return what a change makes of an object (gitformat-pack, "Deltified representation")."""
    before, at = _number(delta, 0)
    size, at = _number(delta, at)
    if before != len(base) or size > room:
        raise ValueError("a change does not fit the object that it changes")
    made = bytearray()
    while at < len(delta):
        what, at = delta[at], at + 1
        if not what:
            raise ValueError("a change has a part of a kind that is not known")
        if what & 128:
            start = length = 0
            for bit in range(4):
                if what & 1 << bit:
                    start, at = start | delta[at] << 8 * bit, at + 1
            for bit in range(3):
                if what & 16 << bit:
                    length, at = length | delta[at] << 8 * bit, at + 1
            stop = start + (length or 0x10000)
            if stop > len(base):
                raise ValueError("a change takes more of an object than it has")
            made += base[start:stop]
        else:
            made += delta[at : at + what]
            at += what
        if len(made) > size:
            break
    if len(made) != size:
        raise ValueError("a change does not give the size that it states")
    return bytes(made)


def _number(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte, at = data[at], at + 1
        number |= (byte & 127) << shift
        shift += 7
        if not byte & 128:
            return number, at
        if shift > 63:
            raise ValueError("a size is not one")
