"""A process that dies at any call that changes the disk: before it, in the middle of it, or after it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

CALLS = (
    "open",
    "write",
    "fsync",
    "link",
    "unlink",
    "rename",
    "mkdir",
    "fchmod",
    "utime",
    "pread",
    "ftruncate",
)


class Death(BaseException):
    """The end of the process. Nothing it does afterwards reaches the disk."""


class Fate:
    """Counts calls and dies at call ``at``; ``is_done``: that call still takes effect, or half of it if a write."""

    def __init__(self, at: int, *, is_done: bool) -> None:
        self._at = at
        self._is_done = is_done
        self._calls = 0

    @property
    def is_dead(self) -> bool:
        """Whether the call was reached."""
        return self._calls >= self._at

    def wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """Return the call as this process sees it."""

        def call(*arguments: Any, **more: Any) -> Any:
            if self.is_dead:
                raise Death
            self._calls += 1
            if not self.is_dead:
                return real(*arguments, **more)
            if self._is_done:
                if name == "write":
                    descriptor, data = arguments
                    arguments = (descriptor, bytes(data)[: len(data) // 2])
                result = real(*arguments, **more)
                if name == "open":
                    os.close(result)
            raise Death

        return call


@contextmanager
def dying(at: int, *, is_done: bool) -> Iterator[Fate]:
    """The block is a process that dies at its call number ``at``, as the fate shows; nothing is raised."""
    fate = Fate(at, is_done=is_done)
    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, fate.wrap(name, getattr(os, name)))
        with suppress(Death):
            yield fate
