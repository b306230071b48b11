"""Mirrors of one's own: which addresses are asked for an asset before those in the manifest, or instead of them.

Rules: only an asset with a checksum has any, so a mirror need not be trusted. Rules are not applied to what they
lead to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from grym_fetch.core.manifest import Asset
from grym_fetch.core.mirror_rules import MirrorRule


def addresses_of(asset: Asset, rules: Sequence[MirrorRule]) -> tuple[str, ...]:
    """Every address to ask for an asset, in order, none twice: mirrors first, the ones of longer prefixes foremost."""
    if not rules or not asset.pinned:
        return asset.urls
    mirrors: list[str] = []
    listed: list[str] = []
    for url in asset.urls:
        found = [(rule, mirror) for rule in rules if (mirror := rule.apply(url)) is not None]
        found.sort(key=lambda each: len(each[0].prefix), reverse=True)
        if only := [mirror for rule, mirror in found if rule.only]:
            mirrors += only
        else:
            mirrors += [mirror for _, mirror in found]
            listed.append(url)
    return tuple(dict.fromkeys((*mirrors, *listed)))


def with_mirrors(asset: Asset, rules: Sequence[MirrorRule]) -> Asset:
    """The asset as it is fetched: at its mirrors first."""
    first, *others = addresses_of(asset, rules)
    return asset if (first, *others) == asset.urls else replace(asset, url=first, fallback_urls=tuple(others))
