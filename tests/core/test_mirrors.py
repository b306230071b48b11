"""Which addresses are asked for an asset."""

from __future__ import annotations

import pytest

from grym_fetch.core.digest import Checksum
from grym_fetch.core.manifest import Asset
from grym_fetch.core.mirror_rules import MirrorRule
from grym_fetch.core.mirrors import addresses_of, with_mirrors

HUB = "https://huggingface.co/"
ASSET = Asset("a", f"{HUB}org/a", "a", fallback_urls=("https://b.example.org/a",), checksum=Checksum.parse("0" * 64))


def test_mirrors_come_first_and_the_nearest_rule_before_others() -> None:
    """What the manifest lists stays behind them, in its order."""
    rules = (MirrorRule("https://", "https://all.example.org/"), MirrorRule(HUB, "https://hf.example.org/"))
    assert addresses_of(ASSET, rules) == (
        "https://hf.example.org/org/a",
        "https://all.example.org/huggingface.co/org/a",
        "https://all.example.org/b.example.org/a",
        *ASSET.urls,
    )


def test_only_takes_the_place_of_an_address() -> None:
    """Addresses that no rule is about are still asked."""
    rules = (MirrorRule(HUB, "https://hf.example.org/", only=True),)
    assert addresses_of(ASSET, rules) == ("https://hf.example.org/org/a", "https://b.example.org/a")


@pytest.mark.shows("S1")
def test_an_asset_without_a_checksum_has_no_mirrors() -> None:
    """Nothing would prove what a mirror sends."""
    unpinned = Asset("a", f"{HUB}org/a", "a")
    rules = (MirrorRule(HUB, "https://hf.example.org/", only=True),)
    assert with_mirrors(unpinned, rules) is unpinned
    assert with_mirrors(ASSET, ()) is ASSET
