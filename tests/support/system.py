"""What tests ask of the operating system: open files of this process, who is dead, who listens, how long it took."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from grym_fetch.disk.owner import Owner
from grym_fetch.runtime import system

PRESSURE = Path("/proc/pressure")


def folder_descriptor(folder: Path) -> int:
    """A folder that is open, to name files in. Close it."""
    return system.open_descriptor(folder, os.O_RDONLY | system.O_DIRECTORY)


def descriptors() -> int:
    """How many files this process has open."""
    return sum(map(_is_open, range(512))) if sys.platform == "win32" else len(os.listdir("/proc/self/fd"))


def _is_open(number: int) -> bool:
    try:
        os.get_inheritable(number)
    except OSError:
        return False
    return True


def dead_owner() -> Owner:
    """A process of this boot that no longer runs: this one's number, at another time."""
    return replace(Owner.this(), started="1")


def is_listening(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until a program accepts connections. False if it has ended, or does not within a minute."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.005)
        else:
            return process.poll() is None
    return False


class Stopwatch:
    """Measures from here on, without what others cost: time in which anybody waited for a processor or a disk.

    That is too much, as programs also wait for each other's processors within one test; so it is for limits that a
    program breaks by waiting for something else.
    """

    def __init__(self) -> None:
        self._began = _quiet_time()

    @property
    def seconds(self) -> float:
        """How long it took, at least."""
        return max(0.0, _quiet_time() - self._began)


def _quiet_time() -> float:
    busy = 0
    for kind in ("cpu", "io"):
        # Kernels may not count it, or say so only when it is read.
        with suppress(OSError):
            some = (PRESSURE / kind).read_text(encoding="ascii").partition("\n")[0]
            busy += int(some.rpartition("total=")[2])
    return time.monotonic() - busy / 1e6


def listening(pid: int) -> set[str]:
    """The addresses of this machine at which a process accepts TCP connections, in IPv4 where they have such a form."""
    here = {os.path.realpath(each) for each in Path(f"/proc/{pid}/fd").iterdir()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and any(each.endswith(f"socket:[{fields[9]}]") for each in here):
                words = bytes.fromhex(fields[1].partition(":")[0])
                packed = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
                address = ipaddress.ip_address(packed)
                found.add(str(getattr(address, "ipv4_mapped", None) or address))
    return found


def is_traced(pid: int, tracer: subprocess.Popen[bytes]) -> bool:
    """Wait until a process is traced. False if the tracer has ended, or does not start within a minute."""
    deadline = time.monotonic() + 60
    status = Path(f"/proc/{pid}/status")
    while "\nTracerPid:\t0\n" in status.read_text(encoding="ascii"):
        if tracer.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def named(value: object) -> str:
    """The name of an error number or of a class, for the ids of a table."""
    return errno.errorcode.get(value, "") if isinstance(value, int) else getattr(value, "__name__", "")
