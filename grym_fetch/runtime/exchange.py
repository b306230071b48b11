"""Two folders in each other's place, in one step, by whichever call of the C library the system has for it."""

from __future__ import annotations

import errno
import os

_UNABLE = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})


def exchange_by(function: str, flag: int, here: int, name: str, there: int, other: str) -> bool:
    """Exchange ``name`` in the folder ``here`` with ``other`` in ``there``; False if system or file system cannot.

    ``function`` takes what renameat(2) takes, and ``flag``. Raises ``OSError``.
    """
    import ctypes

    call = getattr(ctypes.CDLL(None, use_errno=True), function, None)
    if call is None:
        return False
    if call(here, os.fsencode(name), there, os.fsencode(other), flag) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNABLE:
        return False
    raise OSError(number, os.strerror(number), other)
