"""Worker threads: off the loop, named, and never left behind by a cancellation."""

from __future__ import annotations

import asyncio
import errno
import resource
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from grym_fetch.errors import StorageError
from grym_fetch.runtime.threads import DaemonThread, WorkerThreads, machine_error


@pytest.fixture
def threads() -> Iterator[WorkerThreads]:
    threads = WorkerThreads("test", 1)
    yield threads
    threads.close()


class Gate:
    """Work that waits in its thread until it is released."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.ended = False

    def __call__(self, error: Exception | None = None) -> str:
        self.begun.set()
        assert self.go_on.wait(60)
        self.ended = True
        if error is not None:
            raise error
        return "done"


async def turns() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def test_work_is_done_in_a_named_thread(threads: WorkerThreads) -> None:
    """The result comes back, and a thread dump says whose thread it was."""
    name = await threads.compute(lambda prefix: prefix + threading.current_thread().name, "in ")
    assert name.startswith("in grym-fetch-test")


async def test_an_error_comes_back_as_it_is(threads: WorkerThreads) -> None:
    """An error in the work is raised in the caller."""
    with pytest.raises(ZeroDivisionError):
        await threads.compute(lambda: 1 // 0)


@pytest.mark.shows("P13")
async def test_the_loop_goes_on_meanwhile(threads: WorkerThreads) -> None:
    """While a thread works, other tasks run."""
    gate = Gate()
    work = asyncio.ensure_future(threads.compute(gate))
    await asyncio.to_thread(gate.begun.wait)
    assert not work.done()
    gate.go_on.set()
    assert await work == "done"


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.shows("P9")
async def test_a_cancellation_waits_for_the_work(threads: WorkerThreads, times: int) -> None:
    """However often the caller is cancelled, it waits until the thread is done with its descriptor."""
    gate = Gate()
    work = asyncio.ensure_future(threads.compute(gate))
    await asyncio.to_thread(gate.begun.wait)
    for _ in range(times):
        work.cancel()
        await turns()
        assert not work.done()
    gate.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert gate.ended


async def test_the_cancelled_caller_is_spared_the_error(threads: WorkerThreads) -> None:
    """Work that fails after its caller was cancelled raises the cancellation, and logs nothing."""
    gate = Gate()
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    work = asyncio.ensure_future(threads.compute(gate, OSError("late")))
    await asyncio.to_thread(gate.begun.wait)
    work.cancel()
    await turns()
    gate.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await work
    await turns()
    assert complaints == []


async def test_work_that_has_not_begun_can_be_taken_back(threads: WorkerThreads) -> None:
    """A caller cancelled while its work is still queued waits only for that queue."""
    gate, late = Gate(), Gate()
    first = asyncio.ensure_future(threads.compute(gate))
    second = asyncio.ensure_future(threads.compute(late))
    await asyncio.to_thread(gate.begun.wait)
    second.cancel()
    late.go_on.set()
    gate.go_on.set()
    assert await first == "done"
    with pytest.raises(asyncio.CancelledError):
        await second


async def test_at_the_end_of_the_interpreter_work_is_done_at_once(
    threads: WorkerThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When no executor takes work any longer, the caller does it, after all work requested before."""
    done: list[str] = []
    gate = Gate()
    first = asyncio.ensure_future(threads.compute(gate))
    await asyncio.to_thread(gate.begun.wait)

    def refuse(*_: object) -> None:
        gate.go_on.set()
        raise RuntimeError("cannot schedule new futures after shutdown")

    monkeypatch.setattr(threads._executor, "submit", refuse)
    await threads.compute(lambda: done.append(f"{gate.ended} {threading.current_thread().name}"))
    await threads.compute(done.append, "and again")
    assert done == ["True MainThread", "and again"]
    assert await first == "done"


async def test_closed_threads_do_nothing_more(threads: WorkerThreads) -> None:
    """Work requested after `close` is refused, and not done in the caller instead."""
    threads.close()
    with pytest.raises(RuntimeError, match="after shutdown"):
        await threads.compute(lambda: 1)


