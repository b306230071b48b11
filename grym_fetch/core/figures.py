"""Sizes, speeds, times and counts as people read them. One way to write each, for every screen and message."""

from __future__ import annotations

import math

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def format_size(count: float) -> str:
    """Return bytes in binary units, in at most 8 characters: ``512 B``, ``1.5 GiB``, ``640 MiB``."""
    return _scaled(count, tenths_below=100)


def format_part(count: float, total: float) -> str:
    """Return a part of ``total`` bytes, both in the same unit: ``36.7 of 60.0 MiB``."""
    shown, unit = format_size(total).split(" ")
    scale = 1024.0 ** _UNITS.index(unit)
    digits = 1 if "." in shown or (unit != "B" and count / scale < 100) else 0
    return f"{max(0.0, min(count, total)) / scale:.{digits}f} of {shown} {unit}"


def format_rate(rate: float) -> str:
    """Return bytes per second in binary units: ``85 MiB/s``."""
    return f"{_scaled(rate, tenths_below=10)}/s"


def format_seconds(seconds: float) -> str:
    """Return a duration as people say it: ``0.4 s``, ``12 s``, ``3 min 5 s``, ``2 h 5 min``."""
    if not math.isfinite(seconds):
        return "? s"
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def format_delay(seconds: float) -> str:
    """Return when something happens that is due in so many seconds: ``in 3.0 s``, or ``at once``."""
    return f"in {format_seconds(seconds)}" if seconds >= 0.05 else "at once"


def format_clock(seconds: float) -> str:
    """Return time left in at most 8 characters: ``12 s``, ``3:05``, ``1:02:03``, ``4 days``."""
    whole = math.ceil(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02}"
    if whole < 100 * 3600:
        return f"{whole // 3600}:{whole % 3600 // 60:02}:{whole % 60:02}"
    return f"{whole // 86400} days" if whole < 1000 * 86400 else "> 3 yrs"


def format_left(seconds: float) -> str:
    """Return time left as people say it, rounded up: ``40 s``, ``3 min``, ``2 h 5 min``, ``4 days``."""
    whole = math.ceil(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes = math.ceil(whole / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 100 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return format_clock(seconds)


def lacking(needed: int, free: int) -> str:
    """Return what is needed and what is free, in bytes if both look the same: ``900 GiB needed, 72.6 GiB free``."""
    if format_size(needed) == format_size(free):
        return f"{needed:,} bytes needed, {free:,} free"
    return f"{format_size(needed)} needed, {format_size(free)} free"


def count_files(count: int) -> str:
    """Return ``1 file``, ``10,000 files``."""
    return f"{count:,} file{'' if count == 1 else 's'}"


def _scaled(count: float, *, tenths_below: int) -> str:
    scaled = max(0.0, float(count))
    for unit in _UNITS:
        text = f"{scaled:.0f}" if unit == "B" or round(scaled, 1) >= tenths_below else f"{scaled:.1f}"
        if float(text) < 1024 or unit == _UNITS[-1]:
            return f"{text} {unit}"
        scaled /= 1024
    raise AssertionError("unreachable: the last unit returns")
