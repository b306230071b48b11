"""What a git server sends: read within bounds, and named by what it is."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable
from itertools import pairwise

import pytest

from grym_fetch.sources import git_pack
from grym_fetch.sources.git_pack import GitFile, files_of, pack_in, packet, packets, read_pack, read_refs

OID = "4d" * 20


def made_of(change: bytes, base: bytes = b"abc") -> bytes:
    """A pack with an object and this change of it."""
    return packed(entry(3, base), entry(7, change, base=name_of("blob", base)))


def number(value: int) -> bytes:
    """A number as a change has it."""
    out = bytearray()
    while True:
        value, low = value >> 7, value & 127
        out.append(low | (128 if value else 0))
        if not value:
            return bytes(out)


def entry(kind: int, content: bytes, *, base: str = "", size: int | None = None) -> bytes:
    """An object in a pack."""
    size = len(content) if size is None else size
    head = bytearray([kind << 4 | size & 15])
    size >>= 4
    while size:
        head[-1] |= 128
        head.append(size & 127)
        size >>= 7
    return bytes(head) + bytes.fromhex(base) + zlib.compress(content)


def packed(*entries: bytes, count: int | None = None) -> bytes:
    """A pack."""
    data = b"PACK" + struct.pack(">II", 2, len(entries) if count is None else count) + b"".join(entries)
    return data + hashlib.sha1(data).digest()


def name_of(kind: str, content: bytes) -> str:
    """Git's name of an object."""
    return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content).hexdigest()


def tree(*entries: tuple[str, str, str]) -> bytes:
    """A folder: modes, names and objects."""
    return b"".join(f"{mode} {name}".encode() + b"\0" + bytes.fromhex(oid) for mode, name, oid in entries)


def commit_of(oid: str) -> bytes:
    """A commit of a folder."""
    return f"tree {oid}\nauthor a\n\nm\n".encode()


def test_objects_and_changes_of_objects() -> None:
    """Each is named by its content, whatever the order; a change names what it changes."""
    base, made = b"0123456789" * 30, b"0123456789NEW" + b"0123456789" * 30
    # Copy ten bytes from the beginning, three new ones, copy 300 from the beginning.
    change = number(300) + number(len(made)) + bytes([0x90, 10]) + b"\x03NEW" + bytes([0xB0, 300 & 255, 300 >> 8])
    pack = packed(entry(7, change, base=name_of("blob", base)), entry(3, base), entry(1, b"x" * 70_000))
    objects = read_pack(pack, "sha1")
    assert objects[name_of("blob", made)] == ("blob", made)
    assert objects[name_of("commit", b"x" * 70_000)] == ("commit", b"x" * 70_000)
    assert len(objects) == 3


def test_the_files_of_a_commit() -> None:
    """In folders, too; links and submodules are left out."""
    inner = tree(("100755", "b.bin", OID))
    outer = tree(
        ("40000", "a", name_of("tree", inner)), ("120000", "link", OID), ("160000", "sub", OID), ("100644", "c", OID)
    )
    commit = commit_of(name_of("tree", outer))
    objects = read_pack(packed(entry(1, commit), entry(2, outer), entry(2, inner)), "sha1")
    assert files_of(name_of("commit", commit), objects) == [GitFile("a/b.bin", OID), GitFile("c", OID)]


@pytest.mark.shows("C15")
@pytest.mark.parametrize(
    "pack",
    [
        b"",
        b"PACK",
        packed(entry(3, b"abc"))[:-1] + b"x",
        packed(entry(3, b"abc"), count=2),
        packed(count=git_pack.MAX_OBJECTS + 1),
        packed(entry(5, b"abc")),
        packed(entry(6, b"abc")),
        packed(entry(3, b"abc", size=2)),
        packed(entry(3, b"abc", size=4)),
        packed(entry(3, b"", size=git_pack.MAX_UNPACKED_BYTES + 1)),
        packed(b"\x33not zlib"),
        packed(b"\xb3" + b"\xff" * 20),
        packed(entry(7, number(3) + number(3) + b"\x03abc", base=OID)),
        made_of(number(4) + number(3) + b"\x03abc"),
        made_of(number(3) + number(4) + b"\x03abc"),
        made_of(number(3) + number(3) + b"\0"),
        made_of(number(3) + number(1 << 40) + b"\x90\x03" * 99),
        made_of(number(3) + number(9) + b"\xff\x01"),
        made_of(b"\xff" * 20),
        made_of(number(3) + number(3) + b"\x90\x04"),
    ],
)
def test_what_is_no_pack(pack: bytes) -> None:
    """It is refused, whatever it claims, and nothing else is raised."""
    with pytest.raises(ValueError, match=r"."):
        read_pack(pack, "sha1")


