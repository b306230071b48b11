"""The user's own state folder: where it is, and for whom there is none."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from grym_fetch.disk.user_state import key_of, open_user_state, user_state


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the XDG specification has it; a home of somebody else is none, and no home is no folder."""
    home = {"HOME": str(tmp_path)}
    assert user_state({**home, "XDG_STATE_HOME": "/state"}) == Path("/state/grym-fetch")
    assert user_state(home) == tmp_path / ".local/state/grym-fetch"
    assert user_state({**home, "XDG_STATE_HOME": "relative"}) == tmp_path / ".local/state/grym-fetch"
    assert user_state({}) is None
    assert user_state({"HOME": str(tmp_path / "missing")}) is None
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert user_state(home) is None


def test_it_is_made_for_this_user_alone(tmp_path: Path) -> None:
    """Nobody else reads what projects there are, and no symlink in its place is followed."""
    folder = tmp_path / "a" / "b" / "grym-fetch"
    os.close(open_user_state(folder))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(OSError, match="directory"):
        open_user_state(tmp_path / "link")


def test_a_path_has_one_key(tmp_path: Path) -> None:
    """However it is reached."""
    (tmp_path / "link").symlink_to(tmp_path)
    assert key_of(tmp_path / "link" / "x") == key_of(tmp_path / "x") != key_of(tmp_path / "y")
