"""What Windows does in its own way. Names in open folders have tests of their own."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from grym_fetch.runtime import system


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    """An open file of ten bytes."""
    descriptor = system.open_descriptor(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.write(descriptor, b"0123456789")
    yield descriptor
    os.close(descriptor)


def test_reads_and_writes_at_a_place(file: int) -> None:
    """Wherever the file's position is; up to its end."""
    assert system.pwrite(file, memoryview(b"ab"), 5) == 2
    assert system.pwrite(file, memoryview(bytearray(b"c")), 7) == 1
    memory = bytearray(4)
    assert system.preadv(file, memoryview(memory), 4) == 4
    assert bytes(memory) == b"4abc"
    assert system.pread(file, 100, 8) == b"89"
    assert system.preadv(file, memoryview(memory), 10) == 0
    assert system.pwrite(file, b"far", 1 << 32) == 3
    assert system.pread(file, 3, 1 << 32) == b"far"


def test_a_lock_keeps_nobody_from_reading(file: int, tmp_path: Path) -> None:
    """It is on a byte far behind the content, and ends with the descriptor."""
    other = system.open_descriptor(tmp_path / "file", os.O_RDWR)
    system.lock(file)
    with pytest.raises(PermissionError) as caught:
        system.lock(other)
    assert caught.value.errno == errno.EACCES
    assert os.read(other, 20) == b"0123456789"
    os.close(other)


def test_files_are_flushed_and_folders_are_not(file: int, tmp_path: Path) -> None:
    """A file that was opened to be read is flushed as well."""
    system.flush(file, data_only=True)
    for flags, path in ((os.O_RDONLY, tmp_path / "file"), (os.O_RDONLY | system.O_DIRECTORY, tmp_path)):
        descriptor = system.open_descriptor(path, flags)
        system.flush(descriptor, data_only=False)
        os.close(descriptor)


def test_times_are_exact_to_100_nanoseconds(file: int) -> None:
    """So that a later write does not have the same time by chance."""
    system.utime(file, ns=(1_700_000_000_123_456_789, 1_700_000_001_123_456_789))
    assert os.fstat(file).st_mtime_ns == 1_700_000_001_123_456_700


async def test_ctrl_c_reaches_the_loop() -> None:
    """Without handlers of the loop: by Python's own."""
    told: asyncio.Queue[signal.Signals] = asyncio.Queue()
    numbers = (signal.SIGINT, signal.SIGBREAK)  # type: ignore[attr-defined,unused-ignore]  # only there
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        system.on_end_signals(asyncio.get_running_loop(), told.put_nowait)
        signal.raise_signal(signal.SIGINT)
        assert await told.get() is signal.SIGINT
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_an_alarm_rings_in_a_thread_once_and_can_be_stopped() -> None:
    """There is no SIGALRM."""
    rung = threading.Event()
    system.on_alarm(rung.set)
    system.set_alarm(3600)
    system.set_alarm(0.000_1)
    assert rung.wait(60)
    rung.clear()
    system.set_alarm(3600)
    system.set_alarm(0)
    assert not rung.is_set()


def test_sockets_and_pipes_are_asked_by_other_calls() -> None:
    """A socket by select; a pipe by PeekNamedPipe, whose refusal means that it is closed."""
    here, there = socket.socketpair()
    with here, there:
        assert not system.has_arrived(here.fileno())
        there.send(b"x")
        assert system.has_arrived(here.fileno())
    read, write = os.pipe()
    assert not system.wait_for_output(read, 0)
    os.write(write, b"x")
    assert system.wait_for_output(read, 60)
    os.read(read, 1)
    os.close(write)
    assert system.wait_for_output(read, 60)
    os.close(read)


def test_all_processes_agree_on_the_boot() -> None:
    """So that the dead can be told from those of another machine."""
    program = "from grym_fetch.runtime import system; print(system.boot_id())"
    told = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, stdin=subprocess.PIPE, check=True)
    assert told.stdout.decode().strip() == system.boot_id()
    assert len(system.boot_id()) == 16


def test_the_rest_says_what_is_known(file: int, tmp_path: Path) -> None:
    """What Windows does not tell is not guessed."""
    assert system.free_bytes(tmp_path) > 0
    assert system.allocated_bytes(os.fstat(file)) == 10
    assert (system.user_id(), system.user_name(0)) == (0, None)
    assert system.process_start(os.getpid()) == system.process_start(os.getpid()) != ""
    assert (system.file_limits(), system.memory_limits(), system.process_limit()) == ((None, None), {}, None)
    assert not system.exchange(file, "a", file, "b")
    assert system.copy_in_kernel(file, file, 5, 6) == 0
    with pytest.raises(OSError) as caught:  # noqa: PT011 - by its number
        system.clone(file, file)
    assert caught.value.errno == errno.EOPNOTSUPP


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(0, "", None, 1225), "connection refused"),
        (OSError(10061, ""), "connection refused"),
        (OSError(10054, ""), "connection reset by peer"),
        (OSError(errno.ENOENT, "secret"), os.strerror(errno.ENOENT)),
        (OSError("secret"), os.strerror(0)),
    ],
)
def test_an_error_is_named_by_its_number(error: OSError, words: str) -> None:
    """Those of sockets have other numbers than elsewhere, for which the C library has no words."""
    assert system.words_for(error) == words


def test_an_error_that_was_passed_on_is_named_by_the_first() -> None:
    """Libraries for proxies and HTTP do that."""
    error = OSError(errno.EINVAL, "")
    error.__cause__ = OSError(0, "", None, 1225)
    assert system.words_for(error) == "connection refused"


def test_a_folder_is_locked_by_a_file_that_goes_again(tmp_path: Path) -> None:
    """A folder itself cannot be locked. Whoever comes later waits for the first one, whatever others did meanwhile."""
    folder = system.open_descriptor(tmp_path, os.O_RDONLY | system.O_DIRECTORY)
    try:
        first = system.open_lock(folder)
        system.lock(first)
        for _ in range(2):
            second = system.open_lock(folder)
            with pytest.raises(PermissionError):
                system.lock(second)
            os.close(second)
        os.close(first)
        third = system.open_lock(folder)
        system.lock(third)
        os.close(third)
        assert system.listdir(folder) == []
    finally:
        os.close(folder)
