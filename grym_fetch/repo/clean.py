"""Moves large files out of a repository, so that a crash at any point loses nothing.

For each file, in this order; every step is on the disk before the next one begins::

    copy to a draft in the external folder, hashing            a crash leaves a draft, which the next run removes
    flush it, read it back, compare; give it its name          a crash leaves a good copy, which the next run finds
    record it in asset-manifest.json                           a crash leaves an entry, which the next run keeps
    write the placeholder                                      a crash leaves placeholder and file: both are right
    if the file is still the one that was copied, remove it    done

So the original is removed last, and at every moment the bytes are in the repository, in the external folder, or in
both. A file is "still the one" while its size, times, inode and device are the same as before the copy. A lock on the
external folder keeps a second run out.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, auto
from pathlib import Path
from typing import Self

from grym_fetch.core.command_lines import command_line
from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import DiskFull, Locked, RepositoryError, StorageError, UnsafePath
from grym_fetch.core.events import RunStarted
from grym_fetch.core.figures import lacking
from grym_fetch.core.paths import check_local_path, collision_key, why_equal
from grym_fetch.core.text import safe_text
from grym_fetch.disk.folders import free_bytes, open_folder, open_regular, path_from, storage_errors, sync
from grym_fetch.disk.moved_files import MovedFile
from grym_fetch.disk.verified import FileSignature
from grym_fetch.repo.errors import NotMoved
from grym_fetch.repo.git import Git, GitUnusable
from grym_fetch.repo.identify import survey
from grym_fetch.repo.moving import DRAFT_SUFFIX, Draft, digest_of, draft_name, lock, remove_dead_draft, write_file
from grym_fetch.repo.own_folders import OwnFolders
from grym_fetch.repo.placeholder import SUFFIX, Placeholder, distinct_id
from grym_fetch.repo.places import placeholders, read_placeholder
from grym_fetch.repo.record import MovedFiles, iso
from grym_fetch.repo.target import check_target, check_unseen, usual_folders
from grym_fetch.repo.telling import Emit, Told, unheard
from grym_fetch.repo.tree import below, git_folder_above
from grym_fetch.runtime import system

MAX_NAME_BYTES = 230
"""The longest name of a file to be moved: file systems allow 255, and the placeholder's draft has a longer name."""


_OF_ONE_FILE = frozenset({errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOENT, errno.ETXTBSY, errno.EBUSY})


class Why(Enum):
    """Why a file is not moved. ``NEEDED``: git or grym-fetch reads it where it is, so that this is no failure."""

    NEEDED = auto()
    UNCOMMITTED = auto()
    UNSAFE = auto()
    TAKEN = auto()
    CHANGED = auto()
    FAILED = auto()


@dataclass(frozen=True, slots=True)
class Move:
    """A file to be moved. ``path`` is relative to the root, ``storage_path`` to the external folder. Size in bytes."""

    path: str
    storage_path: str
    size: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A file that is not moved, and why."""

    path: str
    why: Why
    reason: str


@dataclass(frozen=True, slots=True)
class Moved:
    """A file that was moved, and the placeholder that is there now."""

    path: str
    placeholder: Placeholder


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a clean would do. All folders are absolute, without symlinks."""

    root: Path
    source: Path
    target: Path
    moves: tuple[Move, ...]
    kept: tuple[Kept, ...]
    symlinks: tuple[str, ...]
    repositories: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    pointers: int = 0
    """Large files of which git stores only a pointer, and which stay."""

    @property
    def bytes(self) -> int:
        """The size of all files to be moved."""
        return sum(move.size for move in self.moves)


class FileChanged(NotMoved):
    """The file is no longer the one that was copied."""


class NameTaken(NotMoved):
    """Something else has the name."""


