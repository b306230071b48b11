"""A server and a project for one story: `World` fetches, breaks off, and looks at what is left.

Every run has to follow all the rules of `tests.support.invariants`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from grym_fetch import GrymFetchError, StorageError
from grym_fetch.runtime import system
from grym_fetch.testing import AssetServer, Fault, Reset, ServedFile, seeded_bytes
from tests.support.invariants import Recorder, checked_sync
from tests.support.project import KIB, Project

SIZE = 500 * KIB + 123
CONTENT = seeded_bytes(SIZE, seed=11)
HALF = SIZE // 2


@dataclass
class World:
    """One asset ``a`` with the content ``CONTENT``, and the addresses it has so far."""

    server: AssetServer
    project: Project
    right: bytes = CONTENT
    also_allowed: Sequence[bytes] = ()
    """Other complete contents that may be in place, if no checksum says which is right."""
    others: Sequence[AssetServer] = ()
    """Other servers whose traffic also counts."""
    last: Recorder | None = None

    def serve(self, *faults: Fault, content: bytes | None = None, path: str = "/a.bin") -> ServedFile:
        """Offer the file, or other content, with faults."""
        return self.server.add(path, self.right if content is None else content, faults=faults)

    def list(self, *files: ServedFile, pinned: bool = True, size: bool | int = True) -> Path:
        """List the asset with the addresses of ``files``; return its final path."""
        return self.project.add("a", [file.url for file in files], self.right, pinned=pinned, size=size)

    def asset(self, *faults: Fault, pinned: bool = True, size: bool | int = True) -> Path:
        """Offer and list the file in one step."""
        return self.list(self.serve(*faults), pinned=pinned, size=size)

    @property
    def path(self) -> Path:
        """The final path."""
        return self.project.assets / "models" / "a.bin"

    @property
    def stage(self) -> Path:
        """The only stage left."""
        (stage,) = self.project.staged()
        return stage

    @property
    def sent(self) -> int:
        """Body bytes that the server has sent since the last `forget`."""
        return self.server.stats.body_bytes_sent

    @property
    def asked(self) -> int:
        """Requests since the last `forget`."""
        return len(self.server.stats.requests)

    def forget(self) -> None:
        """Count the server's work from here."""
        self.server.stats.reset()

    async def sync(self, **settings: Any) -> GrymFetchError | None:
        """Fetch; return the asset's error, or None if all went well. ``settings`` are those of `checked_sync`."""
        self.project.contents["a"] = self.right
        run = await checked_sync(self.project, self.server, *self.others, also_allowed=self.also_allowed, **settings)
        self.last = run.heard
        return run.failures.get("a")

    async def arrives(self, **settings: Any) -> None:
        """Fetch; the file must be there, right, with nothing left of its stage."""
        failure = await self.sync(**settings)
        assert failure is None, str(failure)
        assert self.path.read_bytes() == self.right
        assert self.project.staged() == []

    async def fails(self, **settings: Any) -> GrymFetchError:
        """Fetch; it must fail without putting anything in place. Returns the asset's error."""
        before = self.path.read_bytes() if self.path.exists() else None
        failure = await self.sync(**settings)
        assert failure is not None
        assert (self.path.read_bytes() if self.path.exists() else None) == before
        return failure

    async def break_off(self, file: ServedFile, *, at: int = HALF, **settings: Any) -> None:
        """A first run that gets roughly to ``at`` and dies there. The file is served correctly from then on."""
        faults = file.faults
        file.faults = (*faults, Reset(after=0, covering=at))
        await self.fails(retries=0, parallel=1, **settings)
        file.faults = faults
        assert self.stage.joinpath("part").stat().st_size >= at // 2
        self.forget()

    async def leave_whole(self, *, number: int = errno.EACCES, **settings: Any) -> None:
        """A first run that has every byte but cannot put them in place: its last rename fails with this error."""
        rename = system.rename

        def refuse(source: str, target: str, **folders: int) -> None:
            if target == self.path.name:
                raise OSError(number, os.strerror(number))
            rename(source, target, **folders)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(system, "rename", refuse)
            assert isinstance(await self.fails(**settings), StorageError)
        assert self.stage.joinpath("part").stat().st_size == len(self.right)
        self.forget()
