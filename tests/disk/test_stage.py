"""A stage on the disk: a file taken from elsewhere, a flush that failed, and what is open when it ends.

What every stage does is in ``tests/contract/test_stage_contract.py``; how it is claimed, filled and published in
``test_assets_folder.py``.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from grym_fetch.core.errors import NotWritable, StorageError
from grym_fetch.core.events import LinkMode
from grym_fetch.core.journal import NOBODY, Piece, piece_digest
from grym_fetch.disk.assets_folder import AssetsFolder
from grym_fetch.disk.folders import remove_tree
from grym_fetch.disk.sharing import OpenFile
from grym_fetch.disk.stage import TAKEN, DiskStage, StageKey
from grym_fetch.disk.verified import FileSignature, ReplacedMeanwhile
from grym_fetch.testing import seeded_bytes
from tests.support.system import descriptors
from tests.support.system_calls import failing

CONTENT = seeded_bytes(20_000, seed=43)
KEY = StageKey("models/a.bin", "sha256:43")
LINKS = [LinkMode.HARDLINK, LinkMode.COPY]


@pytest.fixture
async def stage(assets_folder: AssetsFolder) -> AsyncIterator[DiskStage]:
    """An empty one."""
    stage = await assets_folder.open_stage(KEY, exclusive=True)
    yield stage
    await stage.close()


@pytest.fixture
def source(tmp_path: Path) -> Iterator[OpenFile]:
    """A verified file elsewhere, to which nobody may write."""
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    path.chmod(0o444)
    opened = OpenFile.opened(path)
    yield opened
    opened.close()


def folder_of(assets_folder: AssetsFolder) -> Path:
    (folder,) = (assets_folder.state.own / "stage").iterdir()
    return folder


@pytest.mark.posix
@pytest.mark.parametrize("link", LINKS)
async def test_what_is_taken_is_published(
    assets_folder: AssetsFolder, stage: DiskStage, source: OpenFile, link: LinkMode
) -> None:
    """Instead of the part, which is closed; a copy gets the mode that is asked for, and a link keeps its own."""
    before = descriptors()
    assert await stage.take(source, source.signature, [link], mode=0o640) is link
    assert descriptors() == before
    path = await stage.publish(len(CONTENT))
    assert path.read_bytes() == CONTENT
    assert path.samefile(source.path) is (link is LinkMode.HARDLINK)
    assert path.stat().st_mode & 0o777 == (0o444 if link is LinkMode.HARDLINK else 0o640)
    assert descriptors() == before - 3, "the stage's files and its folder"


@pytest.mark.parametrize("link", LINKS)
async def test_what_a_dead_process_had_taken_is_taken_again(
    assets_folder: AssetsFolder, stage: DiskStage, source: OpenFile, link: LinkMode
) -> None:
    """It may be a link to the source, whose change of state when that goes is no change of the source."""
    os.link(source.path, folder_of(assets_folder) / TAKEN)
    assert await stage.take(source, source.signature, [link]) is link
    assert (await stage.publish(len(CONTENT))).read_bytes() == CONTENT


@pytest.mark.posix
@pytest.mark.parametrize("is_left", [False, True])
async def test_a_source_that_has_changed_is_not_taken(
    assets_folder: AssetsFolder, stage: DiskStage, source: OpenFile, is_left: bool
) -> None:
    """Not even if only its mode has: whoever changed it may have done more."""
    expected = source.signature
    if is_left:
        os.link(source.path, folder_of(assets_folder) / TAKEN)
    source.path.chmod(0o644)
    with pytest.raises(ReplacedMeanwhile):
        await stage.take(source, expected, [LinkMode.COPY])


async def test_a_file_that_is_in_its_place_already_keeps_its_signature(
    assets_folder: AssetsFolder, stage: DiskStage, source: OpenFile
) -> None:
    """A rename between two names of one file does nothing, and the name that is left over is taken off in time."""
    place = assets_folder.path_of(KEY.local_path)
    place.parent.mkdir()
    os.link(source.path, place)
    await stage.take(source, source.signature, [LinkMode.HARDLINK])
    await stage.publish(len(CONTENT))
    assert stage.published == FileSignature.of(place.stat())
    assert place.stat().st_nlink == 2


@pytest.mark.posix
@pytest.mark.shows("D15")
async def test_nothing_is_taken_into_a_stage_that_was_removed(
    assets_folder: AssetsFolder, stage: DiskStage, source: OpenFile
) -> None:
    """Somebody else may have made another one of its name."""
    folder = folder_of(assets_folder)
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(StorageError, match="removed or taken over"):
        await stage.take(source, source.signature, LINKS)
    assert os.listdir(folder) == []


@pytest.mark.linux
@pytest.mark.shows("D5")
async def test_after_a_failed_flush_nothing_is_claimed(
    stage: DiskStage, source: OpenFile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Pieces copied from elsewhere would be as lost as those that were written."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", failing(errno.EIO))
        await stage._flush()
    assert f"flushing in the background failed: {os.strerror(errno.EIO)}" in caplog.text
    with pytest.raises(NotWritable, match="input/output error"):
        await stage.seed(source.path, [Piece(0, len(CONTENT), piece_digest(CONTENT), NOBODY)])
    assert len(stage.recovered.pieces) == 0


@pytest.mark.shows("D13")
async def test_a_copy_in_another_file_system_has_an_exact_time(
    assets_folder: AssetsFolder, stage: DiskStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write within the same tick of the kernel's clock would not show otherwise."""
    exact, real = 1_700_000_000_123_456_700, os.rename

    def rename(old: str, new: str, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
        if src_dir_fd != dst_dir_fd:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        real(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "rename", rename)
    monkeypatch.setattr(time, "time_ns", lambda: exact)
    await stage.write(0, CONTENT, 0)
    path = await stage.publish(len(CONTENT))
    assert stage.published is not None
    assert stage.published.mtime_ns == path.stat().st_mtime_ns == exact


async def test_what_is_discarded_is_closed_first(assets_folder: AssetsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS keeps an open file that is removed, under another name in the same folder."""
    before = descriptors()
    stage = await assets_folder.open_stage(KEY, exclusive=True)
    held: list[int] = []

    def noted(above: int, name: str) -> None:
        held.append(descriptors() - before)
        remove_tree(above, name)

    monkeypatch.setattr("grym_fetch.disk.stage.remove_tree", noted)
    await stage.discard()
    assert held == [1], "the folder of all stages"
    assert descriptors() == before
    assert os.listdir(assets_folder.state.own / "stage") == []


async def test_a_child_keeps_nothing_of_a_stage_open(assets_folder: AssetsFolder) -> None:
    """It would hold the journal's lock for its parent; to forget twice is to forget once."""
    before = descriptors()
    stage = await assets_folder.open_stage(KEY, exclusive=True)
    assert descriptors() == before + 3
    for _ in range(2):
        stage.forget()
        assert descriptors() == before
    await stage.close()
