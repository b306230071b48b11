"""How a command without an event loop ends."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from grym_fetch.cli.options import Common
from grym_fetch.cli.runner import run_plain
from grym_fetch.repo.moving import Draft

COMMON = Common(
    config=None, assets_dir=None, external_assets_dir=None, verbose=0, quiet=False, json=False, log_file=None
)


@pytest.mark.shows("P8")
def test_sigterm_clears_up(tmp_path: Path) -> None:
    """It ends the work as an error would: no draft is left in the target, and the exit code is 143."""
    before = signal.getsignal(signal.SIGTERM)

    def work() -> int:
        folder = os.open(tmp_path, os.O_RDONLY)
        try:
            with Draft(folder, "model.bin") as draft:
                draft.write(b"half of it")
                os.kill(os.getpid(), signal.SIGTERM)
                while True:
                    draft.write(b"more")
        finally:
            os.close(folder)

    with pytest.raises(SystemExit) as ended:
        run_plain(COMMON, work)
    assert ended.value.code == 143
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is before
