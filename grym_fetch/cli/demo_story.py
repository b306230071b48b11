"""The demo's story: a run that is killed, a run that resumes, and the proof.

Rules: the commands are the real ones, each in its own process. Everything reported was counted by the servers or read
back from the disk. Whatever ends the demo also ends its child, its servers and its folder.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import monotonic

import click

from grym_fetch.cli import exit_codes, streams
from grym_fetch.cli.demo_report import Figures, percent, summary
from grym_fetch.cli.demo_stage import CONNECTIONS, DemoFailed, Mirrors, Scenario, mirrors_of
from grym_fetch.cli.options import Common
from grym_fetch.core.cells import wrapped
from grym_fetch.core.figures import count_files, format_rate, format_size
from grym_fetch.display.stream import can_move
from grym_fetch.runtime import system

DEMO_TIMEOUT_S = 120.0
"""Give up after this long, because something hangs."""


class Narrator:
    """Says on stderr what is happening."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self._is_terminal = can_move(sys.stderr, os.environ)

    def headline(self, text: str) -> None:
        """Begin a chapter."""
        self.say("")
        self.say(text, bold=True)

    def say(self, text: str, *, bold: bool = False) -> None:
        """Say one thing, on as many lines as the terminal needs."""
        if self._silent:
            return
        lines = wrapped(text, terminal_width(2)) if self._is_terminal else [text]
        said = "\n".join(lines)
        with suppress(OSError):
            click.echo(click.style(said, bold=True) if bold and self._is_terminal else said, err=True)

    def recover_terminal(self) -> None:
        """Leave the last picture of a killed display, continue below it, and end the frame that it may have begun."""
        if self._is_terminal and not self._silent:
            with suppress(OSError):
                click.echo("\x1b[?2026l\x1b[0m\x1b[?25h", err=True)


class Demo:
    """One run of the demo in ``folder``. ``options`` are given to every command."""

    def __init__(self, folder: Path, mirrors: Mirrors, tell: Narrator, options: Sequence[str] = ()) -> None:
        # One folder deeper, since files are also looked for in a folder next to the project.
        self._project = folder / "project"
        self._mirrors = mirrors
        self._tell = tell
        self._options = options
        self._bytes = sum(content.size for content in mirrors.contents.values())

    async def play(self) -> Figures:
        """Play it to the end. Raises `DemoFailed` at the first surprise."""
        began = monotonic()
        await self._write_manifest()
        first_sent, first_seconds = await self._first_run()
        second_sent, second_seconds = await self._second_run()
        third_sent = await self._third_run()
        figures = Figures(
            files=len(self._mirrors.contents),
            bytes=self._bytes,
            first_sent=first_sent,
            first_seconds=first_seconds,
            second_sent=second_sent,
            second_seconds=second_seconds,
            third_sent=third_sent,
            mirrors=self._mirrors.served(),
            most_connections=self._mirrors.most_open,
            allowed_connections=CONNECTIONS,
            verified=await self._count_right_files(),
            seconds=monotonic() - began,
        )
        for surprise in figures.surprises():
            raise DemoFailed(surprise)
        return figures

    async def _write_manifest(self) -> None:
        await asyncio.gather(*(asyncio.to_thread(content.sha256) for content in self._mirrors.contents.values()))
        self._project.mkdir()
        manifest = json.dumps(self._mirrors.manifest(), indent=2)
        (self._project / "assets.json").write_text(manifest, encoding="utf-8")

    async def _first_run(self) -> tuple[int, float]:
        """Start the run and kill it halfway; return the bytes sent and the seconds until then."""
        self._tell.headline(f"First run: grym-fetch sync --parallel {CONNECTIONS}")
        began = monotonic()
        async with self._command("sync", "--parallel", str(CONNECTIONS)) as child:
            half = asyncio.ensure_future(self._mirrors.until(lambda: self._mirrors.sent * 2 >= self._bytes))
            ended = asyncio.ensure_future(child.wait())
            await asyncio.wait({half, ended}, return_when=asyncio.FIRST_COMPLETED)
            half.cancel()
            if ended.done():
                raise DemoFailed(f"the first run ended by itself, with exit code {ended.result()}")
        # Leaving the block has killed the process.
        seconds = monotonic() - began
        await self._mirrors.until(lambda: self._mirrors.open == 0)
        sent = self._mirrors.sent
        self._tell.recover_terminal()
        self._tell.headline(f"Killed (SIGKILL) at {percent(sent, self._bytes)}: {format_size(sent)} had been sent")
        in_place = await self._count_right_files()
        files = count_files(len(self._mirrors.contents))
        self._tell.say(f"{in_place} of {files} in place, all of them whole; the rest is kept aside, in pieces.")
        return sent, seconds

    async def _second_run(self) -> tuple[int, float]:
        """Run the same command to its end; return the bytes sent and the seconds."""
        self._tell.headline("Second run: the same command, which continues from there")
        before, began = self._mirrors.sent, monotonic()
        await self._complete("second run", "sync", "--parallel", str(CONNECTIONS))
        sent, seconds = self._mirrors.sent - before, monotonic() - began
        self._tell.say(f"{format_size(sent)} were sent; {format_size(max(0, self._bytes - sent))} were there already.")
        return sent, seconds

    async def _third_run(self) -> int:
        """Let the program check every byte, and sync once more; return the bytes sent for that."""
        self._tell.headline("Proof: grym-fetch check --full, and a third run")
        before = self._mirrors.sent
        await self._complete("check of every byte", "check", "--full", "--quiet")
        self._tell.say("check: every byte of every file was read again and is right")
        said = await self._complete("third run", "sync", "--parallel", str(CONNECTIONS), stderr=PIPE)
        for line in said.splitlines()[-1:]:
            self._tell.say(f"sync: {line}")
        return self._mirrors.sent - before

    async def _complete(self, what: str, *arguments: str, stderr: int | None = None) -> str:
        """Run a command, which must succeed; return what it wrote to a pipe."""
        async with self._command(*arguments, stderr=stderr) as child:
            _, said = await child.communicate()
        if child.returncode != exit_codes.DONE:
            raise DemoFailed(f"the {what} ended with exit code {child.returncode}")
        return (said or b"").decode("utf-8", "replace")

    @asynccontextmanager
    async def _command(self, *arguments: str, stderr: int | None = None) -> AsyncIterator[Process]:
        """Start the real command. On leaving the block, kill it if it is still running.

        It is of our own group of processes: only those in front may draw on the terminal, and Ctrl-Z stops both.
        Ctrl-C is ours alone, since the command would promise that it can go on.
        """
        with system.without_interrupts():
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "grym_fetch", *arguments, *self._options),
                cwd=self._project, env=child_environment(os.environ), stdin=DEVNULL, stderr=stderr,
            )  # fmt: skip
        try:
            yield child
        finally:
            if child.returncode is None:
                with suppress(ProcessLookupError):
                    child.kill()
                await child.wait()

    async def _count_right_files(self) -> int:
        """Read back every file that is in place and count them. Raises `DemoFailed` if one is not right."""
        return sum([await asyncio.to_thread(self._is_right, name) for name in self._mirrors.contents])

    def _is_right(self, name: str) -> bool:
        path = self._project / "assets" / "models" / f"{name}.bin"
        if not path.exists():
            return False
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != self._mirrors.contents[name].sha256():
                raise DemoFailed(f"{name} is in place with a wrong checksum")
        return True


