"""Finds the placeholders in a tree.

Rules: a file that cannot be read, or is not a regular file, is not a placeholder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from grym_fetch.disk.folders import read_regular
from grym_fetch.repo.placeholder import MAX_BYTES, SUFFIX, Placeholder, is_damaged
from grym_fetch.repo.tree import Tree


@dataclass(frozen=True, slots=True)
class Place:
    """The absolute path of a file that a placeholder stands for, whether or not it exists."""

    path: Path
    placeholder: Placeholder


OnDamaged = Callable[[Path, str], object]
"""Is told which placeholder is damaged, and what is wrong with it."""


def _unheard(path: Path, why: str) -> None:
    pass


def placeholders(folder: Path, on_damaged: OnDamaged = _unheard) -> Iterator[Place]:
    """Yield every placeholder below a folder, in the order of their paths."""
    names = sorted(path for path, _ in Tree(folder).files() if path.endswith(SUFFIX))
    for name in names:
        try:
            data = _read(folder / name)
        except OSError:
            continue
        try:
            yield Place(folder / name.removesuffix(SUFFIX), Placeholder.decode(data))
        except ValueError as error:
            if is_damaged(data):
                on_damaged(folder / name, str(error))


def read_placeholder(path: Path) -> Placeholder | None:
    """Read a placeholder; None if there is none."""
    with suppress(OSError, ValueError):
        return Placeholder.decode(_read(path))
    return None


def _read(path: Path) -> bytes:
    return read_regular(os.fspath(path), limit=MAX_BYTES + 1)
