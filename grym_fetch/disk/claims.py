"""Who may use a stage: one that nobody uses is claimed by renaming it.

Rules: whoever writes to a stage holds an flock on its journal, and whoever claims it holds that lock while renaming it.
So where flock works, a stage in use is never claimed, whatever has happened to the lock of its asset. Where flock does
not work, a stage is claimed only if its owner is certainly dead.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time
from contextlib import suppress

from grym_fetch.disk.folders import close_each, is_at, open_child, remove_tree
from grym_fetch.disk.locks import Flock, try_flock
from grym_fetch.disk.owner import Owner
from grym_fetch.runtime import system

ABANDONED_AFTER_S = 180.0
"""A stage of another machine counts as abandoned once nobody has written to it for this long. Few waits for a
server take as long, and a network file system shows what was written sooner."""
_NO_JOURNAL = frozenset({errno.EACCES, errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENOSPC, errno.EDQUOT})
"""The errors of opening a journal that nobody can be writing to: it is not a file of ours, or was never made."""


def is_abandoned(root: int, name: str, owner: Owner | None, *, exclusive: bool) -> bool:
    """Whether nobody is using the stage ``name`` in the open folder ``root``, judging by its owner and age.

    ``exclusive``: we hold the lock of its asset, and it excludes others on this machine.
    """
    if not exclusive:
        return owner is not None and owner.is_dead
    if owner is None or not owner.may_be_elsewhere:
        return True
    times = []
    for each in (name, f"{name}/part", f"{name}/journal"):
        with suppress(OSError):
            times.append(system.stat(each, dir_fd=root, follow_symlinks=False).st_mtime)
    return time.time() - max(times, default=0.0) > ABANDONED_AFTER_S


def new_name(path_key: str, content_key: str, owner: Owner) -> str:
    """A name that no stage has yet, for a stage of this owner."""
    return f"{path_key}.{content_key}.{owner.encode()}.{secrets.token_hex(4)}"


def make(root: int, name: str) -> int | None:
    """Make a stage in the open folder ``root``. Returns its journal, open and locked; None if somebody has claimed it.

    Raises ``OSError``.
    """
    system.mkdir(name, 0o700, dir_fd=root)
    return _hold(root, name, None)


def claim(root: int, old: str, new: str, owner: Owner | None) -> int | None:
    """Rename an abandoned stage in the open folder ``root``, so that it is this process's. Raises ``OSError``.

    Returns its journal, open and locked; None if somebody is writing to the stage or has already claimed it. If there
    are no locks and two try, one of them gets it, or each gets a part of it, which then proves less.
    """
    journal = _hold(root, old, owner)
    if journal is None:
        return None
    try:
        _take_over(root, old, new)
    except BaseException as error:
        close_each(journal)
        if isinstance(error, FileNotFoundError):
            return None
        raise
    return journal


def remove(root: int, name: str, spare: str, owner: Owner | None) -> bool:
    """Claim an abandoned stage under the name ``spare`` and remove it. Returns whether it existed and was unused."""
    try:
        journal = claim(root, name, spare, owner)
    except OSError as error:
        if error.errno not in _NO_JOURNAL:
            raise
        remove_tree(root, name)
        return True
    if journal is None:
        return False
    try:
        remove_tree(root, spare)
    finally:
        close_each(journal)
    remove_tree(root, spare)  # not every system lets go of a name that is open
    return True


def _hold(root: int, name: str, owner: Owner | None) -> int | None:
    """Open and lock the journal; None if somebody else has locked it, or it no longer exists.

    It is created if it does not exist yet: a process that is about to make this stage then finds it locked.
    """
    try:
        folder = open_child(root, name)
    except FileNotFoundError:
        return None
    try:
        journal = open_ours(folder, "journal", os.O_APPEND, 0o600)
    except FileNotFoundError:
        return None
    finally:
        close_each(folder)
    # A child that was not forked through Python may still hold it for a process that is dead.
    is_free = try_flock(journal) is not Flock.BUSY or (owner is not None and owner.is_dead)
    if is_free and is_at(journal, root, f"{name}/journal"):
        return journal
    close_each(journal)
    return None


def _take_over(root: int, old: str, new: str) -> None:
    # The journal is open. Nor can a folder in a lower layer of an overlay file system be renamed; the files in it can.
    if not (system.RENAMES_OPEN_FOLDERS and _rename(root, old, new)):
        system.mkdir(new, 0o700, dir_fd=root)
        for each in ("part", "journal"):
            with suppress(FileNotFoundError):
                system.rename(f"{old}/{each}", f"{new}/{each}", folder=root, into=root)
        remove_tree(root, old)


def _rename(root: int, old: str, new: str) -> bool:
    """Rename a stage in one step; False if the file system cannot. Raises any other ``OSError``."""
    try:
        system.rename(old, new, folder=root, into=root)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return False
    return True


def open_ours(folder: int, name: str, flags: int, mode: int) -> int:
    """Open or make a file of a stage. Raises ``OSError`` if it is not a file, or has another owner or a second name."""
    flags |= os.O_RDWR | os.O_CREAT | system.O_NOFOLLOW | system.O_NONBLOCK | system.O_NOCTTY
    descriptor = system.open_descriptor(name, flags, mode, dir_fd=folder)
    figures = os.fstat(descriptor)
    # The owner of the folder is this user, whatever number the file system gives them.
    if stat.S_ISREG(figures.st_mode) and figures.st_nlink == 1 and figures.st_uid == os.fstat(folder).st_uid:
        return descriptor
    close_each(descriptor)
    raise PermissionError(
        errno.EACCES, "what is in the way is not a regular file that belongs to this user alone", name
    )
