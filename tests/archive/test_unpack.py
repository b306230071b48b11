"""Unpacking on a real disk: valid archives of each kind, every attack, and a crash at every step."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import io
import json
import os
import re
import shutil
import stat
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import zstandard

from grym_fetch.archive import tree as unpacked
from grym_fetch.archive import unpack
from grym_fetch.archive.reader import Stopped
from grym_fetch.archive.unpack import (
    Unpacker,
    ensure_unpacked,
    forget_unpacked,
    has_unpacked,
    is_tree_right,
    is_unpacked,
)
from grym_fetch.core.archives import Census, Limits, Member
from grym_fetch.core.errors import DiskFull, NotWritable, StorageError, UnsafeArchive, UnsafePath
from grym_fetch.core.manifest import Asset
from grym_fetch.disk import folders
from grym_fetch.disk.owner import Owner
from grym_fetch.disk.verified import FileSignature
from grym_fetch.runtime import system
from grym_fetch.runtime.threads import WorkerThreads
from grym_fetch.testing import seeded_bytes
from tests.support.archives import zip_of
from tests.support.mounts import mounted, overlaid
from tests.support.project import OWN
from tests.support.system import dead_owner, descriptors, folder_descriptor

FILES = {
    "top.txt": seeded_bytes(10, seed=1),
    "sub/deep/big.bin": seeded_bytes(3_000_000, seed=2),
    "sub/empty": b"",
}
OTHER = {"top.txt": seeded_bytes(11, seed=3), "new.bin": seeded_bytes(5000, seed=4)}
CHECK, CHECK_2 = "sha256:" + "1" * 64, "sha256:" + "2" * 64

Entry = tuple[str, bytes | tarfile.TarInfo]


def tar_of(files: dict[str, bytes], *special: tarfile.TarInfo) -> bytes:
    """A tar of these files, then these headers without content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size, header.mode = len(content), 0o4755
            tar.addfile(header, io.BytesIO(content))
        for header in special:
            tar.addfile(header)
    return out.getvalue()


def header(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """A header of a member that is not a file."""
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


def gz(data: bytes) -> bytes:
    """Compress with gzip."""
    import gzip

    return gzip.compress(data, mtime=0)


def zst(data: bytes) -> bytes:
    """Compress with Zstandard."""
    return zstandard.ZstdCompressor().compress(data)


KINDS: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "zip": zip_of,
    "tar": tar_of,
    "tar.gz": lambda files: gz(tar_of(files)),
    "tgz": lambda files: gz(tar_of(files)),
    "tar.zst": lambda files: zst(tar_of(files)),
}


class LocalFiles:
    """An assets folder with one archive in it."""

    def __init__(self, root: Path) -> None:
        self.assets = root / "assets"
        self.tree = self.assets / "models" / "voices"
        self.local_path = "models/voices.tar"
        (self.assets / "models").mkdir(parents=True)

    def put(self, data: bytes, ending: str = "tar") -> Path:
        """Write the archive."""
        self.local_path = f"models/voices.{ending}"
        path = self.assets / self.local_path
        path.write_bytes(data)
        return path

    def unpack(self, checksum: str | None = CHECK, limits: Limits | None = None) -> bool:
        """Unpack the archive in the folder."""
        return ensure_unpacked(self.assets, self.local_path, checksum, self.assets / self.local_path, limits)

    def read(self) -> dict[str, bytes]:
        """The current tree."""
        return {
            path.relative_to(self.tree).as_posix(): path.read_bytes()
            for path in self.tree.rglob("*")
            if path.is_file() and not path.is_symlink()
        }

    def stages(self) -> list[Path]:
        """What unpacking left behind."""
        return list((self.assets / OWN / "unpack").glob("*"))


@pytest.fixture
def local_files(tmp_path: Path) -> LocalFiles:
    return LocalFiles(tmp_path)


@pytest.mark.parametrize("ending", KINDS)
def test_each_kind(local_files: LocalFiles, ending: str) -> None:
    """Every kind of archive gives the same tree, once, and an unchanged tree is not unpacked again."""
    local_files.put(KINDS[ending](FILES), ending)
    assert local_files.unpack()
    assert local_files.read() == FILES
    assert not local_files.unpack()
    assert local_files.stages() == []


@pytest.mark.posix
def test_modes(local_files: LocalFiles) -> None:
    """Of a file's mode only the executable bit is kept, and the umask is followed."""
    before = os.umask(0o027)
    try:
        local_files.put(tar_of(FILES))
        local_files.unpack()
        assert stat.S_IMODE((local_files.tree / "top.txt").stat().st_mode) == 0o750
        local_files.put(zip_of(OTHER, mode=0o104644), "zip")
        local_files.unpack(CHECK_2)
        assert stat.S_IMODE((local_files.tree / "top.txt").stat().st_mode) == 0o640
    finally:
        os.umask(before)


@pytest.mark.posix
def test_links_inside(local_files: LocalFiles) -> None:
    """Symlinks and hard links that stay inside are created."""
    links = (header("sub/up", tarfile.SYMTYPE, "../top.txt"), header("hard", tarfile.LNKTYPE, "./top.txt"))
    local_files.put(tar_of(FILES, *links))
    local_files.unpack()
    assert (local_files.tree / "sub" / "up").read_bytes() == FILES["top.txt"]
    assert (local_files.tree / "hard").samefile(local_files.tree / "top.txt")
    assert not local_files.unpack()


def sparse_bomb() -> bytes:
    """A tar that claims a terabyte in one header."""
    bomb = tarfile.TarInfo("bomb")
    bomb.size = 2**40
    return bomb.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


def long_header() -> bytes:
    """A tar with an extended header of a gigabyte."""
    made = tarfile.TarInfo("long")
    made.type, made.size = tarfile.XHDTYPE, 2**30
    return made.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


def zip_symlink(target: str, then: dict[str, bytes] | None = None) -> bytes:
    """A zip with a symlink and perhaps files after it."""
    out = io.BytesIO(zip_of({"link": target.encode()}, mode=0o120777))
    with zipfile.ZipFile(out, "a") as archive:
        for name, content in (then or {}).items():
            archive.writestr(name, content)
    return out.getvalue()


