"""Copying a range of a file to the same place in another file, however the system does it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from grym_fetch.core.ranges import ByteRange
from grym_fetch.disk.copying import copy_range
from grym_fetch.testing import seeded_bytes

CONTENT = seeded_bytes(20_000, seed=61)


def refuse(*_: object) -> int:
    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))


def copy_a_little(source: int, target: int, count: int, at: int, to: int) -> int:
    return os.pwrite(target, os.pread(source, min(count, 700), at), to)


@pytest.mark.parametrize("kernel", [None, refuse, copy_a_little, lambda *_: 0])
@pytest.mark.parametrize(("start", "stop"), [(0, 20_000), (5, 4097), (19_999, 20_000)])
@pytest.mark.linux
def test_only_the_stretch_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: object, start: int, stop: int
) -> None:
    """It is copied to the same place, whether the kernel copies, copies in part, or refuses."""
    if kernel is not None:
        monkeypatch.setattr(os, "copy_file_range", kernel)
    (tmp_path / "source").write_bytes(CONTENT)
    with (tmp_path / "source").open("rb") as source, (tmp_path / "target").open("w+b") as target:
        assert copy_range(source.fileno(), target.fileno(), ByteRange(start, stop))
        assert target.read() == bytes(start) + CONTENT[start:stop]


@pytest.mark.shows("C17")
def test_a_source_that_ends_early(tmp_path: Path) -> None:
    """The caller is told, so that nobody claims bytes that were not there."""
    (tmp_path / "source").write_bytes(CONTENT)
    with (tmp_path / "source").open("rb") as source, (tmp_path / "target").open("w+b") as target:
        assert not copy_range(source.fileno(), target.fileno(), ByteRange(10_000, 20_001))
        assert not copy_range(source.fileno(), target.fileno(), ByteRange(30_000, 30_001))
