"""`AssetManager` without ``await``: for scripts, notebooks, and code that runs inside somebody else's event loop.

::

    from grym_fetch.blocking import AssetManager

    with AssetManager(config="assets.json") as manager:
        path = manager.get_asset_path("audioldm-s-full")

Rules: everything is done by the asynchronous manager, in a loop and a daemon thread of its own, started on first use.
A call that is interrupted (Ctrl-C) is cancelled there, and has ended there before the exception goes on, so nothing
downloads behind the caller's back. Errors come through as they are. Any thread may call; no call may come from an async
callback, which runs in that loop. A manager that nobody closes is closed when it is forgotten or the interpreter ends.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import inspect
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from grym_fetch import manager as asynchronous
from grym_fetch.core.events import Event
from grym_fetch.core.manifest import Asset, Manifest
from grym_fetch.core.world import Clock
from grym_fetch.disk.project import Project
from grym_fetch.disk.prune import PruneReport
from grym_fetch.engine.reports import AssetProgress, AssetStatus, SyncPlan, SyncReport
from grym_fetch.project.editing import PinReport
from grym_fetch.runtime.bus import Subscription
from grym_fetch.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE_AT_SHUTDOWN = 10.0
"""Seconds that the end of the interpreter waits for managers to close."""


class _Call(Generic[T]):
    """One call, made in one thread and done in the loop of another. `over` is set once nothing of it runs any more."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._work = work
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[T] | None = None
        self.over = threading.Event()

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have it done."""
        self._loop = loop
        loop.call_soon_threadsafe(self._start)

    def cancel(self) -> None:
        """Cancel it, and wait until it has ended."""
        if self._loop is None:
            return
        with suppress(RuntimeError):  # the loop is closed: it has cancelled everything by itself
            self._loop.call_soon_threadsafe(self._stop)
        self.over.wait()

    def result(self) -> T:
        """Return or raise what came of it."""
        assert self._task is not None
        if self._task.cancelled():
            raise CancelledError("the manager was closed while this call was under way")
        return self._task.result()

    def _start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._work())
        self._task.add_done_callback(self._end)

    def _stop(self) -> None:
        if self._task is None:
            self.over.set()  # interrupted before it could be handed over
        else:
            self._task.cancel()

    def _end(self, task: asyncio.Task[T]) -> None:
        if not task.cancelled():
            task.exception()  # seen: a caller who was interrupted does not ask for it
        self.over.set()


class _LoopThread:
    """The loop and the thread in which one asynchronous manager lives. Ending it closes the manager."""

    def __init__(self, manager: asynchronous.AssetManager) -> None:
        self.manager = manager
        self._pid = os.getpid()
        self._lock = threading.RLock()  # a finalizer may come in the middle of anything
        self._ending = False
        self._was_interrupted = False
        self._stop = asyncio.Event()
        self._trouble: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._live, name="grym-fetch loop", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._loop.close()
            raise
        _alive.add(self)

    def _live(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._main())
        except BaseException as error:  # noqa: BLE001 - raised again by `end`, in the thread of who closes
            self._trouble = error

    async def _main(self) -> None:
        try:
            await self._stop.wait()
        finally:
            reason = asyncio.CancelledError() if self._was_interrupted else None
            await self.manager.__aexit__(type(reason), reason, None)

    @property
    def is_of_another_process(self) -> bool:
        """Whether this process was forked from the one where the thread runs."""
        return self._pid != os.getpid()

    @property
    def is_current(self) -> bool:
        """Whether the caller is in the loop."""
        return threading.current_thread() is self._thread

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Have ``work`` done in the loop. An exception that comes meanwhile cancels it, and waits for its end."""
        if self.is_current:
            raise RuntimeError("a blocking call inside the manager's own loop would wait for itself for ever")
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

    def do(self, function: Callable[[], None]) -> None:
        """Have a function called in the loop, from wherever; nothing if the loop is over."""
        if self.is_current:
            function()
            return

        async def call() -> None:
            function()

        with suppress(CancelledError):
            self.run(call)

    def abandon(self, *, was_interrupted: bool = False) -> None:
        """Let it end; do not wait. After an interruption, slow callbacks are not waited for either. Idempotent."""
        if self.is_of_another_process:
            return  # the thread is not here, and the loop's wires are the other process's
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


