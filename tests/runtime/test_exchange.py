"""Two folders change places in one step."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from grym_fetch.runtime.exchange import exchange_by
from tests.support.system import folder_descriptor


@pytest.mark.linux
def test_folders_change_places(tmp_path: Path) -> None:
    """Each has what the other had; what is not there is an error."""
    for name in ("a", "b"):
        (tmp_path / name / name).mkdir(parents=True)
    folder = folder_descriptor(tmp_path)
    try:
        assert exchange_by("renameat2", 2, folder, "a", folder, "b")
        assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
        with pytest.raises(FileNotFoundError):
            exchange_by("renameat2", 2, folder, "a", folder, "c")
    finally:
        os.close(folder)


@pytest.mark.posix
def test_a_library_without_the_call() -> None:
    """Then it is for the caller to do it in two steps."""
    assert not exchange_by("no_such_call", 2, 0, "a", 0, "b")
