"""Brings moved files back, verified.

A file is looked for in the external folder, at the path that the record or the placeholder names; then in the external
folders of cleans that began in a folder above or below; then it is fetched by its checksum, if somebody can do that. It
is copied into a draft next to its place and hashed on the way; only a draft with the right SHA-256 gets the name, and
only then is the placeholder removed. The record keeps its entry, so that a file can be restored again.

Rules: a placeholder stands for the file next to it. A path from the record is not trusted: it must be safe and below
the root, and lead there through no symlink. Nothing is ever written in git's own folders.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import stat
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from grym_fetch.core.command_lines import command_line
from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import (
    AssetMissing,
    DigestMismatch,
    GrymFetchError,
    NotWritable,
    RepositoryError,
    StorageError,
    UnsafePath,
)
from grym_fetch.core.events import Event
from grym_fetch.core.manifest import Asset
from grym_fetch.core.nearest import nearest_names
from grym_fetch.core.paths import check_local_path
from grym_fetch.core.text import safe_text
from grym_fetch.disk.folders import exists, open_folder, open_regular, storage_errors, sync
from grym_fetch.disk.moved_files import MovedFile
from grym_fetch.repo.git import Git, GitUnusable
from grym_fetch.repo.moving import Draft, digest_of, remove_dead_draft
from grym_fetch.repo.placeholder import SUFFIX, asset_id
from grym_fetch.repo.places import Place, placeholders, read_placeholder
from grym_fetch.repo.record import MovedFiles
from grym_fetch.repo.target import recording_folders
from grym_fetch.repo.telling import Emit, Told, unheard
from grym_fetch.repo.tree import below, git_folder_above
from grym_fetch.runtime import system
from grym_fetch.runtime.system import current_umask
from grym_fetch.runtime.threads import WorkerThreads
from grym_fetch.runtime.waiting import wait_uncancelled

log = logging.getLogger(__name__)

Fetch = Callable[[Checksum], Awaitable[Path | None]]
"""Returns a file with this content, fetching it if need be; None if no source is known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A file to bring back. ``path`` is relative to the root; ``stored`` are its paths in an external folder.

    ``folders``: the external folders of this file, if the clean that moved it did not begin at the root.
    """

    path: str
    id: str
    checksum: Checksum
    stored: tuple[str, ...]
    size: int = 0
    """In bytes, as the placeholder or the record says."""
    folders: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Restored:
    """A restored file. ``source`` says where it came from; ``there`` means that there was nothing to do."""

    path: Path
    id: str
    source: Literal["there", "external", "download"]


class Restorer:
    """Restores files of the repository at ``root`` that were moved to one of ``folders``, likeliest first.

    ``only_there``: the user has named the folder, so no other is searched. ``emit`` gets the events, in the event
    loop; see `grym_fetch.repo.telling`. ``damaged``: placeholders that were passed over, and what is wrong with each.
    Raises `RepositoryError` if a record there cannot be read.
    """

    def __init__(
        self,
        root: Path,
        folders: Sequence[Path],
        fetch: Fetch | None = None,
        *,
        only_there: bool = False,
        emit: Emit = unheard,
    ) -> None:
        self._root = root.resolve()
        self._emit = emit
        self._folders = list(folders)
        self._fetch = fetch
        self._only_there = only_there
        self._threads = WorkerThreads("restore", 1)
        self.damaged: dict[str, str] = {}
        self._records = [(MovedFiles(folder), "") for folder in folders]
        for above in () if only_there else self._root.parents:
            for folder in recording_folders(above):
                if folder not in self._folders:
                    with suppress(GrymFetchError):  # it may belong to another user
                        self._records.append((MovedFiles(folder), below(above, self._root)))
                        self._folders.append(folder)

    def all(self) -> list[Wanted]:
        """Every file that a placeholder in the repository stands for."""
        return self._below(self._root)

    def _below(self, folder: Path) -> list[Wanted]:
        return [self._of_place(place) for place in placeholders(folder, self._note_damaged)]

    def _note_damaged(self, path: Path, why: str) -> None:
        self.damaged[path.relative_to(self._root).as_posix()] = why

    def find(self, text: str, cwd: Path) -> list[Wanted]:
        """Find what the user named: a file, its placeholder, a folder of placeholders, or an id.

        Nothing for a folder in which all placeholders are damaged. Raises `RepositoryError` if no file of this name
        was moved, or several files have this id.
        """
        for base in (cwd, self._root):
            path = Path(os.path.normpath(base / text))
            if not path.is_relative_to(self._root):
                path = path.parent.resolve() / path.name  # the way to the repository may lead over a symlink
            if not path.is_relative_to(self._root):
                self._refuse_elsewhere(path, text)
                continue
            file = path.with_name(path.name.removesuffix(SUFFIX))
            if (placeholder := read_placeholder(file.with_name(file.name + SUFFIX))) is not None:
                return [self._of_place(Place(file, placeholder))]
            if path.is_dir() and ((found := self._below(path)) or self._has_damaged(path)):
                return found
            if (entry := self._entry(file.relative_to(self._root).as_posix())) is not None:
                return [_of_entry(entry)]
        return self._by_id(text)

    def _has_damaged(self, folder: Path) -> bool:
        """Whether damaged placeholders were passed over in this folder."""
        return any(path.startswith(below(self._root, folder)) for path in self.damaged)

    def _refuse_elsewhere(self, path: Path, text: str) -> None:
        name = path.name.removesuffix(SUFFIX)
        if read_placeholder(path.with_name(name + SUFFIX)) is not None:
            root = safe_text(str(self._root), limit=4000)
            raise RepositoryError(f"{safe_text(text)} is not in {root}; change to its repository, and restore it there")

    def find_one(self, text: str, cwd: Path) -> Wanted:
        """Like `find`, for exactly one file. Raises `RepositoryError` for a folder with several, or a damaged one."""
        found = self.find(text, cwd)
        if not found:
            path, why = next(iter(self.damaged.items()))
            raise RepositoryError(f"{safe_text(path)} is damaged: it {safe_text(why)}")
        if len(found) > 1:
            raise RepositoryError(f"{safe_text(text)} is a folder with {len(found)} moved files; name one of them")
        return found[0]

    def _entry(self, path: str) -> MovedFile | None:
        return next((entry for entry in self._entries() if entry.original_path == path), None)

    def _entries(self) -> list[MovedFile]:
        """The entries of the records, the newest of each folder first."""
        return [
            replace(entry, original_path=entry.original_path.removeprefix(prefix))
            for record, prefix in self._records
            for entry in reversed(record.files)
            if entry.original_path.startswith(prefix)
        ]

    def _by_id(self, text: str) -> list[Wanted]:
        known = self.all()
        there = {wanted.path for wanted in known}
        placed = {wanted.path: wanted for wanted in reversed(known) if wanted.id == text}
        known += [_of_entry(entry) for entry in self._entries() if entry.original_path not in there]
        # An entry without a placeholder may be another repository's that shares the folder.
        found = placed or {wanted.path: wanted for wanted in reversed(known) if wanted.id == text}
        if len(found) == 1:
            return list(found.values())
        if found:
            paths = ", ".join(safe_text(path) for path in sorted(found))
            raise RepositoryError(f"several files have the id {safe_text(text)}: {paths}. Name one by its path.")
        names = {name for wanted in known for name in (wanted.id, wanted.path)}
        near = nearest_names(text, names)
        hint = f" Did you mean {', '.join(map(safe_text, near))}?" if near else ""
        records = " and ".join(safe_text(str(record.path), limit=1000) for record, _ in self._records)
        do = "does" if len(self._records) == 1 else "do"
        raise RepositoryError(
            f"{safe_text(text)} was not moved out of this repository: there is no placeholder for it, and "
            f"{records} {do} not list it.{hint}{self._left_out(text)} Another folder: --external-assets-dir DIR."
        )

    def left_out(self) -> list[str]:
        """The placeholders that a sparse checkout leaves out of the work tree, relative to the root."""
        try:
            git = Git.of(self._root)
            index = git.index() if git is not None else {}
        except GitUnusable:
            return []
        return sorted(path for path, entry in index.items() if entry.is_skipped and path.endswith(SUFFIX))

    def left_to_git(self, paths: Sequence[str]) -> tuple[list[str], list[str]]:
        """The restored files whose placeholder git sees as deleted, and those it would commit; relative to the root."""
        try:
            git = Git.of(self._root)
            index = git.index() if git is not None else {}
            new = [path for path in paths if path not in index]
            ignored = git.ignored("", new) if git is not None else set(new)
        except GitUnusable:
            return [], []
        return [path for path in paths if path + SUFFIX in index], [path for path in new if path not in ignored]

    def _left_out(self, text: str) -> str:
        path = text.removesuffix(SUFFIX).removeprefix("./") + SUFFIX
        if path not in self.left_out():
            return ""
        folder = path.rpartition("/")[0] or "/"
        command = command_line("git", "sparse-checkout", "add", names=(folder,))
        return f" This is a sparse checkout, without its placeholder: `{command}`."

    def _of_place(self, place: Place) -> Wanted:
        placeholder = place.placeholder
        stored = [entry.storage_path for entry in self._entries() if entry.checksum == placeholder.checksum]
        with suppress(ValueError):
            stored.append(check_local_path(placeholder.storage_path))
        return Wanted(
            path=place.path.relative_to(self._root).as_posix(),
            id=placeholder.id,
            checksum=placeholder.checksum,
            stored=tuple(dict.fromkeys(stored)),
            size=placeholder.size,
            folders=tuple(self._elsewhere(place)),
        )

    def _elsewhere(self, place: Place) -> list[Path]:
        """The usual external folders for the folder where a clean began, derived from the path in the placeholder."""
        moved, base = Path(place.placeholder.original_path).parts, place.path.parts
        if self._only_there or base[-len(moved) :] != moved:
            return []
        return [folder for folder in recording_folders(Path(*base[: -len(moved)])) if folder not in self._folders]

    async def restore(self, wanted: Wanted, *, force: bool = False) -> Restored:
        """Bring one file back. ``force``: replace a file with other content.

        Raises `AssetMissing`, `IntegrityError`, `StorageError`, or what fetching it raises.
        """
        loop, here = asyncio.get_running_loop(), threading.get_ident()

        def tell(event: Event) -> None:
            if threading.get_ident() == here:
                self._emit(event)
            else:
                loop.call_soon_threadsafe(self._emit, event)

        told = Told(tell, wanted.path)
        try:
            restored = await self._restore(wanted, force, told)
        except GrymFetchError as error:
            told.failed(error)
            raise
        if restored.source == "there":
            told.there(str(restored.path))
        else:
            told.done(str(restored.path), wanted.checksum)
        return restored

    async def _restore(self, wanted: Wanted, force: bool, told: Told) -> Restored:
        wrong: list[GrymFetchError] = []
        try:
            return await self._restore_from(wanted, force, told, wrong)
        finally:
            for error in wrong:
                log.warning("%s", " ".join(str(error).split()))  # it has several lines

    async def _restore_from(self, wanted: Wanted, force: bool, told: Told, wrong: list[GrymFetchError]) -> Restored:
        """`_restore`; ``wrong`` gets what was found out on the way and is in no error raised here."""
        path = self._root / wanted.path
        if await self._in_thread(told, self._is_done, wanted, force, told):
            return Restored(path=path, id=wanted.id, source="there")
        folders = [*self._folders, *wanted.folders]
        for folder, stored in itertools.product(folders, wanted.stored):
            try:
                if await self._in_thread(told, self._take, wanted, folder, stored, force, told):
                    return Restored(path=path, id=wanted.id, source="external")
            except DigestMismatch as error:
                wrong.append(error)
            except _StoredUnusable as unusable:
                wrong.append(unusable.error)
        if self._fetch is not None and (fetched := await self._fetch(wanted.checksum)) is not None:
            taken = await self._in_thread(told, self._take, wanted, fetched.parent, fetched.name, force, told)
            if taken:
                return Restored(path=path, id=wanted.id, source="download")
        if wrong:
            raise wrong.pop()
        raise AssetMissing(
            wanted.id,
            f"{safe_text(wanted.path)} is not in {' or '.join(map(_shown, folders))}, and no manifest says where "
            f"sha256 {wanted.checksum.hexdigest} can be fetched. Name the folder it was moved to with "
            "--external-assets-dir, or add it to assets.json.",
        )

    async def _in_thread(self, told: Told, work: Callable[..., bool], *arguments: object) -> bool:
        """Work in a thread. If this task is cancelled, the work is stopped, and its draft is gone at the end."""
        working = asyncio.ensure_future(self._threads.compute(work, *arguments))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            told.stop()
            await wait_uncancelled([working])
            if not working.cancelled():
                working.exception()  # mark it as retrieved
            raise

    def _open_place(self, wanted: Wanted, *, create: bool) -> int:
        *parents, _ = wanted.path.split("/")
        return open_folder(self._root, tuple(parents), create=create)

    def _is_done(self, wanted: Wanted, force: bool, told: Told) -> bool:
        """Whether the file is there already and right; its placeholder goes then, as after an interruption."""
        name = wanted.path.rpartition("/")[2]
        shown = safe_text(str(self._root / wanted.path), limit=4000)
        if (store := git_folder_above(self._root / wanted.path)) is not None:
            raise UnsafePath(
                shown, f"{safe_text(str(store), limit=4000)} is git's own folder; nothing is written there"
            )
        with storage_errors(self._root / wanted.path):
            try:
                folder = self._open_place(wanted, create=False)
            except FileNotFoundError:
                return False
            try:
                remove_dead_draft(folder, name)
                if not exists(folder, name):
                    return False
                mode = system.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    raise UnsafePath(shown, "a folder is in the way; move it away")
                if not stat.S_ISREG(mode):
                    if not force:
                        kind = "a symlink" if stat.S_ISLNK(mode) else "something that is neither a file nor a folder"
                        raise UnsafePath(shown, f"{kind} is in the way; --force replaces it")
                    return False
                with suppress(PermissionError) if force else nullcontext():
                    found = open_regular(name, folder)
                    try:
                        if digest_of(found, told.reading(os.fstat(found).st_size)) == wanted.checksum:
                            sync(found)
                            sync(folder)
                            _remove_placeholder(folder, name)
                            return True
                    finally:
                        os.close(found)
                if not force:
                    raise NotWritable(shown, "a file with other content is there; --force replaces it")
                return False
            finally:
                os.close(folder)

    def _take(self, wanted: Wanted, root: Path, stored: str, force: bool, told: Told) -> bool:
        """Copy a stored file into its place. Returns False if it is not there.

        Raises `DigestMismatch` if it is wrong, and `_StoredUnusable` if it is no file or cannot be read.
        """
        name = wanted.path.rpartition("/")[2]
        try:
            with storage_errors(root / stored):
                source = _open_stored(root, stored)
        except StorageError as error:
            raise _StoredUnusable(error) from error
        if source is None:
            return False
        try:
            with storage_errors(self._root / wanted.path):
                folder = self._open_place(wanted, create=True)
                try:
                    self._publish(wanted, folder, name, source, root / stored, force, told)
                finally:
                    os.close(folder)
        finally:
            os.close(source)
        return True

    def _publish(
        self, wanted: Wanted, folder: int, name: str, source: int, origin: Path, force: bool, told: Told
    ) -> None:
        with Draft(folder, name, mode=0o600) as draft:
            size = os.fstat(source).st_size
            copied = draft.copy(source, umask=current_umask(), on_copied=told.copying(size), on_read=told.reading(size))
            if copied != wanted.checksum:
                advice = f"{safe_text(str(origin))} is not the file that was moved; it was left as it is"
                raise DigestMismatch(wanted.id, str(wanted.checksum), str(copied), advice=advice)
            try:
                draft.publish(replace=force)
            except FileExistsError:
                shown = safe_text(str(self._root / wanted.path), limit=4000)
                raise NotWritable(shown, "another file has appeared there; --force replaces it") from None
        _remove_placeholder(folder, name)


class _StoredUnusable(Exception):
    """What lies at a stored file's path cannot be used; another folder may have the file."""

    def __init__(self, error: StorageError) -> None:
        super().__init__(error)
        self.error = error


