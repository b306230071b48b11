"""File systems of a test's own, for the length of a block: small ones in memory, and overlays. Only root can mount."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A file system in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "grym-fetch-test", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def overlaid(lower: Path, place: Path) -> Iterator[Path]:
    """The contents of ``lower`` as the lower layer of an overlay, as in a container: its folders cannot be renamed."""
    # An overlay cannot be on another overlay: the upper part is in memory.
    with mounted(place.with_name(f"{place.name}-memory"), "size=16m") as memory:
        for name in ("upper", "work"):
            (memory / name).mkdir()
        place.mkdir()
        layers = f"lowerdir={lower},upperdir={memory}/upper,workdir={memory}/work,redirect_dir=off"
        overlay = ["mount", "-t", "overlay", "-o", layers, "overlay", str(place)]
        done = subprocess.run(overlay, capture_output=True, text=True, check=False)
        if done.returncode:
            assert "CI" not in os.environ, done.stderr
            pytest.skip("there are no overlay file systems here")
        try:
            yield place
        finally:
            subprocess.run(["umount", str(place)], check=True)
