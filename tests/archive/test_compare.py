"""A tree that somebody else has made is compared with the archive, as strictly as if it were unpacked."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from grym_fetch.archive import compare, unpack
from grym_fetch.archive.reader import Stopped
from grym_fetch.archive.unpack import ensure_unpacked, is_tree_right
from grym_fetch.core.archives import Limits
from grym_fetch.core.errors import UnsafeArchive
from tests.archive.test_unpack import CHECK, FILES, LocalFiles, header, tar_of
from tests.support.archives import zip_of
from tests.support.system import descriptors


@pytest.fixture
def local_files(tmp_path: Path) -> LocalFiles:
    return LocalFiles(tmp_path)


@pytest.mark.shows("S5")
def test_a_tree_with_a_link_that_leads_out_is_not_the_archives(local_files: LocalFiles) -> None:
    """An archive that would not be unpacked is not right either where somebody has made its tree by hand."""
    archive = local_files.put(tar_of({"a": b"1"}, header("link", tarfile.SYMTYPE, "../../escape")))
    local_files.tree.mkdir()
    (local_files.tree / "a").write_bytes(b"1")
    (local_files.tree / "link").symlink_to("../../escape")
    assert not is_tree_right(local_files.assets, local_files.local_path, CHECK, archive)
    with pytest.raises(UnsafeArchive, match="leads out of the archive"):
        local_files.unpack()


@pytest.mark.shows("S4")
def test_a_tree_of_a_bomb_is_not_the_archives(local_files: LocalFiles) -> None:
    """What would not be unpacked for its size is not right either where somebody has made its tree by hand."""
    archive = local_files.put(tar_of({"a": bytes(3000), "b": bytes(3000)}))
    local_files.tree.mkdir()
    for name in ("a", "b"):
        (local_files.tree / name).write_bytes(bytes(3000))
    place = (local_files.assets, local_files.local_path, CHECK, archive)
    assert is_tree_right(*place, Limits(bytes=6000))
    shutil.rmtree(local_files.assets / ".grym-fetch")
    assert not is_tree_right(*place, Limits(bytes=5999))


@pytest.mark.linux
@pytest.mark.parametrize(
    ("change", "is_right"),
    [
        (lambda _: None, True),
        (lambda tree: ((tree / "twin").unlink(), shutil.copy(tree / "top.txt", tree / "twin")), False),
    ],
    ids=["one file", "a copy"],
)
def test_two_names_of_one_file_are_compared(
    local_files: LocalFiles, change: Callable[[Path], object], is_right: bool
) -> None:
    """Where the archive has a hard link the tree has one, too; and nothing stays open."""
    archive = local_files.put(
        tar_of(FILES, header("twin", tarfile.LNKTYPE, "top.txt"), header("up", tarfile.SYMTYPE, "top.txt"))
    )
    local_files.unpack()
    shutil.rmtree(local_files.assets / ".grym-fetch")
    change(local_files.tree)
    before = descriptors()
    assert is_tree_right(local_files.assets, local_files.local_path, CHECK, archive) is is_right
    assert descriptors() == before


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.shows("S4")
def test_a_member_that_costs_no_reading_can_be_left(
    local_files: LocalFiles, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    """Much comes out of few bytes: between two reads of the archive the stop flag is looked at after each block."""
    archive = local_files.put(zip_of({"zeros": bytes(3_000_000)}), "zip")
    if is_there:
        local_files.tree.mkdir()
        (local_files.tree / "zeros").write_bytes(bytes(3_000_000))
    for module in (compare, unpack):
        monkeypatch.setattr(module, "BLOCK_BYTES", 30_000)
    answers = iter([False] * 50)
    with pytest.raises(Stopped):
        ensure_unpacked(
            local_files.assets, local_files.local_path, CHECK, archive, is_stopped=lambda: next(answers, True)
        )
    assert os.path.lexists(local_files.tree) is is_there
    assert local_files.stages() == []
