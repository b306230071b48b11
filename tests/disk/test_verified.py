"""VerifiedCache: a verified file is not read again until something about it has changed."""

from __future__ import annotations

import errno
import json
import os
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from grym_fetch.core.digest import Checksum
from grym_fetch.disk import verified as module
from grym_fetch.disk.state import StateFolder
from grym_fetch.disk.verified import FileSignature, VerifiedCache, decode_entry, replace_log, wait_for_tick
from grym_fetch.testing import seeded_bytes
from tests.support.project import OWN
from tests.support.system import descriptors

CONTENT = seeded_bytes(10_000, seed=31)
CHECKSUM = Checksum.of(CONTENT)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.bin"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / OWN / "verified.log"
    path.parent.mkdir(parents=True)
    return path


def cache_of(log: Path) -> VerifiedCache:
    return VerifiedCache(StateFolder(log.parents[2]))


def remember(log: Path, file: Path) -> None:
    cache_of(log).record(file, CHECKSUM, FileSignature.of(file.stat()))


def is_verified(log: Path, file: Path) -> bool:
    """Whether a later process sees it as verified."""
    return cache_of(log).is_verified(file, CHECKSUM)


def line_of(record: object) -> bytes:
    text = json.dumps(record).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


SECOND_NS = 1_000_000_000


@pytest.mark.parametrize(
    ("ctime_ns", "mtime_ns", "now_ns", "is_settled"),
    [
        (SECOND_NS + 1, 5, SECOND_NS + 1, False),
        (SECOND_NS + 1, 5, SECOND_NS + module.TICK_NS, False),
        (SECOND_NS + 1, 5, SECOND_NS + module.TICK_NS + 1, True),
        (9 * SECOND_NS + 1, 5, SECOND_NS, False),  # a server whose clock is ahead
        (3 * SECOND_NS, 2 * SECOND_NS, 3 * SECOND_NS + module.TICK_NS, False),  # a file system of whole seconds
        (3 * SECOND_NS, 2 * SECOND_NS, 5 * SECOND_NS, True),
    ],
)
def test_when_a_write_must_show(ctime_ns: int, mtime_ns: int, now_ns: int, is_settled: bool) -> None:
    """A file is settled once the tick in which it was written has passed."""
    assert FileSignature(1, mtime_ns, ctime_ns, 1, 1).was_settled(now_ns) is is_settled


