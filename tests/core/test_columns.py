"""Many values at once: a column is taken for right only if each of its values is."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core.columns import are_all, build_all, match_all
from grym_fetch.core.digest import Checksum, parse_all_checksums
from grym_fetch.core.manifest_values import (
    check_all_ids,
    check_all_labels,
    check_all_urls,
    check_id,
    check_label,
    check_url,
)
from grym_fetch.core.paths import check_all_local_paths, check_local_path

WORDS = re.compile(r"[a-z]+(?:/(?!$)|$)")


@pytest.mark.shows("M8", "M11")
@pytest.mark.parametrize(
    ("column", "is_right"),
    [
        ([], True),
        (["a", "bc"], True),
        (["a", ""], False),
        (["a", "b\nc"], False),
        (["a", "b\n"], False),
        (["a\n", "b"], False),
        (["a", "b/"], False),
        (["a", None], False),
        (["a", 1], False),
        (["a", "abcdef"], False),
    ],
)
def test_each_text_must_match_from_start_to_end(column: list[object], is_right: bool) -> None:
    """A line break in a text is not the end of a text."""
    assert match_all(WORDS, max_characters=5)(column) is is_right


def test_the_type_must_be_just_this_one() -> None:
    """True is no number."""
    assert are_all([1, 2], int)
    assert not are_all([1, True], int)
    assert are_all([], int)


@dataclass(frozen=True, slots=True)
class Point:
    """A place on a line."""

    name: str
    at: int


def test_what_is_built_at_once_is_as_if_built_one_by_one() -> None:
    """The values are equal, hash alike, and stay frozen."""
    built = build_all(Point, 2, {"name": ["a", "b"], "at": iter([1, 2])})
    assert built == [Point("a", 1), Point("b", 2)]
    assert len({*built, Point("a", 1), Point("b", 2)}) == 2
    with pytest.raises(AttributeError):
        built[0].at = 3  # type: ignore[misc]


TEXTS = st.one_of(
    st.text(max_size=12),
    st.text("aZ0_-./:~@?#%[]\\ \n\u212a", max_size=90),
    st.sampled_from(["http://a.b:80/c", "https://" + 70 * "a", "nul", "minimal/a", "a/con", "HEAD", "a\nb", 64 * "0"]),
)


@given(st.lists(TEXTS, max_size=3))
def test_nothing_is_accepted_at_once_that_is_not_accepted_alone(texts: list[str]) -> None:
    """And it is read as the same value."""
    for check_all, check in (
        (check_all_ids, check_id),
        (check_all_urls, check_url),
        (check_all_labels, check_label),
        (check_all_local_paths, check_local_path),
        (parse_all_checksums, Checksum.parse),
    ):
        found = check_all(texts)
        assert found is None or list(found) == [check(text) for text in texts]
