"""Runs a command's work in an event loop: signals, display, JSON, log, errors, exit code. In this one place.

Rules: the first SIGINT or SIGTERM stops the work, which keeps what has arrived; two seconds later, or at the second
one, the process is gone whatever happens, even if the loop hangs in a write to a pipe that no one reads: Python itself
handles signals, in the middle of that. The disk is right at every instant, so a hard end loses nothing more.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NoReturn

import click

from grym_fetch.cli import exit_codes, streams
from grym_fetch.cli.logs import LogSetup, set_up_logging
from grym_fetch.cli.options import Common
from grym_fetch.cli.unexpected import tell_unexpected
from grym_fetch.core.errors import GrymFetchError, MirrorsExhausted, SyncFailed, UnknownAsset
from grym_fetch.core.text import redact_text, safe_text
from grym_fetch.core.variables import BadVariable
from grym_fetch.display import Display, choose_display
from grym_fetch.manager import AssetManager
from grym_fetch.runtime import descriptors, threads
from grym_fetch.runtime.bus import Subscription
from grym_fetch.settings import Settings

log = logging.getLogger(__name__)

GRACE_S = 1.6
"""How long after the first signal the process ends itself."""

INTERRUPTED = "interrupted: what has arrived is kept, and the next run resumes"

MANY_CONNECTIONS = 32
"""With more than this, a usual limit of open files may be too low."""

BLOCK_LINES = 1000
"""Lines of data written together."""

Body = Callable[[AssetManager], Awaitable[int]]


def run(common: Common, body: Body, *, settings: Settings | None = None, minimal: bool | None = None) -> int:
    """Run ``body`` with a manager and return the exit code. Prints errors; raises nothing but `SystemExit`."""

    def work(setup: LogSetup) -> int:
        if descriptors.are_scarce():
            descriptors.raise_limit()
        threads.save_memory()
        # Not `anyio.run`, which is 35 ms of imports away.
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_main(common, body, settings, minimal, setup))

    return _told(common, work)


def run_plain(common: Common, work: Callable[[], int]) -> int:
    """Do work that needs neither manager nor event loop and return the exit code, with errors told as `run` does."""

    def logged(setup: LogSetup) -> int:
        setup.add_file(_repository_root)
        context = click.get_current_context(silent=True)
        log.info("%s began", context.info_name if context is not None else "it")
        with ending_in_order():
            code = work()
        log.info("it ended with exit code %d", code)
        return code

    return _told(common, logged)


def _repository_root() -> Path:
    from grym_fetch.repo.tree import find_root

    return find_root(Path.cwd(), Path.cwd())


@contextmanager
def ending_in_order() -> Iterator[None]:
    """Let SIGTERM end the block as an error would: unfinished work is cleaned up, and the exit code is ours."""

    def end(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _told(common: Common, work: Callable[[LogSetup], int]) -> int:
    """Do the work with the log set up; turn what it raises into a message and an exit code."""
    setup = set_up_logging(common)
    try:
        return work(setup)
    except GrymFetchError as error:
        setup.note(str(error))
        print_error(error)
        return exit_codes.exit_code(error)
    except BadVariable as error:
        raise click.UsageError(str(error)) from error
    except (click.ClickException, click.Abort, streams.OutputLost):
        raise
    except Exception as error:
        if (of_this_machine := threads.machine_error(error)) is not None:
            print_error(of_this_machine)
            return exit_codes.exit_code(of_this_machine)
        log.debug("an unexpected error", exc_info=True)
        return tell_unexpected(error, more_is_shown=common.verbose >= 2)
    finally:
        setup.close()


class _FrugalLoop(asyncio.SelectorEventLoop):
    """Looks names up in one thread. It starts at once, because later there may be none, and needs no thread to end.

    If no other thread can be started, this one does everything.
    """

    def __init__(self) -> None:
        super().__init__()
        self._names = threads.WorkerThreads("names", 1)
        self.set_default_executor(self._names.begin())

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as asyncio has it
        """End the thread; do not wait."""
        self._names.close()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's loops, if it is installed: it takes 4 ms to import, and 10 to 25 % off the time of a transfer.

    Not if threads or descriptors are scarce: it needs more of both, and ends the process if it cannot get them.
    """
    if threads.are_scarce() or descriptors.are_scarce():
        return _FrugalLoop
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    return new_event_loop


