"""The table of the format: the same line reads, writes and describes each key."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import ManifestError
from grym_fetch.core.manifest_parser import parse_manifest
from grym_fetch.core.manifest_schema import ASSET, MANIFEST, STAND_IN, manifest_json_schema
from grym_fetch.core.schema import Object
from grym_fetch.core.text import safe_text
from tests.core.manifest_files import (
    CHECKSUM,
    NEEDED_KEYS,
    OPTIONAL_KEYS,
    URL,
    entry,
    files,
    parse,
    problems,
)

# --- One line a key -------------------------------------------------------------------------------------------

ELSEWHERE = [
    *("s3://models/a.bin", "gs://models/a.bin", "az://models/a.bin"),
    f"lfs://git.example/org/repo.git/info/lfs/{'0' * 64}/5",
]
GOOD: dict[str, list[Any]] = {
    "id": ["base", "a b", "é"],
    "url": [URL, "HTTPS://h.example/", "http://[::1]:80/x?y#z", *ELSEWHERE],
    "localPath": ["models/a.zip", "e\u0301.zip", "a b/c.zip"],
    "name": ["Base", "", None],
    "description": ["", "A model", None],
    "fallbackUrls": [[], [URL, URL], [URL] * 100, None],
    "checksum": [CHECKSUM.bare, f"SHA256:{CHECKSUM.hexdigest.upper()}", str(Checksum.of(b"x", "blake2b")), None],
    "size": [1, 2**63 - 1, None],
    "version": ["1.0", "", 1, 2.5, None],
    "required": [True, False, None],
    "extract": [True, False, None],
    "tags": [[], ["a", "b", "a"], None],
    "metadata": [{}, {"a": [1, None, {"b": 2.5}]}, None],
    "minimal": [
        None,
        {"url": URL},
        {"url": URL, "checksum": None, "size": 3, "fallbackUrls": [URL]},
        {"url": URL, "x": 1},
        {"url": URL, "size": 0},
    ],
    "unknown": [1, None],
}
BAD: dict[str, list[Any]] = {
    "id": [5, None, "", "-a", "a/b", "\u00a0a", "\ud800", ["base"]],
    "url": [3, None, "", "ftp://h/", "https://a b/", "https://a@b@c/", "https://h/" + "x" * 9000],
    "localPath": [1, None, "", "../x", "/x", "minimal/x", "a\\b", "con"],
    "name": [1, True, []],
    "description": [1, {}],
    "fallbackUrls": [URL, [1], [None], ["x"], [URL] * 101, {}],
    "checksum": [1, "", "abc", "md5:" + "0" * 32, []],
    "size": [-1, 2**63, True, 1.0, "1", 10**25, float("nan")],
    "version": [True, {}, float("inf")],
    "required": [0, 1, "yes", []],
    "extract": [0, 1, "yes"],
    "tags": ["a", [""], [None], ["\u202e"], {"a": 1}],
    "metadata": [[], "x", {"a": float("inf")}, {"\ud800": 1}],
    "minimal": ["x", [], {}, {"url": None}, {"url": URL, "size": -1}],
    "pieces": ["x", [], {}, {"size": 1 << 20}, {"size": 0, "sha256": []}, {"size": 1 << 20, "sha256": ["ab"]}],
    "\ud800": [1],
}


def some_of(values: dict[str, list[Any]], min_size: int = 0) -> st.SearchStrategy[dict[str, Any]]:
    """A few of these keys, each with one of its values."""
    pairs = [(key, value) for key, each in values.items() for value in each]
    return st.lists(st.sampled_from(pairs), unique_by=lambda pair: pair[0], min_size=min_size, max_size=8).map(dict)


good_entries = some_of(GOOD).map(lambda keys: entry(**{"localPath": "models/base.zip", **keys}))


@pytest.mark.parametrize("part", [MANIFEST, ASSET, STAND_IN], ids=lambda part: part.name)
def test_each_field_has_its_key(part: Object[Any]) -> None:
    """A value has no field that the file cannot express, and the table has no key that the value cannot hold."""
    fields = {each.name for each in dataclasses.fields(part.result) if each.init}
    assert fields - {"extra", "is_stand_in", "stated"} == {key.field for key in part.keys}


@given(good_entries)
@pytest.mark.shows("M10")
def test_what_is_written_reads_back_the_same(listed: dict[str, Any]) -> None:
    """An asset written as an entry reads back as the same asset, with its unknown keys."""
    asset = parse(listed).manifest.assets[0]
    assert parse(ASSET.write(asset)).manifest.assets[0] == asset


@given(st.sampled_from(["2030-01-01T00:00:00Z", "1999-12-31T23:59:59.123456+05:30", None]), good_entries)
def test_a_whole_manifest_reads_back_the_same(expires: str | None, listed: dict[str, Any]) -> None:
    """The same holds for the top level."""
    manifest = parse(listed, expires=expires, version=2, owner="me").manifest
    assert parse_manifest(json.dumps(MANIFEST.write(manifest)).encode(), "it").manifest == manifest


@given(good_entries, some_of(BAD, min_size=1))
@pytest.mark.shows("M7", "M10")
def test_no_problem_hides_another(good: dict[str, Any], bad: dict[str, Any]) -> None:
    """Each key with a wrong value is reported, whatever else is wrong, and no key with a right value is."""
    good.pop("extract", None)  # whether that is right depends on localPath
    with pytest.raises(ManifestError) as caught:
        parse(good | bad)
    reported = {re.split(r"[.\[]", problem.key)[0] for problem in caught.value.problems}
    assert reported == {safe_text(key) for key in bad}


# --- The JSON Schema ------------------------------------------------------------------------------------------


def test_the_schema_describes_every_key() -> None:
    """The schema names the keys as the file does, describes each, and allows unknown ones."""
    schema: dict[str, Any] = manifest_json_schema()
    definitions = schema["$defs"]
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"]
    assert schema["required"] == ["assets"]
    assert definitions["AssetEntry"]["required"] == ["id", "url", "localPath"]
    assert definitions["StandInEntry"]["required"] == ["url"]
    assert set(schema["properties"]) == {"version", "updated", "expires", "assets"}
    assert set(definitions["AssetEntry"]["properties"]) == {*NEEDED_KEYS, *OPTIONAL_KEYS}
    assert set(definitions["StandInEntry"]["properties"]) == {"url", "checksum", "size", "fallbackUrls"}
    for part in (schema, *definitions.values()):
        assert part["title"]
        assert part["description"]
        assert part["additionalProperties"] is True
        assert all(key.get("description") for key in part["properties"].values())
    json.dumps(schema)


KINDS: dict[str, type | tuple[type, ...]] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float),
    "null": type(None),
}  # fmt: skip


def fits(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """Validate with the part of JSON Schema that our schema uses."""
    if "$ref" in schema:
        return fits(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "anyOf" in schema:
        return any(fits(value, option, root) for option in schema["anyOf"])
    if "type" in schema:
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if not any(
            isinstance(value, KINDS[kind]) and (kind == "boolean" or not isinstance(value, bool)) for kind in kinds
        ):
            return False
    if isinstance(value, str):
        in_length = schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
        return in_length and re.search(schema.get("pattern", ""), value) is not None
    if isinstance(value, int) and not isinstance(value, bool):
        return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))
    if isinstance(value, list):
        items = schema.get("items", {})
        return len(value) <= schema.get("maxItems", len(value)) and all(fits(v, items, root) for v in value)
    if isinstance(value, dict):
        keys = schema.get("properties", {})
        return set(schema.get("required", ())) <= set(value) and all(
            fits(v, keys.get(k, {}), root) for k, v in value.items()
        )
    return True


@given(files)
def test_the_schema_accepts_what_the_parser_accepts(value: object) -> None:
    """An editor that checks a manifest by the schema never complains about one that is valid."""
    try:
        parse_manifest(json.dumps(value).encode(), "assets.json")
    except ManifestError:
        return
    schema: dict[str, Any] = manifest_json_schema()
    assert fits(value, schema, schema)


@pytest.mark.parametrize("url", ELSEWHERE)
def test_the_schema_knows_every_kind_of_address(url: str) -> None:
    """Our own entries for buckets and Git LFS are right in an editor, too."""
    schema: dict[str, Any] = manifest_json_schema()
    assert fits({"assets": [entry(url=url, fallbackUrls=[url])]}, schema, schema)
    assert parse(entry(url=url)).manifest.assets[0].url == url


@pytest.mark.parametrize(
    "keys",
    [
        {"size": -1}, {"size": "12"}, {"size": True}, {"checksum": "abc"}, {"url": "ftp://h/"}, {"id": ""},
        {"required": "yes"}, {"tags": "x"}, {"minimal": {}}, {"fallbackUrls": [URL] * 101}, {"version": True},
    ],
)  # fmt: skip
def test_the_schema_refuses_the_plain_mistakes(keys: dict[str, Any]) -> None:
    """An editor already reports wrong types, ranges and forms."""
    schema: dict[str, Any] = manifest_json_schema()
    assert fits({"assets": [entry()]}, schema, schema)
    assert not fits({"assets": [entry(**keys)]}, schema, schema)
    assert problems(entry(**keys))
