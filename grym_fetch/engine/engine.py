"""The parts assembled for one event loop: transport, scheduler, disk, threads, and the fetchers that use them.

Rule: a part is imported and created when it is first needed. Most runs find every file in place, and importing the
fetching modules takes longer (0.15 s) than such a whole run. Only this module knows the real parts; the transport and
the threads can be replaced from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from grym_fetch.core.events import AssetVerifying, Event
from grym_fetch.disk.local_files import LocalFiles
from grym_fetch.disk.state import StateFolder
from grym_fetch.disk.verified import FileSignature
from grym_fetch.manifest_files.neighbours import READERS, Neighbours
from grym_fetch.manifest_files.project import Project
from grym_fetch.runtime.forks import forget_in_child
from grym_fetch.runtime.threads import WorkerThreads
from grym_fetch.settings import Settings
from grym_fetch.store.stamps import StoreStamps, store_at

if TYPE_CHECKING:
    from pathlib import Path

    from grym_fetch.core.digest import Checksum
    from grym_fetch.core.manifest import Asset
    from grym_fetch.core.world import Clock, Connection, ThreadPools, Transport
    from grym_fetch.disk.assets_folder import AssetsFolder
    from grym_fetch.engine.protocol import AssetAdopter
    from grym_fetch.store.elsewhere import FilesElsewhere
    from grym_fetch.store.machine_store import MachineStore
    from grym_fetch.transfer.context import TransferContext
    from grym_fetch.transfer.fetcher import Fetcher
    from grym_fetch.transfer.request import Requester
    from grym_fetch.transfer.scheduler import Scheduler
    from grym_fetch.transfer.small_fetcher import SmallFileFetcher
    from grym_fetch.transfer.taking import Taker


class Engine:
    """Does the work of a manager. Created in a running event loop and bound to it; `aclose` ends everything.

    Without a ``transport`` it creates its own and closes it; it leaves a given one open. ``threads`` makes the worker
    threads. ``part`` names the part of the assets that this engine fetches, if others fetch the rest.
    """

    def __init__(
        self,
        project: Project,
        settings: Settings,
        *,
        clock: Clock,
        emit: Callable[[Event], None],
        environ: Mapping[str, str],
        version: str,
        transport: Transport | None = None,
        threads: ThreadPools = WorkerThreads,
        part: str = "",
    ) -> None:
        self._part = part
        self._settings = settings
        self._clock = clock
        self._emit = emit
        self._environ = environ
        self.received = 0
        """Bytes received, whether or not they were used."""
        self._version = version
        self._given_transport = transport
        self._threads = threads
        self._hashers = threads("hash", 2)
        # Its own thread: an archive takes minutes, and hashing must continue meanwhile.
        self._unpacking = threads("unpack", 1)
        self._assets_dir = project.assets_dir
        self._project = project
        self._neighbours = Neighbours(StateFolder(project.assets_dir), project.manifest_path)
        self._readers = Neighbours(StateFolder(project.external_dir), project.manifest_path, name=READERS)
        self._store_place = store_at(settings.store, environ)
        self._stamps = None if self._store_place is None else StoreStamps(self._store_place)
        self.local_files = LocalFiles(project.assets_dir, project.external_dir, self._hashers, store_cache=self._stamps)
        self._scheduler: Scheduler | None = None

    @cached_property
    def assets_folder(self) -> AssetsFolder:
        """The part of the disk that is written to."""
        from grym_fetch.disk.assets_folder import AssetsFolder

        return AssetsFolder(self._assets_dir, make_threads=self._threads, part=self._part)

    @cached_property
    def _own_transport(self) -> Transport:
        from grym_fetch.net.client import HttpTransport
        from grym_fetch.net.settings import HttpSettings

        transport = HttpTransport(
            HttpSettings(
                connect_timeout=self._settings.connect_timeout,
                stall_timeout=self._settings.stall_timeout,
                allow_private=self._settings.allow_private_addresses,
                user_agent=f"grym-fetch/{self._version}",
            )
        )
        forget_in_child(transport)
        return transport

    @property
    def _transport(self) -> Transport:
        return self._own_transport if self._given_transport is None else self._given_transport

    @cached_property
    def connections(self) -> int:
        """The most connections allowed: as requested, or fewer if descriptors are short."""
        from grym_fetch.runtime.descriptors import affordable

        return affordable(self._settings.parallel)

    @cached_property
    def max_active_assets(self) -> int:
        """How many assets may be under way at once: fewer if descriptors are short."""
        from grym_fetch.runtime.descriptors import affordable_assets

        return affordable_assets(self.connections)

    @cached_property
    def fetcher(self) -> Fetcher:
        """Fetches one asset."""
        return self._make_fetcher(self.taker)

    def lenient(self, on_received: Callable[[int], None]) -> Fetcher:
        """Fetches one asset, also without a checksum, over the same connections; its bytes are told and not counted."""
        settings = replace(self._context.settings, allow_unpinned=True)
        return self._make_fetcher(self.taker, replace(self._context, settings=settings, on_received=on_received))

    def _make_fetcher(self, taker: Taker, context: TransferContext | None = None) -> Fetcher:
        from grym_fetch.transfer.fetcher import Fetcher

        return Fetcher(
            context or self._context,
            assets_folder=self.assets_folder,
            local_files=self.local_files,
            taker=taker,
            neighbours=self._neighbours,
            unpack=self._unpack,
        )

    @cached_property
    def small_fetcher(self) -> SmallFileFetcher:
        """Fetches many small assets together."""
        from grym_fetch.transfer.small_fetcher import SmallFileFetcher

        return SmallFileFetcher(
            self._context,
            assets_folder=self.assets_folder,
            local_files=self.local_files,
            is_here=self.taker.is_here,
            keep=None if self.machine_store is None else self.taker.keep,
        )

    @cached_property
    def machine_store(self) -> MachineStore | None:
        """What this project shares with others, if the user wants that."""
        if self._store_place is None:
            return None
        from grym_fetch.store.machine_store import MachineStore

        return MachineStore(
            self._store_place,
            self._assets_dir,
            link_mode=self._settings.link_mode,
            digest=self.local_files.digest_open,
            stamps=self._stamps,
            make_threads=self._threads,
        )

    @cached_property
    def taker(self) -> Taker:
        """Takes assets that are elsewhere on this machine."""
        return self._make_taker(self._files_elsewhere(()) if self._settings.adopt else None)

    def _make_taker(self, candidates: FilesElsewhere | None) -> Taker:
        from grym_fetch.transfer.taking import Taker

        return Taker(
            self._context,
            assets_folder=self.assets_folder,
            local_files=self.local_files,
            machine_store=self.machine_store,
            candidates=candidates,
            link_mode=self._settings.link_mode,
        )

    def _files_elsewhere(self, named: Sequence[Path]) -> FilesElsewhere:
        from grym_fetch.store.elsewhere import FilesElsewhere

        return FilesElsewhere(
            self._project.assets_dir,
            self._project.external_dir,
            environ=self._environ,
            store=self._store_place,
            named=named,
        )

    def adopter(self, places: Sequence[Path]) -> AssetAdopter:
        """Takes assets from what is on this machine, also in these places."""
        return self._make_fetcher(self._make_taker(self._files_elsewhere(places)))

    @cached_property
    def _context(self) -> TransferContext:
        from grym_fetch.core.policy import RetryPolicy, TokenBucket
        from grym_fetch.net.buckets import BucketSigner
        from grym_fetch.net.credentials import find_credentials
        from grym_fetch.net.settings import proxy_credentials
        from grym_fetch.runtime.buffers import Buffers
        from grym_fetch.transfer.context import TransferContext, TransferSettings
        from grym_fetch.transfer.request import Requester
        from grym_fetch.transfer.scheduler import Scheduler

        settings = self._settings
        self._scheduler = Scheduler(
            self._transport,
            connections=self.connections,
            per_host=settings.max_per_host,
            ahead=settings.pipelining,
            clock=self._clock,
        )
        return TransferContext(
            scheduler=self._scheduler,
            requester=Requester(
                find_credentials(self._environ),
                on_lost_ahead=self._scheduler.hosts.lost_ahead,
                on_led=self._scheduler.kick,
                sign=BucketSigner(self._environ).sign,
                also_sent=proxy_credentials(),
            ),
            threads=self._hashers,
            buffers=Buffers(settings.sizes.piece, self.connections),
            clock=self._clock,
            emit=self._emit,
            settings=TransferSettings(
                offline=settings.offline,
                allow_unpinned=settings.allow_unpinned,
                lock_timeout=settings.lock_timeout,
                connections=self.connections,
                together=settings.mirrors == "together",
                mirror_rules=settings.mirror_rules,
                crawl_timeout=settings.stall_timeout,
                retry=RetryPolicy(retries=settings.retries, patience=settings.patience),
                sizes=settings.sizes,
            ),
            limiter=TokenBucket(settings.limit_rate, self._clock.monotonic()) if settings.limit_rate else None,
            on_received=self._count,
        )

    @property
    def scheduler(self) -> Scheduler:
        """Gives out the connections."""
        return self._context.scheduler

    def limit_rate(self, share: float) -> None:
        """Use only this part of the bytes per second that the user allows, if there is a limit; from 0 to 1."""
        if self._settings.limit_rate and self._context.limiter is not None:
            self._context.limiter.set_rate(max(1.0, self._settings.limit_rate * share))

    @property
    def requester(self) -> Requester:
        """Sends requests, with the credentials of this engine."""
        return self._context.requester

    def connection(self) -> Connection:
        """Return a connection beside the scheduler's, which the caller closes."""
        return self._transport.connection()

    def is_stored(self, asset: Asset) -> bool:
        """Whether the machine's store has a file for this asset, unread."""
        return self.machine_store is not None and self.machine_store.has(asset.checksum, asset.size)

    def is_unpacked(self, asset: Asset, archive: Path) -> bool:
        """Whether the archive's content is there as it was unpacked. Looks at each file but reads none."""
        from grym_fetch.archive.unpack import is_unpacked

        checksum = None if asset.checksum is None else str(asset.checksum)
        return is_unpacked(self._assets_dir, asset.local_path, checksum, archive)

    async def find_unpacked(self, asset: Asset, archive: Path, on_read: Callable[[int, int], None]) -> bool:
        """Whether the archive's content is there, whoever unpacked it. Compares each byte."""
        from grym_fetch.archive.unpack import Unpacker

        return await Unpacker(self._assets_dir, self._unpacking).find(asset, archive, on_read)

    async def _unpack(self, asset: Asset, archive: Path) -> None:
        from grym_fetch.archive.unpack import Unpacker

        def on_read(count: int, total: int) -> None:
            self._emit(AssetVerifying(asset=asset.id, bytes=min(count, total), total=total, unpacking=True))

        await Unpacker(self._assets_dir, self._unpacking).ensure(asset, archive, on_read)

    def _count(self, received: int) -> None:
        self.received += received

    async def tidy(self, present: Sequence[Asset]) -> None:
        """Remove what killed runs left behind of assets that are in place, and put their files into the store."""
        for each in (self._neighbours, self._readers):
            await self._hashers.compute(each.note)
        await self.keep(present)
        if not self.local_files.has_stages():
            return
        from grym_fetch.disk.prune import remove_leftovers

        await self._hashers.compute(remove_leftovers, self._assets_dir, [asset.local_path for asset in present])

    async def keep(self, present: Sequence[Asset]) -> None:
        """Put the files of these into the store, if there is one: those that are in place and known to be right."""
        if (store := self.machine_store) is None:
            return
        noted: list[tuple[str, Checksum]] = []
        for asset in present:
            path = self._assets_dir / asset.local_path
            if asset.checksum is None:
                continue
            if self.is_stored(asset):
                noted.append((asset.local_path, asset.checksum))  # the project may have been moved since
                continue
            signature = FileSignature.at(str(path))
            if self.local_files.verified_cache.is_verified(path, asset.checksum):
                await self.taker.keep(asset, signature)
        if noted:
            await store.note_uses(noted)

    async def aclose(self) -> None:
        """Stop all transfers, keep what they have, close every connection."""
        try:
            if self._scheduler is not None:
                await self._scheduler.aclose()
            if "_own_transport" in vars(self):
                await self._own_transport.aclose()
        finally:
            if "assets_folder" in vars(self):
                self.assets_folder.close()
            if (machine_store := vars(self).get("machine_store")) is not None:
                machine_store.close()
            self._hashers.close()
            self._unpacking.close()
