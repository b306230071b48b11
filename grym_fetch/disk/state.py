"""Our own folder in the assets folder, opened through descriptors that are checked, and the reader of its files.

::

    <assets>/.grym-fetch/           the assets folder's permissions: who may write there may work here; sticky if shared
        .gitignore
        locks/                      common to all users
        user-<number>/              one user's, 0700: stages, the verified cache, what was unpacked

Rules: nothing below `.grym-fetch` is reached by path. Each folder is opened from the descriptor of the one above, never
through a symlink, and a user's folder is used only if it belongs to this user and nobody else may write there. A state
file is read only if it is a regular file of this user in such a folder, up to a limit, and never waited for. No user
trusts what another has written.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from grym_fetch.core.checked_lines import decode_line, encode_line
from grym_fetch.core.errors import NotWritable, UnsafePath
from grym_fetch.core.paths import STATE_FOLDER
from grym_fetch.core.text import safe_text
from grym_fetch.disk.folders import (
    FOLDER,
    NEW_FILE,
    close_each,
    open_child,
    read_regular,
    regular_lines,
    shut_out,
    storage_error,
    user_name,
    write_all,
)
from grym_fetch.runtime import system

log = logging.getLogger(__name__)

_EARLIER = re.compile(r"stage|unpack|unpacked|verified\.log|manifest-version-[0-9a-f]{24}")
"""What was in `.grym-fetch` itself before each user had a folder there."""
_SHUT_OUT = frozenset({errno.EACCES, errno.EPERM})
_PLACE = "assets-folder"
"""The file that says which assets folder a folder in the user's state folder is for, and its project's device."""
_MAX_PLACE_BYTES = 64 * 1024


class StateFolder:
    """Where grym-fetch keeps its own files for one assets folder. A folder is made only once it is to be written to."""

    def __init__(self, assets_dir: Path) -> None:
        self.assets_dir = assets_dir
        self.top = assets_dir / STATE_FOLDER
        self.own = self.top / f"user-{system.user_id()}"
        """The path of this user's folder: for messages, never to open anything."""

    def open(self, *parts: str, create: bool = False) -> int:
        """Return a descriptor of this user's folder, or of one below it.

        Raises `FileNotFoundError` if there is none and it must not be made, `NotWritable` or `UnsafePath`, which name
        the folder that is in the way, and `StorageError`.
        """
        with self._opened_top(create) as top:
            here = self._open_own(top, create)
        try:
            for depth, part in enumerate(parts):
                with self._named(self.own.joinpath(*parts[: depth + 1])):
                    above, here = here, _open_or_make(here, part, create)
                close_each(above)
        except BaseException:
            close_each(here)
            raise
        return here

    @contextmanager
    def opened(self, *parts: str, create: bool = False) -> Iterator[int]:
        """`open` for the length of a block."""
        descriptor = self.open(*parts, create=create)
        try:
            yield descriptor
        finally:
            close_each(descriptor)

    def open_locks(self, *, create: bool = False) -> int:
        """Return a descriptor of the folder of locks, which all users share. Raises like `open`."""
        return self.open_shared("locks", create=create)

    def open_shared(self, name: str, *, create: bool = False) -> int:
        """Return a descriptor of a folder of ours that all users share. Raises like `open`."""
        with self._opened_top(create) as top, self._named(self.top / name):
            shared = _open_or_make(top, name, create)
            try:
                self.share(shared)
            except BaseException:
                close_each(shared)
                raise
            return shared

    def open_elsewhere(self, *, create: bool = False) -> int:
        """Return a descriptor of this user's folder for an assets folder that is missing or cannot be written to.

        It is in ``XDG_STATE_HOME``. Raises ``OSError``, also if there is no home or it does not belong to this user.
        """
        place = self.elsewhere
        if create:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = system.open_descriptor(place, FOLDER)
        if system.HAS_MODES and not is_private(descriptor):
            os.close(descriptor)
            raise PermissionError(errno.EACCES, "belongs to another user, or others may write there", str(place))
        if create:
            _note_place(descriptor, self.assets_dir)
        return descriptor

    @property
    def elsewhere(self) -> Path:
        """Where `open_elsewhere` looks. Raises ``OSError`` if this user has no home."""
        key = hashlib.sha256(os.fsencode(os.path.realpath(self.assets_dir))).hexdigest()[:24]
        return state_home() / key

    @contextmanager
    def _opened_top(self, create: bool) -> Iterator[int]:
        with self._named(self.top):
            above = system.open_descriptor(self.assets_dir, os.O_RDONLY | system.O_DIRECTORY)
            try:
                top = _open_or_make(above, STATE_FOLDER, create)
            finally:
                close_each(above)
        try:
            if create:
                with self._named(self.top), suppress(FileExistsError):
                    # Never write to an existing file, nor to one that a symlink leads to.
                    marker = system.open_descriptor(".gitignore", NEW_FILE, 0o666, dir_fd=top)
                    try:
                        write_all(marker, b"*\n")
                    finally:
                        close_each(marker)
            yield top
        finally:
            close_each(top)

    def _open_own(self, top: int, create: bool) -> int:
        with self._named(self.top):
            name, earlier = self.own.name, []
            try:
                own = self._open_unshared(top, name, create)
            except FileNotFoundError:
                earlier = _earlier_state(top)
                if not create and not earlier:
                    raise
                own = _open_or_make(top, name, create=True)
            except PermissionError:
                owner = system.stat(name, dir_fd=top, follow_symlinks=False).st_uid
                if owner != system.user_id():
                    raise self._not_ours(owner) from None
                raise
            try:
                self._judge(own)
                for each in earlier:
                    with suppress(OSError):  # another process was faster
                        system.rename(each, each, folder=top, into=own)
                self.share(top)
            except BaseException:
                close_each(own)
                raise
        return own

    def _open_unshared(self, top: int, name: str, create: bool) -> int:
        """Open this user's folder, which is made so that nobody else may write to it.

        If others may write to it, its mode was changed later, or it is a shared folder of this user's that somebody
        moved there with content of their own. It may hold anything, so nothing in it is deleted: it is set aside.
        """
        own = open_child(top, name)
        if os.fstat(own).st_uid != system.user_id() or is_private(own) or not _has_modes(own):
            return own
        close_each(own)
        aside = f"{name}.shared-{secrets.token_hex(4)}"
        try:
            if not create:
                raise PermissionError(errno.EACCES, "only to be read")
            system.rename(name, aside, folder=top, into=top)
        except OSError as error:  # or it is in a lower layer of an overlay file system
            reason = "others may write to this user's state folder, so nothing in it is used; remove it"
            raise UnsafePath(safe_text(str(self.own)), reason) from error
        log.warning("others may write to %s, so nothing in it is used; it was renamed to %s", self.own, aside)
        raise FileNotFoundError(errno.ENOENT, "set aside", name)

    def _judge(self, own: int) -> None:
        """Raise `UnsafePath` unless a folder belongs to this user; make sure that nobody else may enter it."""
        figures = os.fstat(own)
        if not is_ours(own):
            raise self._not_ours(figures.st_uid)
        if figures.st_mode & 0o077:
            with suppress(OSError):  # a file system without modes
                system.fchmod(own, 0o700)

    def _not_ours(self, owner: int) -> UnsafePath:
        reason = f"this user's state folder belongs to {user_name(owner)}, so nothing in it is used; remove it"
        return UnsafePath(safe_text(str(self.own)), reason)

    def share(self, folder: int) -> None:
        """Give a folder of ours the mode of the assets folder, and the sticky bit where others may write."""
        figures = os.fstat(folder)
        if figures.st_uid != system.user_id():
            return
        above = os.stat(self.assets_dir)
        if figures.st_gid != above.st_gid:
            with suppress(OSError):  # not a group of ours
                system.fchown(folder, -1, above.st_gid)
        mode = stat.S_IMODE(above.st_mode) & 0o2777 | 0o700
        if os.fstat(folder).st_gid != above.st_gid:
            mode &= ~0o2070  # these rights are not meant for another group
        if mode & 0o022:
            mode |= stat.S_ISVTX
        if stat.S_IMODE(figures.st_mode) != mode:
            with suppress(OSError):  # a file system without modes
                system.fchmod(folder, mode)

    @contextmanager
    def _named(self, folder: Path) -> Iterator[None]:
        """Turn ``OSError``, except for a missing folder, into an error that names the folder in the way."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno in _SHUT_OUT and (reason := self._why_shut_out(folder)):
                raise NotWritable(safe_text(str(folder)), reason) from error
            raise storage_error(error, folder) from error

    def _why_shut_out(self, folder: Path) -> str:
        try:
            figures = os.lstat(folder)
        except OSError:
            return ""
        if figures.st_uid == system.user_id():
            return ""
        return (
            f"{shut_out(figures)}. To share {safe_text(str(self.assets_dir))}, make it writable for both (chmod g+ws) "
            f"and let {user_name(figures.st_uid)} run grym-fetch there once; or move this folder away"
        )


def state_home() -> Path:
    """Where this user's state outside assets folders is kept. Raises ``OSError`` if this user has no home."""
    named = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(named) and not system.HAS_MODES:
        named = os.environ.get("LOCALAPPDATA", "")  # of the user's profile, which is closed to others
    base = Path(named) if os.path.isabs(named) else _home() / ".local" / "state"
    return base / "grym-fetch"


