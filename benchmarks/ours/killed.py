"""``sync``, killed with SIGKILL when half of the bytes are there, and run again to its end."""

import json
import subprocess
import sys

COMMAND = [sys.executable, "-m", "grym_fetch", "sync", "--json", "-q"]

with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True) as first:
    assert first.stdout is not None
    for line in first.stdout:
        event = json.loads(line)
        if event["type"] == "progress" and event["bytes"] * 2 >= event["total"]:
            first.kill()
            break
sys.exit(subprocess.run(COMMAND, stdout=subprocess.DEVNULL, check=False).returncode)
