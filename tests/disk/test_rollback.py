"""The last version of a manifest that was used: kept in two places, of which the greater one counts."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from grym_fetch.core.checked_lines import encode_line
from grym_fetch.disk.rollback import RollbackGuard, decode_version, encode_version
from tests.support.system import descriptors

pytestmark = pytest.mark.shows("S16")


@pytest.fixture
def assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An assets folder, with a user's own state folder elsewhere."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "assets").mkdir()
    return tmp_path / "assets"


def guard(assets: Path) -> RollbackGuard:
    return RollbackGuard(assets, assets.parent / "assets.json")


@pytest.mark.linux
def test_the_greater_one_counts(assets: Path) -> None:
    """As a number, not as a text, and wherever it is; nothing stays open."""
    before = descriptors()
    guard(assets).write("1.9")
    shutil.copytree(assets / ".grym-fetch", assets.parent / "old")
    guard(assets).write("1.10")
    shutil.rmtree(assets / ".grym-fetch")
    (assets.parent / "old").rename(assets / ".grym-fetch")
    assert guard(assets).read() == "1.10"
    guard(assets).write("1.8")
    assert guard(assets).read() == "1.8", "who goes back on purpose says so in both places"
    guard(assets).write(None)
    assert guard(assets).read() is None
    assert descriptors() == before


def test_it_is_stored_only_where_both_places_have_it(assets: Path) -> None:
    """Or where there is no assets folder yet, in the user's own alone."""
    assert guard(assets).has(None)
    assert not guard(assets).has("1")
    guard(assets).write("1")
    assert guard(assets).has("1")
    assert not guard(assets).has("2")
    shutil.rmtree(assets / ".grym-fetch")
    assert not guard(assets).has("1")
    shutil.rmtree(assets)
    assert guard(assets).has("1")
    shutil.rmtree(os.environ["XDG_STATE_HOME"])
    assets.mkdir()
    assert not guard(assets).has("1")


@pytest.mark.parametrize("value", [1, 1.5, None, ["1"], {"v": "1"}, "latest", "1.x", "", "9" * 400])
def test_what_is_no_version(value: object) -> None:
    """A line of ours with anything else in it was not written by us."""
    assert decode_version(encode_line(value)) is None
    assert decode_version(encode_version("1.2")) == "1.2"
