"""The fingerprint that stands for a content between runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from grym_fetch.core.digest import Checksum
from grym_fetch.core.fingerprint import content_fingerprint
from grym_fetch.core.manifest import Asset

PINNED = Asset("a", "https://a.example/x?sig=hush", "a.bin", checksum=Checksum.of(b"some bytes"), size=10)


@pytest.mark.shows("M15", "R12")
def test_what_stands_for_a_content() -> None:
    """The fingerprint is the checksum, wherever it comes from, or else the address in a form that reveals nothing."""
    moved = replace(PINNED, url="https://b.example/x")
    other = replace(PINNED, checksum=Checksum.of(b"other"))
    assert content_fingerprint(PINNED) == content_fingerprint(moved) != content_fingerprint(other)
    bare, bare_moved = replace(PINNED, checksum=None), replace(moved, checksum=None)
    assert len({content_fingerprint(asset) for asset in (PINNED, bare, bare_moved)}) == 3
    assert "hush" not in content_fingerprint(bare)
