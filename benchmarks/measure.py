"""Whole processes, measured by the operating system: wall, CPU, peak memory. In pairs, so that noise affects both."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MIB = 1024 * 1024
GIB = 1024 * MIB


@dataclass(frozen=True)
class Scale:
    """How much to do. ``slow_rounds``: for scenarios of ten seconds or more. ``kept``: files that are there already."""

    rounds: int
    slow_rounds: int
    big: int
    huge: int
    kept: int
    limited: int
    small_files: int
    far_files: int
    far_assets: int


FULL = Scale(
    rounds=5,
    slow_rounds=3,
    big=GIB,
    huge=4 * GIB,
    kept=GIB,
    limited=240 * MIB,
    small_files=10_000,
    far_files=3000,
    far_assets=200,
)
QUICK = Scale(
    rounds=3,
    slow_rounds=1,
    big=256 * MIB,
    huge=GIB,
    kept=64 * MIB,
    limited=64 * MIB,
    small_files=1000,
    far_files=300,
    far_assets=48,
)


@dataclass(frozen=True)
class Figures:
    """One finished process. Seconds and bytes. ``told``: seconds that it measured and printed itself, if any."""

    wall: float
    cpu: float
    peak_memory: int
    told: float | None = None


@dataclass(frozen=True)
class Contestant:
    """A command that does the job. ``prepare`` is called before each run, outside the measured time.

    ``memory``: how many bytes it will write; they are touched and freed before each run. A virtual machine gets its
    memory from the host bit by bit, and the first process to touch it pays.
    """

    name: str
    command: Sequence[str]
    folder: Path
    prepare: Callable[[], None] = lambda: None
    note: str = ""
    memory: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)
    tells: bool = False


def measure(contestant: Contestant) -> Figures:
    """Run once. Raises `RuntimeError` if it fails: a failed run has no time."""
    contestant.prepare()
    _touch(contestant.folder / "touched", contestant.memory)
    figures = contestant.folder / "figures.json"
    output = contestant.folder / "output"
    # Keep compiled modules, as in an installed package.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with output.open("wb") as file:
        done = subprocess.run(
            [sys.executable, "-S", str(Path(__file__).with_name("launch.py")), str(figures), *contestant.command],
            cwd=contestant.folder,
            env={**environment, **contestant.environment},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            check=False,
        )
    said = output.read_text(errors="replace")
    if done.returncode != 0:
        raise RuntimeError(f"{contestant.name} ended with {done.returncode}: {said[-500:]}")
    told = float(said.splitlines()[-1]) if contestant.tells else None
    return Figures(**json.loads(figures.read_text()), told=told)


def _touch(file: Path, size: int) -> None:
    if size:
        block = bytes(16 * MIB)
        with file.open("wb") as target:
            for _ in range(-(-size // len(block))):
                target.write(block)
        file.unlink()


@dataclass(frozen=True)
class Limit:
    """A target: at most this much. ``of``: a ratio of wall or CPU times, or an absolute figure of ours."""

    most: float
    of: str = "ratio"

    def __str__(self) -> str:
        shown = {
            "wall": "{:g} s",
            "told": "{:g} s",
            "peak": "{:g} MiB",
            "cpu ratio": "{:g} (CPU)",
            "told ratio": "{:g}",
        }
        return "≤ " + shown.get(self.of, "{:g}").format(self.most)


@dataclass(frozen=True)
class Row:
    """One line of the table: medians, and the ratio of ours to theirs, pair by pair."""

    scenario: str
    name: str
    wall: float
    cpu: float
    peak_memory: int
    ratio: float | None = None
    told: float | None = None
    limit: str = ""
    is_met: bool | None = None
    note: str = ""


def compare(
    scenario: str,
    ours: Contestant,
    others: Sequence[Contestant] = (),
    *,
    rounds: int,
    limits: Mapping[str, Limit] | None = None,
) -> list[Row]:
    """Run ours and each of the others in turn, ``rounds`` times, after one warm-up run of each."""
    limits = limits or {}
    everyone = [ours, *others]
    for contestant in everyone:
        measure(contestant)
    runs: dict[str, list[Figures]] = {contestant.name: [] for contestant in everyone}
    for _ in range(rounds):
        for contestant in everyone:
            runs[contestant.name].append(measure(contestant))
    return [_row(scenario, each, runs[ours.name], runs[each.name], limits.get(each.name)) for each in everyone]


def _row(scenario: str, who: Contestant, ours: list[Figures], theirs: list[Figures], limit: Limit | None) -> Row:
    told = [figures.told for figures in theirs if figures.told is not None]
    found = {
        "wall": statistics.median(figures.wall for figures in theirs),
        "cpu": statistics.median(figures.cpu for figures in theirs),
        "peak": max(figures.peak_memory for figures in theirs) / MIB,
        "told": statistics.median(told) if told else 0.0,
        "ratio": statistics.median(mine.wall / other.wall for mine, other in zip(ours, theirs, strict=True)),
        "told ratio": statistics.median(
            mine.told / other.told for mine, other in zip(ours, theirs, strict=True) if mine.told and other.told
        )
        if told
        else 0.0,
        "cpu ratio": statistics.median(mine.cpu / other.cpu for mine, other in zip(ours, theirs, strict=True)),
    }
    return Row(
        scenario,
        who.name,
        wall=found["wall"],
        cpu=found["cpu"],
        peak_memory=int(found["peak"] * MIB),
        ratio=None if ours is theirs else found["told ratio" if told else "ratio"],
        told=found["told"] if told else None,
        limit="" if limit is None else str(limit),
        is_met=None if limit is None else found[limit.of] <= limit.most,
        note=who.note,
    )


def installed(name: str) -> str | None:
    """Return the path of a tool, or None."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")