def encrypted_zip() -> bytes:
    """A zip whose member claims to be encrypted."""
    data = bytearray(zip_of({"a": b"secret"}))
    data[data.index(b"PK\x03\x04") + 6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def flipped(data: bytes) -> bytes:
    """Flip one bit of a member's bytes."""
    return data[:1000] + bytes([data[1000] ^ 1]) + data[1001:]


def duplicates() -> bytes:
    """A tar with one name twice."""
    return tar_of({"a": b"1"})[: 2 * 512] + tar_of({"a": b"2"})


TAR = tar_of(FILES)
ATTACKS: dict[str, tuple[str, bytes]] = {
    "dot dot": ("tar", tar_of({"../escape": b"x"})),
    "dot dot deeper": ("zip", zip_of({"sub/../../escape": b"x"})),
    "absolute": ("tar", tar_of({"/tmp/escape": b"x"})),
    "absolute zip": ("zip", zip_of({"/tmp/escape": b"x"})),
    "backslash": ("zip", zip_of({"..\\escape": b"x"})),
    "symlink out": ("tar", tar_of({}, header("link", tarfile.SYMTYPE, "../../escape"))),
    "absolute symlink": ("tar", tar_of({}, header("link", tarfile.SYMTYPE, "/etc/passwd"))),
    "symlink out of a zip": ("zip", zip_symlink("../..")),
    "write through a symlink": (
        "tar",
        tar_of({}, header("link", tarfile.SYMTYPE, "sub"))[:512] + tar_of({"link/x": b"x"}),
    ),
    "write through a symlink of a zip": ("zip", zip_symlink("..", {"link/escape": b"x"})),
    "hard link out": ("tar", tar_of({}, header("hard", tarfile.LNKTYPE, "../../../etc/passwd"))),
    "absolute hard link": ("tar", tar_of({}, header("hard", tarfile.LNKTYPE, "/etc/passwd"))),
    "device": ("tar", tar_of({}, header("null", tarfile.CHRTYPE))),
    "pipe": ("tar", tar_of({}, header("pipe", tarfile.FIFOTYPE))),
    "device in a zip": ("zip", zip_of({"dev": b""}, mode=0o020644)),
    "one header claims a terabyte": ("tar", sparse_bomb()),
    "long header": ("tar", long_header()),
    "one name twice": ("tar", duplicates()),
    "case": ("tar", tar_of({"Readme": b"1", "README": b"2"})),
    "case in a zip": ("zip", zip_of({"a/x": b"1", "A/y": b"2"})),
    "cut tar": ("tar", TAR[:-20_000]),
    "cut at a member's end": ("tar", TAR[: 512 * 2]),
    "cut gzip": ("tar.gz", gz(TAR)[:-100]),
    "gzip with a wrong checksum": ("tar.gz", gz(TAR)[:-8] + bytes(8)),
    "cut zstd": ("tar.zst", zst(TAR)[:-100]),
    "cut zip": ("zip", zip_of(FILES)[:-100]),
    "damaged zip": ("zip", flipped(zip_of({"a": seeded_bytes(5000, seed=9)}))),
    "damaged header": ("tar", TAR[:1024] + b"\xff" * 512 + TAR[1536:]),
    "wrong type": ("zip", TAR),
    "wrong type of tar": ("tar", zip_of(FILES)),
    "no gzip": ("tar.gz", TAR),
    "no zstd": ("tar.zst", gz(TAR)),
    "empty": ("tar", b""),
    "empty zip": ("zip", b""),
    "encrypted": ("zip", encrypted_zip()),
}


@pytest.mark.parametrize(("ending", "data"), ATTACKS.values(), ids=ATTACKS.keys())
@pytest.mark.shows("S5")
def test_attacks(local_files: LocalFiles, tmp_path: Path, ending: str, data: bytes) -> None:
    """A hostile or damaged archive is refused as a whole, and the existing tree stays."""
    local_files.put(tar_of(OTHER))
    local_files.unpack()
    outside = {path for path in tmp_path.rglob("*") if ".grym-fetch" not in path.parts}
    archive = local_files.put(data, ending)
    with pytest.raises(UnsafeArchive) as caught:
        local_files.unpack(CHECK_2)
    assert "voices" in str(caught.value)
    assert local_files.read() == OTHER
    assert local_files.stages() == []
    assert {path for path in tmp_path.rglob("*") if ".grym-fetch" not in path.parts} == outside | {archive}
    assert not Path("/tmp/escape").exists()


@pytest.mark.parametrize("name", ["symlink out", "symlink out of a zip", "cut gzip", "case"])
@pytest.mark.shows("S5")
def test_attacks_where_nothing_is_there(local_files: LocalFiles, name: str) -> None:
    """Without a tree to compare, unpacking judges alone, and its judgement is the same."""
    ending, data = ATTACKS[name]
    local_files.put(data, ending)
    with pytest.raises(UnsafeArchive):
        local_files.unpack()
    assert not local_files.tree.exists()
    assert local_files.stages() == []


@pytest.mark.shows("S17")
def test_a_tree_that_would_complete_a_repository_is_not_made(local_files: LocalFiles) -> None:
    """What the folder is called is enough, whatever is in the archive."""
    archive = local_files.assets / "refs.tar"
    archive.write_bytes(TAR)
    (local_files.assets / "objects").mkdir()
    (local_files.assets / "HEAD").touch()
    with pytest.raises(UnsafePath, match="makes a git repository together with"):
        ensure_unpacked(local_files.assets, "refs.tar", CHECK, archive)
    assert not (local_files.assets / "refs").exists()


@pytest.mark.shows("S17")
def test_a_tree_is_not_put_into_a_repository(local_files: LocalFiles) -> None:
    """The archive lies elsewhere, so nobody has looked at the folder yet."""
    archive = local_files.put(TAR)
    for name in ("HEAD", "objects", "refs"):
        (local_files.assets / "x.git" / name).mkdir(parents=True)
    with pytest.raises(UnsafePath, match="git's own folder"):
        ensure_unpacked(local_files.assets, "x.git/hooks.tar", CHECK, archive)
    assert not (local_files.assets / "x.git" / "hooks").exists()


def test_where_no_record_can_be_written(local_files: LocalFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree that was found right is recorded in the user's own state folder, and forgotten there, too."""
    archive = local_files.put(TAR)
    local_files.unpack()
    shutil.rmtree(local_files.assets / ".grym-fetch")

    def refuse(*_: object) -> None:
        raise NotWritable("x", "it is read-only")

    monkeypatch.setattr(unpacked.TreeStore, "write_record", refuse)
    place = (local_files.assets, local_files.local_path, CHECK, archive)
    before = descriptors()
    assert is_tree_right(*place)
    assert is_unpacked(*place)
    assert has_unpacked(local_files.assets, local_files.local_path)
    assert forget_unpacked(local_files.assets, local_files.local_path) == ()
    assert not local_files.tree.exists()
    local_files.tree.mkdir()
    assert not has_unpacked(local_files.assets, local_files.local_path)
    assert descriptors() == before


BOMBS: dict[str, tuple[str, bytes, Limits]] = {
    "ratio": ("zip", zip_of({"a": bytes(300_000)}), Limits(ratio_free=100_000)),
    "ratio of a stream": ("tar.gz", gz(tar_of({"a": bytes(300_000)})), Limits(ratio_free=100_000)),
    "ratio of zstd": ("tar.zst", zst(tar_of({"a": bytes(300_000)})), Limits(ratio_free=100_000)),
    "count": ("tar", tar_of({f"f{n}": b"" for n in range(30)}), Limits(members=29)),
    "size": ("tar", tar_of({"a": bytes(3000), "b": bytes(3000)}), Limits(bytes=5000)),
    "padding": ("tar.gz", gz(tar_of({"a": b"1"}) + bytes(4_000_000)), Limits(ratio_free=100_000)),
}


@pytest.mark.parametrize(("ending", "data", "limits"), BOMBS.values(), ids=BOMBS.keys())
@pytest.mark.shows("S4")
def test_bombs(local_files: LocalFiles, ending: str, data: bytes, limits: Limits) -> None:
    """An archive that unpacks to too much is refused, and takes no more disk space than allowed on the way."""
    local_files.put(data, ending)
    with pytest.raises(UnsafeArchive, match="more than"):
        local_files.unpack(limits=limits)
    assert not local_files.tree.exists()
    assert local_files.stages() == []


def test_a_full_disk(local_files: LocalFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Free space bounds what is unpacked, and running out of it is the disk's error, not the archive's."""
    monkeypatch.setattr(folders, "free_bytes", lambda _: 2_000_000)
    local_files.put(TAR)
    with pytest.raises(DiskFull, match="not enough space to unpack"):
        local_files.unpack()
    assert local_files.stages() == []


def test_a_disk_that_has_just_enough_room(local_files: LocalFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is free may be used to the last byte."""
    monkeypatch.setattr(unpack, "usable_bytes", lambda _: sum(map(len, OTHER.values())))
    local_files.put(tar_of(OTHER))
    assert local_files.unpack()


def test_a_whole_file_gets_a_time_that_no_later_write_sets(
    local_files: LocalFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a change right after unpacking is seen; the time is set when all bytes are there."""
    marked = list[tuple[int, int]]()

    def note(descriptor: int) -> None:
        figures = os.fstat(descriptor)
        marked.append((figures.st_ino, figures.st_size))

    monkeypatch.setattr(unpack, "mark_time", note)
    local_files.put(tar_of(OTHER))
    local_files.unpack()
    there = [path.stat() for path in local_files.tree.iterdir()]
    assert sorted(marked) == sorted((figures.st_ino, figures.st_size) for figures in there)


def test_another_content(local_files: LocalFiles) -> None:
    """A new archive's tree takes the place of the old one, of which nothing stays."""
    local_files.put(tar_of(FILES, header("link", tarfile.SYMTYPE, "top.txt")))
    local_files.unpack()
    local_files.put(zip_of(OTHER), "zip")
    assert local_files.unpack(CHECK_2)
    assert local_files.read() == OTHER
    assert sorted(path.name for path in local_files.tree.parent.iterdir()) == ["voices", "voices.tar", "voices.zip"]


def test_a_changed_tree_is_unpacked_anew(local_files: LocalFiles) -> None:
    """A file changed without us is noticed; what was added or changed is kept beside the new tree."""
    local_files.put(TAR)
    local_files.unpack()
    (local_files.tree / "top.txt").write_bytes(b"mine")
    (local_files.tree / "notes").write_bytes(b"mine too")
    assert local_files.unpack()
    assert local_files.read() == FILES
    kept = local_files.tree.with_name("voices.old")
    assert {path.name: path.read_bytes() for path in kept.rglob("*") if path.is_file()} == {
        "top.txt": b"mine",
        "notes": b"mine too",
    }


def test_what_was_added_is_kept_whatever_the_new_archive_has(local_files: LocalFiles) -> None:
    """Even if a new archive demands nothing of the tree (it has only a folder), the old tree is not taken for it."""
    local_files.put(tar_of({**FILES, "empty/x": b""}))
    local_files.unpack()
    (local_files.tree / "notes").write_bytes(b"mine")
    local_files.put(tar_of({}, header("empty", tarfile.DIRTYPE)))
    assert local_files.unpack(CHECK_2)
    assert local_files.read() == {}
    kept = local_files.tree.with_name("voices.old")
    assert {path.name: path.read_bytes() for path in kept.rglob("*") if path.is_file()} == {"notes": b"mine"}
    assert local_files.stages() == []


def test_what_is_added_is_no_change(local_files: LocalFiles) -> None:
    """A file that somebody put into the tree does not cause unpacking."""
    local_files.put(TAR)
    local_files.unpack()
    (local_files.tree / "cache").write_bytes(b"x")
    assert not local_files.unpack()


def test_an_archive_that_was_only_touched(local_files: LocalFiles) -> None:
    """With a checksum it is the same archive, whatever its time."""
    path = local_files.put(TAR)
    assert local_files.unpack()
    os.utime(path, (1, 1))
    assert not local_files.unpack()


def test_whether_it_is_unpacked(local_files: LocalFiles) -> None:
    """Without unpacking, it can be asked whether the tree is there, from this very archive, and unchanged."""

    def answer(checksum: str = CHECK) -> bool:
        return is_unpacked(
            local_files.assets, local_files.local_path, checksum, local_files.assets / local_files.local_path
        )

    local_files.put(TAR)
    assert not answer()
    local_files.unpack()
    assert answer()
    assert not answer(CHECK_2)
    (local_files.tree / "top.txt").unlink()
    assert not answer()


@pytest.mark.parametrize("ending", ["tar", "zip"])
def test_empty_folders_are_there(local_files: LocalFiles, ending: str) -> None:
    """An empty folder is a member like any other."""
    local_files.put(
        tar_of({}, header("empty/deep", tarfile.DIRTYPE)) if ending == "tar" else zip_of({"empty/deep/": b""}), ending
    )
    local_files.unpack()
    assert (local_files.tree / "empty" / "deep").is_dir()
    (local_files.tree / "empty" / "deep").rmdir()
    assert local_files.unpack()
    assert (local_files.tree / "empty" / "deep").is_dir()


@pytest.mark.shows("S4")
def test_a_reader_that_stops_early(local_files: LocalFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member with fewer bytes than the archive says refuses it, even if the archive's reader does not object."""
    chunks = iter([b"short", b""])
    monkeypatch.setattr(unpack, "members", lambda *_: iter([(Member("a", "file", size=10), lambda _: next(chunks))]))
    local_files.put(TAR)
    with pytest.raises(UnsafeArchive, match="its member 'a' is cut off"):
        local_files.unpack()
    assert not local_files.tree.exists()


@pytest.mark.posix
@pytest.mark.parametrize("is_there", [True, False])
def test_an_archive_that_became_a_pipe(local_files: LocalFiles, is_there: bool) -> None:
    """A path that was a file when verified is opened without blocking, for unpacking and for comparing."""
    path = local_files.put(TAR)
    if is_there:
        local_files.unpack()
        shutil.rmtree(local_files.assets / ".grym-fetch")
    become_pipe(path)
    with pytest.raises(UnsafePath, match="not a file"):
        local_files.unpack()


@pytest.mark.posix
@pytest.mark.shows("S20")
def test_a_tree_is_known_by_more_than_size_and_time(local_files: LocalFiles) -> None:
    """Whoever may write there can reset a file's mtime, but not its ctime: the tree is compared, and differs."""
    local_files.put(TAR)
    local_files.unpack()
    file = local_files.tree / "top.txt"
    before = file.stat()
    file.write_bytes(FILES["top.txt"][::-1])
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    archive = local_files.assets / local_files.local_path
    assert not is_unpacked(local_files.assets, local_files.local_path, CHECK, archive)
    assert not is_tree_right(local_files.assets, local_files.local_path, CHECK, archive)
    assert local_files.unpack()
    assert local_files.read() == FILES


def test_a_record_of_an_earlier_version(local_files: LocalFiles) -> None:
    """It had only sizes and mtimes: the tree is compared once, and files that are ours may be deleted."""
    local_files.put(TAR)
    local_files.unpack()
    (place,) = (local_files.assets / OWN / "unpacked").iterdir()
    record = json.loads(place.read_bytes())
    record |= {"v": 1, "files": [each[:3] for each in record["files"]]}
    place.write_text(json.dumps(record))
    local_files.put(tar_of(OTHER))
    assert local_files.unpack(CHECK_2)
    assert local_files.read() == OTHER


def test_what_another_user_has_unpacked_is_right(local_files: LocalFiles) -> None:
    """Whoever unpacked it: asked without unpacking, each byte is compared, and the answer is remembered."""
    archive = local_files.put(TAR)
    local_files.unpack()
    shutil.rmtree(local_files.assets / ".grym-fetch")
    assert not is_unpacked(local_files.assets, local_files.local_path, CHECK, archive)
    assert is_tree_right(local_files.assets, local_files.local_path, CHECK, archive)
    assert is_unpacked(local_files.assets, local_files.local_path, CHECK, archive)
    assert is_tree_right(local_files.assets, local_files.local_path, CHECK_2, archive), "with another checksum"


def test_what_an_older_archive_had_is_known_still(local_files: LocalFiles) -> None:
    """A tree that somebody else has updated is accepted as it is; what is ours in it goes with the next one."""
    local_files.put(TAR)
    local_files.unpack()
    local_files.put(tar_of(OTHER))
    for name, content in OTHER.items():
        (local_files.tree / name).write_bytes(content)
    assert not local_files.unpack(CHECK_2)
    local_files.put(tar_of({"only": b"x"}))
    assert local_files.unpack("sha256:" + "3" * 64)
    assert local_files.read() == {"only": b"x"}
    assert not local_files.tree.with_name("voices.old").exists()


def test_a_tree_that_was_written_to_a_moment_ago_is_compared_again(
    local_files: LocalFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a clock tick a write leaves no trace: what was read then is right, but not remembered."""
    archive = local_files.put(TAR)
    local_files.unpack()
    shutil.rmtree(local_files.assets / ".grym-fetch")
    monkeypatch.setattr(time, "time_ns", lambda: (local_files.tree / "sub/empty").stat().st_ctime_ns)
    assert is_tree_right(local_files.assets, local_files.local_path, CHECK, archive)
    assert not is_unpacked(local_files.assets, local_files.local_path, CHECK, archive)


@pytest.mark.posix
@pytest.mark.parametrize("trap", ["a link", "a pipe", "too long"])
@pytest.mark.shows("S5", "S11")
def test_a_record_that_is_no_file_of_ours(
    local_files: LocalFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trap: str
) -> None:
    """A record behind a link, a pipe in its place, or an endless one counts for nothing: nothing is deleted for it."""
    local_files.put(TAR)
    local_files.unpack()
    (record,) = (local_files.assets / OWN / "unpacked").iterdir()
    if trap == "too long":
        monkeypatch.setattr(unpacked, "MAX_RECORD_BYTES", record.stat().st_size - 1)
    else:
        record.rename(tmp_path / "elsewhere")
        if trap == "a link":
            record.symlink_to(tmp_path / "elsewhere")
        else:
            os.mkfifo(record)
    assert not is_unpacked(
        local_files.assets, local_files.local_path, CHECK, local_files.assets / local_files.local_path
    )
    assert forget_unpacked(local_files.assets, local_files.local_path) == ()
    assert local_files.read() == FILES


@pytest.mark.posix
@pytest.mark.parametrize("trap", ["a link", "a file"])
@pytest.mark.shows("S5")
def test_what_appears_in_the_stage_is_not_written_to(
    local_files: LocalFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trap: str
) -> None:
    """A file is created, never opened: whatever somebody put in its place an instant before is left alone."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    real = unpack._write  # the instant before a file is created

    def racing(tree: int, shown: Path, member: Member, *more: object) -> object:
        if trap == "a link":
            os.symlink(victim, member.path, dir_fd=tree)
        else:
            os.link(victim, member.path, dst_dir_fd=tree)
        return real(tree, shown, member, *more)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(unpack, "_write", racing)
    local_files.put(TAR)
    with pytest.raises(StorageError):
        local_files.unpack()
    assert victim.read_bytes() == b"mine"
    assert not local_files.tree.exists()


@pytest.mark.posix
@pytest.mark.parametrize("mode", [0o6755, 0o1777, 0o7777])
@pytest.mark.parametrize("ending", ["tar", "zip"])
@pytest.mark.shows("S5")
def test_no_special_bits(local_files: LocalFiles, ending: str, mode: int) -> None:
    """Neither setuid nor setgid nor the sticky bit comes out of an archive, nor more than the umask allows."""
    made = tarfile.TarInfo("a")
    made.mode = mode
    data = made.tobuf(tarfile.GNU_FORMAT) + bytes(1024) if ending == "tar" else zip_of({"a": b""}, mode=0o100000 | mode)
    local_files.put(data, ending)
    before = os.umask(0o022)
    try:
        local_files.unpack()
    finally:
        os.umask(before)
    assert stat.S_IMODE((local_files.tree / "a").stat().st_mode) == 0o755


def test_a_tree_that_replaces_another_leaves_nothing_open(local_files: LocalFiles) -> None:
    """Nor does one that is made where no assets folder was, or that finds strangers in its place."""
    before = descriptors()
    local_files.put(tar_of(FILES))
    local_files.unpack(CHECK)
    (local_files.tree / "notes").write_bytes(b"mine")
    local_files.put(tar_of(OTHER))
    local_files.unpack(CHECK_2)
    assert (local_files.tree.parent / "voices.old/notes").exists()
    shutil.rmtree(local_files.assets / ".grym-fetch")
    local_files.put(tar_of(FILES))
    with pytest.raises(UnsafePath):
        local_files.unpack(CHECK)
    assert descriptors() == before


@pytest.mark.root
@pytest.mark.shows("D23")
def test_a_mount_point_in_the_place(local_files: LocalFiles) -> None:
    """It can neither be exchanged nor moved: the error says so, with what to do, and nothing is left behind."""
    local_files.put(tar_of(OTHER))
    with mounted(local_files.tree, "size=1m"):
        with pytest.raises(StorageError, match="a file system is mounted there"):
            local_files.unpack()
        assert os.path.ismount(local_files.tree)
    assert local_files.stages() == []


@pytest.fixture
def layered(tmp_path: Path) -> Iterator[LocalFiles]:
    """An assets folder on an overlay, its tree unpacked in the layer below."""
    below = LocalFiles(tmp_path / "lower")
    below.put(tar_of(OTHER))
    below.unpack()
    with overlaid(tmp_path / "lower", tmp_path / "merged") as merged:
        made = LocalFiles.__new__(LocalFiles)
        made.assets = merged / "assets"
        made.tree = made.assets / "models" / "voices"
        made.local_path = below.local_path
        yield made


@pytest.mark.root
@pytest.mark.shows("D23")
def test_a_tree_in_a_lower_layer(layered: LocalFiles) -> None:
    """A folder of a container's image cannot be moved: the old tree stays, and the error says what to do."""
    layered.put(TAR)
    with pytest.raises(StorageError, match="overlay"):
        layered.unpack(CHECK_2)
    assert layered.read() == OTHER
    assert layered.stages() == []
    shutil.rmtree(layered.tree)
    assert layered.unpack(CHECK_2)
    assert layered.read() == FILES


async def test_an_unpinned_archive(local_files: LocalFiles) -> None:
    """Without a checksum, the archive's size and time tell whether it is the same."""
    threads = WorkerThreads("test", 1)
    asset = Asset("voices", "https://x.org/v", local_files.local_path, extract=True)
    path = local_files.put(TAR)
    await Unpacker(local_files.assets, threads).ensure(asset, path)
    assert not local_files.unpack(None)
    local_files.put(tar_of(OTHER))
    await Unpacker(local_files.assets, threads).ensure(asset, path)
    assert local_files.read() == OTHER
    threads.close()


@pytest.mark.posix
@pytest.mark.shows("S5")
def test_a_tree_behind_a_symlink_is_none_of_ours(local_files: LocalFiles, tmp_path: Path) -> None:
    """It may look like the unpacked tree, but is not where that was."""
    local_files.put(TAR)
    local_files.unpack()
    local_files.tree.rename(tmp_path / "elsewhere")
    local_files.tree.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafePath, match="not a folder"):
        local_files.unpack()


@pytest.mark.posix
def test_a_link_that_leads_elsewhere_is_a_change(local_files: LocalFiles) -> None:
    """It counts like a file with other bytes."""
    local_files.put(tar_of(FILES, header("link", tarfile.SYMTYPE, "top.txt")))
    local_files.unpack()
    (local_files.tree / "link").unlink()
    (local_files.tree / "link").symlink_to("elsewhere")
    assert local_files.unpack()
    assert os.readlink(local_files.tree / "link") == "top.txt"


@pytest.mark.posix
def test_what_is_kept_never_replaces_what_was_kept(local_files: LocalFiles, caplog: pytest.LogCaptureFixture) -> None:
    """Each old tree that holds somebody's files gets a name of its own, which is told."""
    local_files.put(TAR)
    for number in range(3):
        local_files.unpack()
        (local_files.tree / "top.txt").write_bytes(b"mine %d" % number)
    local_files.unpack()
    kept = {path.name: (path / "top.txt").read_bytes() for path in local_files.tree.parent.glob("voices.old*")}
    assert kept == {"voices.old": b"mine 0", "voices.old2": b"mine 1", "voices.old3": b"mine 2"}
    assert [text.partition(" holds ")[0].rpartition("/")[2] for text in caplog.messages] == sorted(kept)


@pytest.mark.posix
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.shows("S5")
def test_the_word_of_another_user_is_not_taken(local_files: LocalFiles) -> None:
    """Another user who can write the record cannot make us delete a file."""
    local_files.put(TAR)
    local_files.unpack()
    (record,) = (local_files.assets / OWN / "unpacked").iterdir()
    os.chown(record, 12345, -1)
    assert forget_unpacked(local_files.assets, local_files.local_path) == ()
    assert local_files.read() == FILES


def test_only_what_the_dead_have_left_is_cleared_away(local_files: LocalFiles) -> None:
    """This includes only this archive: what somebody is working on stays, and so does what nobody knows."""
    local_files.put(TAR)
    me, key = Owner.this(), hashlib.sha256(b"models/voices").hexdigest()[:24]
    dead = dead_owner().encode()
    stages = local_files.assets / OWN / "unpack"
    names = [f"{key}.{dead}.00000000", f"{key}.{me.encode()}.00000000", f"{key}.rubbish", f"{'0' * 24}.{dead}.00000000"]
    for name in names:
        (stages / name).mkdir(parents=True)
    local_files.unpack()
    assert sorted(path.name for path in local_files.stages()) == sorted(names[1:])
    (stages / names[0]).mkdir()
    forget_unpacked(local_files.assets, local_files.local_path)
    assert sorted(path.name for path in local_files.stages()) == sorted(names[1:])


@pytest.mark.linux
def test_very_many_files_are_flushed_at_once(local_files: LocalFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """One by one it would take hours."""
    local_files.put(TAR)
    synced: list[str] = []
    monkeypatch.setattr(unpack, "MAX_SINGLE_FLUSHES", 1)
    monkeypatch.setattr(os, "sync", lambda: synced.append("all"))
    local_files.unpack()
    assert synced == ["all"]


@pytest.mark.posix
@pytest.mark.shows("S5")
def test_a_stranger_in_the_way(local_files: LocalFiles, tmp_path: Path) -> None:
    """A folder that did not come from an archive, a file or a symlink is never replaced; an empty folder is."""
    local_files.put(TAR)
    local_files.tree.mkdir()
    (local_files.tree / "thesis.txt").write_bytes(b"mine")
    with pytest.raises(UnsafePath, match="did not come from the archive"):
        local_files.unpack()
    assert local_files.read() == {"thesis.txt": b"mine"}
    (local_files.tree / "thesis.txt").unlink()
    assert local_files.unpack()
    forget_unpacked(local_files.assets, local_files.local_path)
    (tmp_path / "elsewhere").mkdir()
    local_files.tree.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafePath, match="not a folder"):
        local_files.unpack()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_forget(local_files: LocalFiles) -> None:
    """Undoing deletes only what was unpacked, and says what is left."""
    local_files.put(tar_of(FILES, header("sub/link", tarfile.SYMTYPE, "../top.txt")))
    local_files.unpack()
    assert forget_unpacked(local_files.assets, local_files.local_path) == ()
    assert not local_files.tree.exists()
    assert local_files.unpack()
    (local_files.tree / "top.txt").write_bytes(b"mine")
    (local_files.tree / "sub" / "notes").write_bytes(b"mine")
    assert forget_unpacked(local_files.assets, local_files.local_path) == (
        "models/voices/sub/notes",
        "models/voices/top.txt",
    )
    assert local_files.read() == {"top.txt": b"mine", "sub/notes": b"mine"}
    assert forget_unpacked(local_files.assets, local_files.local_path) == ()
    assert forget_unpacked(local_files.assets, "models/other.bin") == ()


def test_a_hard_link_is_forgotten_too(local_files: LocalFiles) -> None:
    """It is a file of the tree like any other."""
    local_files.put(tar_of(FILES, header("twin", tarfile.LNKTYPE, "top.txt")))
    local_files.unpack()
    assert (local_files.tree / "twin").samefile(local_files.tree / "top.txt")
    assert forget_unpacked(local_files.assets, local_files.local_path) == ()
    assert not local_files.tree.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-30],
        lambda data: data.replace(b'"v":2', b'"v":3'),
        lambda data: data.replace(b'"models/voices"', b'"models/others"'),
        lambda data: re.sub(rb'("top.txt",\d+),\d+', rb"\1,1e999", data),
    ],
    ids=["cut", "of another version", "of another folder", "with a number that is none"],
)
def test_a_damaged_record(local_files: LocalFiles, damage: Callable[[bytes], bytes]) -> None:
    """An unreadable record, or another one's, counts for nothing: a changed tree is then a stranger's."""
    local_files.put(TAR)
    local_files.unpack()
    record = next((local_files.assets / OWN / "unpacked").iterdir())
    record.write_bytes(damage(record.read_bytes()))
    (local_files.tree / "top.txt").write_bytes(b"mine")
    with pytest.raises(UnsafePath):
        local_files.unpack()
    assert local_files.read() == {**FILES, "top.txt": b"mine"}


def become_pipe(path: Path) -> None:
    """Replace a file by a named pipe."""
    path.unlink()
    os.mkfifo(path)


@pytest.mark.posix
@pytest.mark.parametrize(
    "change",
    [
        lambda tree: (tree / "top.txt").write_bytes(b"x" * len(FILES["top.txt"])),
        lambda tree: (tree / "top.txt").write_bytes(FILES["top.txt"] + b"x"),
        lambda tree: (tree / "top.txt").unlink(),
        lambda tree: ((tree / "top.txt").rename(tree.parent / "aside"), (tree / "top.txt").symlink_to("../aside")),
        lambda tree: become_pipe(tree / "top.txt"),
        lambda tree: ((tree / "link").unlink(), (tree / "link").symlink_to("elsewhere")),
    ],
    ids=["other bytes", "more bytes", "gone", "a symlink", "a pipe", "another link"],
)
@pytest.mark.shows("S5")
def test_a_tree_without_a_record_is_compared(local_files: LocalFiles, change: Callable[[Path], object]) -> None:
    """Whoever unpacked it, it is accepted if every byte is the archive's, and otherwise counts as a stranger's."""
    local_files.put(tar_of(FILES, header("link", tarfile.SYMTYPE, "top.txt")))
    local_files.unpack()
    shutil.rmtree(local_files.assets / ".grym-fetch")
    before = local_files.tree.stat()
    assert not local_files.unpack()
    assert local_files.tree.stat() == before
    shutil.rmtree(local_files.assets / ".grym-fetch")
    change(local_files.tree)
    with pytest.raises(UnsafePath):
        local_files.unpack()
    assert local_files.stages() == []


@pytest.mark.shows("S5")
def test_what_was_added_to_a_tree_without_a_record_stays(local_files: LocalFiles) -> None:
    """Deleting `.grym-fetch` does not make the user's files ours: what the archive lacks is not moved or deleted."""
    local_files.put(TAR)
    local_files.unpack()
    shutil.rmtree(local_files.assets / ".grym-fetch")
    (local_files.tree / "notes").write_bytes(b"mine")
    assert not local_files.unpack()
    assert forget_unpacked(local_files.assets, local_files.local_path) == ("models/voices/notes",)
    assert local_files.read() == {"notes": b"mine"}


def test_a_copied_tree_is_taken_as_it_is(local_files: LocalFiles) -> None:
    """After ``cp -r`` of a project only the times differ: nothing is unpacked again, and nothing is kept twice."""
    local_files.put(TAR)
    local_files.unpack()
    for path in local_files.tree.rglob("*"):
        os.utime(path, (1, 1))
    assert not local_files.unpack()
    assert sorted(path.name for path in local_files.tree.parent.iterdir()) == ["voices", "voices.tar"]
    assert forget_unpacked(local_files.assets, local_files.local_path) == ()
    assert not local_files.tree.exists()


class Crash(BaseException):
    """The process is gone: no clean-up runs after this."""


STEPS = ("open", "mkdir", "write", "fsync", "rename", "replace", "symlink", "unlink", "rmdir")


def crash_at(step: int, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> bool:
    """Prevent the ``step``-th call that changes the disk and every later one; False if there were fewer."""
    seen = 0
    with monkeypatch.context() as patch:

        def failing(real: Callable[..., object]) -> Callable[..., object]:
            def call(*arguments: object, **more: object) -> object:
                nonlocal seen
                seen += 1
                if seen >= step:
                    raise Crash
                return real(*arguments, **more)

            return call

        for name in STEPS:
            patch.setattr(os, name, failing(getattr(os, name)))
        patch.setattr(unpacked, "exchange", failing(system.exchange))
        patch.setattr(shutil, "rmtree", failing(shutil.rmtree))
        try:
            act()
        except Crash:
            return True
    return False


@pytest.mark.parametrize("can_exchange", [True, False])
@pytest.mark.sweep
def test_a_crash_at_any_step(
    local_files: LocalFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool
) -> None:
    """After a crash anywhere the old tree or the new one is there, and the next run ends with the new one.

    Files that somebody put into the old one are kept. Where two folders cannot be exchanged in one step, there may be
    no tree for an instant, but never a partial one.
    """
    if not can_exchange:
        monkeypatch.setattr(unpacked, "exchange", lambda *_: False)
    monkeypatch.setattr(Owner, "is_dead", property(lambda _: True))
    small = {name: content[:2000] for name, content in FILES.items()}
    step = 0
    crashed = True
    while crashed:
        step += 1
        here = LocalFiles(tmp_path / str(step))
        here.put(tar_of(small))
        here.unpack(CHECK)
        (here.tree / "notes").write_bytes(b"mine")
        here.put(tar_of(OTHER, header("link", tarfile.SYMTYPE, "new.bin")))
        crashed = crash_at(step, monkeypatch, lambda: here.unpack(CHECK_2))  # noqa: B023 - called at once
        before = {**small, "notes": b"mine"}
        assert here.read() in ((before, OTHER) if can_exchange else (before, OTHER, {}))
        here.unpack(CHECK_2)
        assert here.read() == OTHER
        (notes,) = here.assets.rglob("notes")
        assert notes.read_bytes() == b"mine"
        assert [path.name for path in notes.parent.iterdir()] == ["notes"]
        others = {path.name for path in here.tree.parent.iterdir()} - {notes.parent.name}
        assert others == {"voices", "voices.tar"}
        assert here.stages() == []
    assert step > 25


@pytest.mark.linux
def test_in_what_order_a_tree_becomes_durable(local_files: LocalFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tree, its record, and the note that it is about to take its place come before that; then the place."""
    calls: list[str] = []

    def noting(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(first: int | str, *more: object, **where: int) -> object:
            opened = first if isinstance(first, int) else where["src_dir_fd"]
            path = os.path.join(os.readlink(f"/proc/self/fd/{opened}"), "" if isinstance(first, int) else first)
            path = path.removesuffix("/")
            place = os.path.relpath(path, local_files.assets).removeprefix(f"{OWN}/")
            place = re.sub("unpacked/.*", "unpacked/record", re.sub("unpack/[^/]*", "stage", place))
            calls.append(f"{name} {place}")
            assert os.stat(path).st_size, "nothing was written yet"
            return real(first, *more, **where)

        return call

    local_files.put(tar_of(OTHER))
    local_files.unpack()
    local_files.put(tar_of({"a": b"1"}))
    for name in ("fsync", "rename"):
        monkeypatch.setattr(os, name, noting(name, getattr(os, name)))
    monkeypatch.setattr(unpacked, "exchange", noting("exchange", system.exchange))
    opened = descriptors()
    local_files.unpack(CHECK_2)
    assert descriptors() == opened
    recorded = ["fsync unpacked/record", "rename unpacked/record", "fsync unpacked"]
    in_place = ["fsync stage", "exchange stage", "fsync models", "fsync stage"]
    assert calls == ["fsync stage/tree/a", "fsync stage/tree", *recorded, *in_place, *recorded]


@pytest.mark.parametrize(
    ("number", "exchanged"), [(0, True), (errno.EINVAL, False), (errno.ENOSYS, False), (errno.ENOTSUP, False)]
)
@pytest.mark.linux
def test_where_folders_cannot_be_exchanged(monkeypatch: pytest.MonkeyPatch, number: int, exchanged: bool) -> None:
    """An old system, and some file systems, say so: then it is done in two steps."""
    monkeypatch.setattr(ctypes, "get_errno", lambda: number)
    library = SimpleNamespace(renameat2=lambda *_: -1 if number else 0)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: library)
    assert system.exchange(3, "tree", 4, "voices") is exchanged
    del library.renameat2
    assert not system.exchange(3, "tree", 4, "voices")


@pytest.mark.linux
def test_an_exchange_that_fails_is_an_error(tmp_path: Path) -> None:
    """No other error of the system leads to the two steps."""
    here = folder_descriptor(tmp_path)
    with pytest.raises(OSError, match="No such file"):
        system.exchange(here, "tree", here, "voices")
    os.close(here)


@pytest.mark.posix
def test_a_failing_disk(local_files: LocalFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the disk becomes one of ours, and the old tree stays."""
    local_files.put(tar_of(OTHER))
    local_files.unpack()
    local_files.put(TAR)

    def fail(_: int) -> None:
        raise OSError(5, "I/O error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError):
        local_files.unpack(CHECK_2)
    assert local_files.read() == OTHER
    assert local_files.stages() == []


async def test_cancelling_ends_between_members(local_files: LocalFiles) -> None:
    """A cancelled unpacking ends at the next member, and leaves nothing."""
    import asyncio

    local_files.put(tar_of({f"f{n}": b"x" for n in range(50)}))
    threads = WorkerThreads("test", 1)
    begun, go_on = threading.Event(), threading.Event()
    real = Census.admit
    seen = 0

    def admit(census: Census, member: Member) -> bool:
        nonlocal seen
        seen += 1
        begun.set()
        go_on.wait(60)
        return real(census, member)

    asset = Asset("voices", "https://x.org/v", local_files.local_path, extract=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Census, "admit", admit)
        work = asyncio.create_task(
            Unpacker(local_files.assets, threads).ensure(asset, local_files.assets / local_files.local_path)
        )
        await asyncio.to_thread(begun.wait, 60)
        work.cancel()
        # One turn for the cancellation to arrive and raise the flag.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await work
    threads.close()
    assert seen == 1
    assert not local_files.tree.exists()
    assert local_files.stages() == []


def test_cancelling_ends_within_a_member(local_files: LocalFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large member is not written to its end first."""
    path = local_files.put(tar_of({"large": b"x" * 100_000}))
    monkeypatch.setattr(unpack, "BLOCK_BYTES", 1000)
    answers = iter([False] * 10)
    with pytest.raises(Stopped):
        ensure_unpacked(local_files.assets, local_files.local_path, CHECK, path, is_stopped=lambda: next(answers, True))
    assert local_files.stages() == []
    assert not local_files.tree.exists()


async def test_an_asset_that_is_no_archive(local_files: LocalFiles) -> None:
    """An asset that is not to be unpacked is left alone."""
    threads = WorkerThreads("test", 1)
    path = local_files.put(TAR)
    await Unpacker(local_files.assets, threads).ensure(Asset("voices", "https://x.org/v", local_files.local_path), path)
    threads.close()
    assert not local_files.tree.exists()


@pytest.mark.posix
def test_a_tree_whose_record_is_gone_is_recognised(local_files: LocalFiles) -> None:
    """Our own folder may be emptied: the tree is then compared with the archive, recognised, and left alone."""
    local_files.put(tar_of(FILES, header("sub/up", tarfile.SYMTYPE, "../top.txt")))
    local_files.unpack()
    (local_files.tree / "mine.txt").write_bytes(b"added")
    before = FileSignature.of((local_files.tree / "top.txt").stat())
    shutil.rmtree(local_files.assets / ".grym-fetch")
    assert not local_files.unpack()
    assert not local_files.unpack()
    assert FileSignature.of((local_files.tree / "top.txt").stat()) == before
    assert local_files.read() == {**FILES, "mine.txt": b"added"}
    assert local_files.stages() == []
    assert is_unpacked(local_files.assets, local_files.local_path, CHECK, local_files.assets / local_files.local_path)
    local_files.put(tar_of(OTHER))
    assert local_files.unpack(CHECK_2)
    assert local_files.read() == OTHER


@pytest.mark.posix
@pytest.mark.parametrize("change", ["a byte", "a link", "a folder", "a file less", "a link for a file"])
def test_a_changed_tree_whose_record_is_gone_is_nobodys(local_files: LocalFiles, change: str) -> None:
    """A tree that differs from the archive was made by somebody, and stays as it is."""
    extra = (header("up", tarfile.SYMTYPE, "top.txt"), header("empty", tarfile.DIRTYPE))
    local_files.put(tar_of(FILES, *extra))
    local_files.unpack()
    tree, top = local_files.tree, local_files.tree / "top.txt"
    match change:
        case "a byte":
            top.write_bytes(bytes(len(FILES["top.txt"])))
        case "a link":
            (tree / "up").unlink()
            (tree / "up").symlink_to("elsewhere")
        case "a folder":
            (tree / "empty").rmdir()
        case "a file less":
            top.unlink()
        case _:
            top.rename(tree / "copy")
            top.symlink_to("copy")
    shutil.rmtree(local_files.assets / ".grym-fetch")
    before = local_files.read()
    with pytest.raises(UnsafePath, match="did not come from the archive"):
        local_files.unpack()
    assert local_files.read() == before
    assert local_files.stages() == []
