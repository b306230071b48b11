"""Named worker threads for blocking work.

Rule: work handed to a thread cannot be taken back. A task that is cancelled meanwhile still waits for it to end, so
that no descriptor is closed and no file renamed while a thread uses it. When the interpreter is shutting down and
executors no longer accept work, it runs in the calling thread, so that what has arrived is still recorded.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar
from weakref import WeakSet

from grym_fetch.core.errors import StorageError
from grym_fetch.runtime import system
from grym_fetch.runtime.waiting import wait_uncancelled

T = TypeVar("T")

FORKED = (
    "this process was forked while an AssetManager was at work: its loop, threads and connections are the parent's; "
    "make a new AssetManager, in a new event loop, after the fork"
)
PLENTY = 64
"""A process that may still start this many threads need not worry about the limit."""
SMALL_STACK_BYTES = 1024 * 1024
ROOM_BYTES = 4 * 1024 * 1024
"""Address space that a new thread needs besides its stack before it can report that it runs."""


class WorkerThreads:
    """A few threads with a name, started on first use and ended by `close`.

    If the machine allows no more threads, existing ones do the work: one of any pool is enough.
    """

    def __init__(self, name: str, count: int) -> None:
        count = 1 if is_memory_limited() else count
        self._executor = ThreadPoolExecutor(count, thread_name_prefix=f"grym-fetch-{name}")
        self._pid = os.getpid()
        self._is_closed = False
        self._has_threads = False
        self._pending: set[Future[Any]] = set()
        _pools.add(self)

    def begin(self) -> ThreadPoolExecutor:
        """Start a thread now, if one can be started; return the queue it takes its work from."""
        self._submit(int, ())
        return self._executor

    async def compute(self, function: Callable[..., T], *args: object) -> T:
        """Call ``function(*args)`` in a thread. A cancellation is raised only once the call is over.

        Raises `StorageError` if there is no thread at all.
        """
        if os.getpid() != self._pid:
            raise RuntimeError(FORKED)
        try:
            work = asyncio.wrap_future(self._submit(function, args) or _borrow(function, args))
        except RuntimeError as error:
            if self._is_closed or "cannot schedule" not in str(error):
                raise
            self._executor.shutdown()  # earlier work is finished first
            return function(*args)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await wait_uncancelled([work])
            if not work.cancelled():
                work.exception()  # mark it as retrieved: a cancelled task has no use for it
            raise

    def _submit(self, function: Callable[..., T], args: tuple[object, ...]) -> Future[T] | None:
        """Give the work to a thread of this pool; None if it has no thread and cannot start one."""
        if not self._has_threads and not has_room():
            return None
        work: Future[T] = Future()

        def run() -> None:
            if work.set_running_or_notify_cancel():
                try:
                    outcome = function(*args)
                except BaseException as error:  # noqa: BLE001 - raised where it is awaited
                    work.set_exception(error)
                else:
                    work.set_result(outcome)

        self._pending.add(work)
        work.add_done_callback(self._pending.discard)
        try:
            self._executor.submit(run)
        except RuntimeError as error:
            # The executor queued the work before it tried to start another thread.
            if "can't start" not in str(error) or not self._has_threads:
                work.cancel()
            if "can't start" not in str(error):
                raise
            return work if self._has_threads else None
        self._has_threads = True
        return work

    def lend(self, function: Callable[..., T], args: tuple[object, ...]) -> Future[T] | None:
        """Do work of another pool, if there is a thread for it."""
        return self._submit(function, args) if self._has_threads and not self._is_closed else None

    def close(self) -> None:
        """End the threads after their current work; work that has not started is dropped."""
        self._is_closed = True
        self._executor.shutdown(wait=False, cancel_futures=True)
        for work in list(self._pending):
            work.cancel()


_pools: WeakSet[WorkerThreads] = WeakSet()


def _borrow(function: Callable[..., T], args: tuple[object, ...]) -> Future[T]:
    for pool in list(_pools):
        if (work := pool.lend(function, args)) is not None:
            return work
    raise _short_of("thread to work in")


def machine_error(error: BaseException) -> StorageError | None:
    """Explain an error caused by this machine's limits on threads and memory; None for any other."""
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(machine_error, error.exceptions)), None)
    is_unloadable = isinstance(error, ImportError) and any(text in str(error) for text in _NO_MEMORY)
    is_refused = isinstance(error, OSError) and error.errno == errno.ENOMEM
    if isinstance(error, MemoryError) or is_unloadable or is_refused:
        return _short_of("more memory")
    return _short_of("thread to work in") if "can't start new thread" in str(error) else None


