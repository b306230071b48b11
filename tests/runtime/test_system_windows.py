"""What the module for Windows does, on Linux without what Windows lacks. Nobody has run it on a real one."""

from __future__ import annotations

import asyncio
import errno
import importlib
import os
import signal
import socket
import stat
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.support.windows import pretend

pytestmark = pytest.mark.linux
SHARING_VIOLATION = 32
SYMLINK_TAG = 0xA000_000C


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, where nothing is that Windows lacks."""
    module = importlib.import_module("grym_fetch.runtime.system_windows")
    pretend(monkeypatch, module)
    return module


def as_windows(figures: os.stat_result) -> Any:
    """What ``os.lstat`` tells there: a symlink is a reparse point."""
    tag = SYMLINK_TAG if stat.S_ISLNK(figures.st_mode) else 0
    attributes = stat.FILE_ATTRIBUTE_REPARSE_POINT if tag else 0
    return SimpleNamespace(
        st_ino=figures.st_ino, st_dev=figures.st_dev, st_reparse_tag=tag, st_file_attributes=attributes
    )


@pytest.fixture
def reparse_points(system: ModuleType) -> None:
    """``os.lstat`` as on Windows."""
    system.os.lstat = lambda path: as_windows(os.lstat(path))


@pytest.mark.usefixtures("reparse_points")
def test_no_reparse_point_is_opened_unless_asked_for(system: ModuleType, tmp_path: Path) -> None:
    """With O_NOFOLLOW a link is refused, and a file is opened."""
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    for name, flags in [("file", system.O_NOFOLLOW), ("link", 0)]:
        with open(system.open_descriptor(tmp_path / name, os.O_RDONLY | flags), "rb") as file:
            assert file.read() == b"content"
    with pytest.raises(OSError, match="reparse point") as caught:
        system.open_descriptor(tmp_path / "link", os.O_RDONLY | system.O_NOFOLLOW)
    assert caught.value.errno == errno.ELOOP


@pytest.mark.usefixtures("reparse_points")
def test_a_link_put_there_in_between_is_noticed_and_truncates_nothing(
    system: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody swaps the file for a link between the question and the open: what it leads to stays as it is."""
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "other").write_bytes(b"precious")

    def swap(path: Path, flags: int, mode: int = 0o777) -> int:
        path.unlink()
        path.symlink_to("other")
        return os.open(path, flags, mode)

    system.os.open = swap
    with pytest.raises(OSError, match="somebody else changed this path"):
        system.open_descriptor(tmp_path / "file", os.O_WRONLY | os.O_TRUNC | system.O_NOFOLLOW)
    assert (tmp_path / "other").read_bytes() == b"precious"


def test_what_cannot_be_promised_is_refused(system: ModuleType, tmp_path: Path) -> None:
    """Open folders are missing; a flag that Windows lacks is refused even by ``os.open`` itself."""
    for flags, folder in [(os.O_RDONLY, 3), (system.O_DIRECTORY, None), (os.O_CREAT | system.O_NOFOLLOW, None)]:
        with pytest.raises(NotImplementedError):
            system.open_descriptor(tmp_path / "new", flags, dir_fd=folder)
    with pytest.raises(NotImplementedError):
        system.fwalk("tree", 3)
    for flag in (system.O_NOFOLLOW, system.O_DIRECTORY):
        with pytest.raises(OverflowError):
            os.open(tmp_path, os.O_RDONLY | flag)
    assert list(tmp_path.iterdir()) == []


