"""A report for programs, written while the run goes on: a row as soon as its asset has ended.

Rules: what is held does not grow with the run. The rows go into a new file, which gets its name in the end; so there is
never half of a report under the name, and a killed run leaves the older one. An asset has one row, or one for each
node's copy. Addresses, and the rows of an earlier run, wait in a temporary database.
"""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing, suppress
from itertools import islice
from pathlib import Path

from grym_fetch.core.errors import UnsafePath
from grym_fetch.core.events import Event
from grym_fetch.core.manifest import Asset
from grym_fetch.core.text import redact_url, safe_text
from grym_fetch.disk.atomic import NewFile
from grym_fetch.disk.database import Database, key_of, text_of
from grym_fetch.disk.folders import open_regular, opened_folder, storage_errors
from grym_fetch.display.report import Life, Report
from grym_fetch.display.report_rows import Row, read_rows, row_of, writer_for
from grym_fetch.runtime import system

log = logging.getLogger(__name__)

MAX_UNBEGUN = 10_000
"""A run over more assets that is interrupted has no time for the rows of those that had not begun."""
_SOME = 1000
_TABLES = """
    CREATE TABLE asked (number INTEGER PRIMARY KEY, id BLOB, origin BLOB);
    CREATE INDEX asked_by_id ON asked (id);
    CREATE TABLE ended (id BLOB, node BLOB, PRIMARY KEY (id, node)) WITHOUT ROWID;
    CREATE TABLE earlier (id BLOB, path BLOB, row TEXT, PRIMARY KEY (id, path)) WITHOUT ROWID;
"""


def refuse_other(folder: int, path: Path) -> None:
    """Refuse a device or a pipe that has the name of a file to be written. Raises `UnsafePath`, or ``OSError``."""
    with suppress(FileNotFoundError):
        # Through links: /dev/stdout is one, and root could replace it for the whole machine.
        if not stat.S_ISREG(system.stat(path.name, dir_fd=folder).st_mode):
            raise UnsafePath(safe_text(str(path)), "something that is not a file is in the way")


class ReportFile:
    """The rows of one run, on their way to ``path``; ``kind`` is the ending of its name.

    ``goes_on``: the run continues the one whose report is there. ``each_node``: with a row for each node's copy.
    Blocks, and is used by one thread at a time. Everything raises `StorageError`.
    """

    def __init__(self, path: Path, kind: str, *, goes_on: bool, each_node: bool) -> None:
        self._path = path
        self._each_node = each_node
        self._ended: list[Life] = []
        self._report = Report({}, each_node=each_node, on_end=self._ended.append)
        self._asked = 0
        self._database = Database()
        self._database.script(_TABLES)
        if goes_on:
            self._take_over(kind)
        with ExitStack() as stack, storage_errors(path):
            self._folder = stack.enter_context(opened_folder(path.absolute().parent))
            refuse_other(self._folder, path)
            self._new = stack.enter_context(NewFile(self._folder, path.name))
            self._file = stack.enter_context(closing(os.fdopen(os.dup(self._new.descriptor), "wb")))
            self._writer = writer_for(kind, self._file)
            stack.callback(self._writer.end)
            self._open = stack.pop_all()

    def _take_over(self, kind: str) -> None:
        """Keep what an earlier run has fetched; a report that cannot be read is none."""
        with suppress(OSError), os.fdopen(open_regular(str(self._path)), "rb") as file:
            fetched = (row for row in read_rows(file, kind) if row["end"] in ("verified", "unverified"))
            while some := list(islice(fetched, _SOME)):
                rows = [(*_place(row), json.dumps(row)) for row in some]
                self._database.run_all("INSERT OR REPLACE INTO earlier VALUES (?, ?, ?)", rows)

    def ask_for(self, assets: Sequence[Asset]) -> None:
        """Note assets that the run is about, in order."""
        rows = [
            (number, key_of(asset.id), key_of(redact_url(asset.urls[0])))
            for number, asset in enumerate(assets, self._asked)
        ]
        self._database.run_all("INSERT INTO asked VALUES (?, ?, ?)", rows)
        self._asked += len(assets)

    def apply(self, events: Iterable[Event]) -> None:
        """Take events, and write the rows of the assets that have ended."""
        for event in events:
            self._report.apply(event)
        ended = self._ended.copy()
        self._ended.clear()
        self._write(ended)

    def _write(self, lives: Sequence[Life]) -> None:
        """Write the rows of assets that have none yet."""
        keys: set[tuple[bytes, bytes]] = set()
        rows = []
        for life in lives:
            key = key_of(life.asset), key_of(life.node if self._each_node else "")
            if key in keys or self._database.rows("SELECT 1 FROM ended WHERE id = ? AND node = ?", key):
                continue  # an event that came late
            keys.add(key)
            rows.append(self._row(life))
        if rows:
            self._database.run_all("INSERT INTO ended VALUES (?, ?)", keys)
            with storage_errors(self._path):
                self._writer.write(rows)

    def _row(self, life: Life) -> Row:
        if life.downloaded and not life.origin:
            found = self._database.rows("SELECT origin FROM asked WHERE id = ? LIMIT 1", (key_of(life.asset),))
            life.origin = text_of(found[0][0]) if found else ""
        row = row_of(life)
        if life.end == "reused":
            query = "SELECT row FROM earlier WHERE id = ? AND path = ?"
            for (text,) in self._database.rows(query, _place(row)):
                row = json.loads(str(text))
        return row

    def finish(self, *, is_hurried: bool = False) -> None:
        """Write the rows of what has not ended, and give the file its name. ``is_hurried``: there is little time."""
        self._write(list(self._report.lives))
        if is_hurried and self._asked > MAX_UNBEGUN:
            log.warning("the report of this run has no rows for assets that had not begun")
        else:
            unbegun = self._database.each(
                "SELECT id, origin FROM asked WHERE id NOT IN (SELECT id FROM ended) ORDER BY number"
            )
            lives = (Life(text_of(key), 0.0, text_of(origin)) for key, origin in unbegun)
            while some := [row_of(life) for life in islice(lives, _SOME)]:
                with storage_errors(self._path):
                    self._writer.write(some)
        with storage_errors(self._path):
            self._writer.end()
            refuse_other(self._folder, self._path)
            self._new.replace()

    def close(self) -> None:
        """Let go of everything. Without `finish`, the new file is removed."""
        with suppress(OSError):
            self._open.close()
        self._database.close()


def _place(row: Row) -> tuple[bytes, bytes]:
    return key_of(str(row["asset"])), key_of(str(row["path"]))
