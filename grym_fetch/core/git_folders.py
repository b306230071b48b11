"""Which files together make a folder that git takes for a repository, without any ``.git``.

Rules: git enters every folder that has ``HEAD``, ``objects`` and ``refs`` (setup.c, is_git_directory), as soon as it is
run there or below, and obeys the ``config`` beside them, which can name programs to run. With a file ``commondir``, the
other two and ``config`` may lie elsewhere. Names are compared as any file system may: a folder that is a repository on
one system is one everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from grym_fetch.core.paths import collision_key
from grym_fetch.core.text import safe_text

HEAD = "head"
"""The file without which git looks no further; in lower case, as all names here are compared."""
_COMMON = "commondir"
_BOTH = ("objects", "refs")
BESIDE_HEAD = (*_BOTH, _COMMON)
"""What can make a repository of the folder that ``HEAD`` is in; see `needed_of`."""
_PART = re.compile(rf"(?:^|/)(?:{'|'.join((HEAD, *BESIDE_HEAD))})(?:/|$)", re.IGNORECASE)


class GitFolder(NamedTuple):
    """A folder that git would take for a repository: the file ``HEAD`` in it, and what else makes it one.

    These are indices of the paths; ``folder`` is as the path of ``HEAD`` has it, empty for the top.
    """

    folder: str
    head: int
    others: tuple[int, ...]

    @property
    def parts(self) -> tuple[int, ...]:
        """All that make it one, ``HEAD`` first."""
        return (self.head, *self.others)


def makes_a_repository(others: Iterable[str]) -> str:
    """Continue "the path …" with why it is refused together with these."""
    shown = " and ".join(f"'{safe_text(other)}'" for other in others)
    return f"makes a git repository together with {shown}: git run there would start the programs that its config names"


def may_make_a_repository(path: str) -> bool:
    """Whether a part of the path is one of those that make a repository; true of nearly no path."""
    return _PART.search(path if path.isascii() else collision_key(path)) is not None


def find_git_folders(files: Sequence[str], folders: Iterable[str] = ()) -> list[GitFolder]:
    """Return each folder that these files, and everything in these folders, would make a repository.

    An index past the files counts on in ``folders``. Nearly nobody has a file named ``HEAD``: without one this is a
    look at the end of each path.
    """
    heads: dict[tuple[str, ...], int] = {}
    for index, path in enumerate(files):
        if path[-len(HEAD) :].lower() == HEAD:
            *above, name = collision_key(path).split("/")
            if name == HEAD:
                heads.setdefault(tuple(above), index)
    if not heads:
        return []
    top = _Folder()
    found = {folder: top.make(folder) for folder in heads}
    for index, path in enumerate((*files, *folders)):
        top.note(collision_key(path).split("/"), index)
    return [
        GitFolder(
            files[heads[folder]].rpartition("/")[0], heads[folder], tuple(dict.fromkeys(there[n] for n in needed))
        )
        for folder, noted in found.items()
        if (needed := needed_of(there := noted.there))
    ]


class _Folder:
    """A folder on the way to a ``HEAD``, and what in it may make it a repository."""

    __slots__ = ("below", "there")

    def __init__(self) -> None:
        self.below: dict[str, _Folder] = {}
        self.there: dict[str, int] = {}

    def make(self, path: Iterable[str]) -> _Folder:
        """Return the folder with this path below, made with those above it if it is not there."""
        folder = self
        for name in path:
            folder = folder.below.setdefault(name, _Folder())
        return folder

    def note(self, path: Iterable[str], index: int) -> None:
        """Note what this path has in each folder on its way. Each part of it is looked at once."""
        folder: _Folder | None = self
        for name in path:
            if folder is None:
                return
            if name in BESIDE_HEAD:
                folder.there.setdefault(name, index)
            folder = folder.below.get(name)


def needed_of(names: Mapping[str, object]) -> tuple[str, ...]:
    """Return which names beside ``HEAD`` make a folder with these names a repository, none if it is not one."""
    if _COMMON in names:
        return (_COMMON,)
    return _BOTH if all(name in names for name in _BOTH) else ()