def perform(scenario: Scenario, common: Common, *, keep: bool = False) -> int:
    """Run the demo in a folder of its own, print its figures, and return the exit code."""
    tell = Narrator(silent=common.quiet or common.json)
    folder: Path | None = None
    try:
        folder = Path(tempfile.mkdtemp(prefix="grym-fetch-demo-"))
        scenario = scenario.fitted(shutil.disk_usage(folder).free)
        figures = asyncio.run(_until_signalled(scenario, folder, tell, options_of(common)))
    except Signalled as signalled:
        tell.recover_terminal()
        tell.say("interrupted")
        return exit_codes.ended_by(signalled.number)
    except (DemoFailed, OSError) as error:
        streams.complain(f"the demo failed: {error}")
        return exit_codes.NOT_FETCHED
    finally:
        if folder is not None and keep:
            tell.say(f"kept: {folder}")
        elif folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    if common.json:
        click.echo(json.dumps({**figures.as_json(), **({"folder": str(folder)} if keep else {})}))
    elif not common.quiet:
        tell.headline("Summary: what the servers counted, and what is on the disk")
        for line in summary(figures, terminal_width(1) if sys.stdout.isatty() else None):
            click.echo(line)
    return exit_codes.DONE


class Signalled(Exception):
    """A signal has ended the demo."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.number = number


async def _until_signalled(scenario: Scenario, folder: Path, tell: Narrator, options: Sequence[str]) -> Figures:
    """Run the demo. Raises `Signalled` if a signal ends it, `DemoFailed` if it takes too long."""
    received: list[signal.Signals] = []
    work = asyncio.ensure_future(_play(scenario, folder, tell, options))

    def stop(number: signal.Signals) -> None:
        received.append(number)
        work.cancel()

    system.on_end_signals(asyncio.get_running_loop(), stop)
    try:
        return await asyncio.wait_for(work, DEMO_TIMEOUT_S)
    except asyncio.CancelledError:
        raise Signalled(received[0]) from None
    except TimeoutError:
        raise DemoFailed(f"it was not over after {DEMO_TIMEOUT_S:.0f} seconds") from None


async def _play(scenario: Scenario, folder: Path, tell: Narrator, options: Sequence[str]) -> Figures:
    async with mirrors_of(scenario) as mirrors:
        size, rate = format_size(scenario.bytes), format_rate(scenario.rate)
        tell.say(
            f"Two mirrors on 127.0.0.1 offer {count_files(len(scenario.sizes))}, {size}; no network is used. "
            f"Every connection is slowed to {rate}, so that there is something to see. "
            f"Mirror 1 breaks off in the middle of {scenario.largest}, for good."
        )
        return await Demo(folder, mirrors, tell, options).play()


def options_of(common: Common) -> list[str]:
    """Return the demo's options that are passed on to the commands."""
    options = ["--verbose"] * common.verbose
    if common.quiet or common.json:
        options.append("--quiet")
    if common.log_file is not None:
        options += ["--log-file", str(common.log_file.absolute())]
    return options


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without our own settings and without proxies."""
    kept = {
        name: value for name, value in environ.items() if not name.upper().startswith("GRYM_FETCH_")
        and not name.upper().endswith("_PROXY")
    }  # fmt: skip
    return {**kept, "NO_PROXY": "127.0.0.1"}


def terminal_width(descriptor: int) -> int:
    """Return the terminal's width in columns; 80 if it is unknown."""
    try:
        return os.get_terminal_size(descriptor).columns or 80
    except OSError:
        return 80
