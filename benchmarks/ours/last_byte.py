"""``sync --json``; prints the seconds from the arrival of the last byte to ``asset_verified``."""

import json
import subprocess
import sys

command = [sys.executable, "-m", "grym_fetch", "sync", "--json", "-q", *sys.argv[1:]]
done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
events = [json.loads(line) for line in done.stdout.splitlines()]
arrived = next(event["time"] for event in events if event["type"] == "progress" and event["bytes"] == event["total"])
verified = next(event["time"] for event in events if event["type"] == "asset_verified")
print(verified - arrived)
