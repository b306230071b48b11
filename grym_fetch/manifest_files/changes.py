"""Changes a manifest on the disk: a change is made completely or not at all.

Rules: a change that would not parse is refused; the file is replaced whole (see atomic.py). Our own processes take
turns (an flock on the folder). An editor does not, so the file is read once more right before the rename; if it is no
longer what the change began with, the change is made again to what is there now. A symlink stays a symlink: the file
that it leads to is replaced. ``assets.jsonl`` is copied line by line, however long it is; Parquet is not changed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from grym_fetch.core.command_lines import command_line
from grym_fetch.core.errors import EditRefused, ManifestError, Problem
from grym_fetch.core.manifest import ManifestSource
from grym_fetch.core.manifest_line_edits import LineEdits, ManifestEdits
from grym_fetch.core.manifest_parser import ParsedManifest, parse_manifest
from grym_fetch.core.manifest_text import ManifestText
from grym_fetch.core.text import safe_text
from grym_fetch.disk.atomic import PRIVATE, NewFile, create_file
from grym_fetch.disk.folders import opened_folder, storage_errors
from grym_fetch.disk.locks import Flock, try_flock
from grym_fetch.disk.verified import FileSignature
from grym_fetch.manifest_files.project import MAX_MANIFEST_BYTES, is_long_kind, load_manifest
from grym_fetch.runtime import system

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 5
"""Give up a change after somebody else has written the file in the middle of it this many times."""
_NEW = '{{\n  "version": "1.0",\n  "updated": "{now}",\n  "assets": []\n}}\n'

Change = Callable[[Any, Any], ManifestEdits]
"""Returns the edited text, given the text (`ManifestText` or `LineEdits`, of which it returns the same kind) and its
meaning. Called again if the file has changed in the meantime."""


def edit_manifest(path: Path, change: Change, *, is_held: bool = False) -> ParsedManifest[ManifestSource] | None:
    """Change the manifest and return it as it is now; None if another process is changing it: try again later.

    ``is_held``: the caller has locked the folder, which nobody can do twice.
    Blocking: for a thread. Raises `EditRefused` if the result would not be a valid manifest, `ManifestError` if the
    file is not valid now, `StorageError` if it cannot be written, and whatever ``change`` raises.
    """
    check_editable(path)
    real = Path(os.path.realpath(path))
    source = safe_text(str(path))
    with storage_errors(path), opened_folder(real.parent) as folder, ExitStack() as stack:
        if not is_held:
            stack.callback(os.close, turn := system.open_lock(folder))
            # Where there are no locks, the check before the rename has to do.
            if try_flock(turn) is Flock.BUSY:
                return None
        for _ in range(MAX_ATTEMPTS if is_long_kind(path) else 0):
            if (done := _edit_lines(real, folder, source, change)) is not None:
                return done
        for _ in range(0 if is_long_kind(path) else MAX_ATTEMPTS):
            old = _read(folder, real.name)
            changed = change(ManifestText.read(old), parse_manifest(old, source).manifest)
            assert isinstance(changed, ManifestText), "it returns what it was given"
            new = changed.encode()
            parsed = _accepted(new, source)
            if new == old or _replace(folder, real.name, old, new):
                return parsed
    raise EditRefused(source, [Problem("file", "", "somebody else keeps writing it; try again")])


def check_editable(path: Path) -> None:
    """Raise `EditRefused` if a manifest of this kind is not changed, but written anew."""
    if path.suffix.lower() == ".parquet":
        converts = command_line("grym-fetch", "convert", names=(path.name, path.with_suffix(".jsonl").name))
        reason = f"a Parquet file cannot be edited; `{converts}`, edit that, and convert it back"
        raise EditRefused(safe_text(str(path)), [Problem("file", "", reason)])


def _edit_lines(real: Path, folder: int, source: str, change: Change) -> ParsedManifest[ManifestSource] | None:
    """Change an ``assets.jsonl``; None if somebody else has written it meanwhile."""
    before = FileSignature.of(system.stat(real.name, dir_fd=folder))
    edits = change(LineEdits(), (parsed := load_manifest(real, source)).manifest)
    assert isinstance(edits, LineEdits), "it returns what it was given"
    if edits == LineEdits():
        return parsed
    with NewFile(folder, real.name, mode=PRIVATE) as file:
        with open(system.open_descriptor(real.name, os.O_RDONLY, dir_fd=folder), "rb") as old:
            for line in edits.apply(old):
                file.write(line)
        file.take_after(system.stat(real.name, dir_fd=folder))
        file.flush()
        try:
            parsed = load_manifest(real.with_name(file.temporary), source, is_lines=True)
        except ManifestError as error:
            raise EditRefused(source, list(error.problems)) from None
        if FileSignature.of(system.stat(real.name, dir_fd=folder)) != before:
            log.info("%s was written by somebody else meanwhile", safe_text(real.name))
            return None
        file.replace()
    return parsed


def create_manifest(path: Path, now: float) -> bool:
    """Make a manifest without assets; False if there is one already. ``now``: seconds since the epoch."""
    data = ManifestText.read(_NEW.format(now="").encode()).touch(now).encode()
    with storage_errors(path), opened_folder(path.parent) as folder:
        try:
            create_file(folder, path.name, data)
        except FileExistsError:
            return False
    return True


def _read(folder: int, name: str) -> bytes:
    with open(system.open_descriptor(name, os.O_RDONLY, dir_fd=folder), "rb") as file:
        return file.read(MAX_MANIFEST_BYTES)


def _accepted(new: bytes, source: str) -> ParsedManifest[ManifestSource]:
    try:
        return parse_manifest(new, source)
    except ManifestError as error:
        raise EditRefused(source, list(error.problems)) from None


def _replace(folder: int, name: str, old: bytes, new: bytes) -> bool:
    """Replace ``old`` with ``new``; if something else is there by now, do nothing and return False."""
    with NewFile(folder, name, mode=PRIVATE) as file:
        file.write(new)
        file.take_after(system.stat(name, dir_fd=folder))
        file.flush()
        if _read(folder, name) != old:
            log.info("%s was written by somebody else meanwhile", safe_text(name))
            return False
        file.replace()
    return True
