"""When a process started, asked of psutil: for the systems that have no ``/proc``."""

from __future__ import annotations


def process_start(pid: int) -> str | None:
    """When a process started, in microseconds since the epoch; empty if there is none, None if it is unknown."""
    import psutil

    try:
        return str(round(psutil.Process(pid).create_time() * 1_000_000))
    except psutil.NoSuchProcess:
        return ""
    except psutil.Error:
        return None