def _note_place(folder: int, assets_dir: Path) -> None:
    with suppress(FileExistsError):
        descriptor = system.open_descriptor(_PLACE, NEW_FILE, 0o600, dir_fd=folder)
        try:
            place = os.path.realpath(assets_dir)
            write_all(descriptor, encode_line([place, os.stat(nearest(place)).st_dev]))
        finally:
            close_each(descriptor)


def is_of_gone_project(folder: int) -> bool:
    """Whether an open folder below `state_home` is for a project whose folder was certainly removed.

    False if its disk may only be unmounted: then what is left of its path is on another device.
    """
    data = read_state(folder, _PLACE, _MAX_PLACE_BYTES)
    try:
        match decode_line(data or b""):
            case [str(place), int(device)]:
                return is_gone(os.path.dirname(place), device)
    except ValueError:
        pass  # damaged: it stays
    return False


def is_gone(folder: str, device: int) -> bool:
    """Whether a folder that was on this device was certainly removed. False if that cannot be known."""
    try:
        left = nearest(folder)
        return left != folder and os.stat(left).st_dev == device
    except OSError:
        return False


def nearest(place: str) -> str:
    """The folder itself, or the nearest one above it that exists. Raises ``OSError`` if that cannot be known."""
    while True:
        try:
            os.stat(place)
        except (FileNotFoundError, NotADirectoryError):
            place = os.path.dirname(place)
        else:
            return place


