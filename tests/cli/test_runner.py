"""How commands end: what they say about interruptions and failures."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from grym_fetch.cli.options import Common
from grym_fetch.cli.runner import print_error, run_plain, short_path
from grym_fetch.cli.streams import interrupted
from grym_fetch.core.errors import MirrorsExhausted, OriginFailure, SyncFailed, TransferError, UnpinnedAsset
from grym_fetch.repo.moving import Draft
from tests.support.system import folder_descriptor

COMMON = Common(
    config=None, assets_dir=None, external_assets_dir=None, verbose=0, quiet=False, json=False, log_file=None
)


@pytest.mark.posix
@pytest.mark.shows("P8")
def test_sigterm_clears_up(tmp_path: Path) -> None:
    """It ends the work as an error would: no draft remains in the target, and the exit code is 143."""
    before = signal.getsignal(signal.SIGTERM)

    def work() -> int:
        folder = folder_descriptor(tmp_path)
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


def test_an_interruption_says_where_and_what_to_do() -> None:
    """The second time, it also says that nothing was waited for."""
    assert interrupted("36.7 of 60.0 MiB", at_once=False) == (
        "interrupted at 36.7 of 60.0 MiB; run the same command to go on"
    )
    assert interrupted("", at_once=True) == "interrupted, ended at once; run the same command to go on"


def failures() -> SyncFailed:
    reason = TransferError("https://h.example/a", "status 404: not found")
    lost = MirrorsExhausted("a", [OriginFailure("https://h.example/a", reason)], advice="Ask somebody.")
    return SyncFailed({"a": lost, "b": UnpinnedAsset("b"), "again": UnpinnedAsset("b")})


def test_each_failure_is_told_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its advice as a hint, and the end says how to find out more."""
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    print_error(failures())
    first, hint, second, pin, last = capsys.readouterr().err.splitlines()
    assert first == "error: a: could not be fetched: status 404: not found (https://h.example/a)"
    assert hint == "hint: Ask somebody."
    assert second == "error: b: no checksum in the manifest, so a download could not be verified"
    assert pin == "hint: Run `grym-fetch pin b` to record it, or pass --allow-unpinned to take it unverified."
    assert last.startswith("hint: `grym-fetch doctor a`")


def test_in_a_job_a_failure_is_an_annotation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It refers to the manifest by its path in the workspace, and is shown once there, too."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    print_error(failures(), manifest=tmp_path / "config" / "assets.json")
    first, second, _ = capsys.readouterr().err.splitlines()
    assert first == (
        "::error file=config/assets.json,title=a::a: could not be fetched: status 404: not found "
        "(https://h.example/a)%0Ahint: Ask somebody."
    )
    assert second.startswith("::error file=config/assets.json,title=b::b: no checksum")


def test_a_path_is_short_where_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path is shown as a person in the working folder would write it."""
    monkeypatch.chdir(tmp_path)
    assert short_path(tmp_path / "assets") == os.path.join(".", "assets")
    assert short_path(tmp_path) == "."
    assert short_path(tmp_path.parent / "assets") == str(tmp_path.parent / "assets")