def plan_clean(
    root: Path,
    source: Path,
    target: Path,
    limit: int,
    *,
    allow_dirty: bool = False,
    needed: Iterable[Path] = (),
) -> Plan:
    """Find the files in ``source`` with more than ``limit`` bytes, and decide about each. Changes nothing.

    ``needed`` are the assets folders and the manifest that the user has chosen; others are recognised by their content.

    Raises `RepositoryError` if the folders make no sense together or the target is not a place for large files, and
    `GitUnusable` if git cannot say what it ignores and what is committed.
    """
    root, source, target = root.resolve(), source.resolve(), target.resolve()
    if not source.is_dir():
        raise RepositoryError(f"{safe_text(str(source))} is not a folder")
    if (store := git_folder_above(source)) is not None:
        raise RepositoryError(
            f"{safe_text(str(store), limit=4000)} is git's own folder, from which nothing is ever moved; name a work "
            "tree, or clean a clone of it"
        )
    check_target(root, source, target)
    recorded = {(file.original_path, file.size) for file in MovedFiles(target).files}
    prefix = below(root, source)
    try:
        found = survey(source, limit, root, is_strict=True, recorded=recorded)
        dirty, unseen = _ask(root, [prefix + file.path for file in found.files], allow_dirty=allow_dirty)
    except GitUnusable as error:
        hint = "So it is not known what git ignores and what is committed, and nothing was moved"
        raise GitUnusable(f"{error}. {hint}") from error
    clashes = _Clashes(file.storage_path for file in MovedFiles(target).files)
    own = OwnFolders(path.resolve() for path in needed)
    moves, kept = [], []
    for file in found.files:
        move = Move(prefix + file.path, file.path, file.size)
        judged = _judge(move, root, target, dirty, own) or _judge_names(move, unseen, clashes)
        if judged is None:
            moves.append(move)
        else:
            kept.append(judged)
    check_unseen(root, target, [move.storage_path for move in moves])
    return Plan(
        root=root,
        source=source,
        target=target,
        moves=tuple(moves),
        kept=tuple(kept),
        symlinks=found.symlinks,
        repositories=found.repositories,
        unreadable=found.unreadable,
        pointers=found.pointers,
    )


def _ask(root: Path, paths: list[str], *, allow_dirty: bool) -> tuple[set[str], set[str]]:
    """Which of these files have changes that are not committed, and of which git would ignore the placeholders."""
    git = Git.of(root) if paths else None
    if git is None:
        return set(), set()
    dirty = set() if allow_dirty else git.uncommitted(git.index(), paths)
    return dirty, {path.removesuffix(SUFFIX) for path in git.ignored("", [path + SUFFIX for path in paths])}


