"""Archives that are small but costly: each is refused or unpacked at the cost of its bytes, and can be stopped."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from grym_fetch.archive.reader import Stopped
from grym_fetch.archive.unpack import ensure_unpacked
from grym_fetch.core.archives import MIB, Limits
from grym_fetch.core.errors import UnsafeArchive
from grym_fetch.core.tar_headers import MAX_EXTENDED_BYTES, MAX_NAME_BYTES
from grym_fetch.testing import seeded_bytes
from tests.support.archives import zip_of
from tests.support.sweeps import typical

END = bytes(1024)
BESIDE_THE_WINDOW = 64 * MIB
CPU_SECONDS = 20
"""Each takes a second or two; what these archives did to ``tarfile`` takes minutes."""


def block(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", target: str = "", size: int = -1) -> bytes:
    """One header block and its content, padded."""
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, target, len(content) if size < 0 else size
    return made.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def record(keyword: str, value: str) -> bytes:
    """One record of a pax header."""
    body = f" {keyword}={value}\n".encode()
    length = len(body)
    while length != len(body) + len(str(length)):
        length = len(body) + len(str(length))
    return str(length).encode() + body


def pax(*records: tuple[str, str], kind: bytes = tarfile.XHDTYPE) -> bytes:
    """An extended header."""
    return block("pax", kind, b"".join(record(*each) for each in records))


def sparse_block(extended: int) -> bytes:
    """A member in GNU's old sparse format, whose map goes on for this many blocks."""
    head = bytearray(block("sparse", tarfile.GNUTYPE_SPARSE))
    entry = b"%011o\0%011o\0" % (1, 1)
    head[386 : 386 + 4 * 24] = entry * 4
    head[482] = 1
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head[:512])
    more = (entry * 21).ljust(512, b"\1")
    return bytes(head) + more * extended + (entry * 21).ljust(512, b"\0")


def deep(number: int) -> str:
    """A path of a hundred folders that no other such path has."""
    return f"{number}/" + "d/" * 98 + "f"


def wide_name(number: int) -> bytes:
    """A name that takes six times as many bytes in JSON as it has letters."""
    return ("é" * 120 + f"{number}").encode()


def long_name(number: int) -> bytes:
    """A name of eight hundred bytes."""
    return b"n" * 200 + b"/" + b"n" * 200 + b"/" + b"n" * 200 + b"/" + b"%0200d" % number


TARS: dict[str, Callable[[], bytes]] = {
    "digits in an extended header": lambda: block("pax", tarfile.XHDTYPE, b"9" * MIB) + block("a") + END,
    "digits before a keyword": lambda: (
        b"".join(block("pax", tarfile.XGLTYPE, b"1" * 200_000) for _ in range(20)) + block("a") + END
    ),
    "records without end": lambda: block("pax", tarfile.XHDTYPE, b"5 a=\n" * 200_000) + block("a") + END,
    "a sparse map of pax": lambda: pax(("GNU.sparse.map", ",".join(["1"] * 400_000))) + block("a") + END,
    "a sparse map of pax 1.0": lambda: (
        pax(("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0")) + block("a", content=b"9" * 500 + b"\n") + END
    ),
    "a sparse map of GNU": lambda: sparse_block(20_000) + END,
    "one global header and many members": lambda: (
        pax(*((f"k{n}", "v" * 200) for n in range(4000)), kind=tarfile.XGLTYPE)
        + b"".join(block(f"f{n}") for n in range(20))
        + END
    ),
    "a global header that names": lambda: pax(("path", "a"), kind=tarfile.XGLTYPE) + block("b") + END,
    "headers of headers": lambda: block("l", tarfile.GNUTYPE_LONGNAME, b"a\0") * 10_000 + block("a") + END,
    "long targets": lambda: (
        b"".join(block(f"{n}", tarfile.SYMTYPE, target="a/" * 49) for n in range(50_000)) + block("a") + END
    ),
    "a target of a megabyte": lambda: (
        block("l", tarfile.GNUTYPE_LONGLINK, b"a" * (MIB - 1)) + block("a", tarfile.SYMTYPE) + END
    ),
    "ways through each other": lambda: (
        b"".join(
            block("l", tarfile.GNUTYPE_LONGLINK, b"/".join([b"a/.."] * 200) + f"/{n + 1}".encode())
            + block(f"{n}", tarfile.SYMTYPE)
            for n in range(5000)
        )
        + END
    ),
    "folders that nobody asked for": lambda: b"".join(block(deep(n)) for n in range(2000)) + END,
    "wide names": lambda: (
        b"".join(block("l", tarfile.GNUTYPE_LONGNAME, wide_name(n)) + block("") for n in range(45_000)) + END
    ),
    "empty members": lambda: (
        b"".join(block("l", tarfile.GNUTYPE_LONGNAME, long_name(n)) + block("") for n in range(12_000)) + END
    ),
}


