"""Each system's module offers the same and does what its callers rely on; macOS's is tried as far as that goes here."""

from __future__ import annotations

import ast
import errno
import fcntl
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from grym_fetch.runtime import system, system_darwin, system_linux
from tests.support.darwin import pretend, took_away
from tests.support.system import folder_descriptor

pytestmark = pytest.mark.linux
RUNTIME = Path(system.__file__).parent
MODULES = [system_linux, system_darwin]


@pytest.fixture(params=MODULES, ids=["linux", "darwin"])
def module(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of one system, on something that answers like that system."""
    chosen: ModuleType = request.param
    if chosen is system_darwin:
        pretend(monkeypatch)
    return chosen


def offered(*modules: str) -> dict[str, str]:
    """The functions of some modules and how they are called, as it is written there: Windows's cannot be imported."""
    found: dict[str, str] = {}
    for module in modules:
        for node in ast.parse((RUNTIME / f"{module}.py").read_text()).body:
            if isinstance(node, ast.FunctionDef):
                found[node.name] = f"({ast.unparse(node.args)}) -> {ast.unparse(node.returns or ast.Constant(None))}"
    return found


def test_all_systems_offer_the_same() -> None:
    """The same functions, with the same arguments."""
    windows = offered("process_start", "windows_access", "windows_folders", "system_windows")
    windows["stat"] = windows.pop("stat_in")
    for each in ("system_linux", "system_darwin"):
        here = offered("process_start", "system_posix", each)
        for name in system.__all__:
            if name.islower():
                assert here.get(name) == windows[name], name


def test_a_process_is_known_by_its_start(module: ModuleType) -> None:
    """It is the same whenever it is asked for; one that has ended has none."""
    assert module.boot_id() == module.boot_id() != ""
    assert len(module.boot_id()) >= 16
    assert module.process_start(os.getpid()) == module.process_start(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert module.process_start(child.pid) not in ("", None, module.process_start(os.getpid()))
    finally:
        child.communicate(b"\n")
    assert module.process_start(child.pid) == ""


def test_the_umask_stays(module: ModuleType) -> None:
    """It is told, and is the same afterwards."""
    before = os.umask(0o027)
    try:
        assert module.current_umask() == 0o027
        assert module.current_umask() == 0o027
    finally:
        os.umask(before)


def test_hints_and_flushes_leave_a_file_as_it_is(module: ModuleType, tmp_path: Path) -> None:
    """Each takes a file that is open for writing; only a copy by the system moves bytes, to the same place."""
    (tmp_path / "a").write_bytes(b"0123456789")
    with open(tmp_path / "a", "r+b") as source, open(tmp_path / "b", "w+b") as target:
        for data_only in (True, False):
            module.flush(source.fileno(), data_only=data_only)
        module.read_ahead(source.fileno())
        module.read_again(source.fileno())
        count = module.copy_in_kernel(source.fileno(), target.fileno(), 5, 2)
        assert target.read() == ((b"\0\0" + b"0123456789"[2 : 2 + count]) if count else b"")
        assert source.read() == b"0123456789"


@pytest.mark.parametrize(("number", "is_refused"), [(errno.ENOTSUP, False), (errno.EIO, True), (errno.ENOSPC, True)])
def test_on_macos_the_drive_is_told_to_write(monkeypatch: pytest.MonkeyPatch, number: int, is_refused: bool) -> None:
    """A full flush, and fsync only in its place; an error of the disk is never hidden by a second try."""
    calls: list[str] = []

    def refuse(_: int, command: int, *more: int) -> int:
        calls.append(f"fcntl {command}")
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    monkeypatch.setattr(os, "fsync", lambda _: calls.append("fsync"))
    if is_refused:
        with pytest.raises(OSError, match=os.strerror(number)):
            system_darwin.flush(3, data_only=True)
        assert calls == ["fcntl 51"]
    else:
        system_darwin.flush(3, data_only=True)
        assert calls == ["fcntl 51", "fsync"]


def test_on_macos_folders_are_exchanged_by_another_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """renameatx_np with RENAME_SWAP; a file system without it leads to two steps, another error is raised."""
    seen: list[tuple[object, ...]] = []
    answers = iter([0, errno.ENOTSUP, errno.ENOENT])
    last = 0

    def call(*arguments: object) -> int:
        nonlocal last
        seen.append(arguments)
        last = next(answers)
        return -1 if last else 0

    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: SimpleNamespace(renameatx_np=call))
    monkeypatch.setattr("ctypes.get_errno", lambda: last)
    assert system_darwin.exchange(3, "a", 4, "b")
    assert seen == [(3, b"a", 4, b"b", 2)]
    assert not system_darwin.exchange(3, "a", 4, "b")
    with pytest.raises(FileNotFoundError):
        system_darwin.exchange(3, "a", 4, "b")


def test_on_macos_unsent_bytes_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the option that sockets have there."""
    asked: list[tuple[int, int]] = []

    def getsockopt(level: int, option: int) -> int:
        asked.append((level, option))
        return 7

    sock = SimpleNamespace(getsockopt=getsockopt)
    assert system_darwin.unsent_bytes(sock) == 7  # type: ignore[arg-type]  # all that is asked of it
    assert asked == [(socket.SOL_SOCKET, 0x1024)]


def test_what_macos_lacks_is_lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pretence takes away what it says, so that nothing here leans on Linux unseen."""
    pretend(monkeypatch)
    assert not any(hasattr(os, name) for name in took_away())


def test_ctrl_c_is_held_back() -> None:
    """It comes when the block ends, and never to a process that was started there."""
    received: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        with system.without_interrupts():
            child = subprocess.Popen([sys.executable, "-c", "input(); print('there')"], stdin=-1, stdout=-1, text=True)
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
            assert received == []
        assert received == [signal.SIGINT]
        os.kill(child.pid, signal.SIGINT)
        assert child.communicate("\n")[0] == "there\n"
    finally:
        signal.signal(signal.SIGINT, before)


def test_who_has_a_file_open_for_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody, even one who only has it in memory; readers do not count, and no writer is held up afterwards."""
    path = tmp_path / "file"
    path.write_bytes(b"1")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert not system.is_open_for_writing(descriptor)
        with open(path, "ab"):
            assert system.is_open_for_writing(descriptor)
        with open(path, "r+b") as file:
            mapped = mmap.mmap(file.fileno(), 1)
        assert system.is_open_for_writing(descriptor)
        mapped.close()
        assert not system.is_open_for_writing(descriptor)
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))  # no lease is left, which would hold this up
        with open(path, "ab"):
            monkeypatch.setattr(system_linux, "_file_system", lambda _: "nfs4")
            assert not system.is_open_for_writing(descriptor), "there, a refusal means nothing"
    finally:
        os.close(descriptor)
    folder = folder_descriptor(tmp_path)
    try:
        assert not system.is_open_for_writing(folder), "nobody can say"
    finally:
        os.close(folder)
