"""Entries of ``assets.json`` and lines of ``.gitignore`` for files that were moved."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from grym_fetch.core.errors import Locked
from grym_fetch.core.manifest import Asset, Manifest
from grym_fetch.core.manifest_text import ManifestText
from grym_fetch.core.text import safe_text
from grym_fetch.disk.folders import storage_errors
from grym_fetch.disk.manifest_file import create_manifest, edit_manifest
from grym_fetch.repo.moving import write_file
from grym_fetch.repo.placeholder import Placeholder, distinct_id


def assets_for(moved: Iterable[Placeholder], manifest: Manifest, base_url: str) -> list[Asset]:
    """Return assets for those moved files whose content the manifest does not list yet.

    They are required: whoever has the repository had these files with it.
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


def add_to_manifest(path: Path, moved: Iterable[Placeholder], base_url: str, now: float) -> list[str]:
    """Add moved files to a manifest, which is made if there is none; return the ids that were added.

    ``now`` is in seconds since the epoch. Raises `ManifestError` if the manifest is not good, or would not be.
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
    if edit_manifest(path, change) is None:
        raise Locked(safe_text(str(path)), "another process is changing the manifest; run the command again")
    return added


def add_to_gitignore(root: Path, lines: Iterable[str]) -> list[str]:
    """Append lines to the root's ``.gitignore`` that are not there yet; return these."""
    path = Path(os.path.realpath(root / ".gitignore"))
    with storage_errors(path):
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            text = b""
        present = set(text.splitlines())
        new = [line for line in dict.fromkeys(lines) if os.fsencode(line) not in present]
        if new:
            head = b"" if not text or text.endswith(b"\n") else b"\n"
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                write_file(folder, path.name, text + head + b"".join(os.fsencode(line) + b"\n" for line in new))
            finally:
                os.close(folder)
    return new
