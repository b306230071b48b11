"""System calls that fail the way a disk or a file system makes them fail: each time, or once."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest


def failing(number: int) -> Callable[..., int]:
    """A system call that fails each time with this ``errno``."""

    def call(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    return call


def flags_of_open(patch: pytest.MonkeyPatch) -> list[int]:
    """Returns a list that will have the flags of each file that is opened."""
    real, flags = os.open, []

    def call(path: Any, given: int, *arguments: Any, **more: Any) -> int:
        flags.append(given)
        return real(path, given, *arguments, **more)

    patch.setattr(os, "open", call)
    return flags


def fail_at(patch: pytest.MonkeyPatch, name: str, number: int, error: BaseException) -> list[int]:
    """Make call number ``number`` of ``os.name`` fail. Returns a list with the count of calls."""
    real: Callable[..., Any] = getattr(os, name)
    calls = [0]

    def call(*arguments: Any, **more: Any) -> Any:
        calls[0] += 1
        if calls[0] != number:
            return real(*arguments, **more)
        if name == "close":
            real(*arguments)  # close(2): closed all the same
        raise error

    patch.setattr(os, name, call)
    return calls