@pytest.mark.posix
def test_a_time_of_its_own(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A complete file gets an exact time; where only seconds are kept, one that no later write can set."""
    utime = os.utime
    with open(file, "rb") as opened:
        module.mark_time(opened.fileno())
        assert os.stat(file).st_mtime_ns % module.TICK_NS
        monkeypatch.setattr(
            os, "utime", lambda fd, ns: utime(fd, ns=(ns[0] // SECOND_NS * SECOND_NS, ns[1] // SECOND_NS * SECOND_NS))
        )
        begun = time.time_ns()
        module.mark_time(opened.fileno())
        assert os.stat(file).st_mtime_ns < begun - 2 * SECOND_NS


def test_an_unchanged_file_is_verified(log: Path, file: Path) -> None:
    """A file found right and unchanged since is right, even for a later process."""
    assert not is_verified(log, file)
    remember(log, file)
    assert is_verified(log, file)


def test_an_entry_is_for_one_checksum(log: Path, file: Path) -> None:
    """If the manifest wants other content, the old entry does not count."""
    remember(log, file)
    assert not cache_of(log).is_verified(file, Checksum.of(b"other"))


def _same_size(path: Path) -> None:
    path.write_bytes(CONTENT[:-1] + b"x")


def _back_dated(path: Path) -> None:
    """Like somebody hiding a change: other bytes, the old size and the old mtime."""
    figures = path.stat()
    path.write_bytes(CONTENT[::-1])
    os.utime(path, ns=(figures.st_atime_ns, figures.st_mtime_ns))


def _touched(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def _replaced(path: Path) -> None:
    figures = path.stat()
    fresh = path.with_name("fresh")
    fresh.write_bytes(CONTENT)
    os.utime(fresh, ns=(figures.st_atime_ns, figures.st_mtime_ns))
    os.replace(fresh, path)


def _longer(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


@pytest.mark.posix
@pytest.mark.parametrize("change", [_longer, _same_size, _back_dated, _touched, _replaced, Path.unlink])
@pytest.mark.shows("C12")
def test_a_changed_file_is_not_verified(log: Path, file: Path, change: Callable[[Path], None]) -> None:
    """Whatever changed in the file since, it must be read again."""
    remember(log, file)
    change(file)
    assert not is_verified(log, file)


@pytest.mark.parametrize("name", ["size", "mtime_ns", "ctime_ns", "inode", "device"])
def test_each_figure_counts(log: Path, file: Path, name: str) -> None:
    """An entry that differs from the file in any single figure is not trusted."""
    signature = FileSignature.of(file.stat())
    figures = {field: getattr(signature, field) for field in ("size", "mtime_ns", "ctime_ns", "inode", "device")}
    figures[name] += 1
    cache_of(log).record(file, CHECKSUM, FileSignature(**figures))
    assert not is_verified(log, file)


def test_the_last_entry_counts(log: Path, file: Path) -> None:
    """A newer entry for the same file replaces the older one."""
    remember(log, file)
    _replaced(file)
    remember(log, file)
    assert is_verified(log, file)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-20],
        lambda data: data[:30] + bytes([data[30] ^ 1]) + data[31:],
        lambda data: bytes(len(data)),
        lambda _: b"",
        lambda _: b"\xff\n\n" * 100,
    ],
    ids=["cut", "flipped", "zeroed", "empty", "rubbish"],
)
@pytest.mark.shows("S11")
def test_a_damaged_log_costs_a_hash(log: Path, file: Path, damage: Callable[[bytes], bytes]) -> None:
    """A damaged line is ignored; entries are good again from the one after the next at the latest."""
    remember(log, file)
    log.write_bytes(damage(log.read_bytes()))
    assert not is_verified(log, file)
    remember(log, file)
    remember(log, file)
    assert is_verified(log, file)


@pytest.mark.shows("S11")
def test_a_flipped_bit_anywhere_costs_a_hash(log: Path, file: Path) -> None:
    """A flipped bit costs a hash, even if it turns the entry into one for another checksum."""
    remember(log, file)
    whole = log.read_bytes()
    for at, byte in enumerate(whole):
        log.write_bytes(whole[:at] + bytes([byte ^ 1]) + whole[at + 1 :])
        assert not is_verified(log, file)
        assert decode_entry(log.read_bytes().rstrip(b"\n")) is None


@pytest.mark.shows("S4")
def test_a_log_without_end_is_not_held(log: Path, file: Path, tmp_path: Path) -> None:
    """However long a line of it is, memory is bounded; the lines around it count."""
    other = tmp_path / "other.bin"
    other.write_bytes(CONTENT)
    remember(log, other)
    last = log.read_bytes()
    log.unlink()
    remember(log, file)
    with log.open("r+b") as opened:
        opened.truncate(64 << 20)  # a hole: it takes no space on the disk
        opened.seek(0, os.SEEK_END)
        opened.write(b"\n" + last)
    cache = cache_of(log)
    tracemalloc.start()
    try:
        assert cache.is_verified(file, CHECKSUM)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert cache.is_verified(other, CHECKSUM)


def test_nothing_stays_open(log: Path, file: Path) -> None:
    """Neither the log nor its folder stays open."""
    before = descriptors()
    remember(log, file)
    assert is_verified(log, file)
    assert descriptors() == before


@pytest.mark.posix
def test_a_log_that_cannot_be_replaced_stays(log: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old log stays, and nothing is left beside it."""
    remember(log, file)
    before = log.read_bytes()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "injected")

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(OSError, match="injected"), StateFolder(log.parents[2]).opened() as folder:
        replace_log(folder, [])
    assert log.read_bytes() == before
    assert sorted(path.name for path in log.parent.iterdir()) == ["verified.log"]


def test_a_damaged_line_spoils_no_other(log: Path, file: Path) -> None:
    """Each line stands for itself."""
    remember(log, file)
    log.write_bytes(b"rubbish\n" + log.read_bytes() + b"00000000 []\n")
    assert is_verified(log, file)


@pytest.mark.parametrize(
    "record",
    [
        5,
        None,
        [],
        ["a"],
        ["a", "b", 1],
        [[], "b", 1, 2, 3, 4, 5],
        [{}, "b", 1, 2, 3, 4, 5],
        ["a", 1, 1, 2, 3, 4, 5],
        ["a", "b", 1, 2, 3, 4, 5, 6],
        {"a": 1},
    ],
    ids=str,
)
def test_a_line_of_another_shape_is_passed_over(log: Path, file: Path, record: object) -> None:
    """A line with a right checksum that is not an entry does no harm."""
    assert decode_entry(line_of(record).rstrip(b"\n")) is None
    remember(log, file)
    log.write_bytes(line_of(record) + log.read_bytes())
    assert is_verified(log, file)


def test_a_folder_in_the_place_of_the_log_costs_a_hash(log: Path, file: Path) -> None:
    """Where no log can exist, nothing is verified and nothing fails."""
    log.mkdir()
    remember(log, file)
    assert not is_verified(log, file)


