"""Which files together make a folder that git takes for a repository, without any ``.git``.

Rules: git takes every folder with ``HEAD``, ``objects`` and ``refs`` for a repository (setup.c, is_git_directory) when
it is run there or below, and obeys the ``config`` next to them, which can name programs to run. If there is a file
``commondir``, the other two and ``config`` may be elsewhere. Names are compared as loosely as on any file system: a
folder that would be a repository on one system counts as one everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from grym_fetch.core.paths import collision_key
from grym_fetch.core.text import safe_text

HEAD = "head"
"""The file without which git does not look further; in lower case, because names are compared in lower case here."""
_COMMON = "commondir"
_BOTH = ("objects", "refs")
BESIDE_HEAD = (*_BOTH, _COMMON)
"""What can make a repository of the folder that ``HEAD`` is in; see `needed_of`."""
_PART = re.compile(rf"(?:^|/)(?:{'|'.join((HEAD, *BESIDE_HEAD))})(?:/|$)", re.IGNORECASE)


class GitFolder(NamedTuple):
    """A folder that git would take for a repository: its file ``HEAD``, and what else makes it one.

    Both are indices of paths; ``folder`` is taken from the path of ``HEAD``, and is empty for the top.
    """

    folder: str
    head: int
    others: tuple[int, ...]

    @property
    def parts(self) -> tuple[int, ...]:
        """The indices of all parts that make it a repository, ``HEAD`` first."""
        return (self.head, *self.others)


def makes_a_repository(others: Iterable[str]) -> str:
    """Complete the sentence "the path …": why it is refused together with these others."""
    shown = " and ".join(f"'{safe_text(other)}'" for other in others)
    return f"makes a git repository together with {shown}: git run there would start the programs that its config names"


def may_make_a_repository(path: str) -> bool:
    """Whether a part of the path is one of those that make a repository; rarely true."""
    return _PART.search(path if path.isascii() else collision_key(path)) is not None


def find_git_folders(files: Sequence[str], folders: Iterable[str] = ()) -> list[GitFolder]:
    """Return each folder that these files, together with anything in these folders, would make a repository.

    Indices past the files continue in ``folders``. Hardly anybody has a file named ``HEAD``: without one, only the end
    of each path is looked at.
    """
    if f"{HEAD}\n" not in "\n".join((*files, "")).lower():
        return []
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
    """A folder above a ``HEAD``, and what in it may make it a repository."""

    __slots__ = ("below", "there")

    def __init__(self) -> None:
        self.below: dict[str, _Folder] = {}
        self.there: dict[str, int] = {}

    def make(self, path: Iterable[str]) -> _Folder:
        """Return the folder at this path below this one; make it and those above it if need be."""
        folder = self
        for name in path:
            folder = folder.below.setdefault(name, _Folder())
        return folder

    def note(self, path: Iterable[str], index: int) -> None:
        """Note the parts of this path in each folder on the way. Each part is looked at once."""
        folder: _Folder | None = self
        for name in path:
            if folder is None:
                return
            if name in BESIDE_HEAD:
                folder.there.setdefault(name, index)
            folder = folder.below.get(name)


def needed_of(names: Mapping[str, object]) -> tuple[str, ...]:
    """Return which names besides ``HEAD`` make a folder with these names a repository; empty if it is not one."""
    if _COMMON in names:
        return (_COMMON,)
    return _BOTH if all(name in names for name in _BOTH) else ()
