"""The log: stderr while developing, a rotated file in production.

Rules: one line per record. Every record is made safe for a terminal and stripped of secrets here, so that no caller can
forget it. Our own errors hold none (`grym_fetch.core.text`), but a foreign exception may.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grym_fetch.cli import streams
from grym_fetch.cli.options import Common
from grym_fetch.core.events import AssetFailed, Event, ProgressMade
from grym_fetch.core.text import redact_text, safe_text
from grym_fetch.runtime.bus import Subscription

if TYPE_CHECKING:
    from grym_fetch.disk.log_file import LogFile

log = logging.getLogger("grym_fetch.events")

DEFAULT_FILE = Path("logs") / "asset-manager.log"
MAX_LOG_BYTES = 5 * 1024 * 1024
MAX_OLD_LOGS = 5


class SafeFormatter(logging.Formatter):
    """Escapes what a terminal or a log reader could take for more than text; the lines of tracebacks are indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the record; a traceback that another formatter left in it is formatted again."""
        record.exc_text = None
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Format the record's message on one safe line."""
        record.message = safe_text(redact_text(record.message), limit=2000)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Format a traceback so that no line of it, such as an error's own text, can be taken for a record."""
        lines = super().formatException(ei).split("\n")
        return "\n".join(f"    {safe_text(redact_text(line), limit=1000)}" for line in lines)


class _KindFormatter(SafeFormatter):
    """``warning: …``, as commands write it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Format the record's message with its kind before it."""
        return f"{record.levelname.lower()}: {super().formatMessage(record)}"


class _SheetFormatter(SafeFormatter):
    """The same for stderr itself: on a terminal coloured, and broken between words."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Format the record's message with its kind before it."""
        return streams.sheet().message(record.levelname.lower(), super().formatMessage(record))


class JsonFormatter(logging.Formatter):
    """One JSON object per line: an event as ``--json`` writes it, any other record with its time, level and message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line."""
        event = getattr(record, "event", None)
        if isinstance(event, Event):
            return json.dumps(event.as_json())
        message = safe_text(redact_text(record.getMessage()), limit=2000)
        return json.dumps({"time": round(record.created, 3), "level": record.levelname, "message": message})


class _SayHandler(logging.Handler):
    """Passes records to the live display, which writes them above its bars."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        """Pass on the record."""
        self._say(self.format(record))


class _FileHandler(logging.Handler):
    """Writes records to the log file."""

    def __init__(self, file: LogFile) -> None:
        super().__init__()
        self._file = file

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record."""
        try:
            self._file.write(f"{self.format(record)}\n".encode(errors="backslashreplace"))
        except OSError:
            self.handleError(record)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


class LogSetup:
    """The handlers of one run. `close` removes them again."""

    def __init__(self, common: Common) -> None:
        self._common = common
        self._root = logging.getLogger("grym_fetch")
        self._level = {0: logging.WARNING, 1: logging.INFO}.get(common.verbose, logging.DEBUG)
        if common.quiet:
            self._level = logging.ERROR
        self._stderr: logging.Handler = logging.StreamHandler(sys.stderr)
        self._stderr.setFormatter(_SheetFormatter("%(message)s"))
        self._stderr.setLevel(self._level)
        self._handlers: list[logging.Handler] = [self._stderr]
        self._files: list[logging.Handler] = []
        self._root.addHandler(self._stderr)
        self._root.setLevel(self._level)
        self._root.propagate = False
        self.wants_events = common.log_file is not None or _is_production()

    def redirect(self, say: Callable[[str], None]) -> None:
        """From now on, pass what goes to stderr to the live display."""
        handler = _SayHandler(say)
        handler.setFormatter(_KindFormatter("%(message)s"))
        handler.setLevel(self._level)
        self._root.removeHandler(self._stderr)
        self._handlers.append(handler)
        self._root.addHandler(handler)

    def restore(self) -> None:
        """The live display has ended: write to stderr again."""
        if self._stderr not in self._root.handlers:
            for handler in self._handlers:
                if isinstance(handler, _SayHandler):
                    self._root.removeHandler(handler)
            self._root.addHandler(self._stderr)

    def add_file(self, root: Callable[[], Path]) -> None:
        """Write to the requested log files: the named one, and in production the project's. Idempotent.

        If one cannot be opened, warn and do without it. If ``root`` raises, the named one stays open.
        """
        if self._files:
            return
        if self._common.log_file is not None:
            self._open(self._common.log_file)
        if _is_production():
            self._open(root() / DEFAULT_FILE, below=str(DEFAULT_FILE.parent))

    def note(self, text: str) -> None:
        """Write an error to the log files only; stderr has it in other words."""
        record = self._root.makeRecord(self._root.name, logging.ERROR, "", 0, "%s", (text,), None)
        for handler in self._files:
            handler.handle(record)

    def _open(self, path: Path, *, below: str = "") -> None:
        """Write to this file. ``below`` names its folder if the user has not: then no link there is followed."""
        from grym_fetch.disk.log_file import LogFile  # few users want a log file

        try:
            if below:
                folder = path.parent.parent
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                folder = path.parent
            file = LogFile(folder, path.name, below=below, max_bytes=MAX_LOG_BYTES, keep=MAX_OLD_LOGS)
        except OSError as error:
            why = (
                "it is a symlink, and none is followed" if error.errno == errno.ELOOP else error.strerror or str(error)
            )
            self._root.warning("no log file %s: %s", path, why.lower())
            return
        handler = _FileHandler(file)
        is_json = path.suffix in (".json", ".jsonl")
        handler.setFormatter(JsonFormatter() if is_json else SafeFormatter("%(asctime)s %(levelname)s %(message)s"))
        handler.setLevel(min(self._level, logging.INFO))
        self._root.setLevel(min(self._level, logging.INFO))
        self._handlers.append(handler)
        self._files.append(handler)
        self._root.addHandler(handler)

    async def log_events(self, subscription: Subscription) -> None:
        """Write every event except progress to the log."""
        async for event in subscription:
            if not isinstance(event, ProgressMade):
                log_event(event)

    def close(self) -> None:
        """Remove the handlers."""
        for handler in self._handlers:
            self._root.removeHandler(handler)
            handler.close()


def log_event(event: Event) -> None:
    """Write one event as one line."""
    record = event.as_json()
    text = " ".join(f"{key}={value!r}" for key, value in record.items() if key not in ("v", "time", "type"))
    level = logging.ERROR if isinstance(event, AssetFailed) else logging.INFO
    log.log(level, "%s %s", event.type, text, extra={"event": event})


def set_up_logging(common: Common) -> LogSetup:
    """Direct our log to where the user wants it."""
    return LogSetup(common)


def _is_production() -> bool:
    return os.environ.get("GRYM_FETCH_ENV", "").lower() == "production"
