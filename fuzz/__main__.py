"""Runs the targets under atheris, which looks for inputs that reach new code.

``python -m fuzz`` runs all of them, ``python -m fuzz TARGET`` just one. Each runs for `FUZZ_SECONDS` (600), with
`FUZZ_JOBS` (1) at a time. Inputs that reach new code are kept in ``.fuzz/corpus``, those that make a target fail in
``.fuzz/failures``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

PLACE = Path(".fuzz")
SECONDS = int(os.environ.get("FUZZ_SECONDS", "600"))
JOBS = int(os.environ.get("FUZZ_JOBS", "1"))
LONGEST = 4096
"""The most bytes of an input."""
TIMEOUT = 10
"""The most seconds that one input may take."""


def run_one(name: str) -> None:
    """Run one target in this process until its time is up or it fails. Does not return."""
    import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]  # may not be installed

    with atheris.instrument_imports(include=["grym_fetch", "fuzz.targets"]):
        from fuzz.targets import TARGETS

    target = TARGETS[name]
    corpus, failures = PLACE / "corpus" / name, PLACE / "failures"
    corpus.mkdir(parents=True, exist_ok=True)
    failures.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    limits = [f"-max_total_time={SECONDS}", f"-max_len={LONGEST}", f"-timeout={TIMEOUT}", "-rss_limit_mb=2048"]
    places = [f"-artifact_prefix={failures}/{name}-", str(corpus)]
    atheris.Setup([sys.argv[0], *limits, "-verbosity=0", "-print_final_stats=1", *places], target.run)
    atheris.Fuzz()


def run_process(name: str) -> bool:
    """Run one target in its own process; return whether it passed."""
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    runs = next((line.split()[-1] for line in done.stdout.splitlines() if "number_of_executed_units" in line), "no")
    print(f"{'ok  ' if done.returncode == 0 else 'FAIL'}  {name}: {runs} inputs", flush=True)
    if done.returncode != 0:
        print(done.stdout[max(0, done.stdout.find("===")) :], flush=True)
    return done.returncode == 0


def main() -> int:
    """Run the requested targets; return the exit code."""
    if find_spec("atheris") is None:
        print("not fuzzed: atheris is not installed; there may be no wheel for this Python")
        return 0
    if len(sys.argv) > 1:
        run_one(sys.argv[1])
    from fuzz.targets import TARGETS

    with ThreadPoolExecutor(JOBS) as pool:
        return 0 if all(list(pool.map(run_process, TARGETS))) else 1


if __name__ == "__main__":
    sys.exit(main())
