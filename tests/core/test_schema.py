"""Kinds of JSON values: a table of keys reads an object, reports everything wrong with it, and describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from grym_fetch.core.schema import (
    Invalid,
    Key,
    Kind,
    Object,
    any_object,
    flag,
    list_of,
    nearest_key,
    problems_of,
    text,
    text_or_number,
    whole_number,
)


@dataclass(frozen=True)
class Author:
    """A person who writes books."""

    name: str
    extra: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Book:
    """The value that a table of keys makes from an object."""

    title: str
    page_count: int | None = None
    is_lent: bool = False
    authors: tuple[Author, ...] = ()
    extra: Mapping[str, object] = field(default_factory=dict)


NAME = text("a name", str)
AUTHOR = Object(
    Author,
    (Key("name", NAME, "As on the cover.", needed=True),),
    rule="an author",
    name="Author",
    title="Author",
    description="Who writes books.",
)
BOOK = Object(
    Book,
    (
        Key("title", NAME, "What is on the cover.", needed=True),
        Key("pageCount", whole_number("0 to 9 pages", 9), "How long it is.", explicit=True),
        Key("isLent", flag("true or false"), "Whether it is away."),
        Key("authors", list_of(AUTHOR, "at most two authors", max_items=2), "Who wrote it."),
    ),
    rule="a book",
    name="Book",
    title="Book",
    description="Something to read.",
)


def problems(value: object, kind: Kind[Any] = BOOK) -> list[str]:
    """The problems of a value, one per line."""
    with pytest.raises(ValueError, match=r"allowed|needed") as caught:
        kind.read(value)
    return [f"{'/'.join(map(str, location))} {message}".strip() for location, message in problems_of(caught.value)]


def test_an_object_is_read_by_its_table() -> None:
    """Each key becomes the field with its name in snake case; null or a missing key means the default."""
    found = BOOK.read({"pageCount": 3, "title": "T", "isLent": None, "authors": [{"name": "A"}]})
    assert found == Book("T", 3, authors=(Author("A"),))
    assert BOOK.read({"title": "T"}) == Book("T")


def test_all_problems_come_at_once_with_their_places() -> None:
    """No problem hides another: values, items, objects inside lists, and missing keys."""
    book = {"pageCount": -1, "isLent": 0, "authors": [7, {"name": None, "Name": "A"}], "Titel": "T"}
    assert problems(book) == [
        "pageCount is -1; allowed: 0 to 9 pages",
        "isLent is 0; allowed: true or false",
        "authors/0 is 7; allowed: an author",
        "authors/1/name is null; allowed: a name",
        "title is missing; needed: a name (is 'Titel' meant?)",
    ]
    assert problems({"title": "T", "authors": [{}] * 3}) == ["authors has 3 items; allowed: at most two authors"]


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (NAME, ["", "x"], [1, None, True, [], {}]),
        (whole_number("", 5), [0, 5], [-1, 6, True, 1.0, "1", None]),
        (text_or_number(""), ["1", 1, 1.5], [True, None, []]),
        (flag(""), [True, False], [0, 1, "true", None]),
        (any_object(""), [{}, {"a": None}], [[], None, "x"]),
        (list_of(NAME, ""), [[], ["x"]], [(), None, "x", {}, [1]]),
        (AUTHOR, [{"name": "A"}], [[], None, "x", {}]),
    ],
)
def test_kinds_are_strict(kind: Kind[Any], good: list[object], bad: list[object]) -> None:
    """A value of another type is refused, never converted; what was read is written unchanged."""
    for value in good:
        assert kind.read(kind.write(kind.read(value))) == kind.read(value)
    for value in bad:
        assert problems(value, kind)


def test_a_list_may_keep_each_item_once() -> None:
    """The first of several equal items stays in its place."""
    assert list_of(NAME, "", distinct=True).read(["b", "a", "b"]) == ("b", "a")


def test_unknown_keys_are_kept() -> None:
    """Unknown keys come last when the value is written; defaults are left out unless people look for them."""
    value = {"x": [1], "title": "T", "authors": [{"name": "A", "y": None}]}
    read = BOOK.read(value)
    assert read.extra == {"x": [1]}
    written = BOOK.write(read)
    assert written == {"title": "T", "pageCount": None, "authors": [{"name": "A", "y": None}], "x": [1]}
    assert list(written) == ["title", "pageCount", "authors", "x"]


def test_a_string_is_never_repeated() -> None:
    """A message never repeats a string, which may be an address with a secret in it."""
    assert problems({"title": "T", "pageCount": "hunter2", "isLent": "hunter2", "authors": "hunter2"}) == [
        "pageCount is a string; allowed: 0 to 9 pages",
        "isLent is a string; allowed: true or false",
        "authors is a string; allowed: at most two authors",
    ]


def test_the_json_schema_comes_from_the_same_table() -> None:
    """Objects are referred to by name; an optional key may be null, and has its default."""
    assert BOOK.json_schema == {"$ref": "#/$defs/Book"}
    assert BOOK.definition == {
        "title": "Book",
        "description": "Something to read.",
        "type": "object",
        "properties": {
            "title": {"description": "What is on the cover.", "type": "string"},
            "pageCount": {
                "description": "How long it is.",
                "anyOf": [{"type": "integer", "minimum": 0, "maximum": 9}, {"type": "null"}],
                "default": None,
            },
            "isLent": {
                "description": "Whether it is away.",
                "anyOf": [{"type": "boolean"}, {"type": "null"}],
                "default": False,
            },
            "authors": {
                "description": "Who wrote it.",
                "anyOf": [
                    {"type": "array", "items": {"$ref": "#/$defs/Author"}, "maxItems": 2},
                    {"type": "null"},
                ],
                "default": None,
            },
        },
        "required": ["title"],
        "additionalProperties": True,
    }


def test_a_problem_inside_is_a_value_error() -> None:
    """A caller that reads one value need not know whether it has parts."""
    with pytest.raises(Invalid):
        BOOK.read({})
    assert issubclass(Invalid, ValueError)
    assert problems_of(ValueError("is odd")) == [((), "is odd")]


@pytest.mark.parametrize(
    ("key", "candidates", "meant"),
    [
        ("localPath", ["local_path"], "local_path"),
        ("fallbackURLs", ["url", "fallbackUrls"], "fallbackUrls"),
        ("size", ["length"], None),
        ("x" * 1_000_000, ["x" * 1_000_000, "url"], None),
        ("url", [*map(str, range(100)), "urls"], None),
    ],
    ids=["separators", "case", "another word", "long keys", "many keys"],
)
def test_the_key_that_was_meant(key: str, candidates: list[str], meant: str | None) -> None:
    """Case and separators do not count; long keys and those from the hundredth on are not compared."""
    assert nearest_key(key, candidates) == meant
