"""Which process owns a folder: none that may be alive is declared dead."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from grym_fetch.disk.owner import Owner, is_left_behind
from tests.support.system_calls import failing

WAIT = """
import sys
from grym_fetch.disk.owner import Owner
print(Owner.this().encode(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other() -> Iterator[subprocess.Popen[str]]:
    """Another process, which has told its name and is waiting."""
    process = subprocess.Popen([sys.executable, "-c", WAIT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        yield process
        process.kill()


def name_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_an_owner_is_read_as_it_was_written() -> None:
    """The owner's name in a folder's name stands for the same process."""
    me = Owner.this()
    read = Owner.parse(me.encode())
    assert read is not None
    assert read == me
    assert Owner.parse(f"{me.pid}-{me.started}-{me.boot}") == replace(me, host="")
    assert "/" not in me.encode()
    assert "." not in me.encode()


@pytest.mark.parametrize("text", ["", "1", "x-1-2", "-1-2-3", "1-2-3-4-5", "1 -2-3"])
def test_other_names_are_no_owner(text: str) -> None:
    """A name that is not an owner's belongs to nobody, so it is never declared dead."""
    assert Owner.parse(text) is None


def test_this_process_is_alive() -> None:
    """The process that asks is alive."""
    assert not Owner.this().is_dead
    assert Owner.this().is_alive


def test_a_killed_process_is_dead(other: subprocess.Popen[str]) -> None:
    """Another process is alive until it is killed, and then certainly dead."""
    owner = Owner.parse(name_of(other))
    assert owner is not None
    assert not owner.is_dead
    other.kill()
    other.wait()
    assert owner.is_dead
    assert not owner.is_alive


CHANGES: list[tuple[str, Callable[[Owner], Owner], bool]] = [
    ("another process with the same number", lambda o: Owner(o.pid, "1", o.boot, o.host), True),
    ("another boot or machine", lambda o: Owner(o.pid, o.started, "0123456789abcdef", o.host), False),
    ("unknown boot", lambda o: Owner(1 << 30, o.started, "", o.host), False),
]


@pytest.mark.parametrize(("change", "is_dead"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_death_is_certain_or_not_claimed(change: Callable[[Owner], Owner], is_dead: bool) -> None:
    """A reused process number means death; what runs on another machine is not known here."""
    assert change(Owner.this()).is_dead is is_dead


def test_who_may_be_on_another_machine() -> None:
    """One of another boot and another host; whoever shares one of the two is here, in whatever container."""
    me = Owner.this()
    other_namespace, other_boot = f"{me.boot[:16]}0123", "0123456789abcdef"
    assert not me.may_be_elsewhere
    assert not replace(me, boot=other_namespace, host="other").may_be_elsewhere
    assert not replace(me, boot=other_boot).may_be_elsewhere
    assert replace(me, boot=other_boot, host="other").may_be_elsewhere


def test_without_proc_nobody_is_declared_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the system does not tell which boot this is, two processes that do not know it count as of different boots."""
    monkeypatch.setattr("grym_fetch.disk.owner.boot_id", lambda: "")
    assert not Owner(1 << 30, "1", "", "here").is_dead


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES], ids=errno.errorcode.get)
@pytest.mark.linux
def test_who_cannot_be_asked_is_not_declared_dead(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process out of descriptors cannot read who is alive: it declares nobody dead, nor is it taken for dead."""
    owner = Owner.this()
    with monkeypatch.context() as patch:
        patch.setattr("grym_fetch.runtime.system_linux.open", failing(number), raising=False)
        unknown = Owner.this()
        assert not owner.is_dead
    assert not unknown.is_dead
    assert not unknown.is_alive


def test_what_no_lock_guards_is_left_behind(tmp_path: Path) -> None:
    """What a dead process left counts; so does, after a day, what was left by one that cannot be asked."""
    me = Owner.this()
    before = replace(me, boot="0123456789abcdef")
    assert is_left_behind(replace(me, started="1"), tmp_path)
    for owner in (me, before, None):
        assert not is_left_behind(owner, tmp_path)
    os.utime(tmp_path, (1, 1))
    assert is_left_behind(before, tmp_path)
    for owner in (me, None):
        assert not is_left_behind(owner, tmp_path)


@pytest.mark.root
@pytest.mark.linux
def test_a_process_of_another_container_is_not_declared_dead(other: subprocess.Popen[str]) -> None:
    """Containers on one machine share its boot but not its process numbers: a process not seen here may be alive."""
    name = name_of(other)
    script = "import sys; from grym_fetch.disk.owner import Owner as O; print(O.parse(sys.argv[1]).is_dead)"
    inside = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", script, name],
        capture_output=True,
        text=True,
        check=False,
    )
    if inside.returncode != 0 and "unshare" in inside.stderr:
        pytest.skip("no process namespaces here")
    assert (inside.returncode, inside.stdout.strip()) == (0, "False"), "a live owner's stage would be claimed"


@pytest.mark.parametrize("text", ["²-1-b-h", "-1-b-h", "12345678901-1-b-h", "1\n-1-b-h", "٣-1-b-h"])
def test_what_is_no_process_number_is_nobody(text: str) -> None:
    """Some digits cannot be read by ``int``; a folder's name must not stop every run."""
    assert Owner.parse(text) is None
