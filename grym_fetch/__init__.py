"""grym-fetch: makes sure that the big files a project needs are present and verified.

::

    from grym_fetch import AssetManager

    async with AssetManager(config="assets.json", parallel=4) as manager:
        path = await manager.get_asset_path("audioldm-s-full")

``asset_manager`` is a manager shared by the whole process, made on first use.

Public are the names in ``__all__`` here and in `grym_fetch.errors`, `events`, `settings`, `manifest`, `reports`,
`transport`, `blocking`, `testing` and `sources`: they change as semantic versioning says. Everything else is private,
however it is spelled, and may change in any release.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from grym_fetch._version import __version__
from grym_fetch.core.errors import (
    GrymFetchError,
    IntegrityError,
    ManifestError,
    MirrorsExhausted,
    StorageError,
    SyncFailed,
    UnknownAsset,
)

if TYPE_CHECKING:
    from grym_fetch.core.manifest import Asset, Manifest
    from grym_fetch.engine.reports import AssetProgress, AssetState, AssetStatus, SyncPlan, SyncReport
    from grym_fetch.manager import AssetManager
    from grym_fetch.settings import Settings
    from grym_fetch.testing.mock import create_mock_asset_manager

    asset_manager: AssetManager

__all__ = [
    "Asset",
    "AssetManager",
    "AssetProgress",
    "AssetState",
    "AssetStatus",
    "GrymFetchError",
    "IntegrityError",
    "Manifest",
    "ManifestError",
    "MirrorsExhausted",
    "Settings",
    "StorageError",
    "SyncFailed",
    "SyncPlan",
    "SyncReport",
    "UnknownAsset",
    "__version__",
    "asset_manager",
    "create_mock_asset_manager",
]

# Imported on first use, so that `--help` stays quick.
_LAZY = {
    "Asset": "grym_fetch.core.manifest",
    "AssetManager": "grym_fetch.manager",
    "AssetProgress": "grym_fetch.engine.reports",
    "AssetState": "grym_fetch.engine.reports",
    "AssetStatus": "grym_fetch.engine.reports",
    "Manifest": "grym_fetch.core.manifest",
    "Settings": "grym_fetch.settings",
    "SyncPlan": "grym_fetch.engine.reports",
    "SyncReport": "grym_fetch.engine.reports",
    "create_mock_asset_manager": "grym_fetch.testing.mock",
}


def __dir__() -> list[str]:
    return __all__


if not TYPE_CHECKING:  # for a type checker, any name not listed above is an error

    def __getattr__(name: str) -> object:
        import importlib

        if name == "asset_manager":
            value: object = importlib.import_module("grym_fetch.manager").AssetManager()
        elif name in _LAZY:
            value = getattr(importlib.import_module(_LAZY[name]), name)
        elif name in importlib.import_module("grym_fetch.errors").__all__:
            import warnings

            message = f"import {name} from grym_fetch.errors; grym_fetch will no longer have it in 0.2.0"
            warnings.warn(message, DeprecationWarning, stacklevel=2)
            return getattr(importlib.import_module("grym_fetch.errors"), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value
