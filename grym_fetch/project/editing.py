"""Assembles the parts that change a manifest: adding, pinning, removing, updating, and asking hubs.

Rule: a single thread does the blocking work of all of them, one piece after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self

from grym_fetch.core.events import Event
from grym_fetch.core.world import Clock
from grym_fetch.engine.engine import Engine
from grym_fetch.manifest_files.project import Project
from grym_fetch.project.adding import Adder
from grym_fetch.project.entries import Entries
from grym_fetch.project.measuring import Measurer
from grym_fetch.project.pinning import Pinner
from grym_fetch.project.removing import Remover
from grym_fetch.project.sourced import Sources
from grym_fetch.project.updating import Updater
from grym_fetch.runtime.threads import WorkerThreads
from grym_fetch.settings import Settings


class Editor:
    """Changes the manifest of one project. A context manager that ends its thread on exit.

    ``engine`` checks existing files and fetches others. ``settings`` and ``environ`` say how to ask hubs.
    """

    def __init__(
        self,
        project: Project,
        *,
        engine: Engine,
        clock: Clock,
        emit: Callable[[Event], None],
        settings: Settings,
        environ: Mapping[str, str],
    ) -> None:
        threads = self._threads = WorkerThreads("edit", 1)
        self.entries = entries = Entries(project, clock=clock, threads=threads)
        self.measurer = measurer = Measurer(project, engine=engine, threads=threads, emit=emit)
        self.sources = Sources(
            engine=engine, entries=entries, threads=threads, clock=clock, settings=settings, environ=environ
        )
        self.adder = Adder(
            project,
            engine=engine,
            entries=entries,
            measurer=measurer,
            threads=threads,
            clock=clock,
            emit=emit,
        )
        self.pinner = Pinner(engine=engine, entries=entries, measurer=measurer, clock=clock, emit=emit)
        self.remover = Remover(project, entries=entries, threads=threads)
        self.updater = Updater(
            project,
            local_files=engine.local_files,
            entries=entries,
            measurer=measurer,
            sources=self.sources,
            adder=self.adder,
            threads=threads,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._threads.close()
