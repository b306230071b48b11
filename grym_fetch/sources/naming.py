"""From files on a hub to assets: ids, and paths in the assets folder.

Rules: a single file that was named gets the same id and path as one added by its plain address. Of a repository, a
folder or a pattern, which may have more files another day, each is put below a folder named after the repository, and
its id is its path with ``-`` for ``/``, so that files of two repositories do not get in each other's way. No two get
the same id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from grym_fetch.core.manifest import Asset
from grym_fetch.core.manifest_values import MAX_FALLBACK_URLS, MAX_ID_CHARACTERS, check_id
from grym_fetch.core.paths import check_local_path
from grym_fetch.sources.choice import numbered
from grym_fetch.sources.listings import joined
from grym_fetch.sources.protocol import ListedFile, Resolved, SourceFile

_ENDINGS = (".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")


@dataclass(frozen=True, slots=True)
class Naming:
    """The user's choices. If no single file was named, ``id`` begins each id, and ``local_path`` is their folder."""

    id: str | None = None
    local_path: str | None = None
    name: str = ""
    description: str = ""
    fallback_urls: tuple[str, ...] = ()
    version: str | None = None
    required: bool = False
    tags: tuple[str, ...] = ()


def stem_of(name: str) -> str:
    """A file's name without its extension; an archive's extension may have two parts."""
    ending = next((each for each in _ENDINGS if name.lower().endswith(each)), None)
    return name[: -len(ending)] if ending else PurePosixPath(name).stem


def as_assets(resolved: Resolved, naming: Naming) -> list[Asset]:
    """Return an asset for each file. Raises `ValueError`, naming the file's path, if its id or path is not allowed."""
    if not resolved.is_whole and len(resolved.files) == 1:
        file = resolved.files[0]
        name = PurePosixPath(file.path).name
        return [_asset(resolved, file, naming, naming.id or stem_of(name), naming.local_path or name)]
    if naming.name or naming.fallback_urls:
        raise ValueError("a name and mirrors are for a single file: name it in the address")
    folder = naming.local_path.rstrip("/") if naming.local_path is not None else resolved.name
    ids = _distinct([f"{naming.id or resolved.name}-{file.path.replace('/', '-')}" for file in resolved.files])
    return [
        _asset(resolved, file, naming, asset_id, f"{folder}/{file.path}")
        for file, asset_id in zip(resolved.files, ids, strict=True)
    ]


def listed_assets(files: Sequence[ListedFile], naming: Naming, base_url: str | None) -> list[Asset]:
    """Return an asset for each file in a list. Files without an address are below ``base_url``.

    Raises `ValueError`, naming the file's path, if it has no address, or its id or path is not allowed.
    """
    prefix = f"{naming.id}-" if naming.id else ""
    folder = f"{naming.local_path.rstrip('/')}/" if naming.local_path else ""
    ids = _distinct([f"{prefix}{file.name.replace('/', '-')}" for file in files])
    assets = []
    for file, asset_id in zip(files, ids, strict=True):
        urls = [url for url in file.urls if url.lower().startswith(("http://", "https://"))]
        if not urls and base_url is not None:
            urls = [joined(base_url, file)]
        if not urls:
            raise ValueError(
                f"{file.name!r} has no http or https address; name the address of its folder with --base-url"
            )
        try:
            local_path = check_local_path(f"{folder}{file.name}")
            asset = Asset(
                id=check_id(asset_id),
                url=urls[0],
                local_path=local_path,
                fallback_urls=tuple(urls[1 : MAX_FALLBACK_URLS + 1]),
                checksum=file.checksum,
                size=file.size,
                required=naming.required,
                tags=tuple(dict.fromkeys(naming.tags)),
                stated=file.stated,
            )
        except ValueError as error:
            raise ValueError(f"{file.name!r} {error}") from None
        assets.append(asset)
    return assets


def _asset(resolved: Resolved, file: SourceFile, naming: Naming, asset_id: str, local_path: str) -> Asset:
    try:
        local_path = check_local_path(local_path)  # first: the id may be made of it
        return Asset(
            id=check_id(asset_id),
            url=file.url,
            local_path=local_path,
            name=naming.name,
            description=naming.description,
            fallback_urls=(*naming.fallback_urls, *file.mirrors),
            checksum=file.checksum,
            size=file.size,
            version=naming.version or resolved.revision,
            required=naming.required,
            tags=tuple(dict.fromkeys(naming.tags)),
            source=file.source,
            stated=file.stated,
        )
    except ValueError as error:
        raise ValueError(f"{file.path!r} {error}") from None


def _distinct(ids: Sequence[str]) -> list[str]:
    """The ids, cut to the allowed length; repeated ones get a number at the end."""
    return numbered([each if len(each) <= MAX_ID_CHARACTERS else each[: MAX_ID_CHARACTERS - 8] for each in ids])