class _Clashes:
    """Notes paths in the target, and finds those that some file system takes for one that was noted before."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._noted: dict[str, str] = {}
        for path in paths:
            self.note(path)

    def note(self, path: str) -> str | None:
        """Note a path, unless it clashes with another: then return that."""
        other = self._noted.setdefault(collision_key(path), path)
        return None if other == path else other


def _judge_names(move: Move, unseen: Collection[str], clashes: _Clashes) -> Kept | None:
    """Why a file stays that could be moved, but that not everybody could bring back."""
    if move.path in unseen:
        asked = command_line("git", "check-ignore", "-v", names=(move.path + SUFFIX,))
        reason = (
            f"git would ignore its placeholder, so that nobody else could bring it back; `{asked}` names the line of "
            ".gitignore to be changed"
        )
        return Kept(move.path, Why.UNSAFE, reason)
    if (other := clashes.note(move.storage_path)) is not None:
        return Kept(move.path, Why.UNSAFE, f"{why_equal(other, move.storage_path)}; rename it to have it moved")
    return None


def _judge(move: Move, root: Path, target: Path, dirty: Collection[str], own: OwnFolders) -> Kept | None:
    name = move.path.rpartition("/")[2]
    if (reason := own.why_not(root / move.path)) is not None:
        return Kept(move.path, Why.NEEDED, reason)
    try:
        normal = check_local_path(move.path), check_local_path(move.storage_path)
    except ValueError as error:
        return Kept(move.path, Why.UNSAFE, f"{_unsafe(move.path, error)}; rename it to have it moved")
    if normal != (move.path, move.storage_path):
        return Kept(
            move.path, Why.UNSAFE, "its path is not in Unicode normal form C, so other systems change it; rename it"
        )
    if len(os.fsencode(name)) > MAX_NAME_BYTES:
        return Kept(move.path, Why.UNSAFE, f"its name is longer than {MAX_NAME_BYTES} bytes; rename it")
    if name.endswith(SUFFIX):
        return Kept(move.path, Why.UNSAFE, "its name is that of a placeholder")
    if name.startswith(".") and name.endswith(DRAFT_SUFFIX):
        reason = "its name is that of an unfinished copy: remove it if an interrupted restore has left it, or rename it"
        return Kept(move.path, Why.UNSAFE, reason)
    if (target / move.storage_path).is_relative_to(root):
        return Kept(move.path, Why.UNSAFE, "its place in the target lies inside the repository")
    if (reason := _closed(root / move.path)) is not None:
        return Kept(move.path, Why.FAILED, reason)
    if move.path in dirty:
        return Kept(move.path, Why.UNCOMMITTED, "has changes that are not committed; commit them, or use --allow-dirty")
    try:
        size = os.lstat(target / move.storage_path).st_size
    except OSError:
        size = move.size
    if size != move.size:
        return Kept(move.path, Why.TAKEN, _taken(target / move.storage_path))
    try:
        _check_placeholder(root / (move.path + SUFFIX))
    except NotMoved as error:
        return Kept(move.path, Why.TAKEN, str(error))
    return None


def _closed(file: Path) -> str | None:
    """Why this user cannot move a file, whatever git says of it; None if nothing is known to be in the way."""
    if not os.access(file, os.R_OK):
        return "cannot be read by this user"
    if not os.access(file.parent, os.W_OK | os.X_OK):
        return "cannot be replaced by its placeholder: its folder may not be written to"
    return None


def _unsafe(path: str, error: ValueError) -> str:
    try:
        path.encode()
    except UnicodeEncodeError:
        return "its path is not UTF-8, and not every system can have it"
    return f"its path {error}"


def _check_placeholder(path: Path) -> None:
    """Raise `NameTaken` if something that is not a placeholder has the placeholder's name."""
    if os.path.lexists(path) and read_placeholder(path) is None:
        raise NameTaken("the name of its placeholder is taken by something else")


