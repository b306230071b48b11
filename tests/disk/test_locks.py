"""Locks between processes: they exclude, they die with their holder, and it is noticed where they do not work."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from grym_fetch.core.errors import UnsafePath
from grym_fetch.disk.locks import FileLock, Flock, try_flock
from grym_fetch.disk.owner import Owner
from tests.support.system import dead_owner, descriptors, folder_descriptor
from tests.support.system_calls import failing, flags_of_open

HOLD = """
import sys
from pathlib import Path
from grym_fetch.disk.locks import FileLock
import os
path = Path(sys.argv[1])
assert FileLock(lambda: os.open(path.parent, os.O_DIRECTORY), path.name).try_acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.lock"


@pytest.fixture
def other(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        yield process
        process.kill()


def lock_at(path: Path) -> FileLock:
    return FileLock(lambda: folder_descriptor(path.parent), path.name)


def wait_until_held(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"


def test_one_holder_at_a_time(path: Path) -> None:
    """A second process does not get the lock, and learns who has it."""
    first, second = lock_at(path), lock_at(path)
    assert first.try_acquire()
    assert first.is_trustworthy
    assert not second.try_acquire()
    assert f"process {os.getpid()} on " in second.holder
    first.release()
    assert second.try_acquire()
    second.release()


@pytest.mark.linux
def test_whoever_waits_keeps_nothing_open(path: Path) -> None:
    """A lock is asked for again and again while another holds it: that costs no descriptors."""
    first, second = lock_at(path), lock_at(path)
    assert first.try_acquire()
    before = descriptors()
    for _ in range(3):
        assert not second.try_acquire()
    assert descriptors() == before
    first.release()
    assert second.try_acquire()
    second.release()
    assert descriptors() == before - 2, "the file of the lock, and its folder"


def test_a_released_lock_leaves_no_file(path: Path) -> None:
    """The holder removes the file; a second release does nothing."""
    lock = lock_at(path)
    lock.try_acquire()
    assert path.exists()
    lock.release()
    lock.release()
    assert not path.exists()


def test_a_second_release_does_not_free_the_next_holder(path: Path) -> None:
    """A process that has released a lock cannot release it for its current holder."""
    first, second = lock_at(path), lock_at(path)
    first.try_acquire()
    first.release()
    second.try_acquire()
    first.release()
    assert not lock_at(path).try_acquire()
    second.release()


@pytest.mark.posix
@pytest.mark.shows("X4")
def test_a_release_does_not_take_away_the_file_of_another(path: Path) -> None:
    """If somebody removed our lock file and another process holds a new one, that one stays and is held."""
    first, second = lock_at(path), lock_at(path)
    first.try_acquire()
    path.unlink()
    assert second.try_acquire()
    first.release()
    assert path.exists()
    assert not lock_at(path).try_acquire()
    second.release()
    assert not path.exists()


@pytest.mark.posix
@pytest.mark.shows("B10", "B60", "X2")
def test_the_lock_of_a_killed_process_is_free(path: Path, other: subprocess.Popen[str]) -> None:
    """A killed holder blocks nobody, although its file is still there."""
    wait_until_held(other)
    lock = lock_at(path)
    assert not lock.try_acquire()
    assert lock.holder.startswith(f"process {other.pid} on ")
    other.kill()
    other.wait()
    assert path.exists()
    assert lock.try_acquire()
    assert lock.is_trustworthy
    lock.release()


FORK = """
import os, subprocess, sys, time
from pathlib import Path
from grym_fetch.disk.locks import FileLock
path = Path(sys.argv[1])
lock = FileLock(lambda: os.open(path.parent, os.O_DIRECTORY), path.name)
assert lock.try_acquire()
if sys.argv[2] == "fork":
    if not os.fork():
        print(os.getpid(), flush=True)
        time.sleep(600)
else:
    print(subprocess.Popen(["sleep", "600"], pass_fds=[lock._descriptor]).pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.posix
@pytest.mark.shows("X9", "X10")
@pytest.mark.parametrize("way", ["fork", "exec"])
def test_a_child_holds_no_lock_for_a_dead_process(path: Path, way: str) -> None:
    """A worker forked during a download lives on after its parent is killed with kill -9: the lock is free.

    It is free even if the child has the descriptor, but then the lock proves nothing.
    """
    command = [sys.executable, "-c", FORK, str(path), way]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            lock = lock_at(path)
            assert not lock.try_acquire()
            process.kill()
            process.wait()
            assert os.path.exists(f"/proc/{child}")
            # The second time it is seen, the child's hold is believed to be a dead process's.
            assert lock.try_acquire() or lock.try_acquire()
            assert lock.is_trustworthy == (way == "fork")
            lock.release()
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.shows("X1", "X2")
def test_the_record_of_a_dead_holder_is_not_believed_at_once(path: Path) -> None:
    """A process that takes over a killed one's lock needs a moment to record itself: it is alive all the same."""
    dead = json.dumps({"pid": 7, "host": "here", "owner": dead_owner().encode()})
    path.write_text(dead)
    lock, quick = lock_at(path), lock_at(path)
    with path.open("rb") as next_holder:
        assert try_flock(next_holder.fileno()) is Flock.TAKEN
        assert not lock.try_acquire()
        path.write_text(json.dumps({"pid": os.getpid(), "host": "here", "owner": Owner.this().encode()}))
        assert not lock.try_acquire()
        path.write_text(dead)
        assert not lock.try_acquire()
        assert not quick.try_acquire()
        assert quick.try_acquire()
        assert not quick.is_trustworthy
    quick.release()


@pytest.mark.posix
@pytest.mark.shows("X4")
def test_an_unlinked_file_is_not_held(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the last holder unlinks the file between our open and our lock, we lock the new file."""
    real = fcntl.flock
    calls: list[int] = []

    def flock(descriptor: int, operation: int) -> None:
        if not calls:
            path.unlink()
        calls.append(operation)
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = lock_at(path)
    before = descriptors()
    assert lock.try_acquire()
    assert not lock_at(path).try_acquire()
    lock.release()
    assert descriptors() == before


@pytest.mark.posix
@pytest.mark.shows("B2", "X3", "S14")
def test_flock_without_effect_is_found_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where flock excludes nobody, both get the lock, neither trusts it, and neither unlinks the other's file."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    first, second = lock_at(path), lock_at(path)
    assert first.try_acquire()
    assert second.try_acquire()
    assert not first.is_trustworthy
    assert not second.is_trustworthy
    first.release()
    assert path.exists()
    second.release()


@pytest.mark.posix
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS], ids=errno.errorcode.get)
@pytest.mark.shows("X3")
def test_a_file_system_without_locks_does_not_stop_us(path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Where there are no locks at all, work goes on without trusting one."""

    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = lock_at(path)
    assert lock.try_acquire()
    assert not lock.is_trustworthy
    lock.release()


@pytest.mark.posix
@pytest.mark.shows("S5")
def test_no_symlink_is_locked(path: Path, tmp_path: Path) -> None:
    """A symlink in the lock's place is refused, and its target is not written to."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    path.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        lock_at(path).try_acquire()
    assert victim.read_bytes() == b"precious"


@pytest.mark.shows("S20")
def test_nothing_is_written_to_a_file_with_two_names(path: Path, tmp_path: Path) -> None:
    """Whoever may work in the folder may give any file this name: it is locked all the same, and stays as it is."""
    (tmp_path / "precious").write_bytes(b"of mine")
    os.link(tmp_path / "precious", path)
    first, second = lock_at(path), lock_at(path)
    assert first.try_acquire()
    assert not second.try_acquire()
    assert second.holder == "another process"
    first.release()
    assert (tmp_path / "precious").read_bytes() == b"of mine"


@pytest.mark.parametrize("record", [b"", b"rubbish", b"[]", b'{"pid": "x"}', b'{"pid": 1}', b"\xff" * 600], ids=repr)
def test_an_unreadable_record_names_nobody(path: Path, record: bytes) -> None:
    """If a holder's record cannot be read, the holder is reported as another process, without an error."""
    holder, lock = lock_at(path), lock_at(path)
    holder.try_acquire()
    path.write_bytes(record)
    assert not lock.try_acquire()
    assert lock.holder == "another process"
    holder.release()


@pytest.mark.shows("U1")
def test_the_holder_is_shown_on_one_line(path: Path) -> None:
    """What another process wrote about itself cannot move the cursor."""
    holder, lock = lock_at(path), lock_at(path)
    holder.try_acquire()
    path.write_text('{"pid": 7, "host": "\\u001b[2Jevil\\nhost"}')
    lock.try_acquire()
    assert lock.holder == "process 7 on \\x1b[2Jevil\\nhost"
    holder.release()


def test_a_lock_that_could_not_be_signed_is_not_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If taking the lock fails, nobody holds it and the caller has nothing to release."""

    def pwrite(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    lock = lock_at(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        try:
            taken = lock.try_acquire()
        except OSError:
            taken = False
    after = lock_at(path)
    assert after.try_acquire() is not taken
    after.release()
    lock.release()


def test_the_record_of_an_earlier_holder_is_gone(path: Path) -> None:
    """However long it was, what the next holder writes is all there is to read."""
    path.write_text("x" * 400)
    lock = lock_at(path)
    assert lock.try_acquire()
    assert json.loads(path.read_text())["pid"] == os.getpid()
    lock.release()


@pytest.mark.posix
def test_a_file_that_may_only_be_read_is_locked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user made it: it excludes others all the same, and only does not say who holds it."""
    path.touch()
    real = os.open

    def read_only(name: str, flags: int, *arguments: int, **more: int) -> int:
        if name == path.name and flags & os.O_ACCMODE == os.O_RDWR:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(name, flags, *arguments, **more)

    monkeypatch.setattr(os, "open", read_only)
    first, second = lock_at(path), lock_at(path)
    assert first.try_acquire()
    assert first.is_trustworthy
    assert not second.try_acquire()
    assert second.holder == "another process"
    first.release()


@pytest.mark.posix
def test_a_disk_that_fails_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that could not be written leaves no lock and nothing open."""
    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", failing(errno.EIO))
        with pytest.raises(OSError, match="Input/output"):
            lock_at(path).try_acquire()
    assert descriptors() == before


@pytest.mark.posix
def test_whoever_may_work_in_the_folder_may_lock(path: Path) -> None:
    """Whatever the umask is; a file is not made executable."""
    path.parent.chmod(0o775)
    before = os.umask(0o077)
    try:
        lock = lock_at(path)
        assert lock.try_acquire()
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o664
    lock.release()


@pytest.mark.posix
def test_what_is_no_file_is_not_locked(path: Path) -> None:
    """It is named, with what to do, and is not waited for."""
    os.mkfifo(path)
    before = descriptors()
    with pytest.raises(UnsafePath, match="in the place of a lock; remove it"):
        lock_at(path).try_acquire()
    assert descriptors() == before


@pytest.mark.posix
def test_a_lock_is_opened_with_care(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No link is followed, nothing is waited for, no terminal becomes this process's, and what is made is new."""
    flags = flags_of_open(monkeypatch)
    lock = FileLock(lambda: os.dup(folder), path.name)
    folder = folder_descriptor(path.parent)
    assert lock.try_acquire()
    lock.release()
    os.close(folder)
    care = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    assert len(flags) == 4
    assert all(each & care == care for each in flags[1:])
    assert [each & os.O_EXCL for each in flags if each & os.O_CREAT] == [os.O_EXCL]
