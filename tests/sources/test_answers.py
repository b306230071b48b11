"""A hub's JSON: values that are used are checked, and none is repeated in a message."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from grym_fetch.sources.answers import HubAnswer, items

SECRET = "hunter2 hunter2"


@pytest.mark.parametrize(
    ("read", "place"),
    [
        (lambda: HubAnswer([SECRET]), "the answer is not a JSON object"),
        (lambda: HubAnswer({}).text("name"), "the answer: name"),
        (lambda: HubAnswer({"name": 7}).text("name"), "the answer: name"),
        (lambda: HubAnswer({"name": SECRET}).text("name", "[a-f]+"), "the answer: name"),
        (lambda: HubAnswer({"name": "a\x1b[2J"}).text("name"), "control"),
        (lambda: HubAnswer({"name": "\ud800"}).text("name"), "invisible|surrogate"),
        (lambda: HubAnswer({"size": -1}).size("size"), "number of bytes"),
        (lambda: HubAnswer({"size": True}).size("size"), "number of bytes"),
        (lambda: HubAnswer({"size": 2**63}).size("size"), "number of bytes"),
        (lambda: HubAnswer({"size": "1"}).size("size"), "number of bytes"),
        (lambda: HubAnswer({"url": "file:///etc/passwd"}).url("url"), "url starts with file"),
        (lambda: HubAnswer({"url": None}).url("url"), "not an address"),
        (lambda: HubAnswer({"inner": SECRET}).inner("inner"), "the answer: inner is not a JSON object"),
        (lambda: list(HubAnswer({"list": {}}).each("list", most=2)), "not a list"),
        (lambda: list(items([{}, {}, {}], most=2)), "3 items; at most 2"),
        (lambda: list(items([{}, 7], most=2)), r"the answer\[1\] is not"),
    ],
)
def test_what_makes_no_sense(read: Callable[[], object], place: str) -> None:
    """Each wrong value is named only by its place."""
    with pytest.raises(ValueError, match=place) as caught:
        read()
    assert "hunter2" not in str(caught.value)


def test_what_makes_sense() -> None:
    """Values of the right kind are returned."""
    answer = HubAnswer({"name": "n", "size": 0, "url": "https://h.example/a", "list": [{"a": "b"}], "none": None})
    assert (answer.text("name"), answer.size("size"), answer.url("url")) == ("n", 0, "https://h.example/a")
    assert [each.text("a") for each in answer.each("list", most=1)] == ["b"]
    assert (answer.has("name"), answer.has("none"), answer.has("other")) == (True, False, False)
