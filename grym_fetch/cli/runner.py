"""Runs a command's work in an event loop: signals, display, JSON, log, errors, exit code. In this one place.

Rules: the first SIGINT or SIGTERM stops the work, which keeps what has arrived. Two seconds later, or at the second
signal, the process is gone whatever happens, even if the loop hangs while writing to a pipe that nobody reads: Python
handles the signal in the middle of that. The disk is right at every moment, so a hard end costs what is
not written yet, and a report its name.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NoReturn

import click

from grym_fetch.cli import exit_codes, streams
from grym_fetch.cli.logs import LogSetup, set_up_logging
from grym_fetch.cli.options import Common
from grym_fetch.cli.unexpected import tell_unexpected
from grym_fetch.core.command_lines import command_line
from grym_fetch.core.errors import (
    ForeignManifest,
    GrymFetchError,
    ManifestError,
    ManifestMissing,
    MirrorsExhausted,
    SyncFailed,
    UnknownAsset,
)
from grym_fetch.core.figures import format_size
from grym_fetch.core.manifest import Manifest
from grym_fetch.core.text import redact_text, safe_text
from grym_fetch.core.variables import BadVariable
from grym_fetch.disk.folders import path_from
from grym_fetch.display.choice import Display, choose_display
from grym_fetch.display.github import annotation
from grym_fetch.display.lines import Telling, Tells
from grym_fetch.display.sheet import as_sentence
from grym_fetch.display.stream import is_github
from grym_fetch.manager import AssetManager
from grym_fetch.runtime import descriptors, system, threads
from grym_fetch.runtime.bus import Subscription
from grym_fetch.settings import Settings

log = logging.getLogger(__name__)

GRACE_S = 1.6
"""The process ends itself this long after the first signal."""

MANY_CONNECTIONS = 32
"""With more than this many, a common limit on open files may be too low."""

LARGE_MANIFEST_BYTES = 512 * 1024
"""Of a larger one it is said that it is being read."""

BLOCK_LINES = 1000
"""Lines of data written together."""

Body = Callable[[AssetManager], Awaitable[int]]


@dataclass(eq=False, slots=True)
class _Run:
    """One run of a command, and its listeners. ``display`` is set while it is on the screen."""

    common: Common
    body: Body
    setup: LogSetup
    settings: Settings | None
    minimal: bool | None
    tells: Tells
    json_events: bool
    progress: Callable[[], str] = str
    """How far the run is, for a person."""
    display: Display | None = None


def run(
    common: Common,
    body: Body,
    *,
    settings: Settings | None = None,
    minimal: bool | None = None,
    tells: Tells = "all",
    json_events: bool = True,
    otherwise: Callable[[], int] | None = None,
) -> int:
    """Run ``body`` with a manager and return the exit code. Prints errors; raises nothing but `SystemExit`.

    ``tells``: which assets the display reports at their end; a command may report them itself.
    ``json_events``: whether ``--json`` also writes the events, and not only what the command itself prints.
    ``otherwise`` is done if the manifest is invalid: what needs none.
    """

    def work(setup: LogSetup) -> int:
        if descriptors.are_scarce():
            descriptors.raise_limit()
        threads.save_memory()
        try:
            # Not `anyio.run`, whose imports take 35 ms.
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                return runner.run(_main(_Run(common, body, setup, settings, minimal, tells, json_events)))
        except ManifestError as error:
            if otherwise is None or isinstance(error, ManifestMissing | ForeignManifest):
                raise
            log.warning("%s", " ".join(str(error).split()))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with ending_in_order():
            return otherwise()

    return _told(common, work)


def run_plain(common: Common, work: Callable[[], int]) -> int:
    """Do work that needs neither manager nor event loop and return the exit code. Reports errors like `run`."""

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
        raise SystemExit(exit_codes.ended_by(number))

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _told(common: Common, work: Callable[[LogSetup], int]) -> int:
    """Do the work with the log set up; turn what it raises into a message and an exit code."""
    setup = set_up_logging(common)
    streams.settle()
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


async def _main(this: _Run) -> int:
    loop = asyncio.get_running_loop()
    work = loop.create_task(_work(this))
    received: list[int] = []
    is_told = False
    sheet = streams.sheet()  # now: a signal handler imports nothing

    def stop(number: int, _frame: object) -> None:
        received.append(number)
        if len(received) > 1:
            end()
        system.set_alarm(GRACE_S)
        loop.call_soon_threadsafe(work.cancel)

    def end(*_: object) -> NoReturn:
        """End without waiting for threads: one may be in a long fsync, and none holds anything that could be lost.

        Nothing is flushed: output is already written, or its reader has stopped and does not take it.
        """
        nonlocal is_told
        if not this.common.quiet and not is_told:
            is_told = True  # another signal may come in the middle of this
            # Below a region that is still there, whose last row has the cursor and the terminal's ``^C``.
            below = "\n" if this.display is not None and this.display.is_live else ""
            said = sheet.prose(streams.interrupted(this.progress(), at_once=len(received) > 1))
            streams.tell_and_go(below + said)
        os._exit(exit_codes.ended_by(received[0]))

    system.on_alarm(end)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        return await work
    except asyncio.CancelledError:
        if not received:
            raise
        end()
    finally:
        system.set_alarm(0)


async def _work(this: _Run) -> int:
    common, setup = this.common, this.setup
    manager = AssetManager(
        common.config,
        assets_dir=common.assets_dir,
        external_assets_dir=common.external_assets_dir,
        settings=this.settings,
        minimal=this.minimal,
    )
    setup.add_file(lambda: manager.project.root)
    if manager.settings.parallel > MANY_CONNECTIONS:
        descriptors.raise_limit()
    with _reading(manager, common):
        await manager.initialize()
    manifest = manager.manifest
    for warning in manager.warnings:
        log.warning("%s", warning)
    display = choose_display(
        stream=sys.stderr,
        environ=os.environ,
        quiet=common.quiet,
        # A long manifest is not held for its names.
        names={each.id: each.name for each in manifest.assets} if isinstance(manifest, Manifest) else {},
        telling=Telling(
            verbose=common.verbose,
            place=short_path(manager.project.assets_dir),
            retries=manager.settings.retries,
            tells=this.tells,
        ),
        progress=streams.progress_beside(common.progress, json=common.json),
        interval=common.progress_interval,
    )
    if display is not None:
        this.progress = display.progress
    try:
        async with _listening(this, manager, display), manager:
            return await this.body(manager)
    except GrymFetchError as error:
        setup.note(str(error))
        print_error(error, manifest=manager.project.manifest_path)
        if display is not None and (last_word := display.last_word()) is not None:
            streams.tell(streams.sheet().marked("✗", "x", "red", last_word.plain))
        return exit_codes.exit_code(error)


@contextmanager
def _reading(manager: AssetManager, common: Common) -> Iterator[None]:
    """Say at once that a large manifest is being read: it takes a second for each 25,000 assets."""
    path = manager.project.manifest_path
    try:
        size = path.stat().st_size
    except OSError:
        size = 0
    if common.quiet or size < LARGE_MANIFEST_BYTES:
        yield
        return
    with streams.passing(f"reading {safe_text(path.name)}, {format_size(size)} …"):
        yield


@asynccontextmanager
async def _listening(this: _Run, manager: AssetManager, display: Display | None) -> AsyncIterator[None]:
    """Let the display, ``--json`` and the log follow the run; at its end, wait until they have reported all of it."""
    loop = asyncio.get_running_loop()
    listeners = []
    with ExitStack() as stack:
        if this.common.json and this.json_events:
            listeners.append(loop.create_task(write_json(manager.events())))
        if display is not None:
            listeners.append(loop.create_task(display.run(manager.events())))
            if display.is_live:
                this.setup.redirect(display.say)
                stack.callback(this.setup.restore)
                stack.enter_context(streams.sharing(display, json=this.common.json))
            this.display = display
        if this.setup.wants_events:
            listeners.append(loop.create_task(this.setup.log_events(manager.events())))
        try:
            yield
        finally:
            if listeners:
                await asyncio.wait(listeners)
            this.display = None
            for task in listeners:
                if not task.cancelled() and (error := task.exception()) is not None:
                    log.error("a listener ended with %s", type(error).__name__, exc_info=error)


def short_path(path: Path) -> str:
    """Return a path as a person in the working folder would write it: ``./assets``, or else the whole path."""
    with suppress(OSError, ValueError):
        inside = path.relative_to(Path.cwd())
        return safe_text(f".{os.sep}{inside}" if inside.parts else ".", limit=4000)
    return safe_text(str(path), limit=4000)


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


def print_data(lines: Iterable[str], *, color: bool | None = None) -> None:
    """Write data to stdout, many lines at a time: each write is flushed. ``color``: whether to keep its colours."""
    waiting = iter(lines)
    while block := list(islice(waiting, BLOCK_LINES)):
        click.echo("\n".join(block), color=color)


def print_error(error: GrymFetchError, *, manifest: Path | None = None) -> None:
    """Write an error to stderr: for a sync, each asset's in its own block, none twice.

    In a GitHub Actions job, each is an annotation of the ``manifest``.
    """
    errors = list(error.failures.values()) if isinstance(error, SyncFailed) else [error]
    told: dict[str, GrymFetchError] = {}
    for failure in errors:
        text = str(failure)
        if (
            failure.asset_id is not None
            and not isinstance(failure, UnknownAsset)
            and not text.startswith(f"{failure.asset_id}:")
        ):
            text = f"{safe_text(failure.asset_id)}: {text}"
        told.setdefault(text, failure)
    is_terminal = streams.sheet().is_terminal
    for number, (text, failure) in enumerate(told.items()):
        advice = failure.advice
        shown = _shown(text.removesuffix(advice).rstrip(" \n.") if advice else text)
        if is_github(os.environ):
            told_with = f"{shown}\nhint: {as_sentence(_shown(advice))}" if advice else shown
            home = os.environ.get("GITHUB_WORKSPACE") or os.curdir
            file = "" if manifest is None else path_from(home, manifest).replace(os.sep, "/")
            streams.tell(annotation("error", told_with, title=safe_text(failure.asset_id or ""), file=file))
            continue
        if number and is_terminal:
            streams.tell("")
        streams.complain(shown, hint=_shown(advice))
    lost = [failure.asset_id for failure in errors if isinstance(failure, MirrorsExhausted)]
    if lost:
        doctor = (
            f"`{command_line('grym-fetch', 'doctor', names=(str(lost[0]),))}` asks every address and says what to do"
        )
        streams.tell(streams.sheet().message("hint", doctor))


def _shown(text: str) -> str:
    return "\n".join(safe_text(redact_text(line), limit=1000) for line in text.split("\n"))