_alive: weakref.WeakSet[_LoopThread] = weakref.WeakSet()


def _at_shutdown() -> None:
    """Close what was left open, while threads can still be waited for: what has arrived is kept and recorded."""
    left = list(_alive)
    was_interrupted = getattr(sys, "last_type", None) is KeyboardInterrupt  # and nobody has caught it
    for thread in left:
        thread.abandon(was_interrupted=was_interrupted)
    for thread in left:
        thread.join(PATIENCE_AT_SHUTDOWN)


# Not `atexit`: it comes too late, when no executor takes work any more, and what has arrived could not be recorded.
# concurrent.futures uses the same hook for its executors; ours was registered later and is called before.
getattr(threading, "_register_atexit", atexit.register)(_at_shutdown)


class EventStream(Iterator[Event]):
    """Every event since it was made: a context manager and an iterator, for one reader.

    It waits for the next event, and ends when the manager is closed. `close` ends it earlier.
    """

    def __init__(self, thread: _LoopThread, owner: AssetManager) -> None:
        self._thread = thread
        self._owner = owner  # whoever reads events wants the manager alive
        self._taken: deque[Event] = deque()

        async def subscribe() -> Subscription:
            return thread.manager.events()

        self._subscription = thread.run(subscribe)

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
        # Kept here and not returned: a caller who is interrupted finds them at the next attempt.
        if await self._subscription.wait():
            self._taken.extend(self._subscription.drain())

    def close(self) -> None:
        """Stop listening; what is queued is dropped."""
        self._thread.do(self._subscription.close)
        self._taken.clear()


