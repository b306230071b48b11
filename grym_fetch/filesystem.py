"""Assets by name for whatever opens addresses through fsspec: ``grym://ID``. Needs the extra ``fsspec``.

Rules: nothing is written through it. Each file system has a blocking manager of its own, which starts on first use.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem

from grym_fetch.blocking import AssetFile, AssetManager


class AssetFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The assets of one project, each as a file named by its id.

    ``config``: the manifest, by default found as on the command line. ``unverified_ok``: as in `open_asset`.
    """

    protocol = "grym"
    root_marker = ""
    cachable = False  # the same arguments may mean another project in another folder, or a manifest that has changed

    def __init__(self, config: str | Path | None = None, *, unverified_ok: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self._manager = AssetManager(config)
        self._unverified_ok = unverified_ok

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return the asset's name, and the size in bytes of what would be read, None if the manifest has none.

        Raises `FileNotFoundError`.
        """
        name = self._strip_protocol(path)
        for asset in self._manager.manifest.assets:
            if asset.id == name:
                read = asset.stand_in() if self._manager.minimal else asset
                return {"name": name, "size": read.size, "type": "file"}
        raise FileNotFoundError(f"no asset has the id {name!r}")

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """Return all assets, or the one that ``path`` names."""
        name = self._strip_protocol(path)
        if name:
            return [self.info(name)] if detail else [self.info(name)["name"]]
        ids = [asset.id for asset in self._manager.manifest.assets]
        return [self.info(each) for each in ids] if detail else ids

    def _open(self, path: str, mode: str = "rb", **_: Any) -> AssetFile:
        if mode != "rb":
            raise NotImplementedError("assets can only be read")
        return self._manager.open_asset(self._strip_protocol(path), unverified_ok=self._unverified_ok)
