"""The text of a manifest: an edit changes only what it must, and every other character stays."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core.digest import Checksum
from grym_fetch.core.manifest import Asset, StandIn
from grym_fetch.core.manifest_parser import parse_manifest
from grym_fetch.core.manifest_schema import ASSET
from grym_fetch.core.manifest_text import ManifestText, Setting

T = TypeVar("T")
NOW = 1_800_000_000.0
NEW = Asset(
    "new", "https://h.example/n.bin", "m/n.bin", tags=("a", "b"), checksum=Checksum.of(b"n"), size=1, name="Näme"
)

names = st.text('ab"\\/ \n\u00e9\u2028\U0001f600', max_size=3)
values = st.none() | st.booleans() | st.just(0.5) | names | st.lists(names, max_size=2)
extras = st.dictionaries(names, values, max_size=3)


@dataclass(frozen=True)
class Hand:
    """JSON as a careless person writes it. Drawn values are reused: drawing takes most of the time."""

    gaps: Iterator[str]
    numbers: Iterator[str]
    escapes: Iterator[bool]

    def write(self, value: Any) -> str:
        """Write a JSON value as text."""
        gap = self.gaps.__next__
        if isinstance(value, dict):
            members = [f"{self.write(key)}{gap()}:{gap()}{self.write(item)}" for key, item in value.items()]
            return f"{{{gap()}{f'{gap()},{gap()}'.join(members)}{gap()}}}"
        if isinstance(value, list):
            return f"[{gap()}{f'{gap()},{gap()}'.join(map(self.write, value))}{gap()}]"
        if isinstance(value, float):
            return next(self.numbers)
        return json.dumps(value, ensure_ascii=next(self.escapes))


def in_turn(values: st.SearchStrategy[T]) -> st.SearchStrategy[Iterator[T]]:
    """A few values, over and over."""
    return st.lists(values, min_size=1, max_size=5).map(cycle)


hands = st.builds(
    Hand,
    in_turn(st.text(" \t\n\r", max_size=2)),
    in_turn(st.sampled_from(["1.50", "-0", "1e3", "1E+2", "10000000000000000001", "0.1000"])),
    in_turn(st.booleans()),
)


def entry(number: int, extra: Mapping[str, object], *, is_pinned: bool) -> dict[str, object]:
    """An entry of a manifest."""
    made: dict[str, object] = {"id": f"a{number}", "url": f"https://h.example/{number}", "localPath": f"m/{number}"}
    if is_pinned:
        made |= {"checksum": None, "size": None}
    return made | {f"x{key}": value for key, value in extra.items()}


@st.composite
def manifests(draw: st.DrawFn, least: int = 0) -> bytes:
    """The bytes of a valid manifest in any formatting."""
    entries = draw(st.lists(st.tuples(extras, st.booleans()), min_size=least, max_size=3))
    hand = draw(hands)
    top: dict[str, object] = {"version": "1.0"} if draw(st.booleans()) else {}
    if draw(st.booleans()):
        top["updated"] = draw(st.sampled_from(["2025-03-09T12:00:00.000Z", "2025-03-09T12:00:00Z", None]))
    top["assets"] = [entry(number, extra, is_pinned=is_pinned) for number, (extra, is_pinned) in enumerate(entries)]
    top |= {f"y{key}": value for key, value in draw(extras).items()}
    text = next(hand.gaps) + hand.write(top) + next(hand.gaps)
    data = draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + text.encode()
    parse_manifest(data, "it")
    return data


def raw(data: bytes) -> Any:
    """The values of a file, with numbers as they are written."""
    return json.loads(data.decode("utf-8-sig"), parse_float=str, parse_int=str)


def common_ends(old: bytes, new: bytes) -> tuple[int, int]:
    """The number of equal bytes at the beginning and at the end."""
    most = min(len(old), len(new))
    head = next((n for n in range(most) if old[n] != new[n]), most)
    tail = next((n for n in range(most - head) if old[-1 - n] != new[-1 - n]), most - head)
    return head, tail


@given(manifests())
def test_reading_and_writing_changes_nothing(data: bytes) -> None:
    """Without an edit every byte stays, whatever the formatting."""
    assert ManifestText.read(data).encode() == data


@given(manifests(least=1))
def test_what_is_added_and_removed_again_was_never_there(data: bytes) -> None:
    """Adding is one insertion, and removing takes out exactly what was inserted."""
    text = ManifestText.read(data)
    added = text.add(NEW)
    head, tail = common_ends(data, added.encode())
    assert head + tail == len(data)
    assert added.remove(len(parse_manifest(data, "it").manifest.assets)).encode() == data


@given(manifests())
def test_an_added_entry_is_read_back(data: bytes) -> None:
    """The new asset comes last, and everything that was there keeps its meaning."""
    new = ManifestText.read(data).add(NEW).encode()
    assert parse_manifest(new, "it").manifest.assets[-1] == NEW
    old = raw(data)
    old["assets"].append(raw(json.dumps(ASSET.write(NEW)).encode()))
    assert raw(new) == old
    assert list(raw(new)) == list(old)


@given(manifests(least=1), st.data())
def test_setting_changes_one_entry_only(data: bytes, draw: st.DataObject) -> None:
    """The keys that are set get their values; all other keys, order and numbers stay as written."""
    old = raw(data)
    index = draw.draw(st.integers(0, len(old["assets"]) - 1))
    checksum = Checksum.of(b"content").bare
    new = ManifestText.read(data).set(index, {"checksum": checksum, "size": 7}).encode()
    old["assets"][index] |= {"checksum": checksum, "size": "7"}
    assert raw(new) == old
    assert [list(each) for each in raw(new)["assets"]] == [list(each) for each in old["assets"]]


@given(manifests(least=1), st.data())
def test_removing_takes_one_entry_out(data: bytes, draw: st.DataObject) -> None:
    """The other entries stay, each as it was written."""
    old = raw(data)
    index = draw.draw(st.integers(0, len(old["assets"]) - 1))
    new = ManifestText.read(data).remove(index).encode()
    del old["assets"][index]
    assert raw(new) == old
    head, tail = common_ends(data, new)
    assert head + tail >= len(new) - 2


@given(manifests(), st.booleans())
def test_the_time_of_the_change(data: bytes, insert: bool) -> None:
    """`updated` is changed if it exists and created only on request; nothing else changes."""
    old = raw(data)
    new = ManifestText.read(data).touch(NOW, insert=insert).encode()
    result = raw(new)
    if "updated" in old or insert:
        assert str(result.pop("updated")).startswith("2027-01-15T08:00:00")
        old.pop("updated", None)
    else:
        assert new == data
    assert result == old
    assert list(result) == list(old)


def written(*lines: str) -> bytes:
    return "\n".join(lines).encode()


EXPANDED = written(
    "{",
    '    "version": "1.0",',
    '    "assets": [',
    "        {",
    '            "id": "a",',
    '            "url": "https://h.example/a",',
    '            "localPath": "a",',
    '            "tags": ["x", "y"],',
    '            "fallbackUrls": [',
    '                "https://m.example/a"',
    "            ]",
    "        }",
    "    ]",
    "}",
    "",
)


def test_a_new_entry_is_written_as_its_neighbours() -> None:
    """Indentation and lists follow the existing entries, each kind of list in its own style."""
    asset = Asset(
        "b", "https://h.example/b", "b", fallback_urls=("https://m.example/b",), tags=("x", "z"), metadata={"k": [1]}
    )
    new = ManifestText.read(EXPANDED).add(asset).touch(NOW, insert=True).encode().decode()
    assert new == EXPANDED.decode().replace(
        '"1.0",\n', '"1.0",\n    "updated": "2027-01-15T08:00:00Z",\n'
    ).replace(
        "        }\n    ]",
        """        },
        {
            "id": "b",
            "url": "https://h.example/b",
            "fallbackUrls": [
                "https://m.example/b"
            ],
            "localPath": "b",
            "checksum": null,
            "size": null,
            "required": false,
            "tags": ["x", "z"],
            "metadata": {
                "k": [
                    1
                ]
            }
        }
    ]""",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('{"assets":[{"id":"a","url":"http://h/a","localPath":"a"}]}', ',{"id":"b","url":"http://h/b","fallbackUrls":[]'),
        ('{"assets": [{"id": "a", "url": "http://h/a", "localPath": "a"}]}', ', {"id": "b", "url": "http://h/b"'),
        ('{ "assets": [] }', '{ "assets": [{ "id": "b", "url": "http://h/b"'),
        ('{\r\n\t"assets": []\r\n}', '"assets": [\r\n\t\t{\r\n\t\t\t"id": "b",\r\n\t\t\t"url"'),
        ('{\n "assets": [\n ]\n}\n', '"assets": [\n  {\n   "id": "b",\n   "url"'),
    ],
    ids=["compact", "one line", "padded", "tabs and CRLF", "one space"],
)  # fmt: skip
def test_formats(old: str, new: str) -> None:
    """An entry added to a compact file is compact; line ends and tabs follow the file."""
    result = ManifestText.read(old.encode()).add(Asset("b", "http://h/b", "b")).encode().decode()
    assert new in result
    assert ("\n" in result) is ("\n" in old)
    assert result.count("\n") == result.count("\r\n") or "\r" not in old


@pytest.mark.parametrize(("old", "shown"), [("", "N\\u00e4me"), ("ü", "Näme")])
def test_escapes(old: str, shown: str) -> None:
    """Non-ASCII characters are escaped if the file is pure ASCII, and written out otherwise."""
    text = ManifestText.read(json.dumps({"note": old, "assets": []}, ensure_ascii=False).encode())
    assert shown in text.add(NEW).encode().decode()


def test_a_stand_in_is_set_in_its_own_object() -> None:
    """The keys of the stand-in are set; those of the asset stay."""
    asset = Asset("s", "http://h/s", "s", minimal=StandIn("http://h/t", extra={"k": 1}), extra={"x": 2})
    text = ManifestText.read(b'{"assets": []}').add(asset).set(0, {"size": 3}, stand_in=True)
    found = parse_manifest(text.encode(), "it").manifest.assets[0]
    assert found.size is None
    assert found.minimal is not None
    assert found.minimal.size == 3
    assert found.minimal.extra == {"k": 1}


@given(manifests(least=2), st.data())
def test_many_settings_are_the_same_as_one_after_the_other(data: bytes, draw: st.DataObject) -> None:
    """Setting many entries at once, in any order, writes the same text as setting them one by one."""
    tiny = StandIn("https://h.example/t")
    text = ManifestText.read(data).add(Asset("last", "https://h.example/l", "last", minimal=tiny))
    count = len(parse_manifest(text.encode(), "it").manifest.assets)
    settings = [Setting(number, {"size": number, "checksum": None}) for number in range(count)]
    settings.append(Setting(count - 1, {"size": 77}, stand_in=True))
    one_by_one = text
    for setting in settings:
        one_by_one = one_by_one.set(setting.index, setting.values, stand_in=setting.stand_in)
    assert text.set_all(draw.draw(st.permutations(settings))) == one_by_one


@given(st.lists(st.sampled_from(["add", "remove", "set"]), max_size=8))
def test_any_sequence_of_edits_is_a_good_manifest(edits: Sequence[str]) -> None:
    """However often a manifest is edited, it parses and has the assets that it should."""
    text, ids, count = ManifestText.read(EXPANDED), ["a"], 0
    for edit in edits:
        if edit == "add":
            count += 1
            ids.append(f"n{count}")
            text = text.add(Asset(ids[-1], "http://h/n", ids[-1]))
        elif ids and edit == "remove":
            del ids[count % len(ids)]
            text = text.remove(count % (len(ids) + 1))
        elif ids:
            text = text.set(0, {"size": count})
    assert [asset.id for asset in parse_manifest(text.encode(), "it").manifest.assets] == ids