class AssetManager:
    """Makes the assets of a manifest present and verified, without ``await``.

    Use it as a context manager, or call `close` at the end. All arguments are those of `grym_fetch.AssetManager`.
    Usable from any thread, also one whose event loop is running (it blocks that loop for the time of the call).
    Not usable in a process that was forked from the one where it was used: make a new one there.
    """

    def __init__(
        self,
        config: str | Path | None = None,
        *,
        assets_dir: str | Path | None = None,
        external_assets_dir: str | Path | None = None,
        parallel: int | None = None,
        minimal: bool | None = None,
        allow_stale: bool | None = None,
        settings: Settings | None = None,
        environ: Mapping[str, str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._make = functools.partial(
            asynchronous.AssetManager,
            config,
            assets_dir=assets_dir,
            external_assets_dir=external_assets_dir,
            parallel=parallel,
            minimal=minimal,
            allow_stale=allow_stale,
            settings=settings,
            environ=dict(os.environ if environ is None else environ),
            clock=clock,
        )
        self._manager = self._make()
        self._lock = threading.RLock()
        self._thread: _LoopThread | None = None
        self._forget: Callable[[], object] = lambda: None

    # -- life -------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self.initialize()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._close(was_interrupted=isinstance(error, KeyboardInterrupt))

    def initialize(self) -> None:
        """Find and read the manifest. Raises `ManifestError`. Idempotent; every other method does it when needed."""
        self._run(asynchronous.AssetManager.initialize)

    def close(self) -> None:
        """End downloads under way (what has arrived is kept), close connections, end event streams.

        Calls of other threads end with `concurrent.futures.CancelledError`. Idempotent; a later call starts anew.
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

    def _started(self) -> _LoopThread:
        with self._lock:
            if self._thread is None:
                self._thread = _LoopThread(self._manager)
                finalizer = weakref.finalize(self, self._thread.abandon)
                finalizer.atexit = False  # the shutdown has a hook of its own, that waits
                self._forget = finalizer.detach
            elif self._thread.is_of_another_process:
                raise RuntimeError(
                    "this manager was used before the process was forked, and its thread is not in the new one; "
                    "make a new AssetManager after the fork"
                )
            return self._thread

    def _run(
        self,
        method: Callable[Concatenate[asynchronous.AssetManager, P], Coroutine[Any, Any, T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Call a method of the asynchronous manager in its loop."""
        thread = self._started()
        return thread.run(lambda: method(thread.manager, *args, **kwargs))

    @property
    def settings(self) -> Settings:
        """What was chosen about how assets are fetched."""
        return self._manager.settings

    @property
    def minimal(self) -> bool:
        """Whether the small stand-ins are used of assets that have one."""
        return self._manager.minimal

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the manifest, once it was read."""
        return self._manager.warnings

    @property
    def project(self) -> Project:
        """Where the manifest and the files are. Raises `ManifestError` if there is no manifest."""
        return self._manager.project

    @property
    def manifest(self) -> Manifest:
        """The manifest, read on first use. Raises `ManifestError`."""
        return self._manager.manifest

    # -- single assets ----------------------------------------------------------------------------------------------

    def get_asset_path(self, asset_id: str) -> Path:
        """Return the asset's path, downloading it first if it is not there and valid.

        Raises `UnknownAsset`, `UnpinnedAsset`, or what `download_asset` raises.
        """
        return self._run(asynchronous.AssetManager.get_asset_path, asset_id)

    def download_asset(self, asset_id: str, force: bool = False) -> Path:
        """Make the asset present and verified, and return its path. ``force``: fetch it again even if it is valid.

        Raises `MirrorsExhausted`, `IntegrityError` or `StorageError`; what has arrived is kept for the next call.
        Raises `StaleManifest` if the manifest is not to be used any more.
        """
        return self._run(asynchronous.AssetManager.download_asset, asset_id, force)

    def check_asset(self, asset_id: str, *, full: bool = False) -> AssetStatus:
        """Say whether the asset is there and valid; fetches nothing. ``full`` reads every byte again.

        Raises `UnknownAsset`.
        """
        return self._run(asynchronous.AssetManager.check_asset, asset_id, full=full)

    def check_all_assets(self, *, full: bool = False) -> list[AssetStatus]:
        """`check_asset` for every asset, in the manifest's order."""
        return self._run(asynchronous.AssetManager.check_all_assets, full=full)

    def state_of(self, asset: Asset) -> str:
        """How the asset stands, without reading a file: ``verified``, ``present``, ``partial`` or ``missing``.

        ``present`` is a file of the right size that was not verified yet, ``partial`` also an archive that is not
        unpacked.
        """
        thread = self._started()

        async def state() -> str:
            return thread.manager.state_of(asset)

        return thread.run(state)

    def why_stale(self) -> str | None:
        """Say why the manifest is not to be used any more, None if it is: see ``expires`` and ``version`` in it."""
        return self._manager.why_stale()

    # -- many assets ------------------------------------------------------------------------------------------------

    def download_required_assets(self) -> SyncReport:
        """`sync` of every asset that is required."""
        return self._run(asynchronous.AssetManager.download_required_assets)

    def choose(
        self,
        ids: Collection[str] | None = None,
        tags: Collection[str] | None = None,
        all: bool = False,  # noqa: A002 - the word of the command line and of the contract
        minimal: bool = False,
    ) -> tuple[Asset, ...]:
        """Return the assets that `sync` would take, in the manifest's order. Raises `UnknownAsset`."""
        return self._manager.choose(ids, tags, all, minimal)

    def plan(self, assets: Collection[Asset], *, force: bool = False) -> SyncPlan:
        """Say what fetching these assets would take. Reads no file's bytes: one of the right size counts as present.

        Raises `StaleManifest`.
        """
        return self._run(asynchronous.AssetManager.plan, assets, force=force)

    def sync(
        self,
        ids: Collection[str] | None = None,
        tags: Collection[str] | None = None,
        all: bool = False,  # noqa: A002 - the word of the command line and of the contract
        minimal: bool = False,
        force: bool = False,
    ) -> SyncReport:
        """Make the chosen assets present and verified; without a choice, all required ones.

        Raises `SyncFailed` if any of them failed (the others are there nevertheless), `UnknownAsset`, `StaleManifest`,
        or `DiskFull` before the first byte if they would not fit.
        """
        return self._run(asynchronous.AssetManager.sync, ids, tags, all, minimal, force)

    def sync_assets(self, assets: Collection[Asset], *, force: bool = False) -> SyncReport:
        """`sync` for assets already chosen."""
        return self._run(asynchronous.AssetManager.sync_assets, assets, force=force)

    def restore_asset(self, path: str | Path, *, force: bool = False) -> Path:
        """Bring back a file that ``grym-fetch clean`` has moved out of the repository, and return its path.

        ``path`` is the file's own, its placeholder's, or its id. The file comes from the external folder, else by
        download if an asset has its checksum. ``force``: also in the place of a file with other content.

        Raises `AssetMissing`, `IntegrityError`, `StorageError`, or what `download_asset` raises.
        """
        return self._run(asynchronous.AssetManager.restore_asset, path, force=force)

    # -- the manifest itself ----------------------------------------------------------------------------------------

    def add_asset(self, asset: Asset, *, fetch: bool = False, file: Path | None = None) -> Asset:
        """Append an asset to the manifest and return it as it is listed now.

        ``fetch``: download it into its place first, and list the checksum and size found. ``file``: take these from
        this file, and copy it into the asset's place if it is not there.

        Raises `ManifestError` if the id or place is taken or something is wrong with the asset (nothing was fetched
        then), or what `download_asset` raises.
        """
        return self._run(asynchronous.AssetManager.add_asset, asset, fetch=fetch, file=file)

    def remove_asset(self, asset_id: str, *, delete_file: bool = False) -> tuple[Path, ...]:
        """Drop an asset from the manifest, with ``delete_file`` also its file and that of its stand-in.

        Only files in the assets folder are deleted; returns which. Raises `UnknownAsset`.
        """
        return self._run(asynchronous.AssetManager.remove_asset, asset_id, delete_file=delete_file)

    def pin(self, ids: Collection[str] | None = None) -> PinReport:
        """Write checksums and sizes into the manifest: of these assets, or of all that have no checksum.

        A file that is there is hashed, one that is not is fetched; stand-ins without a checksum are pinned as well,
        and with ``minimal`` only they. An asset named here that lacks nothing but its size gets that.

        Raises `SyncFailed` if any of them failed (the others are pinned nevertheless), or `UnknownAsset`.
        """
        return self._run(asynchronous.AssetManager.pin, ids)

    def prune(self, *, dry_run: bool = False) -> PruneReport:
        """Remove abandoned downloads, unused lock files and stale cache entries; ``dry_run``: only say which.

        Nothing of a process that runs is touched. What an interrupted download has left is abandoned, too.
        """
        return self._run(asynchronous.AssetManager.prune, dry_run=dry_run)

    # -- listening --------------------------------------------------------------------------------------------------

    def events(self) -> EventStream:
        """Return a stream of every event from now on: a context manager and iterator."""
        return EventStream(self._started(), self)

    def on_event(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Call ``callback`` with every event, as `on_progress` calls it. Returns a function that ends it."""
        thread = self._started()

        async def register() -> Callable[[], None]:
            return thread.manager.on_event(callback)

        unregister = thread.run(register)
        return lambda: thread.do(unregister)

    def on_progress(
        self, callback: Callable[[AssetProgress], object] | Callable[[AssetProgress], Awaitable[object]]
    ) -> Callable[[], None]:
        """Call ``callback`` whenever an asset makes progress. Returns a function that ends it.

        A sync callback runs in a worker thread, an async one in the manager's own loop, one call at a time. A slow one
        misses intermediate progress and nothing else; one that raises is logged and called no more.
        """
        thread = self._started()

        async def register() -> Callable[[], None]:
            return thread.manager.on_progress(callback)

        unregister = thread.run(register)
        return lambda: thread.do(unregister)


def _without_await(method: Callable[..., Coroutine[Any, Any, object]]) -> Callable[..., object]:
    @functools.wraps(method)
    def call(self: AssetManager, *args: object, **kwargs: object) -> object:
        return self._run(method, *args, **kwargs)

    return call


# What the asynchronous manager can do and is not spelled out above works all the same.
for _name, _method in vars(asynchronous.AssetManager).items():
    if _name.startswith("_") or _name == "aclose" or hasattr(AssetManager, _name):
        continue
    if inspect.iscoroutinefunction(_method):
        setattr(AssetManager, _name, _without_await(_method))
