"""What no text file should contain: ``python -m tests.house.hygiene FILE…`` names each, as a pre-commit hook."""

from __future__ import annotations

import re
import sys
from pathlib import Path

_FORBIDDEN = {
    "spaces at the end of a line": re.compile(rb"[ \t]+$", re.MULTILINE),
    "a line end of Windows": re.compile(rb"\r\n"),
    "a mark of a merge": re.compile(rb"^(<<<<<<<|>>>>>>>) ", re.MULTILINE),
    "a breakpoint": re.compile(rb"^\s*breakpoint\(\)", re.MULTILINE),
}


def faults(data: bytes) -> list[str]:
    """The faults in the bytes of a text file, each with its line."""
    found = [
        f"line {data.count(bytes([10]), 0, match.start()) + 1}: {what}"
        for what, pattern in _FORBIDDEN.items()
        for match in pattern.finditer(data)
    ]
    if data and (not data.endswith(b"\n") or data.endswith(b"\n\n")):
        found.append("it does not end with one newline")
    return found


def main(names: list[str]) -> int:
    """Print all faults; return 1 if there are any."""
    wrong = [f"{name}: {fault}" for name in names for fault in faults(Path(name).read_bytes())]
    sys.stdout.writelines(f"{line}\n" for line in wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
