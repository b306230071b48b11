"""The user's own state folder, for what must outlive an assets folder's ``.grym-fetch/`` or has no such folder.

Rules: ``$XDG_STATE_HOME/grym-fetch``, else ``~/.local/state/grym-fetch`` (XDG Base Directory), readable by
the user alone. Without a home of this user's own there is none, and whoever wanted it goes without.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from grym_fetch.disk.folders import open_state

NAME = "grym-fetch"


def user_state(environ: Mapping[str, str]) -> Path | None:
    """Return the folder, which need not exist; None if this user has no place for it."""
    named = environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(named):  # the specification: any other is ignored
        return Path(named) / NAME
    home = environ.get("HOME", "")
    with suppress(OSError):
        # Under sudo the home may be somebody else's, who could not remove what is made there.
        if os.path.isabs(home) and os.stat(home).st_uid == os.geteuid():
            return Path(home, ".local", "state", NAME)
    return None


def open_user_state(folder: Path) -> int:
    """Return a descriptor of the folder, made with those above it if need be. Raises ``OSError``."""
    os.makedirs(folder.parent, mode=0o700, exist_ok=True)
    return open_state(folder)


def key_of(path: Path) -> str:
    """A name for a path, the same through every symlink: what is kept about it has this in its name."""
    return hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:24]