def _home() -> Path:
    try:
        home = Path.home()
    except RuntimeError:
        raise FileNotFoundError(errno.ENOENT, "this user has no home folder") from None
    # Under sudo the home may be another user's, who could not remove what is made there.
    if os.stat(home).st_uid != system.user_id():
        raise PermissionError(errno.EACCES, "belongs to another user", str(home))
    return home


def _open_or_make(above: int, name: str, create: bool) -> int:
    try:
        return open_child(above, name)
    except FileNotFoundError:
        if not create:
            raise
    with suppress(FileExistsError):
        system.mkdir(name, 0o700, dir_fd=above)
    return open_child(above, name)


def _earlier_state(top: int) -> list[str]:
    """What an earlier version left behind to be taken over, if nobody else could have put it there."""
    if not is_private(top):
        return []
    return [name for name in system.listdir(top) if _EARLIER.fullmatch(name)]


def is_ours(folder: int) -> bool:
    """Whether an open folder is this user's: its owner also owns what this user creates there.

    That is not this user's number where a file system maps all users to one (NFS with squashed root, FAT, some FUSE).
    """
    owner = os.fstat(folder).st_uid
    return owner == system.user_id() or owner == owner_of_new_files(folder)


def is_private(folder: int) -> bool:
    """Whether only this user can have written what is in an open folder, as far as the system says that."""
    return system.is_private(folder)


def owner_of_new_files(folder: int) -> int | None:
    """The owner of what this user creates in a folder; None if nothing can be created."""
    made = _new_file(folder)
    return None if made is None else made.st_uid


def _has_modes(folder: int) -> bool:
    """Whether modes mean anything here: FAT and some network file systems show the same one for every file."""
    if not system.HAS_MODES:
        return False
    made = _new_file(folder)
    return made is None or not made.st_mode & 0o022


def _new_file(folder: int) -> os.stat_result | None:
    """The ``stat`` of a private file that this user creates in a folder; None if none can be created."""
    name = f".{secrets.token_hex(8)}.tmp"
    try:
        descriptor = system.open_descriptor(name, NEW_FILE, 0o600, dir_fd=folder)
    except OSError:
        return None
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)
        with suppress(OSError):
            system.unlink(name, dir_fd=folder)


def open_state(folder: int, name: str, flags: int) -> int:
    """Open a state file of this user to write to it, or make it; ``flags`` say how. Raises ``OSError``."""
    flags |= os.O_WRONLY | os.O_CREAT | system.O_NOFOLLOW | system.O_NONBLOCK | system.O_NOCTTY
    return system.open_descriptor(name, flags, 0o600, dir_fd=folder)


def read_state(folder: int, name: str, limit: int) -> bytes | None:
    """Read at most ``limit`` bytes of a state file of this user; None if it is anything else or cannot be read.

    Also None if others may write to the open ``folder``: the file may then be a link to any file of this user's.
    """
    if not is_private(folder):
        return None
    try:
        return read_regular(name, folder, limit=limit, owner=system.user_id())
    except OSError:
        return None


def state_lines(folder: int, name: str, limit: int) -> Iterator[bytes]:
    """Yield the lines of a state file, as `read_state` reads it; none if that returns None."""
    if is_private(folder):
        with suppress(OSError):
            yield from regular_lines(name, folder, limit=limit, owner=system.user_id())
