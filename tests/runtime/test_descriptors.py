"""Descriptors: as many connections as they allow, and the limit is raised only if our own program asks."""

from __future__ import annotations

import os
import resource

import pytest

from grym_fetch.runtime import descriptors
from grym_fetch.runtime.descriptors import affordable, max_active_assets, raise_limit
from grym_fetch.runtime.system import MAX_OPEN_FILES


def limited(patch: pytest.MonkeyPatch, soft: int, hard: int = 1 << 20) -> list[tuple[int, int]]:
    """Pretend these limits; return what gets set."""
    made: list[tuple[int, int]] = []
    patch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    patch.setattr(resource, "setrlimit", lambda _, limits: made.append(limits))
    return made


@pytest.mark.shows("D16")
@pytest.mark.parametrize("soft", [20, 40, 64, 100, 256, 1024, 4096])
@pytest.mark.parametrize("wanted", [1, 4, 32, 500])
def test_what_is_afforded_fits(monkeypatch: pytest.MonkeyPatch, soft: int, wanted: int) -> None:
    """All connections and assets under way fit at once; one more connection would not, or is not wanted."""
    limited(monkeypatch, soft)
    left = soft - len(os.listdir("/dev/fd")) - descriptors.SPARE_DESCRIPTORS

    def needed(connections: int) -> int:
        return connections + descriptors.DESCRIPTORS_PER_ASSET * max_active_assets(connections)

    most = affordable(wanted)
    assert most == 1 or needed(most) <= left
    assert most == wanted or needed(most + 1) > left


@pytest.mark.parametrize("soft", [resource.RLIM_INFINITY, 1 << 20])
def test_nothing_is_said_where_there_is_no_want(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, soft: int
) -> None:
    """If there are enough, the requested number is used without a message."""
    limited(monkeypatch, soft)
    assert affordable(200) == 200
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("soft", "hard", "becomes"),
    [
        (1024, 4096, [(4096, 4096)]),
        (1024, resource.RLIM_INFINITY, [(MAX_OPEN_FILES, resource.RLIM_INFINITY)]),
        (1024, 1024, []),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, []),
    ],
)
def test_the_limit_is_raised_as_far_as_allowed(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, becomes: list[tuple[int, int]]
) -> None:
    """The soft limit goes up to the hard one, within reason, and never down."""
    made = limited(monkeypatch, soft, hard)
    raise_limit()
    assert made == becomes