class Cleaner:
    """Carries out a plan. A context manager that holds the external folder's lock.

    ``now`` returns the time of each move; ``ids`` are already taken by other assets; ``known`` maps contents that a
    manifest lists to their ids. ``emit`` gets the events; see `grym_fetch.repo.telling`.
    """

    def __init__(
        self,
        plan: Plan,
        now: Callable[[], datetime],
        *,
        ids: Collection[str] = (),
        known: dict[str, str] | None = None,
        emit: Emit = unheard,
    ) -> None:
        self._plan = plan
        self._emit = emit
        self._now = now
        self._ids = set(ids)
        self._known = known or {}
        self._flushed_folders: set[tuple[str, ...]] = set()
        """The target's folders whose parents were certainly flushed: a run that died may have made others."""
        # As a person in the repository's root would write it; None if it is found without being named.
        is_usual = plan.target in usual_folders(plan.root)
        self._external = None if is_usual else path_from(plan.root, plan.target)

    def __enter__(self) -> Self:
        plan = self._plan
        with storage_errors(plan.target):
            plan.target.mkdir(parents=True, exist_ok=True)
            # The path was resolved when it was checked; a symlink that appeared since then was not.
            self._folder = system.open_descriptor(plan.target, os.O_RDONLY | system.O_DIRECTORY | system.O_NOFOLLOW)
        with ExitStack() as opened:
            opened.callback(os.close, self._folder)
            with storage_errors(plan.target):
                turn = system.open_lock(self._folder)
            opened.callback(os.close, turn)
            lock(turn, plan.target)
            with storage_errors(plan.target):
                self._sync_parent()
            self._check_space()
            self._record = MovedFiles(plan.target)
            self._opened = opened.pop_all()
        for found in placeholders(plan.root):
            self._ids.add(found.placeholder.id)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._opened.close()

    def _sync_parent(self) -> None:
        parent = system.open_descriptor(self._plan.target.parent, os.O_RDONLY | system.O_DIRECTORY)
        try:
            sync(parent)
        finally:
            os.close(parent)

    def _check_space(self) -> None:
        """Each file is removed after it is copied, so on one file system only the largest needs space twice."""
        sizes = [self._bytes_to_copy(move) for move in self._plan.moves]
        shares = os.stat(self._plan.root).st_dev == os.stat(self._plan.target).st_dev
        needed = max(sizes, default=0) if shares else sum(sizes)
        free = free_bytes(self._plan.target)
        if needed > free:
            reason = f"not enough space: {lacking(needed, free)}; nothing was moved"
            raise DiskFull(safe_text(str(self._plan.target)), reason)

    def _bytes_to_copy(self, move: Move) -> int:
        """What the copy takes on the disk, less what is there from an earlier run; holes take nothing."""
        place = self._plan.target / move.storage_path
        with suppress(OSError):
            if os.lstat(place).st_size == move.size:
                return 0
        size = move.size
        with suppress(OSError):
            size = min(size, system.allocated_bytes(os.lstat(self._plan.root / move.path)))
        with suppress(OSError):
            size -= system.allocated_bytes(os.lstat(place.with_name(draft_name(place.name))))
        return size

    def holds_folder_of(self, path: Path) -> bool:
        """Whether a file, or what it leads to, is in the external folder itself, which is locked."""
        with storage_errors(path):
            return os.path.samestat(os.fstat(self._folder), os.stat(Path(os.path.realpath(path)).parent))

    def moves(self) -> Iterator[Moved | Kept]:
        """Move one file after the other; one that cannot be moved does not stop the others.

        Raises `StorageError` if the disk is full or fails.
        """
        moves = self._plan.moves
        self._emit(RunStarted(assets=len(moves), bytes=sum(move.size for move in moves)))
        for move in moves:
            told = Told(self._emit, move.path)
            try:
                placeholder = self._move(move, told)
            except (NotMoved, StorageError) as error:
                told.failed(error)
                if (kept := _kept(move, error)) is None:
                    raise
                yield kept
            else:
                told.done(str(self._plan.target / placeholder.storage_path), placeholder.checksum)
                yield Moved(move.path, placeholder)

    def _move(self, move: Move, told: Told) -> Placeholder:
        *parents, name = move.path.split("/")
        with storage_errors(self._plan.root / move.path):
            here = open_folder(self._plan.root, tuple(parents), create=False)
            try:
                try:
                    source = open_regular(name, here)
                except OSError as error:
                    raise FileChanged(f"could not be opened: {os.strerror(error.errno or 0).lower()}") from error
                try:
                    return self._move_open(move, here, name, source, told)
                finally:
                    os.close(source)
            finally:
                os.close(here)

    def _move_open(self, move: Move, here: int, name: str, source: int, told: Told) -> Placeholder:
        signature = FileSignature.of(os.fstat(source))
        _check_unchanged(source, here, name, signature)
        checksum = self._store(move, source, lambda: _check_unchanged(source, here, name, signature), told)
        entry = self._record_move(move, signature.size, checksum)
        placeholder = self._placeholder(move, entry)
        _check_unchanged(source, here, name, signature)
        write_file(here, name + SUFFIX, placeholder.encode())
        try:
            _check_unchanged(source, here, name, signature)
            system.unlink(name, dir_fd=here)
        except (FileChanged, PermissionError):  # the file stays, so it must not have a placeholder
            system.unlink(name + SUFFIX, dir_fd=here)
            raise
        sync(here)
        return placeholder

    def _store(self, move: Move, source: int, check: Callable[[], None], told: Told) -> Checksum:
        *parents, name = move.storage_path.split("/")
        with storage_errors(self._plan.target / move.storage_path):
            there = open_folder(self._plan.target, tuple(parents), create=True, flushed=self._flushed_folders)
            try:
                remove_dead_draft(there, name)
                try:
                    stored = open_regular(name, there)
                except FileNotFoundError:
                    return self._copy(move, source, there, name, check, told)
                except OSError as error:
                    raise NameTaken(_taken(self._plan.target / move.storage_path)) from error
                return self._compare(move, source, stored, there, check, told)
            finally:
                os.close(there)

    def _copy(self, move: Move, source: int, there: int, name: str, check: Callable[[], None], told: Told) -> Checksum:
        with Draft(there, name, mode=0o600) as draft:
            checksum = draft.copy(source, on_copied=told.copying(move.size), on_read=told.reading(move.size))
            check()
            try:
                draft.publish()
            except FileExistsError as error:
                raise NameTaken(_taken(self._plan.target / move.storage_path)) from error
        return checksum

    def _compare(
        self, move: Move, source: int, stored: int, there: int, check: Callable[[], None], told: Told
    ) -> Checksum:
        """A file is there already: fine if it has the same content, as it has after a crash."""
        try:
            checksum = digest_of(source, told.reading(move.size))
            check()
            if digest_of(stored, told.reading(move.size)) != checksum:
                raise NameTaken(_taken(self._plan.target / move.storage_path))
            sync(stored)
            sync(there)
        finally:
            os.close(stored)
        return checksum

    def _record_move(self, move: Move, size: int, checksum: Checksum) -> MovedFile:
        known = self._record.find(move.path, checksum)
        if known is not None and known.storage_path == move.storage_path:
            return known
        now = self._now()
        entry = MovedFile(
            original_path=move.path,
            storage_path=move.storage_path,
            size=size,
            checksum=checksum,
            moved_on=iso(now),
        )
        self._record.add(entry)
        self._record.save(now)
        return entry

    def _placeholder(self, move: Move, entry: MovedFile) -> Placeholder:
        before = read_placeholder(self._plan.root / (move.path + SUFFIX))
        if before is not None and before.checksum == entry.checksum:
            name = before.id
        else:
            name = self._known.get(entry.checksum.hexdigest) or distinct_id(move.path, self._ids)
        self._ids.add(name)
        return Placeholder(
            id=name,
            original_path=move.path,
            storage_path=entry.storage_path,
            size=entry.size,
            checksum=entry.checksum,
            moved_on=entry.moved_on,
            external_dir=self._external,
        )

    def recorded(self, folder: Path) -> list[Placeholder]:
        """The placeholders below ``folder`` whose file is in this external folder, from this run and earlier ones.

        An interrupted run has moved files; this is how the next one knows what to put into the manifest.
        """
        found = []
        for place in placeholders(folder):
            path = place.path.relative_to(self._plan.root).as_posix()
            entry = self._record.find(place.placeholder.original_path, place.placeholder.checksum)
            if entry is not None:
                found.append(replace(place.placeholder, original_path=path, storage_path=entry.storage_path))
        return found


