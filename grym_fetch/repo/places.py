"""Finds the placeholders in a tree.

Rules: a file that cannot be read, or is not a regular file, is not a placeholder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from grym_fetch.disk.folders import read_regular
from grym_fetch.repo.placeholder import MAX_BYTES, SUFFIX, Placeholder
from grym_fetch.repo.tree import Tree


@dataclass(frozen=True, slots=True)
class Place:
    """The absolute path of a file that a placeholder stands for, whether or not it exists."""

    path: Path
    placeholder: Placeholder


def placeholders(folder: Path) -> Iterator[Place]:
    """Yield every placeholder below a folder, in the order of their paths."""
    names = sorted(path for path, _ in Tree(folder).files() if path.endswith(SUFFIX))
    for name in names:
        if (found := read_placeholder(folder / name)) is not None:
            yield Place(folder / name.removesuffix(SUFFIX), found)


def read_placeholder(path: Path) -> Placeholder | None:
    """Read a placeholder; None if there is none."""
    with suppress(OSError, ValueError):
        return Placeholder.decode(read_regular(os.fspath(path), limit=MAX_BYTES + 1))
    return None