_NO_MEMORY = ("failed to map segment", "cannot allocate memory")
"""The dynamic linker's words for a lack of memory."""


def is_memory_limited() -> bool:
    """Whether this process can reserve only so much memory (``ulimit -v``, ``ulimit -d``)."""
    return bool(system.memory_limits())


def has_room() -> bool:
    """Whether there is room for one more thread.

    If not, the thread would start but fail before it reports that it runs, and its starter would wait forever.
    """
    if not is_memory_limited():
        return True
    return system.can_reserve((threading.stack_size() or 8 * SMALL_STACK_BYTES) + ROOM_BYTES)


def begin_daemon(name: str, run: Callable[[], None]) -> threading.Thread:
    """Start a daemon thread. Raises ``RuntimeError`` if none can be started."""
    if not has_room():
        raise RuntimeError("can't start new thread: there is no room for it")
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def save_memory() -> None:
    """If memory is limited, use less address space for each thread. For our own command, before it starts any thread.

    glibc reserves 64 MiB for each thread's own heap, and 8 MiB for its stack. When the first thread ends, it loads a
    library, and aborts the process if it cannot.
    """
    if not is_memory_limited():
        return
    import ctypes

    threading.stack_size(SMALL_STACK_BYTES)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    with suppress(OSError):
        ctypes.CDLL("libgcc_s.so.1")


_M_ARENA_MAX = -8
"""From malloc.h."""


def _short_of(what: str) -> StorageError:
    known = ", ".join(limits()) or "no limit is set"
    return StorageError("this machine", f"this process can get no {what} ({known})")


def limits() -> list[str]:
    """The limits on threads that are set for this process, by the names under which they are set."""
    found = []
    if (most := system.process_limit()) is not None:
        found.append(f"ulimit -u {most}")
    found += (f"ulimit -{letter} {most // 1024}" for letter, most in system.memory_limits().items())
    if (pids := _pids("pids.max")) is not None:
        found.append(f"pids.max {pids}")
    return found


def are_scarce() -> bool:
    """Whether only a few threads may be available: then use only the indispensable ones."""
    if is_memory_limited():
        return True
    most, now = _pids("pids.max"), _pids("pids.current")
    few = most is not None and most - (now or 0) < PLENTY
    return few or ((threads := system.process_limit()) is not None and threads < PLENTY)


def _pids(name: str) -> int | None:
    """A limit of this process's control group; None if there is none."""
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
        for _, controllers, place in (line.split(":", 2) for line in groups):
            if controllers in ("", "pids"):
                root = Path("/sys/fs/cgroup", controllers)
                inner = root / place.lstrip("/") / name
                return int((inner if inner.exists() else root / name).read_text())
    except (OSError, ValueError):
        pass  # "max", or this system has no such file
    return None


class DaemonThread:
    """One thread for foreign code that may never return. Neither a caller that gives up nor program exit waits for it.

    ``drop`` is called with a result that nobody waits for any longer.
    """

    def __init__(self, name: str, drop: Callable[[object], None]) -> None:
        self._name = f"grym-fetch-{name}"
        self._drop = drop
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def compute(self, function: Callable[..., object], *args: object) -> object:
        """Call ``function(*args)`` in the thread. If cancelled, leave the call to itself.

        Raises what the function raises, but `RuntimeError` instead of anything that would end the loop.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[object] = loop.create_future()
        context = copy_context()

        def tell(outcome: object, error: BaseException | None) -> None:
            if future.cancelled():
                self._drop(outcome)
            elif error is None:
                future.set_result(outcome)
            else:
                future.set_exception(error)

        def work() -> None:
            outcome: object = None
            failure: BaseException | None = None
            try:
                outcome = context.run(function, *args)
            except BaseException as error:  # noqa: BLE001 - raised where it is awaited
                failure = error
                # In the loop these would mean something else: a future refuses StopIteration, and SystemExit and
                # KeyboardInterrupt end the loop. Ctrl-C is raised only in the main thread, never here.
                if isinstance(error, StopIteration) or not isinstance(error, Exception):
                    failure = RuntimeError(f"raised {type(error).__name__}")
                    failure.__cause__ = error
            try:
                loop.call_soon_threadsafe(tell, outcome, failure)
            except RuntimeError:  # the loop is closed
                self._drop(outcome)

        if self._thread is None:
            self._thread = begin_daemon(self._name, self._run)
        self._work.put(work)
        return await future

    def stop(self) -> None:
        """Let the thread end after its current work."""
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
