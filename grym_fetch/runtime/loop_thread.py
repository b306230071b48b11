"""An event loop in its own thread, and what a class without ``await`` needs to call into it.

Rules: an interrupted call (Ctrl-C) is cancelled in the loop and has ended there before the exception propagates, so
nothing continues behind the caller's back. A manager that nobody closes is closed when it is garbage-collected or when
the interpreter ends. For the latter, a thread waits for the end of the main thread, because `atexit` comes too late: by
then the interpreter has ended its other threads and cannot start new ones.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar

from grym_fetch.core.events import Event
from grym_fetch.runtime.bus import Subscription

MAX_SHUTDOWN_S = 10.0
"""How long the interpreter's shutdown waits for open managers to close."""
WATCH_S = 1.0
"""How long the watching thread may outlive the last loop."""


class AsyncManager(Protocol):
    """A manager that lives in the loop: opened and closed there."""

    async def initialize(self) -> None:
        """Make it ready."""

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        """Close it."""


P = ParamSpec("P")
T = TypeVar("T")
M = TypeVar("M", bound=AsyncManager)


class _Call(Generic[T]):
    """One call, made in one thread and run in another's loop. `over` is set once no part of it is running."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._work = work
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[T] | None = None
        self.over = threading.Event()

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start it in the loop."""
        self._loop = loop
        loop.call_soon_threadsafe(self._start)

    def cancel(self) -> None:
        """Cancel it, and wait until it has ended."""
        if self._loop is None:
            return
        with suppress(RuntimeError):  # the loop is closed and has already cancelled everything
            self._loop.call_soon_threadsafe(self._stop)
        self.over.wait()

    def result(self) -> T:
        """Return its result or raise its exception."""
        assert self._task is not None
        if self._task.cancelled():
            raise CancelledError("the manager was closed while this call was under way")
        return self._task.result()

    def _start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._work())
        self._task.add_done_callback(self._end)

    def _stop(self) -> None:
        if self._task is None:
            self.over.set()  # interrupted before it was handed over
        else:
            self._task.cancel()

    def _end(self, task: asyncio.Task[T]) -> None:
        if not task.cancelled():
            task.exception()  # mark it as retrieved: an interrupted caller does not ask for it
        self.over.set()


class LoopThread(Generic[M]):
    """The loop and the thread of one asynchronous manager. Ending it closes the manager."""

    def __init__(self, manager: M) -> None:
        self.manager = manager
        self._pid = os.getpid()
        self._lock = threading.RLock()  # a finalizer may run at any point
        self._ending = False
        self._was_interrupted = False
        self._stop = asyncio.Event()
        self._trouble: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._live, name="grym-fetch loop", daemon=True)
        try:
            _watch.over(self)
            self._thread.start()
        except RuntimeError:
            _watch.forget(self)
            self._loop.close()
            raise

    def _live(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._main())
        except BaseException as error:  # noqa: BLE001 - raised again by `end`, in the closing thread
            self._trouble = error
        finally:
            _watch.forget(self)

    async def _main(self) -> None:
        try:
            await self._stop.wait()
        finally:
            reason = asyncio.CancelledError() if self._was_interrupted else None
            await self.manager.__aexit__(type(reason), reason, None)

    @property
    def is_of_another_process(self) -> bool:
        """Whether this process was forked from the one that runs the thread."""
        return self._pid != os.getpid()

    @property
    def is_current(self) -> bool:
        """Whether the caller is in the loop."""
        return threading.current_thread() is self._thread

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run ``work`` in the loop. If this thread is interrupted meanwhile, cancel it and wait for its end."""
        if self.is_current:
            raise RuntimeError("a blocking call inside the manager's own loop would wait for itself forever")
        call = _Call(work)
        try:
            with self._lock:
                if self._ending:
                    raise CancelledError("the manager was closed")
                call.begin(self._loop)
            call.over.wait()
        except BaseException:
            call.cancel()
            raise
        return call.result()

    def call(self, function: Callable[[], T]) -> T:
        """Call a function that does not wait: in the loop, or directly if the caller is already in it."""
        if self.is_current:
            return function()

        async def work() -> T:
            return function()

        return self.run(work)

    def do(self, function: Callable[[], None]) -> None:
        """Like `call`, but do nothing if the loop has ended."""
        with suppress(CancelledError):
            self.call(function)

    def abandon(self, *, was_interrupted: bool = False) -> None:
        """Tell it to end, without waiting. After an interruption, it does not wait for slow callbacks either.
        Idempotent."""
        if self.is_of_another_process:
            return  # the thread is not here, and the loop's descriptors belong to the other process
        with self._lock:
            self._ending = True
            self._was_interrupted = self._was_interrupted or was_interrupted
            with suppress(RuntimeError):  # closed already
                self._loop.call_soon_threadsafe(self._stop.set)

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end."""
        if not self.is_of_another_process:
            self._thread.join(timeout)

    def end(self, *, was_interrupted: bool = False) -> None:
        """Close the manager and wait until its thread is gone."""
        if self.is_current:
            raise RuntimeError("a manager cannot be closed inside its own loop")
        self.abandon(was_interrupted=was_interrupted)
        self.join()
        if self._trouble is not None:
            raise self._trouble


