"""Edits of `assets.jsonl`: what is not edited stays to the byte."""

from __future__ import annotations

import json

import pytest

from grym_fetch.core.manifest import Asset
from grym_fetch.core.manifest_line_edits import LineEdits
from grym_fetch.core.manifest_text import Setting

HEAD = b'{ "version":"1",  "updated": "2026-01-01T00:00:00Z"}\n'
LINES = [
    HEAD,
    b'{"id":"a","url":"https://h/a","localPath":"a","size":null}\r\n',
    b"\n",
    b'{ "id" : "b", "url": "https://h/b", "localPath": "b" }\n',
    b'{"id": "c", "url": "https://h/c", "localPath": "c"}',
]


def edited(edits: LineEdits) -> list[bytes]:
    return b"".join(edits.apply(LINES)).splitlines(keepends=True)


def test_nothing_is_changed_without_an_edit() -> None:
    """Not even what is odd."""
    assert edited(LineEdits()) == LINES


def test_sets_and_removes_by_the_number_of_the_entry() -> None:
    """Empty lines do not count; neighbours keep their spaces and line ends."""
    found = edited(LineEdits().set_all([Setting(0, {"size": 5}), Setting(1, {"checksum": "x"})]).remove(2))
    assert found == [
        HEAD,
        b'{"id":"a","url":"https://h/a","localPath":"a","size":5}\r\n',
        b"\n",
        b'{ "id" : "b", "url": "https://h/b", "localPath": "b", "checksum" : "x" }\n',
    ]


def test_adds_lines_like_the_last_one() -> None:
    """Each on a line of its own, though the last one had no end."""
    found = edited(LineEdits().add(Asset("d", "https://h/d", "d"), Asset("e", "https://h/e", "e")))
    assert found[:4] == LINES[:4]
    assert found[4] == LINES[4] + b"\n"
    assert [json.loads(line)["id"] for line in found[5:]] == ["d", "e"]
    assert all(line.startswith(b'{"id": ') and line.endswith(b"}\n") for line in found[5:])


@pytest.mark.parametrize(
    ("head", "insert", "expected"),
    [
        (b'{"version": "1", "updated": "x"}\n', False, {"version": "1", "updated": "1970-01-01T00:00:00Z"}),
        (b'{"version": "1"}\n', True, {"version": "1", "updated": "1970-01-01T00:00:00Z"}),
        (b'{"version": "1"}\n', False, {"version": "1"}),
        (b"{}\n", True, {"version": None, "updated": "1970-01-01T00:00:00Z"}),
        (b"{}\n", False, {}),
    ],
)
def test_touches_the_first_line(head: bytes, insert: bool, expected: object) -> None:
    """As in `assets.json`; and adds to a list that has no entry yet."""
    edits = LineEdits().touch(0, insert=insert).add(Asset("a", "https://h/a", "a"))
    first, line = b"".join(edits.apply([head])).splitlines()
    assert json.loads(first) == expected
    assert json.loads(line)["id"] == "a"
