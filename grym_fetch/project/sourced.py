"""Finds what an address leads to: asks the hub of a short address, or reads another tool's list.

Rule: nothing is changed here, and no asset is fetched.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from grym_fetch.core.errors import Problem, SourceFailed, UnknownSource
from grym_fetch.core.manifest import Asset
from grym_fetch.core.text import redact_url, safe_text
from grym_fetch.core.world import Clock
from grym_fetch.disk.folders import storage_errors
from grym_fetch.engine.engine import Engine
from grym_fetch.project.entries import Entries
from grym_fetch.runtime.threads import WorkerThreads
from grym_fetch.settings import Settings
from grym_fetch.sources.choice import unquoted
from grym_fetch.sources.listings import MAX_LIST_BYTES, UnknownFormat, digest_for, read_list
from grym_fetch.sources.naming import Naming, as_assets, listed_assets
from grym_fetch.sources.protocol import Resolved
from grym_fetch.sources.registry import hub_of, recognize, resolve, source_of
from grym_fetch.sources.web import HubWeb


class Sources:
    """Asks hubs and reads lists, according to ``settings`` and ``environ``."""

    def __init__(
        self,
        *,
        engine: Engine,
        entries: Entries,
        threads: WorkerThreads,
        clock: Clock,
        settings: Settings,
        environ: Mapping[str, str],
    ) -> None:
        self._engine = engine
        self._entries = entries
        self._threads = threads
        self._clock = clock
        self._settings = settings
        self._environ = environ

    @asynccontextmanager
    async def asking(self, hub: str) -> AsyncIterator[HubWeb]:
        """Yield a connection to a hub, which is given by its name in messages."""
        connection = self._engine.connection()
        try:
            yield HubWeb(
                hub,
                connection=connection,
                requester=self._engine.requester,
                clock=self._clock,
                environ=self._environ,
                retries=self._settings.retries,
                offline=self._settings.offline,
            )
        finally:
            await connection.aclose()

    async def find(self, address: str, naming: Naming) -> list[Asset]:
        """Return the assets that a short address leads to. Raises `UnknownSource`, `SourceFailed` or `EditRefused`."""
        short = self.recognize(address)
        if short is None:
            raise UnknownSource(address, "is not a short address, and not the page of a file on a hub that is known")
        found = await self.resolve(short)
        try:
            return as_assets(found, naming)
        except ValueError as error:
            raise self._entries.refused(Problem(safe_text(short), "", safe_text(str(error)))) from None

    async def resolve(self, short: str) -> Resolved:
        """Ask what a short address leads to. Raises `UnknownSource` or `SourceFailed`."""
        async with self.asking(hub_of(source_of(short), short)) as web:
            return await resolve(short, web)

    def recognize(self, address: str) -> str | None:
        """The short address that is meant; None for a plain one. Raises `UnknownSource`."""
        return recognize(address, self._environ)

    async def read_list(self, file: Path, format_name: str | None, naming: Naming, base_url: str | None) -> list[Asset]:
        """Read another tool's list. Raises `EditRefused` if it is not such a list, or `StorageError`."""
        try:
            data = await self._threads.compute(_read_bounded, file)
            return listed_assets(read_list(data, file.name, format_name), naming, base_url)
        except ValueError as error:
            shown = safe_text(str(file), limit=1000)
            advice = "; name it with --format" if isinstance(error, UnknownFormat) else ""
            raise self._entries.refused(Problem(shown, "", safe_text(str(error), limit=1000) + advice)) from None

    async def with_digest_from(self, address: str, asset: Asset) -> Asset:
        """Return the asset with its digest from the list of checksums at an address.

        Raises `SourceFailed`, `UnknownSource` if the file is not in the list, `EditRefused` if its checksum differs.
        """
        name = unquoted(asset.url.partition("?")[0].rpartition("/")[2])
        async with self.asking("the list of checksums") as web:
            page = await web.get(address)
        if page.status != 200:
            raise SourceFailed(page.url, "the list of checksums", page.refusal)
        try:
            found = digest_for(name, page.body, redact_url(address))
        except ValueError as error:
            raise SourceFailed(page.url, "the list of checksums", safe_text(str(error))) from None
        if asset.checksum is not None and found.checksum not in (None, asset.checksum):
            problem = Problem(f"asset '{safe_text(asset.id)}'", "checksum", "is another one than the list has")
            raise self._entries.refused(problem)
        return replace(asset, checksum=asset.checksum or found.checksum, stated=found.stated)


def _read_bounded(path: Path) -> bytes:
    with storage_errors(path), open(path, "rb") as file:
        return file.read(MAX_LIST_BYTES + 1)
