"""A project folder for tests: a manifest, its assets, and what must be true of it whatever happens."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from grym_fetch import AssetManager, Settings
from grym_fetch.backends.clock import SystemClock
from grym_fetch.core.digest import Checksum
from grym_fetch.core.events import Event
from grym_fetch.core.segments import SegmentSizes

KIB = 1024
SMALL = SegmentSizes(
    piece=16 * KIB, first=64 * KIB, smallest=16 * KIB, largest=128 * KIB, window=512 * KIB, unsized=4096 * KIB
)
"""So that a file of a few hundred KiB has many pieces and segments."""


class ImpatientClock(SystemClock):
    """The real clock, but nobody waits: who sleeps finds that the time has passed already."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self._skipped = 0.0

    def monotonic(self) -> float:
        """Real seconds and those that were slept."""
        return super().monotonic() + self._skipped

    async def sleep(self, seconds: float) -> None:
        """Note the delay and skip it; let others run."""
        self.slept.append(seconds)
        self._skipped += max(seconds, 0.0)
        await super().sleep(0)

    def jitter(self) -> float:
        """The middle."""
        return 0.5


@dataclass
class Project:
    """A folder with a manifest. `add` puts an asset into it."""

    root: Path
    entries: list[dict[str, object]] = field(default_factory=list)

    def add(
        self,
        asset_id: str,
        urls: Sequence[str],
        content: bytes | None,
        *,
        pinned: bool = True,
        size: int | bool | None = True,
        **more: object,
    ) -> Path:
        """List an asset whose right content is ``content``; return where it will be. ``size`` True: the right one."""
        path = f"models/{asset_id}.bin"
        entry: dict[str, object] = {"id": asset_id, "url": urls[0], "fallbackUrls": list(urls[1:]), "localPath": path}
        if pinned and content is not None:
            entry["checksum"] = str(Checksum.of(content))
        entry["size"] = len(content) if size is True and content is not None else (size or None)
        entry["required"] = True
        self.entries = [e for e in self.entries if e["id"] != asset_id] + [entry | more]
        self.write()
        return self.assets / path

    def write(self) -> None:
        """Write the manifest."""
        self.manifest.parent.mkdir(parents=True, exist_ok=True)
        self.manifest.write_text(json.dumps({"version": "1.0", "assets": self.entries}))

    @property
    def manifest(self) -> Path:
        """``assets.json``."""
        return self.root / "assets.json"

    @property
    def assets(self) -> Path:
        """The assets dir."""
        return self.root / "assets"

    def manager(self, clock: SystemClock | None = None, **settings: object) -> AssetManager:
        """A manager with small segments and no patience."""
        chosen: dict[str, object] = {"sizes": SMALL, "stall_timeout": 0.4, "connect_timeout": 2.0, **settings}
        return AssetManager(
            self.manifest,
            settings=Settings(**chosen),  # type: ignore[arg-type]  # checked where a test names a setting wrongly
            environ={},
            clock=clock or ImpatientClock(),
        )

    def staged(self) -> list[Path]:
        """Stages that are left."""
        return sorted((self.assets / ".grym-fetch" / "stage").glob("*"))

    def all_text(self) -> bytes:
        """Every byte of our own state, to look for secrets in; parts are the assets' own bytes."""
        state = self.assets / ".grym-fetch"
        return b"".join(p.read_bytes() for p in state.rglob("*") if p.is_file() and p.name != "part")


class Watcher:
    """Polls a final path from a thread all along: it must be absent, the old good file, or the new good file."""

    def __init__(self, path: Path, *allowed: bytes) -> None:
        self._path = path
        self._allowed = {Checksum.of(content) for content in allowed}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.wrong: list[str] = []

    def _watch(self) -> None:
        while not self._stop.wait(0.001):
            self._look()

    def _look(self) -> None:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return
        if Checksum.of(content) not in self._allowed:
            self.wrong.append(f"{len(content)} bytes that are neither the old nor the new file")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look()
        assert not self.wrong, self.wrong[0]


class Recorder:
    """Keeps every event, and checks what holds of every run."""

    def __init__(self, manager: AssetManager) -> None:
        self.events: list[Event] = []
        manager.on_event(self._take)

    async def _take(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: str) -> list[dict[str, object]]:
        """Events of one type, as JSON."""
        return [event.as_json() for event in self.events if event.type == kind]

    def check(self) -> None:
        """Progress never passes its total, and goes back only with a total that shrinks; each asset ends once."""
        last: dict[object, int] = {}
        for event in self.of("progress"):
            count, total = event["bytes"], event["total"]
            assert isinstance(count, int)
            assert total is None or (isinstance(total, int) and count <= total)
            before = last.get(event["asset"], 0)
            assert count >= (before if total is None else min(before, total))
            last[event["asset"]] = count
        ends = [e.asset for e in self.events if e.type in ("asset_verified", "asset_reused", "asset_failed")]
        assert len(ends) == len(set(ends))
