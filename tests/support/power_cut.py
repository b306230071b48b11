"""A disk that loses power: which files may be there afterwards, worked out from what a real run asked of the disk.

A run is recorded: every call of ``os`` that changes something below a folder. `Recording.cut` replays the first few
calls onto a model of the disk and pulls the plug. The model is as weak as POSIX allows and file systems are seen to be:

- Written bytes are certain after an fsync or fdatasync of their file. Before that, each block of 4 KiB may be
  there or not, or be torn between two sectors of 512 bytes; the file may have any length it had since.
- A name in a folder (made, renamed, removed) is certain after an fsync of that folder. Before that, each change may be
  there or not, whatever became of the bytes; only two changes of the same name keep their order.
- One rename is one change: never half of it.

Rules: whatever is left to chance is asked of a `Fate`, so a test can pull the plug in every possible way. The model is
checked against the real folder: with nothing lost, both are the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, Protocol
from unittest import mock

from grym_fetch.core.events import AssetVerified, Event
from grym_fetch.disk.verified import decode_entry
from grym_fetch.runtime.bus import EventBus

SECTOR = 512
BLOCK = 8 * SECTOR
ROOT = 0
"""The number of the folder that contains everything."""

Tree = Mapping[str, bytes | None]
"""Files and folders by their path; a folder has no bytes."""


# -- what was asked of the disk ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Written:
    """Bytes were written into a file. ``name``: its name at the time."""

    node: int
    at: int
    data: bytes = field(repr=False)
    name: str


@dataclass(frozen=True)
class Resized:
    """A file was cut or grown. ``name``: its name at the time."""

    node: int
    size: int
    name: str


@dataclass(frozen=True)
class Named:
    """Names were changed, all or none: (folder, name, what has the name now). ``made``: a new file or folder."""

    changes: tuple[tuple[int, str, int | None], ...]
    made: int | None = None
    is_folder: bool = False

    @property
    def names(self) -> set[tuple[int, str]]:
        """The names that were changed."""
        return {(folder, name) for folder, name, _ in self.changes}


@dataclass(frozen=True)
class Synced:
    """A file or folder was flushed."""

    node: int


@dataclass(frozen=True)
class Told:
    """Somebody was told that this file is in place and verified. ``path`` is relative to the root."""

    path: str


Call = Written | Resized | Named | Synced | Told


# -- what becomes of it -----------------------------------------------------------------------------------------------


class Fate(Protocol):
    """Decides which unflushed changes survive."""

    def keeps_name(self) -> bool:
        """Whether a change of names survives."""

    def sectors(self, name: str) -> int:
        """How many sectors of a block written into a file of this name survive: 0 to 8."""

    def length(self, name: str, lengths: Sequence[int]) -> int:
        """Which of the lengths that a file had since it was flushed, including the first and the last, it has now."""


@dataclass(frozen=True)
class Certain:
    """Everything of a kind survives, or nothing does. ``spoiled``: files that lose their bytes nevertheless."""

    names: bool
    bytes: bool
    lengths: bool
    spoiled: str = ""

    def keeps_name(self) -> bool:
        return self.names

    def sectors(self, name: str) -> int:
        return BLOCK // SECTOR if self.bytes and name != self.spoiled else 0

    def length(self, name: str, lengths: Sequence[int]) -> int:
        return lengths[-1 if self.lengths else 0]


NOTHING_LOST = Certain(names=True, bytes=True, lengths=True)
"""What ``kill -9`` leaves."""
WORST: dict[str, Fate] = {
    "nothing lost": NOTHING_LOST,
    "all lost": Certain(names=False, bytes=False, lengths=False),
    "names without bytes": Certain(names=True, bytes=False, lengths=False),
    "bytes without names": Certain(names=False, bytes=True, lengths=True),
    "zeros for bytes": Certain(names=True, bytes=False, lengths=True),
    "zeros for the content": Certain(names=True, bytes=True, lengths=True, spoiled="part"),
    "zeros for the journal": Certain(names=True, bytes=True, lengths=True, spoiled="journal"),
}


class Chance:
    """Each change has its own luck; how good that is for names and bytes is drawn once for this power cut."""

    def __init__(self, dice: Random) -> None:
        self._dice = dice
        self._names = dice.choice((0.5, 0.9, 1.0))
        self._bytes = {name: dice.choice((0.2, 0.8, 1.0)) for name in ("part", "journal", "")}

    def keeps_name(self) -> bool:
        return self._dice.random() < self._names

    def sectors(self, name: str) -> int:
        if self._dice.random() < self._bytes.get(name, self._bytes[""]):
            return BLOCK // SECTOR
        return self._dice.choice((0, self._dice.randint(0, BLOCK // SECTOR)))

    def length(self, name: str, lengths: Sequence[int]) -> int:
        return (
            lengths[-1] if self._dice.random() < self._bytes.get(name, self._bytes[""]) else self._dice.choice(lengths)
        )


class Platter:
    """What is certain so far, and what is only in memory."""

    def __init__(self, tree: Tree) -> None:
        self.files: dict[int, bytearray] = {}
        self.folders: dict[int, dict[str, int]] = {ROOT: {}}
        self._bytes: dict[int, list[Written | Resized]] = {}
        self._names: list[Named] = []
        for path, content in sorted(tree.items()):
            *parents, name = path.split("/")
            folder = ROOT
            for parent in parents:
                folder = self.folders[folder][parent]
            node = len(self.files) + len(self.folders)
            self.folders[folder][name] = node
            if content is None:
                self.folders[node] = {}
            else:
                self.files[node] = bytearray(content)

    def take(self, call: Call) -> None:
        """Replay one call."""
        match call:
            case Named():
                self._names.append(call)
                if call.made is not None and call.is_folder:
                    self.folders[call.made] = {}
                elif call.made is not None:
                    self.files[call.made] = bytearray()
            case Written() | Resized():
                self._bytes.setdefault(call.node, []).append(call)
            case Synced(node) if node in self.files:
                self._settle_bytes(node, NOTHING_LOST)
            case Synced(node):
                self._settle_names(lambda change: any(folder == node for folder, _, _ in change.changes), keep=True)

    def pull_the_plug(self, fate: Fate) -> None:
        """Decide about everything that is only in memory."""
        self._settle_names(lambda _: fate.keeps_name(), keep=False)
        for node in list(self._bytes):
            self._settle_bytes(node, fate)

    def _settle_names(self, survives: Callable[[Named], bool], *, keep: bool) -> None:
        """Make the changes that survive certain; ``keep`` the others in memory, otherwise they are lost."""
        before: set[tuple[int, str]] = set()
        chosen: list[Named] = []
        others: list[Named] = []
        for change in reversed(self._names):
            # Changes of one name keep their order: one that survives implies those before it.
            if before & change.names or survives(change):
                before |= change.names
                chosen.append(change)
            else:
                others.append(change)
        for change in reversed(chosen):
            for folder, name, node in change.changes:
                if node is None:
                    self.folders[folder].pop(name, None)
                else:
                    self.folders[folder][name] = node
        self._names = others[::-1] if keep else []

    def _settle_bytes(self, node: int, fate: Fate) -> None:
        data = self.files[node]
        length = len(data)
        lengths, name = [length], ""
        for call in self._bytes.pop(node, ()):
            name = call.name
            if isinstance(call, Resized):
                length = call.size
                del data[length:]
            else:
                length = max(length, call.at + len(call.data))
                for at, part in _survivors(call, fate):
                    data.extend(bytes(max(0, at - len(data))))
                    data[at : at + len(part)] = part
            lengths.append(length)
        length = fate.length(name, lengths)
        del data[length:]
        data.extend(bytes(length - len(data)))

    def paths(self, folder: int = ROOT, above: str = "") -> Iterator[tuple[str, int]]:
        """Everything that can be reached from the root, and its numbers."""
        if folder == ROOT:
            yield "", ROOT
        for name, node in self.folders[folder].items():
            yield f"{above}{name}", node
            if node in self.folders:
                yield from self.paths(node, f"{above}{name}/")

    def node_at(self, path: str) -> int:
        """The number of the file or folder at this path."""
        node = ROOT
        for part in filter(None, path.split("/")):
            node = self.folders[node][part]
        return node

    def tree(self) -> dict[str, bytes | None]:
        """Everything that can be reached from the root, without the root."""
        return {p: None if node in self.folders else bytes(self.files[node]) for p, node in self.paths() if p}


def _survivors(call: Written, fate: Fate) -> Iterator[tuple[int, bytes]]:
    """What is left of one write, block by block."""
    at, stop = call.at, call.at + len(call.data)
    while at < stop:
        block = at // BLOCK * BLOCK
        end = min(stop, block + fate.sectors(call.name) * SECTOR)
        if end > at:
            yield at, call.data[at - call.at : end - call.at]
        at = min(stop, block + BLOCK)


@dataclass(frozen=True)
class Recording:
    """What a run found, and what it asked of the disk."""

    before: Tree
    calls: Sequence[Call]

    def cut(self, after: int, fate: Fate) -> dict[str, bytes | None]:
        """What is there if the power fails right after this many calls."""
        platter = Platter(self.before)
        for call in self.calls[:after]:
            platter.take(call)
        platter.pull_the_plug(fate)
        return platter.tree()

    def killed(self, after: int, following: Recording) -> Recording:
        """The process was killed right after this many calls, without a power cut; then came the run ``following``.

        What the first one did not flush is still only in memory while the second one runs.
        """
        first, second = _now(self.before, self.calls[:after]), Platter(following.before)
        numbers = {node: first.node_at(path) for path, node in second.paths()}
        fresh = 1 + max([*first.files, *first.folders])

        def number(node: int) -> int:
            return numbers.setdefault(node, fresh + node)

        calls = [_renumbered(call, number) for call in following.calls]
        return Recording(self.before, [*self.calls[:after], *calls])

    def told(self, after: int) -> set[str]:
        """The files reported to somebody by then."""
        return {call.path for call in self.calls[:after] if isinstance(call, Told)}


def _now(tree: Tree, calls: Sequence[Call]) -> Platter:
    """Where every name leads after these calls: each name change is made certain at once."""
    platter = Platter(tree)
    for call in calls:
        platter.take(call)
        if isinstance(call, Named):
            for folder, _, _ in call.changes:
                platter.take(Synced(folder))
    return platter


def _renumbered(call: Call, number: Callable[[int], int]) -> Call:
    match call:
        case Named():
            changes = [(number(f), name, None if node is None else number(node)) for f, name, node in call.changes]
            made = None if call.made is None else number(call.made)
            return replace(call, changes=tuple(changes), made=made)
        case Told():
            return call
        case _:
            return replace(call, node=number(call.node))


# -- recording --------------------------------------------------------------------------------------------------------


class Recorder:
    """Records what is asked of the disk below ``root``, and carries it out. Flushing takes no time."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self.before = read_tree(root)
        self._platter = Platter(self.before)
        """Where every name leads now: each of its changes is made certain at once."""
        self._made = len(self._platter.files) + len(self._platter.folders)
        self._open: dict[int, int] = {}
        self.calls: list[Call] = []

    def _note(self, call: Call) -> None:
        self.calls.append(call)
        self._platter.take(call)
        if isinstance(call, Named):
            for folder, _, _ in call.changes:
                self._platter.take(Synced(folder))

    def _place(self, path: Any, dir_fd: int | None) -> tuple[int, str] | None:
        """The folder's number and the name in it; None for anything elsewhere."""
        text = os.fspath(path)
        if not os.path.isabs(text):
            text = os.path.join(os.getcwd() if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}"), text)
        parent, name = os.path.split(os.path.normpath(text))
        node = self._find(parent)
        return None if node is None else (node, name)

    def _find(self, path: str) -> int | None:
        if path != self._root and not path.startswith(f"{self._root}/"):
            return None
        return self._platter.node_at(path[len(self._root) :])

    def _node_at(self, place: tuple[int, str] | None) -> int | None:
        return None if place is None else self._platter.folders[place[0]].get(place[1])

    def _make(self, place: tuple[int, str], *, is_folder: bool) -> int:
        node, self._made = self._made, self._made + 1
        self._note(Named(((*place, node),), made=node, is_folder=is_folder))
        return node

    @staticmethod
    def _name(descriptor: int) -> str:
        return os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))

    def told(self, path: str) -> None:
        """Somebody was told that this file is there."""
        self._note(Told(os.path.relpath(path, self._root)))

    # The calls, as `os` has them.

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        descriptor = os_open(path, flags, mode, dir_fd=dir_fd)
        place = self._place(path, dir_fd)
        node = self._find(os.path.normpath(os.readlink(f"/proc/self/fd/{descriptor}"))) if place is None else None
        if place is not None and (node := self._node_at(place)) is None and flags & os.O_CREAT:
            node = self._make(place, is_folder=False)
        if node is not None:
            self._open[descriptor] = node
            if flags & os.O_TRUNC:
                self._note(Resized(node, 0, os.path.basename(path)))
        return descriptor

    def close(self, descriptor: int) -> None:
        self._open.pop(descriptor, None)
        os_close(descriptor)

    def write(self, descriptor: int, data: Any) -> int:
        count = os_write(descriptor, data)
        if (node := self._open.get(descriptor)) is not None:
            # Where it ended: appended bytes go to the end, whatever the position was.
            end = os.lseek(descriptor, 0, os.SEEK_CUR)
            self._written(node, end - count, bytes(data[:count]), descriptor)
        return count

    def pwrite(self, descriptor: int, data: Any, at: int) -> int:
        count = os_pwrite(descriptor, data, at)
        if (node := self._open.get(descriptor)) is not None:
            self._written(node, at, bytes(data[:count]), descriptor)
        return count

    def copy_file_range(self, source: int, target: int, count: int, at: int, to: int) -> int:
        copied = os_copy_file_range(source, target, count, at, to)
        if (node := self._open.get(target)) is not None:
            self._written(node, to, os.pread(target, copied, to), target)
        return int(copied)

    def _written(self, node: int, at: int, data: bytes, descriptor: int) -> None:
        name = self._name(descriptor)
        self._note(Written(node, at, data, name))
        if name == "verified.log":
            # An entry tells later runs that the file is right: it must not outlive the file.
            for line in data.splitlines():
                entry = decode_entry(line)
                assert entry is not None
                self.told(entry.path)

    def ftruncate(self, descriptor: int, size: int) -> None:
        os_ftruncate(descriptor, size)
        if (node := self._open.get(descriptor)) is not None:
            self._note(Resized(node, size, self._name(descriptor)))

    def fsync(self, descriptor: int) -> None:
        if (node := self._open.get(descriptor)) is not None:
            self._note(Synced(node))

    def mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        os_mkdir(path, mode, dir_fd=dir_fd)
        if (place := self._place(path, dir_fd)) is not None:
            self._make(place, is_folder=True)

    def rename(self, source: Any, target: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
        here, there = self._place(source, src_dir_fd), self._place(target, dst_dir_fd)
        os_rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        if here is not None and there is not None:
            self._note(Named(((*here, None), (*there, self._node_at(here)))))

    def link(
        self,
        source: Any,
        target: Any,
        *,
        src_dir_fd: int | None = None,
        dst_dir_fd: int | None = None,
        follow_symlinks: bool = True,
    ) -> None:
        here, there = self._place(source, src_dir_fd), self._place(target, dst_dir_fd)
        os_link(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=follow_symlinks)
        if here is not None and there is not None:
            self._note(Named(((*there, self._node_at(here)),)))

    def dup(self, descriptor: int) -> int:
        made = os_dup(descriptor)
        if (node := self._open.get(descriptor)) is not None:
            self._open[made] = node
        return made

    def remove(self, path: Any, *, dir_fd: int | None = None) -> None:
        place = self._place(path, dir_fd)
        os_remove(path, dir_fd=dir_fd)
        if place is not None:
            self._note(Named(((*place, None),)))

    def rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        place = self._place(path, dir_fd)
        os_rmdir(path, dir_fd=dir_fd)
        if place is not None:
            self._note(Named(((*place, None),)))


os_open, os_close, os_write, os_pwrite, os_ftruncate = os.open, os.close, os.write, os.pwrite, os.ftruncate
os_copy_file_range: Any = getattr(os, "copy_file_range", None)
os_link, os_dup = os.link, os.dup
os_mkdir, os_rename, os_remove, os_rmdir = os.mkdir, os.rename, os.remove, os.rmdir

_RECORDED = {
    # Where the system has no fdatasync (`make test-darwin`), fsync is what is called in its place.
    **{name: name for name in ("open", "close", "write", "pwrite", "ftruncate", "fsync", "mkdir", "rename", "rmdir")},
    **{name: name for name in ("copy_file_range", "link", "dup")},
    "fdatasync": "fsync",
    "replace": "rename",
    "remove": "remove",
    "unlink": "remove",
}

_RECORDED = {name: method for name, method in _RECORDED.items() if hasattr(os, name)}
_FLUSHES = {"fsync", "fdatasync"} & _RECORDED.keys()


@contextmanager
def recording(root: Path) -> Iterator[Recorder]:
    """Record what is done below ``root`` until the block ends, then compare the model with the real folder."""
    recorder = Recorder(root)
    emit = EventBus.emit

    def emit_and_note(bus: EventBus, event: Event) -> None:
        if isinstance(event, AssetVerified):
            recorder.told(event.path)
        emit(bus, event)

    with (
        mock.patch.multiple(os, **{name: getattr(recorder, method) for name, method in _RECORDED.items()}),
        mock.patch.object(EventBus, "emit", emit_and_note),
    ):
        yield recorder
    made = Recording(recorder.before, recorder.calls).cut(len(recorder.calls), NOTHING_LOST)
    assert made == read_tree(root), "the recorder has missed a call"


def read_tree(root: Path) -> dict[str, bytes | None]:
    """The files and folders below ``root``."""
    return {path.relative_to(root).as_posix(): None if path.is_dir() else path.read_bytes() for path in root.rglob("*")}


def write_tree(root: Path, tree: Tree) -> None:
    """Make these files and folders."""
    for path, content in sorted(tree.items()):
        if content is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(content)


@contextmanager
def no_flushing() -> Iterator[None]:
    """Nothing is flushed: a test that looks at what a cut left need not fear a real power cut."""
    flushes: Any = dict.fromkeys(_FLUSHES, lambda _: None)
    with mock.patch.multiple(os, **flushes):
        yield
