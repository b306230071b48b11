"""The manifest as values: assets, their stand-ins, and how assets are chosen."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from grym_fetch.core.errors import UnknownAsset, UnknownTag
from grym_fetch.core.manifest import Asset, Manifest, StandIn
from tests.core.manifest_files import CHECKSUM, NOTHING, URL, entry, parse


def asset(asset_id: str, **fields: Any) -> Asset:
    """Return an asset with this id and with ``fields`` set."""
    return Asset(id=asset_id, url=URL, local_path=f"models/{asset_id}", **fields)


@pytest.mark.shows("M14")
def test_urls_are_tried_in_order_and_once() -> None:
    """The primary address comes first, and no address is listed twice."""
    assert asset("a", fallback_urls=("http://b/", URL, "http://c/", "http://b/")).urls == (
        URL,
        "http://b/",
        "http://c/",
    )


def test_a_stand_in_lies_apart_from_the_full_file() -> None:
    """A stand-in has its own content, addresses and place, so it is never taken for the full file."""
    full = asset(
        "a", checksum=CHECKSUM, size=300, tags=("t",), minimal=StandIn("http://t/", NOTHING, 0, ("http://u/",))
    )
    small = full.stand_in()
    assert (small.id, small.local_path, small.urls) == ("a", "minimal/models/a", ("http://t/", "http://u/"))
    assert (small.checksum, small.size, small.minimal, small.is_stand_in) == (NOTHING, 0, None, True)
    assert small.tags == full.tags
    assert small.stand_in() is small
    assert asset("b").stand_in() == asset("b")
    assert not asset("b").stand_in().is_stand_in


def test_values_can_be_hashed_copied_and_pickled() -> None:
    """Assets and manifests are plain values."""
    manifest = parse(entry(metadata={"a": [1]}, note="x", minimal={"url": URL})).manifest
    assert hash(manifest) == hash(copy.deepcopy(manifest))
    assert pickle.loads(pickle.dumps(manifest)) == manifest
    assert pickle.loads(pickle.dumps(manifest)).get("base") == manifest.get("base")


TINY = StandIn("http://h/tiny")
MANIFEST = Manifest(
    assets=(
        asset("alpha", required=True, tags=("model", "audio")),
        asset("beta", tags=("essential", "model"), minimal=TINY),
        asset("gamma", required=True, minimal=TINY),
        asset("delta", tags=("audio",)),
    )
)


def test_an_unknown_id_suggests_the_nearest() -> None:
    """A mistyped id suggests the ids that look like it, at most three."""
    assert MANIFEST.get("beta").id == "beta"
    with pytest.raises(UnknownAsset) as caught:
        MANIFEST.get("gama")
    assert caught.value.suggestions[0] == "gamma"
    with pytest.raises(UnknownAsset) as caught:
        MANIFEST.get("zzz")
    assert caught.value.suggestions == ()
    with pytest.raises(UnknownAsset) as caught:
        MANIFEST.get("GAMA")
    assert caught.value.suggestions[0] == "gamma"
    many = Manifest(assets=tuple(asset(f"model-{n}") for n in range(9)))
    with pytest.raises(UnknownAsset) as caught:
        many.get("model")
    assert len(caught.value.suggestions) == 3


@pytest.mark.parametrize(
    ("choice", "chosen"),
    [
        ({}, "alpha gamma"),
        ({"all": True}, "alpha beta gamma delta"),
        ({"all": True, "ids": ["beta"], "tags": ["audio"]}, "alpha beta gamma delta"),
        ({"ids": ["delta", "beta", "delta"]}, "beta delta"),
        ({"tags": ["audio"]}, "alpha delta"),
        ({"tags": ["audio", "essential"]}, "alpha beta delta"),
        ({"ids": ["gamma"], "tags": ["audio"]}, "alpha gamma delta"),
        ({"ids": ["alpha"], "tags": ["audio"]}, "alpha delta"),
        ({"minimal": True}, "beta*"),
        ({"minimal": True, "all": True}, "alpha beta* gamma* delta"),
        ({"minimal": True, "ids": ["alpha", "gamma"]}, "alpha gamma*"),
        ({"minimal": True, "tags": ["model"]}, "alpha beta*"),
        ({"ids": ["*ta"]}, "beta delta"),
        ({"ids": ["?????"], "tags": ["essential"]}, "alpha beta gamma delta"),
        ({"exclude": ["alpha"]}, "gamma"),
        ({"exclude": ["*l*"], "all": True}, "beta gamma"),
        ({"ids": ["[a-d]*", "gamma"], "exclude": ["beta", "d*"]}, "alpha gamma"),
        ({"ids": ["alpha"], "exclude": ["*"]}, ""),
        ({"minimal": True, "exclude": ["alpha"]}, "beta*"),
    ],
)
def test_selects_assets(choice: dict[str, Any], chosen: str) -> None:
    """Ids and tags add up, in the manifest's order and each asset once; a * marks a stand-in."""
    selected = MANIFEST.select(**choice)
    assert " ".join(a.id + "*" * a.is_stand_in for a in selected) == chosen