@pytest.mark.shows("S5")
def test_no_symlink_is_read_or_written(log: Path, file: Path, tmp_path: Path) -> None:
    """A log that is a symlink is neither believed nor appended to."""
    remember(log, file)
    log.rename(tmp_path / "elsewhere")
    before = (tmp_path / "elsewhere").read_bytes()
    log.symlink_to(tmp_path / "elsewhere")
    assert not is_verified(log, file)
    remember(log, file)
    assert (tmp_path / "elsewhere").read_bytes() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_checksum_of_one_kind_condemns_and_of_another_kind_says_nothing(log: Path, file: Path) -> None:
    """A file known by its SHA-256 has no other; what its SHA-512 is, only a read can tell."""
    remember(log, file)
    known = [Checksum.of(CONTENT), Checksum.of(b"other"), Checksum("sha512", "0" * 128)]
    assert [cache_of(log).judge(str(file), checksum, file.stat()) for checksum in known] == [True, False, None]
    file.write_bytes(CONTENT + b"!")
    assert [cache_of(log).judge(str(file), checksum, file.stat()) for checksum in known] == [None, None, None]


@pytest.mark.posix
@pytest.mark.shows("S1")
def test_the_word_of_another_user_is_not_taken(log: Path, file: Path) -> None:
    """Another user who can write the log cannot make us trust a file."""
    remember(log, file)
    os.chown(log, 12345, -1)
    assert not is_verified(log, file)


def test_a_missing_folder_is_harmless(tmp_path: Path, file: Path) -> None:
    """An entry that cannot be written is known only to this process."""
    cache = VerifiedCache(StateFolder(tmp_path / "none"))
    cache.record(file, CHECKSUM, FileSignature.of(file.stat()))
    assert cache.is_verified(file, CHECKSUM)


@pytest.mark.posix
def test_a_path_that_is_no_text_is_kept(log: Path, tmp_path: Path) -> None:
    """A file name that is not UTF-8 is still a file name."""
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n.bin"))
    file.write_bytes(CONTENT)
    remember(log, file)
    assert is_verified(log, file)


def test_a_log_of_repeated_entries_is_made_short(log: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that repeats itself is rewritten shorter, and says the same."""
    monkeypatch.setattr(module, "_SPARE_LINES", 10)
    cache = cache_of(log)
    for _ in range(20):
        cache.record(file, CHECKSUM, FileSignature.of(file.stat()))
    assert len(log.read_bytes().splitlines()) == 20
    assert is_verified(log, file)
    assert len(log.read_bytes().splitlines()) == 1
    assert is_verified(log, file)
    assert [path.name for path in log.parent.iterdir() if path.name.startswith("verified")] == ["verified.log"]


@pytest.mark.posix
def test_the_first_entry_makes_its_folder(tmp_path: Path) -> None:
    """Files that existed before anything was fetched are recorded too, so that they are not read every time."""
    path = tmp_path / "a.bin"
    path.write_bytes(b"abc")
    log = tmp_path / OWN / "verified.log"
    cache_of(log).record(path, Checksum.of(b"abc"), FileSignature.of(path.stat()))
    assert cache_of(log).is_verified(path, Checksum.of(b"abc"))
    assert log.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.posix
@pytest.mark.parametrize(("number", "elsewhere"), [(errno.EIO, False), (errno.ENOSPC, False), (errno.EROFS, True)])
def test_only_what_can_never_be_written_is_remembered_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, elsewhere: bool
) -> None:
    """A disk that fails for a moment costs one hash; it does not fill a folder in the user's home."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    assets = tmp_path / "assets"
    assets.mkdir()
    file = assets / "a.bin"
    file.write_bytes(b"a")
    real = os.open

    def fails(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == ".grym-fetch":
            raise OSError(number, os.strerror(number))
        return real(path, flags, mode, dir_fd=dir_fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fails)
        VerifiedCache(StateFolder(assets)).record(file, CHECKSUM, FileSignature.of(file.stat()))
    assert (tmp_path / "home").exists() == elsewhere


@pytest.mark.parametrize(("age_ns", "waits"), [(0, True), (-5_000_000, True), (10_000_000, True), (30_000_000, False)])
def test_whoever_reads_a_file_waits_for_the_end_of_its_tick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age_ns: int, waits: bool
) -> None:
    """Also where the clock of programs is a little behind that of files; then what was read can be remembered."""
    path = tmp_path / "a"
    path.write_bytes(b"a")
    figures = os.stat(path)
    slept: list[float] = []
    monkeypatch.setattr("time.time_ns", lambda: figures.st_ctime_ns + age_ns)
    monkeypatch.setattr("time.sleep", slept.append)
    wait_for_tick(figures)
    assert bool(slept) == waits
    if waits:
        assert FileSignature.of(figures).was_settled(figures.st_ctime_ns + age_ns + round(slept[0] * 1e9) + 1)