@pytest.mark.shows("C15")
def test_more_changes_than_a_commit_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes many steps, however little it makes: it is refused by its length, before the first step."""
    monkeypatch.setattr(git_pack, "MAX_CHANGES_BYTES", 4)
    with pytest.raises(ValueError, match="its changes are longer than 4 bytes"):
        read_pack(made_of(number(3) + number(1) + b"\x90\x01\x90"), "sha1")


@pytest.mark.shows("C15")
def test_a_change_that_takes_nothing_many_times() -> None:
    """What it takes is in the object that it changes; otherwise each byte of it could be a step that makes nothing."""
    with pytest.raises(ValueError, match="takes more of an object than it has"):
        read_pack(made_of(number(3) + number(0) + b"\x91\x03\x01" * 9), "sha1")


@pytest.mark.shows("C15")
def test_a_long_chain_of_changes_takes_one_look_at_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """In whatever order they come: otherwise a small pack of changes of changes would take hours."""
    applied: list[bytes] = []

    def count(change: bytes, base: bytes, room: int) -> bytes:
        applied.append(change)
        return real(change, base, room)

    real: Callable[[bytes, bytes, int], bytes] = git_pack._applied
    monkeypatch.setattr(git_pack, "_applied", count)
    contents = [b"%03d" % place for place in range(200)]
    changes = [
        entry(7, number(3) + number(3) + b"\x03" + new, base=name_of("blob", old)) for old, new in pairwise(contents)
    ]
    objects = read_pack(packed(*reversed(changes), entry(3, contents[0])), "sha1")
    assert [objects[name_of("blob", content)] for content in contents] == [("blob", content) for content in contents]
    assert len(applied) == len(changes)


@pytest.mark.shows("C15")
def test_paths_that_are_longer_than_the_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    """One folder with a long name is in the paths of all that is below: they are counted before they are kept."""
    monkeypatch.setattr(git_pack, "MAX_PATHS_CHARACTERS", 10_000)
    inner = tree(*(("100644", f"{n}", OID) for n in range(50)))
    outer = tree(("40000", "a" * 1000, name_of("tree", inner)))
    commit = commit_of(name_of("tree", outer))
    with pytest.raises(ValueError, match="more than 10,000 characters"):
        files_of(
            name_of("commit", commit), read_pack(packed(entry(1, commit), entry(2, outer), entry(2, inner)), "sha1")
        )


@pytest.mark.shows("C15")
def test_folders_that_name_each_other_many_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few objects can stand for more files than there are atoms: what they stand for is counted."""
    monkeypatch.setattr(git_pack, "MAX_TREE_ENTRIES", 1000)
    content = tree(("100644", "f", OID))
    objects = {name_of("tree", content): ("tree", content)}
    for _ in range(12):
        oid = name_of("tree", content)
        content = tree(("40000", "a", oid), ("40000", "b", oid))
        objects[name_of("tree", content)] = "tree", content
    commit = commit_of(name_of("tree", content))
    objects[name_of("commit", commit)] = "commit", commit
    with pytest.raises(ValueError, match="more than 1,000 files and folders"):
        files_of(name_of("commit", commit), objects)


@pytest.mark.parametrize(
    "objects",
    [
        {},
        {OID: ("blob", b"tree " + OID.encode() + b"\n")},
        {OID: ("commit", b"parent")},
        {OID: ("commit", commit_of("5e" * 20))},
        {OID: ("commit", commit_of("5e" * 20)), "5e" * 20: ("tree", b"100644 a")},
    ],
)
def test_what_is_no_commit(objects: dict[str, tuple[str, bytes]]) -> None:
    """A part that is missing, or that cannot be read."""
    with pytest.raises(ValueError, match=r"."):
        files_of(OID, objects)


def test_lines() -> None:
    """Each has its length in front; what separates them is told."""
    assert list(packets(packet("a") + b"0001" + packet("bc") + b"0000")) == [b"a\n", "0001", b"bc\n", "0000"]
    for wrong in (b"00", b"zzzz", b"0009abc", b"+005a"):
        with pytest.raises(ValueError, match=r"length|middle"):
            list(packets(wrong))


@pytest.mark.shows("C15")
def test_more_lines_than_any_answer_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty ones cost the server next to nothing."""
    monkeypatch.setattr(git_pack, "MAX_LINES", 3)
    assert len(list(packets(b"0004" * 3))) == 3
    with pytest.raises(ValueError, match="more than 3 lines"):
        list(packets(b"0004" * 4))


def test_refs() -> None:
    """A tag is the commit that it names; a symbolic name tells where it leads."""
    commit = "5e" * 20
    data = packet(f"{OID} HEAD symref-target:refs/heads/main") + packet(f"{OID} refs/tags/v1 peeled:{commit}") + b"0000"
    assert read_refs(data) == {"HEAD": (OID, "refs/heads/main"), "refs/tags/v1": (commit, "")}
    assert read_refs(packet(f"{'4d' * 32} HEAD")) == {"HEAD": ("4d" * 32, "")}
    for wrong in (f"{OID * 2} HEAD", "x", "unborn HEAD"):
        with pytest.raises(ValueError, match=r"."):
            read_refs(packet(wrong))


def test_a_pack_in_an_answer() -> None:
    """It is between what else the server says; a complaint is told."""
    data = (
        packet("shallow-info") + b"0001" + packet("packfile") + b"0007\x01PA" + b"0006\x02x" + b"0007\x01CK" + b"0000"
    )
    assert pack_in(data) == b"PACK"
    for wrong, reason in (
        (packet("ERR no such thing"), "no such thing"),
        (packet("packfile") + b"0008\x03bad", "bad"),
        (b"0000", "no pack in the answer"),
    ):
        with pytest.raises(ValueError, match=reason):
            pack_in(wrong)