def test_files_are_binary_and_not_inherited(
    system: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the C runtime would change line ends."""
    seen: list[int] = []
    system.os.O_BINARY = 1 << 33
    system.os.O_NOINHERIT = 1 << 34
    system.os.open = lambda _, flags, mode: seen.append(flags)
    system.open_descriptor(tmp_path / "new", os.O_WRONLY | os.O_CREAT | os.O_EXCL | system.O_NOFOLLOW)
    assert seen == [os.O_WRONLY | os.O_CREAT | os.O_EXCL | 1 << 33 | 1 << 34]


@pytest.mark.parametrize(("code", "fails", "is_replaced"), [(32, 3, True), (32, 99, False), (50, 1, False)])
def test_a_file_that_is_open_elsewhere_is_replaced_as_soon_as_it_can_be(
    system: ModuleType, monkeypatch: pytest.MonkeyPatch, code: int, fails: int, is_replaced: bool
) -> None:
    """A sharing error is tried again for about a second, another one never."""
    pauses: list[float] = []
    calls = 0

    def replace(*_: object, **__: object) -> None:
        nonlocal calls
        calls += 1
        if calls <= fails:
            error = PermissionError(errno.EACCES, "in use")
            error.winerror = code  # type: ignore[attr-defined]  # only there
            raise error

    system.os.replace = replace
    monkeypatch.setattr("time.sleep", pauses.append)
    if is_replaced:
        system.rename("new", "old")
        assert calls == fails + 1
    else:
        with pytest.raises(PermissionError):
            system.rename("new", "old")
    assert sum(pauses) < 1
    assert bool(pauses) == (code == SHARING_VIOLATION)


def test_reads_and_writes_at_a_place_leave_the_position(system: ModuleType, tmp_path: Path) -> None:
    """Nothing but seek, read and write is there."""
    with open(tmp_path / "file", "w+b", buffering=0) as file:
        file.write(b"0123456789")
        file.seek(3)
        assert system.pwrite(file.fileno(), memoryview(b"ab"), 5) == 2
        memory = bytearray(4)
        assert system.preadv(file.fileno(), memoryview(memory), 4) == 4
        assert bytes(memory) == b"4ab7"
        assert system.pread(file.fileno(), 100, 8) == b"89"
        assert system.preadv(file.fileno(), memoryview(memory), 10) == 0
        assert file.tell() == 3


def test_a_lock_is_on_a_byte_that_nobody_reads(
    system: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Locks of Windows keep others from reading: it is far behind the content, which is neither moved nor longer."""
    held: set[int] = set()

    def locking(descriptor: int, mode: int, count: int) -> None:
        at = os.lseek(descriptor, 0, os.SEEK_CUR)
        assert (mode, count) == (2, 1)
        if at in held:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        held.add(at)

    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2))
    with open(tmp_path / "lock", "w+b", buffering=0) as file:
        file.write(b"holder")
        system.lock(file.fileno())
        with pytest.raises(PermissionError):
            system.lock(file.fileno())
        assert file.tell() == 6
    (at,) = held
    assert 1 << 30 < at < 1 << 31
    assert (tmp_path / "lock").stat().st_size == 6


def test_folders_are_not_flushed(system: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are, whatever is asked of them."""
    flushed: list[int] = []
    system.os.fsync = flushed.append
    folder = os.open(tmp_path, os.O_RDONLY)
    with open(tmp_path / "file", "wb") as file:
        try:
            system.flush(folder, data_only=False)
            system.flush(file.fileno(), data_only=True)
        finally:
            os.close(folder)
        assert flushed == [file.fileno()]


async def test_ctrl_c_reaches_the_loop(system: ModuleType) -> None:
    """Without handlers of the loop: by Python's own."""
    told: asyncio.Queue[signal.Signals] = asyncio.Queue()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGUSR1)}
    try:
        system.on_end_signals(asyncio.get_running_loop(), told.put_nowait)
        signal.raise_signal(signal.SIGUSR1)
        assert await told.get() is signal.SIGUSR1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_an_alarm_rings_in_a_thread_once_and_can_be_stopped(system: ModuleType) -> None:
    """There is no SIGALRM."""
    rung = threading.Event()
    system.on_alarm(rung.set)
    system.set_alarm(3600)
    first = system._alarm
    system.set_alarm(0.000_1)
    assert first.finished.is_set()
    assert rung.wait(60)
    system.set_alarm(0)
    assert system._alarm is None


def test_sockets_and_pipes_are_asked_by_other_calls(system: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket by select; a pipe by PeekNamedPipe, whose refusal means that it is closed."""
    here, there = socket.socketpair()
    with here, there:
        assert not system.has_arrived(here.fileno())
        there.send(b"x")
        assert system.has_arrived(here.fileno())
    answers = iter([(1, 0), (1, 0), (1, 5), (0, 0), (1, 0)])

    def peek(*arguments: Any) -> int:
        is_open, count = next(answers)
        arguments[4]._obj.value = count
        return is_open

    runtime = SimpleNamespace(get_osfhandle=lambda number: number)
    monkeypatch.setitem(sys.modules, "msvcrt", runtime)
    monkeypatch.setattr("ctypes.WinDLL", lambda _: SimpleNamespace(PeekNamedPipe=peek), raising=False)
    monkeypatch.setattr("time.sleep", lambda _: None)
    assert system.wait_for_output(3, 60)
    assert system.wait_for_output(3, 60)
    assert not system.wait_for_output(3, 0)


def test_the_rest_says_what_is_known(system: ModuleType, tmp_path: Path) -> None:
    """What Windows does not tell is not guessed, and nothing needs a call that it lacks."""
    (tmp_path / "file").write_bytes(b"123")
    figures = os.stat(tmp_path / "file")
    assert system.free_bytes(tmp_path) > 0
    assert system.allocated_bytes(figures) == 3
    assert (system.user_id(), system.user_name(0), system.boot_id()) == (0, None, "")
    assert system.process_start(os.getpid()) == system.process_start(os.getpid()) != ""
    assert (system.file_limits(), system.memory_limits(), system.process_limit()) == ((None, None), {}, None)
    assert not system.exchange(3, "a", 4, "b")
    assert system.copy_in_kernel(3, 4, 5, 6) == 0
    with pytest.raises(OSError) as caught:  # noqa: PT011 - any text will do
        system.clone(3, 4)
    assert caught.value.errno == errno.ENOTSUP
