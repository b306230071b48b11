"""The last resort: explains an error that nothing else has explained.

Rules: an operating-system error is described as such; anything else is called a bug, with what to report.
"""

from __future__ import annotations

import os
import sys

from grym_fetch._version import __version__
from grym_fetch.cli import exit_codes, streams
from grym_fetch.core.text import redact_text, safe_text


def tell_unexpected(error: Exception, *, more_is_shown: bool) -> int:
    """Write the error in one line; return the exit code. ``more_is_shown``: the traceback is shown too (``-vv``)."""
    if isinstance(error, OSError) and error.errno is not None:
        if _is_without_folder():
            streams.complain("the working folder was deleted or cannot be entered", hint="change to another one (cd)")
            return exit_codes.STORAGE
        where = f" ({_shown(os.fsdecode(error.filename))})" if isinstance(error.filename, (str, bytes)) else ""
        streams.complain(f"{_shown((error.strerror or type(error).__name__).lower())}{where}")
        return exit_codes.STORAGE
    told = f"{type(error).__name__}: {_shown(str(error))}".rstrip(": ")
    hint = "" if more_is_shown else ", and what it prints when run again with -vv"
    streams.complain(
        f"this is a bug in grym-fetch: {told}",
        hint=f"please report it, with the command{hint} (grym-fetch {__version__}, "
        f"Python {sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro})",
    )
    return exit_codes.NOT_FETCHED


def _is_without_folder() -> bool:
    try:
        os.getcwd()
        os.stat(".")
    except OSError:
        return True
    return False


def _shown(text: str) -> str:
    return safe_text(redact_text(text))
