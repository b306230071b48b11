"""Entries of ``assets.json`` and lines of ``.gitignore`` for files that were moved."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from grym_fetch.core.errors import Locked, UnsafePath
from grym_fetch.core.manifest import Asset, Manifest
from grym_fetch.core.manifest_text import ManifestText
from grym_fetch.core.text import safe_text
from grym_fetch.disk.folders import open_regular, storage_errors
from grym_fetch.manifest_files.changes import create_manifest, edit_manifest
from grym_fetch.repo.moving import write_file
from grym_fetch.repo.placeholder import Placeholder, distinct_id
from grym_fetch.runtime import system

IGNORE_FILE = ".gitignore"


def assets_for(moved: Iterable[Placeholder], manifest: Manifest, base_url: str) -> list[Asset]:
    """Return assets for the moved files whose content the manifest does not list yet.

    They are required, because everyone who has the repository had these files in it.
    """
    ids = {asset.id for asset in manifest.assets}
    known = {asset.checksum for asset in manifest.assets}
    assets = []
    for file in moved:
        if file.checksum in known:
            continue
        known.add(file.checksum)
        name = file.id if file.id not in ids else distinct_id(file.original_path, ids)
        ids.add(name)
        assets.append(
            Asset(
                id=name,
                url=f"{base_url.rstrip('/')}/{quote(file.storage_path)}",
                local_path=file.storage_path,
                checksum=file.checksum,
                size=file.size,
                required=True,
            )
        )
    return assets


def add_to_manifest(
    path: Path, moved: Iterable[Placeholder], base_url: str, now: float, *, is_held: bool = False
) -> list[str]:
    """Add moved files to a manifest, which is created if there is none; return the added ids.

    ``now`` is in seconds since the epoch; ``is_held``: see `edit_manifest`. Raises `ManifestError` if the manifest is
    invalid, or would become so.
    """
    files = list(moved)
    added: list[str] = []

    def change(text: ManifestText, manifest: Manifest) -> ManifestText:
        assets = assets_for(files, manifest, base_url)
        added[:] = [asset.id for asset in assets]
        for asset in assets:
            text = text.add(asset)
        return text.touch(now) if assets else text

    if not path.exists():
        create_manifest(path, now)
    if edit_manifest(path, change, is_held=is_held) is None:
        raise Locked(safe_text(str(path)), "another process is changing the manifest; run the command again")
    return added


def check_gitignore(folder: Path) -> Path:
    """Return the path of a folder's ``.gitignore``. Raises `UnsafePath` if it is a symlink or not a file.

    A symlink may lead to a file that a shell runs, and git itself does not read a ``.gitignore`` through one.
    """
    path = folder / IGNORE_FILE
    with storage_errors(path), suppress(FileNotFoundError):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            reason = "it is a symlink or not a file, and nothing is written through it; put a file in its place"
            raise UnsafePath(safe_text(str(path), limit=1000), reason)
    return path


def add_to_gitignore(folder: Path, lines: Iterable[str]) -> list[str]:
    """Append the lines that a folder's ``.gitignore`` does not have yet; return those lines.

    The file is replaced as a whole, but keeps its mode and its line endings. Raises `StorageError`.
    """
    path = check_gitignore(folder)
    with storage_errors(path):
        here = system.open_descriptor(folder, os.O_RDONLY | system.O_DIRECTORY)
        try:
            text = b""
            with suppress(FileNotFoundError), open(open_regular(path.name, here), "rb") as file:
                text = file.read()
            present = set(text.splitlines())
            new = [line for line in dict.fromkeys(lines) if os.fsencode(line) not in present]
            if new:
                end = b"\r\n" if b"\r\n" in text else b"\n"
                head = b"" if not text or text.endswith(b"\n") else end
                write_file(here, path.name, text + head + b"".join(os.fsencode(line) + end for line in new))
        finally:
            os.close(here)
    return new