def test_a_tag_that_nothing_bears_is_refused() -> None:
    """A misspelt tag does not select an empty set silently; the error names the existing tags."""
    with pytest.raises(UnknownTag, match=r"no asset has the tag 'audoi'\. Did you mean audio\? Tags"):
        MANIFEST.select(tags=["audoi"])
    with pytest.raises(UnknownTag, match=r"no asset has the tag 'nothing'\. Tags in the manifest: audio, essential, m"):
        MANIFEST.select(tags=["nothing"])


def test_minimal_takes_the_required_where_none_is_essential() -> None:
    """Without any tag `essential`, --minimal selects the required assets, as their stand-ins."""
    manifest = Manifest(assets=tuple(a for a in MANIFEST.assets if a.id != "beta"))
    assert [(a.id, a.is_stand_in) for a in manifest.select(minimal=True)] == [("alpha", False), ("gamma", True)]


@pytest.mark.parametrize("minimal", [False, True])
def test_where_none_is_marked_all_are_chosen(minimal: bool) -> None:
    """If no asset is marked, a plain choice selects all, never an empty success; an explicit choice is unaffected."""
    plain = Manifest(assets=(asset("alpha"), asset("beta", tags=("model",), minimal=TINY)))
    assert [(a.id, a.is_stand_in) for a in plain.select(minimal=minimal)] == [("alpha", False), ("beta", minimal)]
    assert [a.id for a in plain.select(["alpha"], minimal=minimal)] == ["alpha"]
    assert plain.chooses_all(minimal)
    assert plain.required == ()
    assert not MANIFEST.chooses_all(minimal)
    assert not Manifest().chooses_all(minimal)


def test_only_minimal_looks_at_the_tag() -> None:
    """With an essential asset but no required one, --minimal selects the essential one; a plain choice selects all."""
    manifest = Manifest(assets=(asset("alpha"), asset("beta", tags=("essential",))))
    assert [a.id for a in manifest.select(minimal=True)] == ["beta"]
    assert not manifest.chooses_all(minimal=True)
    assert [a.id for a in manifest.select()] == ["alpha", "beta"]
    assert manifest.chooses_all()


UNKNOWN: list[dict[str, Any]] = [
    {"ids": ["alpha", "nope"]}, {"ids": ["nope"], "all": True}, {"ids": ["x*"]}, {"exclude": ["nope"]},
    {"ids": ["alpha"], "exclude": ["x*"]}, {"ids": ["ALPHA*"]},
]  # fmt: skip


@pytest.mark.parametrize("choice", UNKNOWN)
def test_an_unknown_id_is_never_passed_over(choice: dict[str, Any]) -> None:
    """An unknown id, or a glob without a match, selects nothing, even in a list of what to leave out."""
    with pytest.raises(UnknownAsset):
        MANIFEST.select(**choice)
    with pytest.raises(UnknownAsset):
        MANIFEST.pick(choice.get("ids"), exclude=choice.get("exclude", ()))


def test_picks_in_the_order_named() -> None:
    """Ids keep their order, each once; assets matched by a glob are in the manifest's order."""
    assert [a.id for a in MANIFEST.pick(["gamma", "*ta", "delta"], exclude=["b*"])] == ["gamma", "delta"]
    assert MANIFEST.pick() == MANIFEST.assets
    assert MANIFEST.pick([]) == ()


def test_an_id_may_look_like_a_glob() -> None:
    """An id with glob characters names only its own asset."""
    manifest = Manifest(assets=(asset("model*"), asset("model-a")))
    assert [a.id for a in manifest.pick(["model*"])] == ["model*"]
    assert [a.id for a in manifest.pick(["mode?*"])] == ["model*", "model-a"]


def test_a_glob_that_matches_nothing_suggests_ids() -> None:
    """Suggests ids that begin as the glob does, or else those that look like it."""
    with pytest.raises(UnknownAsset) as caught:
        MANIFEST.pick(["*gama*"])
    assert caught.value.suggestions[0] == "gamma"
    with pytest.raises(UnknownAsset) as caught:
        MANIFEST.pick(["al[x]"])
    assert caught.value.suggestions == ()


def test_tells_which_tags_no_asset_has() -> None:
    """A mistyped tag selects nothing by itself, so the caller can ask which tags are unknown."""
    assert MANIFEST.unknown_tags(["audio", "nope", "model", "nah", "nope"]) == ("nope", "nah")
