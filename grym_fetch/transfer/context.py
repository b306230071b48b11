"""What all transfers of one engine share. Built once and passed on as a whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from grym_fetch.core.events import Event
from grym_fetch.core.mirror_rules import MirrorRule
from grym_fetch.core.policy import RetryPolicy, TokenBucket
from grym_fetch.core.segments import SegmentSizes
from grym_fetch.core.world import Clock, Threads
from grym_fetch.runtime.buffers import Buffers
from grym_fetch.transfer.request import Requester
from grym_fetch.transfer.scheduler import Scheduler


@dataclass(frozen=True, slots=True)
class TransferSettings:
    """The user's settings."""

    offline: bool = False
    allow_unpinned: bool = False
    lock_timeout: float = 3600.0
    """Seconds to wait for another process that fetches the same asset."""
    connections: int = 4
    """The most that may work at once, over all assets."""
    together: bool = False
    """Whether all healthy origins of an asset share the work, instead of one after the other."""
    mirror_rules: tuple[MirrorRule, ...] = ()
    """Which addresses to ask before those in the manifest."""
    crawl_timeout: float = 30.0
    """Seconds that an origin may crawl before it is left for another one."""
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    sizes: SegmentSizes = field(default_factory=SegmentSizes)


@dataclass(frozen=True, slots=True)
class TransferContext:
    """The parts that every transfer uses. ``threads`` do the hashing; ``emit`` emits an event."""

    scheduler: Scheduler
    requester: Requester
    threads: Threads
    buffers: Buffers
    clock: Clock
    emit: Callable[[Event], None]
    settings: TransferSettings
    limiter: TokenBucket | None = None
    on_received: Callable[[int], None] = lambda _: None
    """Called with the bytes that came over the network, whatever became of them."""