def empty_directory_entries() -> bytes:
    """A zip whose directory has 1.4 million entries of 47 bytes."""
    entry = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    directory = entry * 1_400_000
    size = len(directory)
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1_400_000, 1_400_000, size, 0)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, size, 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return directory + end64 + locator + end


def shared_bytes() -> bytes:
    """A zip of a thousand members that all share the same bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("kernel", seeded_bytes(300_000, seed=1))
        (first,) = made.filelist
        for number in range(1000):
            twin = zipfile.ZipInfo(f"k{number:04}")
            for name in ("compress_type", "CRC", "compress_size", "file_size", "header_offset", "external_attr"):
                setattr(twin, name, getattr(first, name))
            made.filelist.append(twin)
    return out.getvalue()


def greedy_lzma() -> bytes:
    """A zip whose member asks for a dictionary of 4 GiB."""
    data = bytearray(zip_of({"a": b"x" * 1000}, method=zipfile.ZIP_LZMA))
    at = data.index(b"\x09\x04\x05\x00")
    data[at + 5 : at + 9] = b"\xff" * 4
    return bytes(data)


def wide_window() -> bytes:
    """A Zstandard frame that asks for a window of 2 GiB."""
    # RFC 8878 section 3.1.1: magic, descriptor, exponent 21 in the window byte, an empty last block.
    return b"\x28\xb5\x2f\xfd" + bytes([0, 21 << 3]) + b"\1\0\0"


OTHERS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "a directory of a million entries": ("zip", empty_directory_entries),
    "members that share their bytes": ("zip", shared_bytes),
    "a dictionary of 4 GiB": ("zip", greedy_lzma),
    "a member of zeros": ("zip", lambda: zip_of({"a": bytes(70 * MIB)})),
    "deep folders in a zip": (
        "zip",
        lambda: zip_of({deep(n): b"" for n in range(5000)}, method=zipfile.ZIP_STORED),
    ),
    "a window of 2 GiB": ("tar.zst", wide_window),
    "nothing, a hundred thousand times": ("tar.gz", lambda: gzip.compress(b"", mtime=0) * 100_000),
    "no frames": ("tar.zst", lambda: zstandard.compress(b"") * 300_000),
    "a name in a gzip header": ("tar.gz", lambda: b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * (20 * MIB)),
}

PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "tar.gz": lambda data: gzip.compress(data, 1, mtime=0),
    "tar.zst": zstandard.compress,
}
ONLY_WHERE_PACKED = {"long targets", "empty members", "wide names"}
"""These are large themselves, and so are their members."""
UNPACKED = {"one global header and many members", "headers of headers"}
"""Archives that cost nothing, and so do not concern us."""

UNPACK_AND_MEASURE = """
import json, resource, sys
from pathlib import Path
from grym_fetch.archive.unpack import ensure_unpacked
from grym_fetch.core.errors import UnsafeArchive

root, seconds, found = Path(sys.argv[1]), int(sys.argv[2]), {}

def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024

