"""A project folder for tests: a manifest and its assets. What must hold for it is in `tests.support.invariants`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, cast

from yarl import URL

from grym_fetch import AssetManager, Settings
from grym_fetch.core.addresses import token_variables
from grym_fetch.core.digest import Checksum
from grym_fetch.core.journal import read_journal
from grym_fetch.core.segments import SegmentSizes
from grym_fetch.runtime import system
from grym_fetch.runtime.clock import SystemClock
from grym_fetch.testing import AssetServer

KIB = 1024
SMALL = SegmentSizes(
    piece=16 * KIB, first=64 * KIB, smallest=16 * KIB, largest=128 * KIB, window=512 * KIB, unsized=4096 * KIB
)
"""So that a file of a few hundred KiB has many pieces and segments."""

OWN = f".grym-fetch/user-{system.user_id()}"
"""This user's own folder in an assets folder, where stages and stamps are."""

CANARY = "canary-in-the-environment"
"""A token for each port of 127.0.0.1 that the manifest names. It may reach a server and nothing else."""


class ImpatientClock(SystemClock):
    """The real clock, but no one waits: a sleep returns at once, as if the time had passed."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self._skipped = 0.0

    def monotonic(self) -> float:
        """Real seconds plus those slept."""
        return super().monotonic() + self._skipped

    async def sleep(self, seconds: float) -> None:
        """Record the delay and skip it; let others run."""
        self.slept.append(seconds)
        self._skipped += max(seconds, 0.0)
        await super().sleep(0)

    def jitter(self) -> float:
        """The middle."""
        return 0.5


def asset_entry(
    asset_id: str,
    urls: Sequence[str],
    content: bytes | None,
    *,
    pinned: bool = True,
    size: int | bool | None = True,
) -> dict[str, object]:
    """An asset in a manifest; see `Project.add`."""
    path = f"models/{asset_id}.bin"
    entry: dict[str, object] = {"id": asset_id, "url": urls[0], "fallbackUrls": list(urls[1:]), "localPath": path}
    if pinned and content is not None:
        entry["checksum"] = str(Checksum.of(content))
    entry["size"] = len(content) if size is True and content is not None else (size or None)
    entry["required"] = True
    return entry


@dataclass
class Project:
    """A folder with a manifest. `add` puts an asset into it."""

    root: Path
    entries: list[dict[str, object]] = field(default_factory=list)
    contents: dict[str, bytes] = field(default_factory=dict)
    """The right content of each asset, by id, as far as it is known."""

    @classmethod
    def with_one_asset(cls, root: Path, server: AssetServer, content: bytes) -> Self:
        """A project with the asset ``a``, which is not fetched yet: the server has it as ``/a.bin``."""
        made = cls(root)
        made.add("a", [server.add("/a.bin", content).url], content)
        return made

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
        entry = asset_entry(asset_id, urls, content, pinned=pinned, size=size) | more
        self.entries = [e for e in self.entries if e["id"] != asset_id] + [entry]
        if content is not None:
            self.contents[asset_id] = content
        self.write()
        return self.assets / f"models/{asset_id}.bin"

    def finals(self) -> dict[str, Path]:
        """Where each asset belongs, by id."""
        return {str(entry["id"]): self.assets / str(entry["localPath"]) for entry in self.entries}

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
        chosen: dict[str, object] = {"sizes": SMALL, "stall_timeout": 60.0, "connect_timeout": 60.0, **settings}
        return AssetManager(
            self.manifest,
            settings=Settings(**chosen),  # type: ignore[arg-type]  # checked where a test names a setting wrongly
            environ=dict.fromkeys(self._token_variables(), CANARY),
            clock=clock or ImpatientClock(),
        )

    def _token_variables(self) -> set[str]:
        """The token variables of all addresses on this machine: a token is for one port."""
        urls = [
            URL(str(url))
            for entry in self.entries
            for url in (entry["url"], *cast("list[str]", entry.get("fallbackUrls", ())))
        ]
        return {name for url in urls if url.host == "127.0.0.1" for name in token_variables(url)}

    def staged(self) -> list[Path]:
        """The stages left behind."""
        return sorted((self.assets / OWN / "stage").glob("*"))

    def stored_bytes(self) -> int:
        """How much the next run will find of what is under way, whatever happens to this one now."""
        journals = [path.read_bytes() for stage in self.staged() if (path := stage / "journal").exists()]
        return sum(piece.range.length for journal in journals for piece in read_journal(journal).pieces)

    def all_text(self) -> bytes:
        """Every byte of our own state, to search for secrets; parts are the assets' own bytes."""
        state = self.assets / ".grym-fetch"
        return b"".join(p.read_bytes() for p in state.rglob("*") if p.is_file() and p.name != "part")
