"""Exit codes: what an error means for a script."""

from __future__ import annotations

from itertools import combinations

import pytest

from grym_fetch.cli.exit_codes import exit_code, worst
from grym_fetch.core import errors
from grym_fetch.core.errors import GrymFetchError, OriginFailure

WORST_FIRST: dict[int, GrymFetchError] = {
    3: errors.DigestMismatch("a", "sha256:aa", "sha256:bb"),
    4: errors.DiskFull("/assets", "full"),
    5: errors.Locked("/assets", "another process has it"),
    1: errors.AssetMissing("a", "not on disk"),
    2: errors.EditRefused("assets.json", []),
}


@pytest.mark.parametrize(("first", "second"), [*combinations(WORST_FIRST, 2)])
def test_the_worst_error_of_a_run_decides(first: int, second: int) -> None:
    """If several apply, integrity comes before storage, storage before a lock, and a lock before the rest."""
    both = WORST_FIRST[first], WORST_FIRST[second]
    assert exit_code(errors.SyncFailed(dict(zip("ab", both, strict=True)))) == first
    assert exit_code(errors.MirrorsExhausted("a", [OriginFailure("https://h", each) for each in both[::-1]])) == first


def test_a_run_in_a_run_is_looked_into() -> None:
    """An asset whose mirrors all failed counts as the worst of their errors."""
    exhausted = errors.MirrorsExhausted("a", [OriginFailure("https://h", WORST_FIRST[3])])
    assert exit_code(errors.SyncFailed({"a": exhausted, "b": WORST_FIRST[4]})) == 3
    assert worst([]) == 1