def _open_stored(root: Path, stored: str) -> int | None:
    """Open a stored file to read it; None if it is not there. Raises ``OSError``."""
    *parents, name = stored.split("/")
    try:
        there = open_folder(root, tuple(parents), create=False)
    except FileNotFoundError:
        return None
    try:
        return open_regular(name, there)
    except FileNotFoundError:
        return None
    finally:
        os.close(there)


def fetch_from(assets: Iterable[Asset], get: Callable[[Asset], Awaitable[Path]]) -> Fetch:
    """Return a function that fetches a content that one of ``assets`` has, using ``get``."""
    by_content = {asset.checksum: asset for asset in assets if asset.checksum is not None}

    async def fetch(checksum: Checksum) -> Path | None:
        asset = by_content.get(checksum)
        return await get(asset) if asset is not None else None

    return fetch


def _shown(folder: Path) -> str:
    return safe_text(str(folder), limit=1000)


def _of_entry(entry: MovedFile) -> Wanted:
    return Wanted(
        path=check_local_path(entry.original_path),
        id=asset_id(entry.original_path),
        checksum=entry.checksum,
        stored=(entry.storage_path,),
        size=entry.size,
    )


def _remove_placeholder(folder: int, name: str) -> None:
    with suppress(FileNotFoundError):
        system.unlink(name + SUFFIX, dir_fd=folder)
        sync(folder)
