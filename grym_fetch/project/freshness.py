"""Whether a project's manifest may be used: it has not expired, and is not older than the one used before.

Rule: a manifest is remembered as soon as it is used; from then on, an older one is noticed.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from grym_fetch.core.errors import StaleManifest
from grym_fetch.core.freshness import version_number, why_stale
from grym_fetch.core.manifest import ManifestSource
from grym_fetch.core.text import safe_text
from grym_fetch.disk.rollback import RollbackGuard
from grym_fetch.manifest_files.project import Project

log = logging.getLogger(__name__)


class FreshnessCheck:
    """Judges the manifests of one project, one after the other. ``now`` returns seconds since the epoch."""

    def __init__(self, project: Project, *, allow_stale: bool, now: Callable[[], float]) -> None:
        self._source = safe_text(str(project.manifest_path))
        self._assets_dir = project.assets_dir
        self._last_used = RollbackGuard(project.assets_dir, project.manifest_path)
        self._allow_stale = allow_stale
        self._now = now
        self._has_warned = False
        self._remembered: ManifestSource | None = None

    def why_stale(self, manifest: ManifestSource) -> str | None:
        """Return why the manifest is refused; None if it is not."""
        return why_stale(manifest.version, manifest.expires, now=self._now(), last_seen=self._last_used.read())

    def refuse_stale(self, manifest: ManifestSource) -> None:
        """Raise `StaleManifest` if the manifest may not be used."""
        if not self._allow_stale and (why := self.why_stale(manifest)) is not None:
            raise StaleManifest(self._source, why)

    @asynccontextmanager
    async def using(self, manifest: ManifestSource) -> AsyncIterator[None]:
        """Fetch with this manifest in the block. Raises `StaleManifest`. Remembers the manifest again at the end."""
        await self.accept(manifest)
        try:
            yield
        finally:
            await self.remember(manifest)

    async def accept(self, manifest: ManifestSource) -> None:
        """Remember that this manifest is used. Raises `StaleManifest` if it may not be; warns once if it is stale."""
        self.refuse_stale(manifest)
        if not self._has_warned and (why := self.why_stale(manifest)) is not None:
            self._has_warned = True
            log.warning("%s %s; it is used because that is allowed", self._source, why)
        await self.remember(manifest)

    async def remember(self, manifest: ManifestSource) -> None:
        """Remember an accepted manifest; do it again if there was no assets folder to remember it in before."""
        if self._remembered is manifest:
            return
        is_there = os.path.isdir(self._assets_dir)  # noqa: ASYNC240 - one look, which no error stops
        version = manifest.version if version_number(manifest.version) is not None else None
        if not self._last_used.has(version):
            await asyncio.to_thread(self._last_used.write, version)
        if is_there:
            self._remembered = manifest
