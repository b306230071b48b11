"""Work done as another user, in a child of this process: only root can arrange that."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from typing import TypeVar

import pytest

from grym_fetch.disk.folders import user_name
from grym_fetch.disk.owner import Owner

T = TypeVar("T")

TEAM = 20000
"""A group that two users are in."""
ANNA, BERT = 20001, 20002

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")


def as_user(user: int, act: Callable[[], T], *, umask: int = 0o002, groups: tuple[int, ...] = (TEAM,)) -> T:
    """Return what ``act`` returns when this user calls it. Anything it raises fails the test."""
    # The child may not be able to read the interpreter's own files: modules loaded on first use are loaded here.
    Owner.this()
    user_name(user)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        result: object
        try:
            os.setgroups(groups)
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            os.umask(umask)
            result = (True, act())
        except BaseException:  # noqa: BLE001 - it is raised again in the parent
            result = (False, traceback.format_exc())
        with open(writer, "wb") as file:
            file.write(pickle.dumps(result))
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    is_done, value = pickle.loads(data)  # what our own child has written
    assert is_done, value
    return value  # type: ignore[no-any-return]  # what `act` returned