for folder in sorted(root.iterdir()):
    (archive,) = folder.iterdir()
    Path("/proc/self/clear_refs").write_text("5")
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    resource.setrlimit(resource.RLIMIT_CPU, (int(used) + seconds, resource.RLIM_INFINITY))
    print(folder.name, file=sys.stderr, flush=True)
    before, refused = peak(), ""
    try:
        ensure_unpacked(folder, archive.name, "sha256:" + "1" * 64, archive)
    except UnsafeArchive as error:
        refused = str(error)
    found[folder.name] = [peak() - before, refused]
print(json.dumps(found))
"""


@pytest.fixture
def quick_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory if there is one: thousands of folders are made, and their cost is not what is measured."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.mark.posix
@pytest.mark.parametrize("ending", typical(["zip", "tar", "tar.gz", "tar.zst"], "tar.gz"))
@pytest.mark.shows("S4")
def test_what_an_archive_costs(quick_folder: Path, ending: str) -> None:
    """Whatever an archive of a few megabytes claims: at most 64 MiB beside the window, and time only for its bytes."""
    bombs = {name: made for name, (kind, made) in OTHERS.items() if kind == ending}
    if (packing := PACKINGS.get(ending)) and ending != "tar.gz":  # it is read like the other two
        for name, tar in TARS.items():
            if ending != "tar" or name not in ONLY_WHERE_PACKED:
                bombs[name] = lambda tar=tar: packing(tar())  # type: ignore[misc]  # a default is not a parameter
    for name, made in bombs.items():
        (quick_folder / name).mkdir()
        (quick_folder / name / f"a.{ending}").write_bytes(made())
    command = [sys.executable, "-c", UNPACK_AND_MEASURE, str(quick_folder), str(CPU_SECONDS)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"the last one took too long, or failed: {ended.stderr}"
    costs = json.loads(ended.stdout)
    assert {name for name, (memory, _) in costs.items() if memory > BESIDE_THE_WINDOW} == set()
    assert {name for name, (_, refused) in costs.items() if not refused} == UNPACKED & bombs.keys()


STOPPABLE: dict[str, tuple[str, Callable[[], bytes]]] = {
    "global headers": ("tar.gz", lambda: gzip.compress(pax(("a", "b" * 9000), kind=tarfile.XGLTYPE) * 900 + END)),
    "no frames": ("tar.zst", lambda: zstandard.compress(b"") * 30_000),
    "no members": ("tar.gz", lambda: gzip.compress(b"") * 30_000),
    "padding": ("tar.gz", lambda: gzip.compress(block("a") + END + seeded_bytes(MIB, seed=1))),
}


@pytest.mark.shows("S4")
def test_a_wide_window_is_refused(tmp_path: Path) -> None:
    """A frame may request at most 128 MiB of memory (RFC 8878 section 3.1.1.1.2)."""
    (tmp_path / "a.tar.zst").write_bytes(wide_window())
    with pytest.raises(UnsafeArchive, match="ZstdError"):
        ensure_unpacked(tmp_path, "a.tar.zst", None, tmp_path / "a.tar.zst")


@pytest.mark.parametrize("kind", STOPPABLE)
@pytest.mark.shows("S4")
def test_an_archive_that_gives_nothing_can_be_left(tmp_path: Path, kind: str) -> None:
    """The stop flag is checked while headers are read, not only between members."""
    ending, made = STOPPABLE[kind]
    (tmp_path / f"a.{ending}").write_bytes(made())
    answers = iter([False] * 10)
    with pytest.raises(Stopped):
        ensure_unpacked(tmp_path, f"a.{ending}", None, tmp_path / f"a.{ending}", is_stopped=lambda: next(answers, True))
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("kind", STOPPABLE)
@pytest.mark.shows("S4")
def test_a_comparison_that_finds_nothing_can_be_left(tmp_path: Path, kind: str) -> None:
    """Comparing such an archive with the existing tree can be stopped, too; the tree stays as it is."""
    ending, made = STOPPABLE[kind]
    (tmp_path / f"a.{ending}").write_bytes(made())
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "a").touch()
    answers = iter([False] * 10)
    with pytest.raises(Stopped):
        ensure_unpacked(tmp_path, f"a.{ending}", None, tmp_path / f"a.{ending}", is_stopped=lambda: next(answers, True))
    assert os.listdir(tmp_path / "a") == ["a"]
    assert not (tmp_path / ".grym-fetch").exists()


@pytest.mark.parametrize(
    ("kind", "most"),
    [
        (tarfile.XHDTYPE, MAX_EXTENDED_BYTES),
        (tarfile.XGLTYPE, MAX_EXTENDED_BYTES),
        (tarfile.GNUTYPE_LONGNAME, MAX_NAME_BYTES),
        (tarfile.GNUTYPE_LONGLINK, MAX_NAME_BYTES),
    ],
)
@pytest.mark.shows("S4")
def test_no_header_is_longer_than_any_real_one(tmp_path: Path, kind: bytes, most: int) -> None:
    """It is refused by its claimed length, before any of it is read."""
    (tmp_path / "a.tar").write_bytes(block("pax", kind, size=most + 1))
    with pytest.raises(UnsafeArchive, match="an absurdly long header"):
        ensure_unpacked(tmp_path, "a.tar", None, tmp_path / "a.tar")


def test_a_header_of_the_greatest_length_is_read(tmp_path: Path) -> None:
    """Up to there it is as good as any other."""
    longest = pax(("comment", "x" * (MAX_EXTENDED_BYTES - len(record("comment", "")) - 5)))
    assert f"{MAX_EXTENDED_BYTES:011o}".encode() in longest[:512]
    (tmp_path / "a.tar").write_bytes(longest + block("a") + END)
    ensure_unpacked(tmp_path, "a.tar", None, tmp_path / "a.tar")
    assert os.listdir(tmp_path / "a") == ["a"]


def test_a_tar_from_before_ustar(tmp_path: Path) -> None:
    """There, a slash at the end tells a folder from a file; in ustar the type does, and a slash means nothing."""
    blocks = block("f", tarfile.AREGTYPE, b"1") + block("d/", tarfile.AREGTYPE) + block("g/", content=b"2")
    (tmp_path / "a.tar").write_bytes(blocks + END)
    ensure_unpacked(tmp_path, "a.tar", None, tmp_path / "a.tar")
    assert (tmp_path / "a" / "f").read_bytes() == b"1"
    assert (tmp_path / "a" / "d").is_dir()
    assert (tmp_path / "a" / "g").read_bytes() == b"2"


@pytest.mark.parametrize("made", [lambda: sparse_block(1), lambda: pax(("GNU.sparse.major", "1")) + block("a")])
@pytest.mark.shows("S4")
def test_a_sparse_member_is_refused(tmp_path: Path, made: Callable[[], bytes]) -> None:
    """In either format: its map is read by nobody, and the error says how to make the archive instead."""
    (tmp_path / "a.tar").write_bytes(made() + block("b") + END)
    with pytest.raises(UnsafeArchive, match="make it without --sparse"):
        ensure_unpacked(tmp_path, "a.tar", None, tmp_path / "a.tar")


@pytest.mark.parametrize("damage", ["cut at a member's end", "a damaged header", "a lone header"])
@pytest.mark.parametrize("ending", PACKINGS)
@pytest.mark.shows("S5")
def test_a_tar_without_its_end(tmp_path: Path, ending: str, damage: str) -> None:
    """A tar that is cut where a member ends, or has a damaged header, is refused on each version of Python."""
    whole = block("a", content=b"x" * 600) + block("b", content=b"y" * 600) + END
    data = {
        "cut at a member's end": whole[: 3 * 512],
        "a damaged header": whole[: 3 * 512] + b"\xff" + whole[3 * 512 + 1 :],
        "a lone header": block("l", tarfile.GNUTYPE_LONGNAME, b"a\0") + END,
    }[damage]
    (tmp_path / f"a.{ending}").write_bytes(PACKINGS[ending](data))
    with pytest.raises(UnsafeArchive, match=r"cut off|damaged"):
        ensure_unpacked(tmp_path, f"a.{ending}", None, tmp_path / f"a.{ending}")


@pytest.mark.posix
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_each_format_of_tar(tmp_path: Path, form: int) -> None:
    """Long names, non-ASCII names, links and modes are read alike, whichever program wrote the archive."""
    long = "folder/" + "n" * 80 + "/" + "m" * 60
    names = [long, "plain"] if form == tarfile.USTAR_FORMAT else [long, "plain", "é/ü" * 40, "x" * 200]
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as tar:
        for name in names:
            made = tarfile.TarInfo(name)
            made.size, made.mode, made.mtime = len(name), 0o755, 1.5 if form == tarfile.PAX_FORMAT else 1
            tar.addfile(made, io.BytesIO(b"c" * len(name)))
        for kind, name, target in ((tarfile.SYMTYPE, "sym", "plain"), (tarfile.LNKTYPE, "hard", "plain")):
            made = tarfile.TarInfo(name)
            made.type, made.linkname = kind, target
            tar.addfile(made)
    assert ensure_unpacked(tmp_path, "a.tar", None, tmp_path / "a.tar")
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == b"c" * len(name)
        assert (tmp_path / "a" / name).stat().st_mode & 0o100
    assert (tmp_path / "a" / "sym").read_bytes() == b"c" * 5
    assert (tmp_path / "a" / "hard").samefile(tmp_path / "a" / "plain")


@pytest.mark.parametrize("signed", [False, True])
def test_old_headers(tmp_path: Path, signed: bool) -> None:
    """A header from before ustar is read: a folder is a name with a slash, and some summed signed characters."""
    made = bytearray(block("é/", tarfile.AREGTYPE))
    made[257:265] = bytes(8)
    made[148:156] = b" " * 8
    total = sum(made) - (256 * sum(byte > 127 for byte in made) if signed else 0)
    made[148:156] = b"%06o\0 " % total
    (tmp_path / "a.tar").write_bytes(bytes(made) + END)
    ensure_unpacked(tmp_path, "a.tar", None, tmp_path / "a.tar")
    assert (tmp_path / "a" / "é").is_dir()


def test_a_size_in_base_256(tmp_path: Path) -> None:
    """GNU tar writes sizes this way that do not fit in octal digits; here it is small, and still counts."""
    made = bytearray(block("a", content=b"x" * 700))
    made[124:136] = b"\x80" + (700).to_bytes(11, "big")
    made[148:156] = b" " * 8
    made[148:156] = b"%06o\0 " % sum(made[:512])
    (tmp_path / "a.tar").write_bytes(bytes(made) + END)
    ensure_unpacked(tmp_path, "a.tar", None, tmp_path / "a.tar")
    assert (tmp_path / "a" / "a").read_bytes() == b"x" * 700


def test_gzip_members_are_joined(tmp_path: Path) -> None:
    """Several concatenated gzip files, followed by zeros, are one (RFC 1952 section 2.2)."""
    whole = block("a", content=seeded_bytes(100_000, seed=1)) + END
    packed = gzip.compress(whole[:70_000]) + gzip.compress(b"") + gzip.compress(whole[70_000:]) + bytes(70_000)
    (tmp_path / "a.tgz").write_bytes(packed)
    ensure_unpacked(tmp_path, "a.tgz", None, tmp_path / "a.tgz")
    assert (tmp_path / "a" / "a").read_bytes() == seeded_bytes(100_000, seed=1)


def test_a_large_archive_may_have_many_members(tmp_path: Path) -> None:
    """The memory for the list of members grows with the archive, so that an honest one with many is unpacked."""
    (tmp_path / "a.tar").write_bytes(b"".join(block(f"{n}") for n in range(100)) + END)
    with pytest.raises(UnsafeArchive, match="more members, or longer"):
        ensure_unpacked(tmp_path, "a.tar", None, tmp_path / "a.tar", Limits(memory=50_000, memory_ratio=1))
    assert ensure_unpacked(tmp_path, "a.tar", None, tmp_path / "a.tar", Limits(memory=50_000, memory_ratio=2))