def no_more_threads(patch: pytest.MonkeyPatch) -> None:
    """From now on the machine gives no threads."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    patch.setattr(threading.Thread, "start", start)


@pytest.mark.posix
@pytest.mark.shows("D16")
async def test_a_machine_without_threads_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """If there is no thread at all, the error says so and names the limits, and the work is not done later either."""
    monkeypatch.setattr("grym_fetch.runtime.threads._pools", weakref.WeakSet())
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (7, 7) if kind == resource.RLIMIT_NPROC else (-1, -1))
    threads, done = WorkerThreads("test", 1), list[int]()
    with monkeypatch.context() as patch:
        no_more_threads(patch)
        with pytest.raises(StorageError, match=r"no thread.*ulimit -u 7"):
            await threads.compute(done.append, 1)
    await threads.compute(done.append, 2)
    assert done == [2]
    threads.close()


@pytest.mark.shows("D16")
def test_errors_of_this_machine_are_known() -> None:
    """A lack of threads or memory is recognised anywhere, even in a group; nothing else is blamed on the machine."""
    no_thread = RuntimeError("can't start new thread")
    assert "no thread" in str(machine_error(no_thread))
    group = ExceptionGroup("", [ValueError(), ExceptionGroup("", [MemoryError()])])
    assert "no more memory" in str(machine_error(group))
    assert machine_error(RuntimeError("another")) is None
    assert machine_error(ExceptionGroup("", [ValueError()])) is None


@pytest.mark.shows("D16")
@pytest.mark.parametrize("error", [OSError(errno.ENOMEM, "x"), ImportError("x.so: failed to map segment")], ids=repr)
def test_no_memory_has_many_names(error: Exception) -> None:
    """The kernel and the dynamic linker report it in their own words."""
    assert "no more memory" in str(machine_error(error))
    assert machine_error(ImportError("no such module")) is None


def address_space() -> int:
    """The number of bytes of address space that this process uses."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


@pytest.mark.posix
@pytest.mark.shows("D16")
async def test_a_thread_that_has_no_room_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would fail before it reports that it runs, and its starter would wait for that: no thread is tried."""
    monkeypatch.setattr("grym_fetch.runtime.threads._pools", weakref.WeakSet())
    used = address_space()
    before = resource.getrlimit(resource.RLIMIT_AS)
    threads, foreign = WorkerThreads("test", 4), DaemonThread("test", lambda _: None)
    monkeypatch.setattr(threading.Thread, "start", lambda _: pytest.fail("it was tried"))
    resource.setrlimit(resource.RLIMIT_AS, (used + 2 * 1024 * 1024, before[1]))
    try:
        with pytest.raises(StorageError, match=r"no thread.*ulimit -v"):
            await threads.compute(int)
        with pytest.raises(RuntimeError, match="can't start"):
            await foreign.compute(int)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        threads.close()


@pytest.mark.shows("D16")
async def test_one_thread_suffices(threads: WorkerThreads, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no more can be started, the existing thread does the work of its own pool and of every other one."""
    gate = Gate()
    wide, other = WorkerThreads("wide", 4), WorkerThreads("other", 1)
    first = asyncio.ensure_future(wide.compute(gate))
    await asyncio.to_thread(gate.begun.wait)
    with monkeypatch.context() as patch:
        no_more_threads(patch)
        work = [asyncio.ensure_future(pool.compute(lambda: threading.current_thread().name)) for pool in (wide, other)]
        await turns()
        gate.go_on.set()
        assert await first == "done"
        assert len(set(await asyncio.gather(*work))) == 1
    wide.close()
    other.close()


def test_no_thread_is_started_for_nothing() -> None:
    """Threads start with the first work, and closing without any does nothing."""
    before = threading.active_count()
    threads = WorkerThreads("idle", 4)
    assert threading.active_count() == before
    threads.close()


@pytest.mark.shows("U6")
async def test_foreign_code_is_left_to_itself() -> None:
    """A cancelled caller does not wait for it, nor does the interpreter; a result that nobody wants is dropped."""
    gate, dropped = Gate(), asyncio.Event()
    loop = asyncio.get_running_loop()
    thread = DaemonThread("test", lambda _: dropped.set())
    assert await thread.compute(lambda: threading.current_thread().daemon)
    work = asyncio.ensure_future(thread.compute(gate))
    await loop.run_in_executor(None, gate.begun.wait)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert not gate.ended
    gate.go_on.set()
    await dropped.wait()
    with pytest.raises(ZeroDivisionError):
        await thread.compute(lambda: 1 // 0)
    thread.stop()
