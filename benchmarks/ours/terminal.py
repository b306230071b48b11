"""``sync`` with its live display on a terminal of 110 columns that is being read, or without one (``quiet``)."""

import os
import pty
import sys
from contextlib import suppress

command = [sys.executable, "-m", "grym_fetch", "sync", *(["-q"] if sys.argv[1] == "quiet" else [])]
pid, terminal = pty.fork()
if pid == 0:
    os.execve(command[0], command, os.environ | {"COLUMNS": "110", "LINES": "30", "TERM": "xterm-256color"})
with suppress(OSError):  # which says that the terminal is closed
    while os.read(terminal, 65536):
        pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
