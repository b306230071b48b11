"""JSON from strangers: what is read, and what is refused or reported with its place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core import strict_json
from grym_fetch.core.strict_json import NotJson, read_json

plain_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**19), 10**19) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def depth(value: object) -> int:
    """How deeply lists and objects are nested."""
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(plain_values, st.booleans(), st.sampled_from([b"", b"\xef\xbb\xbf"]))
@pytest.mark.shows("M7")
def test_what_is_right_is_read_as_it_is(value: object, ensure_ascii: bool, mark: bytes) -> None:
    """Any value reads back without a problem, with and without escapes and a byte order mark."""
    data = mark + json.dumps(value, ensure_ascii=ensure_ascii).encode()
    file = read_json(data, max_bytes=len(data))
    assert (file.value, file.problems) == (value, [])


@given(plain_values)
@pytest.mark.shows("M7")
def test_depth_is_exact(value: object) -> None:
    """The depth counted before parsing is that of the value, whatever strings hold."""
    assert strict_json._depth(strict_json._structure(json.dumps(value).encode())) == depth(value)


@pytest.mark.shows("M7")
def test_each_problem_has_its_place() -> None:
    """Misleading content is reported where it is, in the order of the file, and nothing else is lost."""
    data = b'{"a": [1, NaN, 1e999], "b": {"x": 1, "x": 2}, "c": {"\\ud800": "\\udfff"}, "d": 123456789012345678901}'
    file = read_json(data, max_bytes=1000)
    assert [(location, message.split(";")[0]) for location, message in file.problems] == [
        (("a", 1), "is NaN, which is not a JSON value"),
        (("a", 2), "is a number too large to be read"),
        (("b", "x"), "is given more than once"),
        (("c", "\ud800"), r"has half of a surrogate pair (\ud800), which is not a character"),
        (("c", "\ud800"), r"has half of a surrogate pair (\udfff), which is not a character"),
        (("d",), "is a number of 21 digits"),
    ]
    assert isinstance(file.value, dict)
    assert file.value["b"] == {"x": 2}


@pytest.mark.parametrize(
    ("data", "place"), [(b"{]", "line 1, column 2"), (b'{\n"a"\n:}', "line 3, column 2"), (b"\xff", ""), (b"[] ", "")]
)
@pytest.mark.shows("M7")
def test_what_cannot_be_read_says_where(data: bytes, place: str) -> None:
    """The message gives the line and column where the JSON parser stopped, or neither for the file as a whole."""
    with pytest.raises(NotJson) as caught:
        read_json(data, max_bytes=8 if place else 2)
    assert caught.value.place == place


@pytest.mark.shows("M7")
def test_pairs_are_looked_at_only_where_a_key_is_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting colons shows whether a key is repeated, whatever strings hold; a manifest has hundreds of thousands."""
    asked: list[bool] = []
    real = json.loads

    def loads(text: str, **hooks: Any) -> object:
        asked.append("object_pairs_hook" in hooks)
        return real(text, **hooks)

    monkeypatch.setattr("grym_fetch.core.strict_json.json.loads", loads)
    assert not read_json(b'{"a:": [{"b": ":", "c": {}}, "\\":\\\\"], "d": {"a:": 1}}', max_bytes=100).problems
    assert asked == [False]
    assert read_json(b'{"a": {"b": 1, "b": 1}}', max_bytes=100).problems
    assert asked == [False, False, True]
