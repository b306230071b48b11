"""Locks between processes: they exclude, they die with their holder, and where they do not work that is found out."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from grym_fetch.disk.locks import FileLock, Owner, is_left_behind

HOLD = """
import sys
from pathlib import Path
from grym_fetch.disk.locks import FileLock, Owner
assert FileLock(Path(sys.argv[1])).try_acquire()
print(Owner.this().encode(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.lock"


@pytest.fixture
def other(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock; its owner's name is the first line of its output."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        yield process
        process.kill()


def name_of(process: subprocess.Popen[str]) -> str:
    """Wait until it holds the lock; return its owner's name."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


# -- locks ----------------------------------------------------------------------------------------------------------


def test_one_holder_at_a_time(path: Path) -> None:
    """Who comes second does not get the lock, and learns who has it."""
    first, second = FileLock(path), FileLock(path)
    assert first.try_acquire()
    assert first.is_trustworthy
    assert not second.try_acquire()
    assert f"process {os.getpid()} on " in second.holder
    first.release()
    assert second.try_acquire()
    second.release()


def test_a_released_lock_leaves_no_file(path: Path) -> None:
    """The holder takes the file along; releasing twice is once."""
    lock = FileLock(path)
    lock.try_acquire()
    assert path.exists()
    lock.release()
    lock.release()
    assert not path.exists()


def test_a_second_release_does_not_free_the_next_holder(path: Path) -> None:
    """Who has released a lock cannot release it for whoever holds it now."""
    first, second = FileLock(path), FileLock(path)
    first.try_acquire()
    first.release()
    second.try_acquire()
    first.release()
    assert not FileLock(path).try_acquire()
    second.release()


@pytest.mark.shows("X4")
def test_a_release_does_not_take_away_the_file_of_another(path: Path) -> None:
    """Somebody has removed our lock file and another process holds a new one: that one stays, and is held."""
    first, second = FileLock(path), FileLock(path)
    first.try_acquire()
    path.unlink()
    assert second.try_acquire()
    first.release()
    assert path.exists()
    assert not FileLock(path).try_acquire()
    second.release()
    assert not path.exists()


@pytest.mark.shows("B10", "B60", "X2")
def test_the_lock_of_a_killed_process_is_free(path: Path, other: subprocess.Popen[str]) -> None:
    """A holder that was killed blocks nobody, although its file is still there."""
    name_of(other)
    lock = FileLock(path)
    assert not lock.try_acquire()
    assert lock.holder.startswith(f"process {other.pid} on ")
    other.kill()
    other.wait()
    assert path.exists()
    assert lock.try_acquire()
    assert lock.is_trustworthy
    lock.release()


@pytest.mark.shows("X4")
def test_an_unlinked_file_is_not_held(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the last holder unlinks the file between our open and our lock, we lock the file that is there now."""
    real = fcntl.flock
    calls: list[int] = []

    def flock(descriptor: int, operation: int) -> None:
        if not calls:
            path.unlink()
        calls.append(operation)
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = FileLock(path)
    assert lock.try_acquire()
    assert not FileLock(path).try_acquire()
    lock.release()


@pytest.mark.shows("B2", "X3", "S14")
def test_flock_without_effect_is_found_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where flock excludes nobody, both get the lock, neither trusts it, and neither unlinks the other's file."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    first, second = FileLock(path), FileLock(path)
    assert first.try_acquire()
    assert second.try_acquire()
    assert not first.is_trustworthy
    assert not second.is_trustworthy
    first.release()
    assert path.exists()
    second.release()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS], ids=errno.errorcode.get)
@pytest.mark.shows("X3")
def test_a_file_system_without_locks_does_not_stop_us(path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Where there are no locks at all, the work goes on without trusting one."""

    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = FileLock(path)
    assert lock.try_acquire()
    assert not lock.is_trustworthy
    lock.release()


@pytest.mark.shows("S5")
def test_no_symlink_is_locked(path: Path, tmp_path: Path) -> None:
    """A symlink in the lock's place is refused, and what it leads to is not written."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    path.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        FileLock(path).try_acquire()
    assert victim.read_bytes() == b"precious"


@pytest.mark.parametrize("record", [b"", b"rubbish", b"[]", b'{"pid": "x"}', b'{"pid": 1}', b"\xff" * 600], ids=repr)
def test_an_unreadable_record_names_nobody(path: Path, record: bytes) -> None:
    """A holder's record that cannot be read makes it another process, and no error."""
    holder, lock = FileLock(path), FileLock(path)
    holder.try_acquire()
    path.write_bytes(record)
    assert not lock.try_acquire()
    assert lock.holder == "another process"
    holder.release()


@pytest.mark.shows("U1")
def test_the_holder_is_shown_on_one_line(path: Path) -> None:
    """What another process has written about itself cannot move a cursor."""
    holder, lock = FileLock(path), FileLock(path)
    holder.try_acquire()
    path.write_text('{"pid": 7, "host": "\\u001b[2Jevil\\nhost"}')
    lock.try_acquire()
    assert lock.holder == "process 7 on \\x1b[2Jevil\\nhost"
    holder.release()


def test_a_lock_that_could_not_be_signed_is_not_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If taking the lock fails with an error, nobody holds it: the caller has nothing to release."""

    def pwrite(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    lock = FileLock(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        try:
            taken = lock.try_acquire()
        except OSError:
            taken = False
    after = FileLock(path)
    assert after.try_acquire() is not taken
    after.release()
    lock.release()


# -- owners ---------------------------------------------------------------------------------------------------------


def test_an_owner_is_read_as_it_was_written() -> None:
    """The name in a folder's name stands for the same process."""
    me = Owner.this()
    read = Owner.parse(me.encode())
    assert read is not None
    assert read == me
    assert Owner.parse(f"{me.pid}-{me.started}-{me.boot}") == replace(me, host="")
    assert "/" not in me.encode()
    assert "." not in me.encode()


@pytest.mark.parametrize("text", ["", "1", "x-1-2", "-1-2-3", "1-2-3-4-5", "1 -2-3"])
def test_other_names_are_no_owner(text: str) -> None:
    """What is not an owner's name is nobody's, so it is never declared dead."""
    assert Owner.parse(text) is None


def test_this_process_is_alive() -> None:
    """Who asks is not dead."""
    assert not Owner.this().is_dead


def test_a_killed_process_is_dead(other: subprocess.Popen[str]) -> None:
    """Another process is alive until it is killed, and certainly dead then."""
    owner = Owner.parse(name_of(other))
    assert owner is not None
    assert not owner.is_dead
    other.kill()
    other.wait()
    assert owner.is_dead


CHANGES: list[tuple[str, Callable[[Owner], Owner], bool]] = [
    ("another process with the same number", lambda o: Owner(o.pid, "1", o.boot, o.host), True),
    ("another boot or machine", lambda o: Owner(o.pid, o.started, "0123456789abcdef", o.host), False),
    ("unknown boot", lambda o: Owner(1 << 30, o.started, "", o.host), False),
]


@pytest.mark.parametrize(("change", "is_dead"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_death_is_certain_or_not_claimed(change: Callable[[Owner], Owner], is_dead: bool) -> None:
    """A process number that was given anew means death; what another machine does is not known here."""
    assert change(Owner.this()).is_dead is is_dead


def test_without_proc_nobody_is_declared_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system does not say which boot this is, two processes that do not know it are not of the same."""
    monkeypatch.setattr("grym_fetch.disk.locks._boot_id", lambda: "")
    assert not Owner(1 << 30, "1", "", "here").is_dead


def test_what_no_lock_guards_is_left_behind(path: Path) -> None:
    """By a process that is dead; by one that cannot be asked, as one of before a power cut, once it is a day old."""
    path.mkdir()
    me = Owner.this()
    before = replace(me, boot="0123456789abcdef")
    assert is_left_behind(replace(me, started="1"), path)
    for owner in (me, before, None):
        assert not is_left_behind(owner, path)
    os.utime(path, (1, 1))
    assert is_left_behind(before, path)
    for owner in (me, None):
        assert not is_left_behind(owner, path)


@pytest.mark.root
def test_a_process_of_another_container_is_not_declared_dead(other: subprocess.Popen[str]) -> None:
    """Containers on one machine share its boot but not its process numbers: who is not seen there may live."""
    name = name_of(other)
    script = "import sys; from grym_fetch.disk.locks import Owner as O; print(O.parse(sys.argv[1]).is_dead)"
    inside = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", script, name],
        capture_output=True,
        text=True,
        check=False,
    )
    if inside.returncode != 0 and "unshare" in inside.stderr:
        pytest.skip("no process namespaces here")
    assert (inside.returncode, inside.stdout.strip()) == (0, "False"), "a live owner's stage would be claimed"