async def _main(common: Common, body: Body, settings: Settings | None, minimal: bool | None, setup: LogSetup) -> int:
    loop = asyncio.get_running_loop()
    work = loop.create_task(_work(common, body, settings, minimal, setup))
    received: list[int] = []

    def stop(number: int, _frame: object) -> None:
        if received:
            end()
        received.append(number)
        signal.setitimer(signal.ITIMER_REAL, GRACE_S)
        loop.call_soon_threadsafe(work.cancel)

    def end(*_: object) -> NoReturn:
        """End without waiting for threads: one may be in a long fsync, and none holds anything that is not safe.

        Nothing is flushed: what was written is out already, or a reader that has stopped does not take it.
        """
        if not common.quiet:
            streams.tell_and_go(INTERRUPTED)
        os._exit(128 + received[0])

    signal.signal(signal.SIGALRM, end)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        return await work
    except asyncio.CancelledError:
        if not received:
            raise
        end()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


async def _work(common: Common, body: Body, settings: Settings | None, minimal: bool | None, setup: LogSetup) -> int:
    manager = AssetManager(
        common.config,
        assets_dir=common.assets_dir,
        external_assets_dir=common.external_assets_dir,
        settings=settings,
        minimal=minimal,
    )
    setup.add_file(lambda: manager.project.root)
    if manager.settings.parallel > MANY_CONNECTIONS:
        descriptors.raise_limit()
    await manager.initialize()
    manifest = manager.manifest
    for warning in manager.warnings:
        log.warning("%s", warning)
    names = {asset.id: asset.name for asset in manifest.assets}
    display = choose_display(
        stream=sys.stderr, environ=os.environ, quiet=common.quiet, names=names, verbose=common.verbose
    )
    listeners = _listen(manager, common, display, setup)
    try:
        async with manager:
            return await body(manager)
    except GrymFetchError as error:
        code = exit_codes.exit_code(error)
        await _finish(listeners)
        setup.restore()
        setup.note(str(error))
        print_error(error)
        return code
    finally:
        await _finish(listeners)
        setup.restore()


def _listen(
    manager: AssetManager, common: Common, display: Display | None, setup: LogSetup
) -> list[asyncio.Task[None]]:
    loop = asyncio.get_running_loop()
    listeners = []
    if common.json:
        listeners.append(loop.create_task(write_json(manager.events())))
    if display is not None:
        listeners.append(loop.create_task(display.run(manager.events())))
        if display.is_live:
            setup.redirect(display.say)
    if setup.wants_events:
        listeners.append(loop.create_task(setup.log_events(manager.events())))
    return listeners


async def _finish(listeners: list[asyncio.Task[None]]) -> None:
    if listeners:
        done, _ = await asyncio.wait(listeners)
        listeners.clear()
        for task in done:
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("a listener ended with %s", type(error).__name__, exc_info=error)


async def write_json(subscription: Subscription) -> None:
    """Write events to stdout, one JSON object per line, from a thread: a reader may be slow, stop, or go away."""
    thread, is_lost = threads.DaemonThread("output", lambda _: None), False
    while await subscription.wait():
        lines = "".join(f"{json.dumps(event.as_json())}\n" for event in subscription.drain())
        if not is_lost:
            try:
                is_lost = not await thread.compute(_write, lines)
            except RuntimeError:
                is_lost = not _write(lines)  # no thread can be started
    thread.stop()


def _write(text: str) -> bool:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except streams.OutputLost as error:
        log.warning("the events could not be written, and the rest are left out: %s", (error.strerror or "").lower())
        return False
    except OSError:
        return False
    return True


def print_data(lines: Iterable[str]) -> None:
    """Write data to stdout, many lines at a time: each write is flushed."""
    waiting = iter(lines)
    while block := list(islice(waiting, BLOCK_LINES)):
        click.echo("\n".join(block))


def print_error(error: GrymFetchError) -> None:
    """Write an error to stderr: of a sync, each asset's, none twice."""
    errors = list(error.failures.values()) if isinstance(error, SyncFailed) else [error]
    shown: set[str] = set()
    for failure in errors:
        text = str(failure)
        if (
            failure.asset_id is not None
            and not isinstance(failure, UnknownAsset)
            and not text.startswith(f"{failure.asset_id}:")
        ):
            text = f"{safe_text(failure.asset_id)}: {text}"
        if text not in shown:
            shown.add(text)
            streams.tell("error: " + "\n".join(safe_text(redact_text(line), limit=1000) for line in text.split("\n")))
    lost = [failure.asset_id for failure in errors if isinstance(failure, MirrorsExhausted)]
    if lost:
        streams.tell(f"hint: `grym-fetch doctor {safe_text(str(lost[0]))}` asks every address and says what to do")
