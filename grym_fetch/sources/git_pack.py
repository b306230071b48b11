"""Reads what a git server sends: lines with their length, and packs of objects (gitprotocol-common, gitformat-pack).

Rules: everything is bounded. Each object gets the name that its content has, so what a commit names cannot be changed
on the way. A `ValueError` means that the server has sent something else than a pack.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

MAX_UNPACKED_BYTES = 128 * 1024 * 1024
MAX_OBJECTS = 500_000
MAX_TREE_ENTRIES = 500_000
"""The most files and folders of one commit. A tree may name another one many times, so this is not the objects."""
FLUSH, DELIMITER = b"0000", b"0001"
_PORTION_BYTES = 4096
_KINDS = {1: "commit", 2: "tree", 3: "blob", 4: "tag"}
_OFFSET_DELTA, _NAMED_DELTA = 6, 7
_OID = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class GitFile:
    """A file in a commit: its path, and the name of its content."""

    path: str
    oid: str


def packet(text: str) -> bytes:
    """A line with its length."""
    data = f"{text}\n".encode()
    return b"%04x%b" % (len(data) + 4, data)


def packets(data: bytes) -> Iterator[bytes | str]:
    """Yield the lines in an answer, as bytes, and what separates sections, as text."""
    at = 0
    while at < len(data):
        digits = data[at : at + 4]
        if not re.fullmatch(rb"[0-9a-f]{4}", digits):
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
        oid, name, *more = line.decode("utf-8").rstrip("\n").split(" ")
        given = dict(each.partition(":")[::2] for each in more)
        oid = given.get("peeled", oid)  # the commit that a tag object names
        if not _OID.fullmatch(oid):
            raise ValueError(
                "the name of an object is not 40 hex digits: other kinds of repositories are not supported"
            )
        refs[name] = oid, given.get("symref-target", "")
    return refs


def pack_in(data: bytes) -> bytes:
    """Return the pack in the answer to ``fetch``. Raises `ValueError`, with what the server says if it refuses."""
    pack = bytearray()
    is_pack = False
    for line in packets(data):
        if isinstance(line, str):
            continue
        if not is_pack:
            if line.startswith(b"ERR "):
                raise ValueError(f"the server says: {line[4:].decode('utf-8', 'replace').strip()}")
            is_pack = line.rstrip(b"\n") == b"packfile"
        elif line[:1] == b"\x01":
            pack += line[1:]
        elif line[:1] == b"\x03":
            raise ValueError(f"the server says: {line[1:].decode('utf-8', 'replace').strip()}")
    if not is_pack:
        raise ValueError("there is no pack in the answer")
    return bytes(pack)


def read_pack(pack: bytes) -> dict[str, tuple[str, bytes]]:
    """Return the kind and the content of each object, by its name."""
    try:
        return _read_pack(pack)
    except IndexError:
        raise ValueError("it ends in the middle of an object") from None


def _read_pack(pack: bytes) -> dict[str, tuple[str, bytes]]:
    if pack[:8] != b"PACK\0\0\0\x02" or hashlib.sha1(pack[:-20], usedforsecurity=False).digest() != pack[-20:]:
        raise ValueError("it is not a pack, or a damaged one")
    count, at, room = int.from_bytes(pack[8:12]), 12, MAX_UNPACKED_BYTES
    if count > MAX_OBJECTS:
        raise ValueError(f"it has more than {MAX_OBJECTS:,} objects")
    objects: dict[str, tuple[str, bytes]] = {}
    deltas: list[tuple[str, bytes]] = []
    for _ in range(count):
        kind, size, at = _entry_head(pack, at)
        base = ""
        if kind == _NAMED_DELTA:
            base, at = pack[at : at + 20].hex(), at + 20
        elif kind not in _KINDS:
            raise ValueError("it has an object of a kind that was not asked for")
        room -= size
        content, at = _inflated(pack, at, size, room)
        if base:
            deltas.append((base, content))
        else:
            _keep(objects, _KINDS[kind], content)
    while deltas:
        waiting = []
        for base, delta in deltas:
            if base not in objects:
                waiting.append((base, delta))
                continue
            of_kind, content = objects[base]
            made = _applied(delta, content, room)
            room -= len(made)
            _keep(objects, of_kind, made)
        if len(waiting) == len(deltas):
            raise ValueError("it has a change of an object that is not there")
        deltas = waiting
    return objects


def files_of(commit: str, objects: dict[str, tuple[str, bytes]]) -> list[GitFile]:
    """Return the files of a commit: no links, no submodules."""
    kind, content = objects.get(commit, ("", b""))
    match = re.match(rb"tree ([0-9a-f]{40})\n", content)
    if kind != "commit" or match is None:
        raise ValueError("the commit that was asked for is not in the pack")
    files: list[GitFile] = []
    folders = [("", match[1].decode())]
    seen = 0
    while folders:
        prefix, oid = folders.pop()
        kind, content = objects.get(oid, ("", b""))
        if kind != "tree":
            raise ValueError("a folder is not in the pack")
        at = 0
        while at < len(content):
            end = content.index(b"\0", at)
            mode, _, name = content[at:end].partition(b" ")
            oid, at = content[end + 1 : end + 21].hex(), end + 21
            seen += 1
            if seen > MAX_TREE_ENTRIES:
                raise ValueError(f"it has more than {MAX_TREE_ENTRIES:,} files and folders")
            path = prefix + name.decode("utf-8")
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
            made += base[start : start + (length or 0x10000)]
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


def _keep(objects: dict[str, tuple[str, bytes]], kind: str, content: bytes) -> None:
    name = hashlib.sha1(b"%b %d\0%b" % (kind.encode(), len(content), content), usedforsecurity=False).hexdigest()
    objects[name] = kind, content
