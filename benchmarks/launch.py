"""Runs one command and records what it took. It is a small process in between, because a child's peak memory is never
less than its parent's at the fork, and this one's parent holds whole files in memory.

Usage: ``python -S benchmarks/launch.py FIGURES COMMAND…``; ends with the command's exit code.
"""

import json
import os
import sys
import time

began = time.perf_counter()
pid = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(pid, 0)
wall = time.perf_counter() - began
with open(sys.argv[1], "w") as file:
    json.dump({"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "peak_memory": usage.ru_maxrss * 1024}, file)
sys.exit(os.waitstatus_to_exitcode(status) & 255)