class _Watch:
    """Closes managers that are still open when the main thread ends, so that what has arrived is kept and recorded.

    Its thread runs only while there is a loop, and is not a daemon, so the interpreter waits for it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._alive: set[LoopThread[Any]] = set()
        self._thread: threading.Thread | None = None

    def over(self, loop: LoopThread[Any]) -> None:
        """Watch this loop too."""
        with self._lock:
            self._alive.add(loop)
            if self._thread is None:
                thread = threading.Thread(target=self._wait, name="grym-fetch watch", daemon=False)
                thread.start()
                self._thread = thread

    def forget(self, loop: LoopThread[Any]) -> None:
        """Stop watching a loop that has ended."""
        with self._lock:
            self._alive.discard(loop)

    def _wait(self) -> None:
        main = threading.main_thread()
        while main.is_alive():
            main.join(WATCH_S)
            with self._lock:
                if not self._alive:
                    self._thread = None
                    return
                left = list(self._alive)
        was_interrupted = getattr(sys, "last_type", None) is KeyboardInterrupt  # and nobody caught it
        for loop in left:
            loop.abandon(was_interrupted=was_interrupted)
        for loop in left:
            loop.join(MAX_SHUTDOWN_S)


_watch = _Watch()


def _start_anew() -> None:
    """Begin with no loops: a forked process has none of its parent's threads."""
    global _watch
    _watch = _Watch()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


class EventStream(Iterator[Event]):
    """Every event since it was created: a context manager and an iterator, for a single reader.

    It waits for the next event, and ends when the manager is closed. `close` ends it earlier.
    """

    def __init__(self, thread: LoopThread[Any], owner: object, subscribe: Callable[[], Subscription]) -> None:
        self._thread = thread
        self._owner = owner  # a reader of events needs the manager alive
        self._taken: deque[Event] = deque()
        self._subscription = thread.call(subscribe)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __next__(self) -> Event:
        if not self._taken:
            try:
                self._thread.run(self._take)
            except CancelledError:
                self._thread.join()
                self._taken.extend(self._subscription.drain())
        if not self._taken:
            raise StopIteration
        return self._taken.popleft()

    async def _take(self) -> None:
        # Stored here, not returned, so that an interrupted caller finds the events on the next attempt.
        if await self._subscription.wait():
            self._taken.extend(self._subscription.drain())

    def close(self) -> None:
        """Stop listening; what is queued is dropped."""
        self._thread.do(self._subscription.close)
        self._taken.clear()


class Blocking(Generic[M]):
    """Base of a class with an asynchronous manager's methods, without ``await``. ``make`` creates the manager."""

    def __init__(self, make: Callable[[], M]) -> None:
        self._make = make
        self._manager = make()
        self._lock = threading.RLock()
        self._thread: LoopThread[M] | None = None
        self._forget: Callable[[], object] = lambda: None

    def __enter__(self) -> Self:
        try:
            thread = self._started()
            thread.run(thread.manager.initialize)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._close(was_interrupted=isinstance(error, KeyboardInterrupt))

    def close(self) -> None:
        """Stop downloads (what has arrived is kept), close connections, end event streams.

        Calls in other threads end with `concurrent.futures.CancelledError`. Idempotent; a later call starts again.
        """
        self._close(was_interrupted=False)

    def _close(self, *, was_interrupted: bool) -> None:
        with self._lock:
            thread = self._thread
            if thread is None:
                return
            if not thread.is_current:
                self._thread, self._manager = None, self._make()
                self._forget()
        thread.end(was_interrupted=was_interrupted)

    def _started(self) -> LoopThread[M]:
        with self._lock:
            if self._thread is None:
                self._thread = LoopThread(self._manager)
                finalizer = weakref.finalize(self, self._thread.abandon)
                finalizer.atexit = False  # `_Watch` handles the end of the interpreter, and waits
                self._forget = finalizer.detach
            elif self._thread.is_of_another_process:
                raise RuntimeError(
                    "this manager was used before the process was forked, and its thread is not in the new one; "
                    "make a new AssetManager after the fork"
                )
            return self._thread

    def _run(self, method: Callable[Concatenate[M, P], Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method that is awaited."""
        thread = self._started()
        return thread.run(lambda: method(thread.manager, *args, **kwargs))

    def _call(self, method: Callable[Concatenate[M, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method that does not wait."""
        thread = self._started()
        return thread.call(lambda: method(thread.manager, *args, **kwargs))

    def _register(
        self, method: Callable[Concatenate[M, P], Callable[[], None]], *args: P.args, **kwargs: P.kwargs
    ) -> Callable[[], None]:
        """Call a method that returns a function to undo it; return one that does so from any thread."""
        thread = self._started()
        undo = thread.call(lambda: method(thread.manager, *args, **kwargs))
        return lambda: thread.do(undo)

    @contextmanager
    def _bracket(
        self, method: Callable[Concatenate[M, P], AbstractContextManager[None]], *args: P.args, **kwargs: P.kwargs
    ) -> Iterator[None]:
        """Call a method that returns a context manager, which is entered and left in the manager's loop."""
        thread = self._started()
        block = thread.call(lambda: method(thread.manager, *args, **kwargs))
        thread.call(block.__enter__)
        try:
            yield
        finally:
            thread.do(partial(_leave, block))

    def _stream(
        self, method: Callable[Concatenate[M, P], Subscription], *args: P.args, **kwargs: P.kwargs
    ) -> EventStream:
        """Call a method that returns a stream of events."""
        thread = self._started()
        return EventStream(thread, self, lambda: method(thread.manager, *args, **kwargs))


def _leave(block: AbstractContextManager[None]) -> None:
    block.__exit__(None, None, None)