def _kept(move: Move, error: NotMoved | StorageError) -> Kept | None:
    """Why a file stays; None if no other could be moved either."""
    match error:
        case FileChanged():
            why = Why.CHANGED
        case NameTaken():
            why = Why.TAKEN
        case StorageError() if _is_of_one_file(error):
            why = Why.FAILED
        case _:
            return None
    return Kept(move.path, why, str(error))


def _is_of_one_file(error: StorageError) -> bool:
    """Whether another file could still be moved: only a name or a permission is in the way, not the disk."""
    cause = error.__cause__
    return isinstance(error, (Locked, UnsafePath)) or (isinstance(cause, OSError) and cause.errno in _OF_ONE_FILE)


def _check_unchanged(source: int, folder: int, name: str, signature: FileSignature) -> None:
    """Raise `FileChanged` unless the open file and the file with its name both still have this signature.

    Also if somebody has it open for writing: what is written later would go to a file without a name.
    """
    try:
        named = FileSignature.of(system.stat(name, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        raise FileChanged("went away while it was moved") from None
    if named != signature or FileSignature.of(os.fstat(source)) != signature:
        raise FileChanged("changed while it was moved; it stays, run the command again once nothing writes to it")
    if system.is_open_for_writing(source):
        raise FileChanged("is open for writing in some program; it stays, run the command again once that has ended")


def _taken(path: Path) -> str:
    advice = "rename one of the two, or name another TARGET"
    return f"{safe_text(str(path), limit=4000)} has this name already and other content; {advice}"
