"""The ends of a long run's assets are counted and found without being held."""

from __future__ import annotations

import pytest

from grym_fetch.core.errors import AssetMissing
from grym_fetch.engine.ledger import MAX_ERRORS, Ledger


def test_has_every_end_in_order() -> None:
    """As the tuples and the dict of a short run's report have them."""
    ledger = Ledger()
    ledger.add("verified", ["a", "b"], {"a": "/p/a", "b": "/p/b"})
    ledger.add("reused", ["c"], {"c": "/p/c\udcff"})
    ledger.add("verified", ["d"], {"d": "/p/d"})
    verified = ledger.ids("verified")
    assert (list(verified), len(verified), verified[0], verified[-1], verified[1:]) == (
        ["a", "b", "d"], 3, "a", "d", ["b", "d"],
    )  # fmt: skip
    assert "b" in verified
    assert "c" not in verified
    assert list(ledger.ids("unverified")) == []
    with pytest.raises(IndexError):
        verified[3]
    paths = ledger.paths()
    assert dict(paths) == {"a": "/p/a", "b": "/p/b", "c": "/p/c\udcff", "d": "/p/d"}
    with pytest.raises(KeyError):
        paths["e"]


def test_counts_all_failures_and_keeps_some() -> None:
    """What went wrong is told of the first; that it did, of all."""
    ledger = Ledger()
    ledger.add_failures({f"a{n}": AssetMissing(f"a{n}", "gone") for n in range(MAX_ERRORS + 5)})
    assert (ledger.failures, len(ledger.failed)) == (MAX_ERRORS + 5, MAX_ERRORS)
