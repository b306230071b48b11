"""Whole processes, measured by the operating system: wall, CPU, peak memory."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figures:
    """One finished process. Seconds and bytes."""

    wall: float
    cpu: float
    peak_memory: int


@dataclass(frozen=True)
class Contestant:
    """A command that does the job. ``prepare`` is called before each run, outside of the measured time."""

    name: str
    command: Sequence[str]
    folder: Path
    prepare: Callable[[], None]
    note: str = ""


def measure(contestant: Contestant) -> Figures:
    """Run once. Raises `RuntimeError` if it fails: a failed run is no time."""
    contestant.prepare()
    began = time.perf_counter()
    with (contestant.folder / "output").open("wb") as output:
        process = subprocess.Popen(
            contestant.command, cwd=contestant.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        said = (contestant.folder / "output").read_text(errors="replace")[-500:]
        raise RuntimeError(f"{contestant.name} ended with {process.returncode}: {said}")
    return Figures(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


@dataclass(frozen=True)
class Row:
    """One line of the table: medians, and the ratio of ours to theirs pair by pair."""

    scenario: str
    name: str
    wall: float
    cpu: float
    peak_memory: int
    ratio: float | None
    note: str


def compare(scenario: str, ours: Contestant, others: Sequence[Contestant], rounds: int) -> list[Row]:
    """Run ours and each other in turn, ``rounds`` times, after one run of each that does not count."""
    everyone = [ours, *others]
    for contestant in everyone:
        measure(contestant)
    runs: dict[str, list[Figures]] = {contestant.name: [] for contestant in everyone}
    for _ in range(rounds):
        for contestant in everyone:
            runs[contestant.name].append(measure(contestant))
    rows = []
    for contestant in everyone:
        figures = runs[contestant.name]
        pairs = zip(runs[ours.name], figures, strict=True)
        ratio = None if contestant is ours else statistics.median(mine.wall / theirs.wall for mine, theirs in pairs)
        rows.append(
            Row(
                scenario,
                contestant.name,
                statistics.median(each.wall for each in figures),
                statistics.median(each.cpu for each in figures),
                max(each.peak_memory for each in figures),
                ratio,
                contestant.note,
            )
        )
    return rows


def installed(name: str) -> str | None:
    """Where a tool is, or None."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")
