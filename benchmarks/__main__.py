"""``make bench``: every scenario, ours and theirs in turn in one run; a table in Markdown, and the same in JSON.

Usage: ``python -m benchmarks [SCENARIO…] [--report FILE]``. ``QUICK=1`` in the environment: small files, few rounds.
The report comes from the run, with the date, the machine and the versions.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import FULL, MIB, QUICK, Row, installed
from benchmarks.place import PEERS, Place
from benchmarks.scenarios import ALL, as_json
from tests.support.nginx import BINARY

BETWEEN = "<!-- From here on written by `make bench REPORT=1`. -->"


def main() -> int:
    """Run the requested scenarios, by default all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("scenarios", nargs="*", choices=[*ALL, []], metavar="SCENARIO", help=", ".join(ALL))
    parser.add_argument("--report", type=Path, help="put the table into this page, after its own text")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    chosen = parser.parse_args()
    if BINARY is None:
        print("nginx is not installed (Debian: apt-get install nginx-light)", file=sys.stderr)
        return 1
    scale = QUICK if os.environ.get("QUICK") else FULL
    memory = Path("/dev/shm")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None, prefix="grym-fetch-bench-") as folder:
        place = Place(Path(folder))
        with place.open():
            for name in chosen.scenarios or ALL:
                print(f"{name} …", file=sys.stderr, flush=True)
                rows += ALL[name](place, scale)
                place.tidy()
    table = f"{about(scale.rounds)}\n\n{markdown(rows)}\n"
    print(table)
    print(as_json(rows))
    if chosen.json:
        chosen.json.write_text(as_json(rows) + "\n")
    if chosen.report:
        own_words = chosen.report.read_text().partition(BETWEEN)[0]
        chosen.report.write_text(f"{own_words}{BETWEEN}\n\n{table}")
    return 0


def about(rounds: int) -> str:
    """Return what it was measured on: date, kind of machine and versions."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    gibibytes = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    system = f"{platform.system()} {platform.release().split('-')[0]}"
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {gibibytes} GiB, {system}"
    return (
        f"{today}. {machine}, Python {platform.python_version()}, nginx on loopback, files in memory. "
        f"Medians, mostly of {rounds} pairs (3 where a run takes seconds), and the highest peaks; "
        f"ratios pair by pair.\n\n{versions()}."
    )


def versions() -> str:
    """Return the versions that the tools report."""
    found = []
    for tool, option in (("nginx", "-v"), ("aria2c", "-v"), ("curl", "-V"), ("wget2", "-V"), ("openssl", "version")):
        if program := installed(tool):
            said = subprocess.run([program, option], capture_output=True, text=True, check=False)
            words = (said.stdout + said.stderr).split("\n")[0].replace("/", " ").split()
            number = next((word for word in words if word[:1].isdigit()), "?")
            found.append(f"{tool} {number}")
    libraries = ("huggingface_hub", "pooch", "parfive", "pypdl", "bytehaul")
    if PEERS.exists():
        code = "import importlib.metadata as m, sys; print(*(f'{n} {m.version(n)}' for n in sys.argv[1:]), sep=', ')"
        said = subprocess.run([PEERS, "-c", code, *libraries], capture_output=True, text=True, check=False)
        found += said.stdout.strip().split(", ") if said.returncode == 0 else []
    return ", ".join(found)


def markdown(rows: list[Row]) -> str:
    """Return the table for people."""
    lines = [
        "| scenario | who | wall s | CPU s | peak MiB | ours / theirs | target | | |",
        "|---|---|--:|--:|--:|--:|---|---|---|",
    ]
    last = ""
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        told = "" if row.told is None else f"{row.told * 1000:.3g} ms. "
        met = {True: "met", False: "missed", None: ""}[row.is_met]
        scenario, last = ("" if row.scenario == last else row.scenario), row.scenario
        lines.append(
            f"| {scenario} | {row.name} | {row.wall:.2f} | {row.cpu:.2f} | {round(row.peak_memory / MIB)} "
            f"| {ratio} | {row.limit} | {met} | {told}{row.note} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
