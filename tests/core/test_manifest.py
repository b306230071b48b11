"""The manifest: what is read, what is refused and how that is said, what is chosen."""

from __future__ import annotations

import contextlib
import copy
import json
import pickle
import random
import re
import time
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core import manifest_parser, manifest_values
from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import ManifestError, UnknownAsset
from grym_fetch.core.manifest import Asset, Manifest, StandIn
from grym_fetch.core.manifest_parser import MAX_ASSETS, MAX_DEPTH, MAX_MANIFEST_BYTES, ParsedManifest, parse_manifest
from grym_fetch.core.manifest_plain import read_plain_asset, read_plain_head
from grym_fetch.core.manifest_schema import manifest_json_schema
from grym_fetch.core.manifest_values import check_id, check_url
from grym_fetch.core.text import safe_text

CONTENT = random.Random(7).randbytes(300)
CHECKSUM = Checksum.of(CONTENT)
NOTHING = Checksum.of(b"")
URL = "https://models.example.org/base.bin"


NEEDED_KEYS = ["id", "url", "localPath"]
OPTIONAL_KEYS = [
    "name",
    "description",
    "fallbackUrls",
    "checksum",
    "size",
    "version",
    "required",
    "extract",
    "tags",
    "metadata",
    "minimal",
]


def entry(**keys: Any) -> dict[str, Any]:
    """Return a valid asset of a file, with ``keys`` set."""
    return {"id": "base", "url": URL, "localPath": "models/base.bin", **keys}


def parse(*entries: Any, **top: Any) -> ParsedManifest:
    """Parse a file of these assets."""
    return parse_manifest(json.dumps({"assets": entries, **top}).encode(), "assets.json")


def problems_of(data: bytes) -> list[str]:
    """Return what is wrong with a file, a line each."""
    with pytest.raises(ManifestError) as caught:
        parse_manifest(data, "assets.json")
    assert caught.value.source == "assets.json"
    return [str(problem) for problem in caught.value.problems]


def problems(*entries: Any, **top: Any) -> list[str]:
    """Return what is wrong with a file of these assets, a line each."""
    return problems_of(json.dumps({"assets": entries, **top}).encode())


def can_be_shown(text: str) -> bool:
    """Whether ``text`` is one line without anything that moves a cursor."""
    return safe_text(text, limit=len(text)) == text


# --- What is read ---------------------------------------------------------------------------------------------


def test_reads_every_key() -> None:
    """Each key of the user's format arrives in its field."""
    full = entry(
        name="Base",
        description="The base model",
        fallbackUrls=["http://mirror.example.org/base.bin", "https://user@third.example.org:8443/b?sig=x%2F"],
        checksum=f"SHA256:{CHECKSUM.hexdigest.upper()}",
        size=300,
        version="2.0",
        required=True,
        tags=["model", "essential", "model"],
        metadata={"licence": "MIT", "nested": [1, 2.5, None, {"a": True}]},
        minimal={
            "url": "https://models.example.org/tiny.bin",
            "checksum": None,
            "size": 0,
            "fallbackUrls": ["http://h/t"],
        },
    )
    parsed = parse(full, version="1.0", updated="2025-03-09T12:00:00.000Z")
    assert parsed == ParsedManifest(
        Manifest(
            version="1.0",
            updated="2025-03-09T12:00:00.000Z",
            assets=(
                Asset(
                    id="base",
                    url=URL,
                    local_path="models/base.bin",
                    name="Base",
                    description="The base model",
                    fallback_urls=(
                        "http://mirror.example.org/base.bin",
                        "https://user@third.example.org:8443/b?sig=x%2F",
                    ),
                    checksum=CHECKSUM,
                    size=300,
                    version="2.0",
                    required=True,
                    tags=("model", "essential"),
                    metadata={"licence": "MIT", "nested": [1, 2.5, None, {"a": True}]},
                    minimal=StandIn("https://models.example.org/tiny.bin", None, 0, ("http://h/t",)),
                ),
            ),
        )
    )


def test_fills_in_what_is_not_said() -> None:
    """Only id, url and localPath are needed; null is the same as not said."""
    bare = parse(entry()).manifest.assets
    assert bare == (Asset(id="base", url=URL, local_path="models/base.bin", name="base"),)
    assert parse(entry(**dict.fromkeys(OPTIONAL_KEYS)), version=None, updated=None).manifest.assets == bare
    assert not bare[0].required
    assert not bare[0].pinned


def test_an_empty_list_of_assets_is_a_manifest() -> None:
    """A project may have no assets yet."""
    assert parse().manifest == Manifest()


@pytest.mark.parametrize(("written", "kept"), [("1.0", "1.0"), (1, "1"), (2.5, "2.5"), (None, None)])
def test_a_version_may_be_a_number(written: object, kept: str | None) -> None:
    """Versions are for people, so a number is kept as its text."""
    parsed = parse(entry(version=written), version=written).manifest
    assert (parsed.version, parsed.assets[0].version) == (kept, kept)


@pytest.mark.shows("M7")
def test_a_byte_order_mark_is_skipped() -> None:
    """Windows editors write one."""
    assert parse_manifest(b'\xef\xbb\xbf{"assets": []}', "assets.json").manifest == Manifest()


@pytest.mark.parametrize(
    "keys",
    [
        {"size": 0},
        {"size": 2**63 - 1},
        {"size": 0, "checksum": str(NOTHING)},
        {"checksum": str(NOTHING)},
        {"checksum": CHECKSUM.bare},
        {"checksum": str(Checksum.of(CONTENT, "sha512"))},
        {"checksum": str(Checksum.of(CONTENT, "blake2b"))},
        {"id": "x" * 200},
        {"id": "模型 v2 (a+b)@c:d"},
        {"id": "a-"},
        {"fallbackUrls": [f"http://h/{n}" for n in range(100)]},
        {"name": "", "description": "two\nlines \ud83d\ude00"},
        {"localPath": "Größe/模型.bin"},
    ],
)
@pytest.mark.shows("M8")
def test_accepts_the_edges(keys: dict[str, Any]) -> None:
    """What is just allowed is allowed."""
    assert parse(entry(**keys)).warnings == ()


# --- What is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "line 1, column 1: is empty; allowed: a JSON object"),
        (b" \n", "is empty; allowed: a JSON object"),
        (b'{"assets": [\n  {"id" "x"}\n]}', "line 2, column 9: is no valid JSON: Expecting ':' delimiter"),
        (b'{"assets": []} x', "line 1, column 16: is no valid JSON: Extra data"),
        (b"[]", "top level: is a list; allowed: an object with the list assets"),
        (b'"x"', "top level: is a string; allowed: an object with the list assets"),
        (b"null", "top level: is null; allowed: an object with the list assets"),
        (b"NaN", "top level: is NaN, which is no JSON value"),
        (b"{}", "top level: assets: is missing; needed: a list of assets"),
        (b'{"asset": []}', "top level: assets: is missing; needed: a list of assets (is 'asset' meant?)"),
        (b'{"assets": {}}', "top level: assets: is an object; allowed: a list of assets"),
        (b'{"assets": null}', "top level: assets: is null; allowed: a list of assets"),
        (b'{"assets": [], "assets": []}', "top level: assets: is given more than once"),
        (b'{"assets": [], "version": true}', "top level: version: is true; allowed: a string or a number"),
        (b'{"assets": [], "updated": 5}', "top level: updated: is 5; allowed: a string such as 2025-"),
        (b'{"assets": [], "x": {"a": 1, "\\u0061": 2}}', "top level: x.a: is given more than once"),
        (b'{"assets": [], "x": [0, -Infinity]}', "top level: x[1]: is -Infinity, which is no JSON value"),
        (b'{"assets": [], "x": 1e999}', "top level: x: is a number too large to be read"),
        (b'{"assets": [], "x": 123456789012345678901}', "top level: x: is a number of 21 digits; at most 20"),
        (b'{"assets": [], "x": -' + b"9" * 100_000 + b"}", "top level: x: is a number of 100000 digits"),
        (b'{"assets": [], "x": "\\ud800"}', r"top level: x: has half of a surrogate pair (\ud800)"),
        (b'{"assets": [], "\\udc00": 1}', r"top level: \udc00: has half of a surrogate pair (\udc00)"),
        (b'{"assets": [1]}', "assets[0]: is 1; allowed: an object with at least id, url and localPath"),
        (b'{"assets": [[]]}', "assets[0]: is a list; allowed: an object with at least"),
        (b"[" * 1_000_000, "top level: has lists or objects nested more than 32 deep"),
        (b'{"a":' * 100_000, "top level: has lists or objects nested more than 32 deep"),
        (b'["\\\\\\"",' + b"[" * 1000, "top level: has lists or objects nested more than 32 deep"),
        (b" " * (MAX_MANIFEST_BYTES + 1), "top level: is 16777217 bytes long; at most 16777216 are allowed"),
        (b'{"assets": [' + b"0," * MAX_ASSETS + b"0]}", "top level: has 100001 assets; at most 100000 are"),
        ('{"assets": []}'.encode("utf-16"), "top level: is not UTF-8 but looks like UTF-16 or UTF-32"),
        ('{"assets": []}'.encode("utf-16-be"), "top level: is not UTF-8 but looks like UTF-16 or UTF-32"),
        ('{"assets": []}'.encode("utf-32"), "top level: is not UTF-8 but looks like UTF-16 or UTF-32"),
        (b'{"assets": ["\xff"]}', "top level: is not UTF-8 (at byte 13); save it as UTF-8"),
    ],
)
@pytest.mark.shows("M7", "S4", "S11")
def test_refuses_a_file_that_cannot_be_read(data: bytes, problem: str) -> None:
    """What is no manifest at all is refused with its place, however large, deep or odd it is."""
    found = problems_of(data)
    assert len(found) == 1
    assert problem in found[0]


@pytest.mark.shows("M7")
def test_brackets_in_strings_are_no_depth() -> None:
    """Only real lists and objects count, whatever strings hold."""
    inner = json.dumps('[[{"\\' * 40).encode()
    depth = MAX_DEPTH - 1
    data = b'{"assets": [], "x": ' + b"[" * depth + inner + b"]" * depth + b"}"
    assert parse_manifest(data, "assets.json").manifest.extra
    assert problems_of(data.replace(inner, b"[" + inner + b"]"))[0].endswith("nested more than 32 deep")


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"id": 5}, "assets[0]: id: is 5; allowed: a string of 1 to 200 characters"),
        ({"id": None}, "assets[0]: id: is null; allowed: a string of 1 to 200"),
        ({"id": ""}, "assets[0]: id: is empty; allowed: a string of 1 to 200"),
        ({"id": "x" * 201}, "assets[0]: id: is 201 characters long; at most 200 are allowed"),
        ({"id": "a\x1b[2J"}, r"assets[0]: id: has a control or invisible character (\x1b)"),
        ({"id": "a\u202e"}, r"id: has a control or invisible character (\u202e)"),
        ({"id": " a"}, "assets[0]: id: begins or ends with white space"),
        ({"id": "a\u00a0"}, "assets[0]: id: begins or ends with white space"),
        ({"id": "--all"}, "assets[0]: id: begins with -, so a command line would take it for an option"),
        ({"id": "a/b"}, "assets[0]: id: has a /; an id is a name, not a path"),
        ({"url": None}, "asset 'base': url: is null; allowed: an http:// or https:// address"),
        ({"url": "ftp://h/f"}, "asset 'base': url: starts with ftp:; allowed: an http:// or https://"),
        ({"fallbackUrls": URL}, "fallbackUrls: is a string; allowed: a list of at most 100 addresses"),
        ({"fallbackUrls": [URL, 7]}, "fallbackUrls[1]: is 7; allowed: an http:// or https:// address"),
        ({"fallbackUrls": [URL, "x"]}, "fallbackUrls[1]: has no scheme; allowed: an http:// or https://"),
        ({"fallbackUrls": [URL] * 101}, "fallbackUrls: has 101 items; allowed: a list of at most 100"),
        ({"localPath": 1}, "localPath: is 1; allowed: a relative path such as models/base.bin"),
        ({"localPath": "../x"}, "asset 'base': localPath: has the part ..;"),
        ({"localPath": "minimal/x"}, "localPath: lies in minimal, which is kept for the small stand-ins"),
        ({"checksum": 1}, "checksum: is 1; allowed: 64 hex digits (SHA-256), or sha256:"),
        ({"checksum": "abc"}, "checksum: has 3 hex digits where sha256 has 64; allowed: 64 hex digits"),
        ({"checksum": "md5:" + "0" * 32}, "checksum: does not start with a known algorithm; allowed:"),
        ({"size": -1}, "size: is -1; allowed: a whole number of bytes from 0 to 9223372036854775807, or null"),
        ({"size": 2**63}, "size: is 9223372036854775808; allowed: a whole number"),
        ({"size": 2**70}, "size: is a number of 22 digits; at most 20 are allowed"),
        ({"size": 1.0}, "size: is 1.0; allowed: a whole number"),
        ({"size": True}, "size: is true; allowed: a whole number"),
        ({"size": "12"}, "size: is a string; allowed: a whole number"),
        ({"size": float("nan")}, "size: is NaN, which is no JSON value"),
        ({"required": "yes"}, "required: is a string; allowed: true or false"),
        ({"required": 1}, "required: is 1; allowed: true or false"),
        ({"tags": "model"}, "tags: is a string; allowed: a list of strings"),
        ({"tags": [None]}, "tags[0]: is null; allowed: a string that is not empty"),
        ({"tags": ["a", ""]}, "tags[1]: is empty; allowed: a string that is not empty"),
        ({"tags": ["a\n"]}, r"tags[0]: has a control or invisible character (\n)"),
        ({"name": 1}, "name: is 1; allowed: a string"),
        ({"description": []}, "description: is a list; allowed: a string"),
        ({"version": {}}, "version: is an object; allowed: a string or a number"),
        ({"metadata": []}, "metadata: is a list; allowed: an object"),
        ({"metadata": {"a": [float("inf")]}}, "asset 'base': metadata.a[0]: is Infinity, which is no JSON"),
        ({"minimal": "x"}, "minimal: is a string; allowed: an object with url, checksum and size"),
        ({"minimal": {}}, "minimal.url: is missing; needed: an http:// or https:// address"),
        ({"minimal": {"url": URL, "size": -1}}, "minimal.size: is -1; allowed: a whole number"),
        ({"minimal": {"url": URL, "fallbackUrls": [1]}}, "asset 'base': minimal.fallbackUrls[0]: is 1;"),
        ({"size": 0, "checksum": CHECKSUM.bare}, "size: is 0 but the checksum is not that of an empty file"),
        ({"size": 9, "checksum": NOTHING.bare}, "size: is 9 but the checksum is that of an empty file"),
        (
            {"size": 1, "checksum": str(Checksum.of(b"", "blake2b"))},
            "size: is 1 but the checksum is that of an empty file",
        ),
        (
            {"minimal": {"url": URL, "size": 0, "checksum": CHECKSUM.bare}},
            "asset 'base': minimal.size: is 0 but the checksum is not that of an empty file",
        ),
    ],
)
@pytest.mark.shows("M8", "M9", "M10", "M14", "S11")
def test_refuses_a_value_that_is_not_allowed(keys: dict[str, Any], problem: str) -> None:
    """Each problem has the asset, the key, what is wrong and what is allowed; and is said once."""
    found = problems(entry(**keys))
    assert len(found) == 1
    assert problem in found[0]


@pytest.mark.parametrize("key", NEEDED_KEYS)
@pytest.mark.shows("M10")
def test_three_keys_are_needed(key: str) -> None:
    """An asset without id, url or localPath is refused, and a likely misspelling is pointed out."""
    asset = entry()
    value = asset.pop(key)
    where = "assets[0]" if key == "id" else "asset 'base'"
    assert problems(asset)[0].startswith(f"{where}: {key}: is missing; needed:")
    assert problems({**asset, f"{key}_": value})[0].endswith(f"(is '{key}_' meant?)")


@pytest.mark.shows("M10")
def test_ids_are_distinct() -> None:
    """Each repetition of an id is named by its index, since the id names nothing."""
    found = problems(entry(), entry(localPath="b"), entry(localPath="c"), entry(id="Base", localPath="d"))
    assert found == [
        "assets[1]: id: is 'base', as in assets[0]; ids must be distinct",
        "assets[2]: id: is 'base', as in assets[0]; ids must be distinct",
    ]


@pytest.mark.shows("M4", "S5")
def test_local_paths_are_distinct_on_every_system() -> None:
    """Files that would overwrite each other on some file system are refused before any download."""
    found = problems(
        entry(),
        entry(id="upper", localPath="Models/BASE.bin"),
        entry(id="inside", localPath="models/base.bin/part"),
        entry(id="other", localPath="models/base.binary"),
    )
    assert "\n".join(found) == (
        "asset 'upper': localPath: clashes with that of asset 'base': 'models/base.bin' and "
        "'Models/BASE.bin' are one file where case or Unicode form is not told apart\n"
        "asset 'inside': localPath: clashes with that of asset 'base': 'models/base.bin' would "
        "have to be a file and, for 'models/base.bin/part', a folder"
    )


@pytest.mark.shows("M10")
def test_all_problems_are_reported_together() -> None:
    """A file with ten problems is mended in one go: they come together, in the order of the assets."""
    found = problems_of(
        b"""{
          "version": false,
          "assets": [
            {"id": "one", "url": "file:///etc/passwd", "localPath": "/etc/passwd", "size": "12"},
            {"id": "two", "url": "https://h/f", "localPath": "a", "checksum": "xyz", "tags": [1], "tags": [""]},
            {"id": "two", "url": "https://h/f", "localPath": "A"},
            7,
            {"id": "five", "url": "https://h/f", "localPath": "b", "size": NaN}
          ]
        }"""
    )
    assert [line.split("; ")[0].partition(" where case")[0] for line in found] == [
        "top level: version: is false",
        "asset 'one': url: starts with file:",
        "asset 'one': localPath: is absolute",
        "asset 'one': size: is a string",
        "asset 'two': tags: is given more than once",
        "asset 'two': checksum: has characters that are not hex digits",
        "asset 'two': tags[0]: is empty",
        "assets[2]: id: is 'two', as in assets[1]",
        "assets[2]: localPath: clashes with that of asset 'two': 'a' and 'A' are one file",
        "assets[3]: is 7",
        "asset 'five': size: is NaN, which is no JSON value",
    ]


@pytest.mark.shows("M13", "U1", "S8", "S10")
def test_no_message_repeats_an_address_or_moves_a_cursor() -> None:
    """An address may hold a secret, and any text may hold control characters: neither reaches a message."""
    found = problems(
        entry(
            id="x\x1b]0;",
            url="https://user:hunter2@h:99999/?token=hunter2",
            fallbackUrls=["ftp://hunter2@h/"],
            localPath="a\x07\u202e/..",
            metadata={"\x1b[31m": float("nan")},
        )
    )
    assert len(found) == 5
    assert all(can_be_shown(line) and "hunter2" not in line for line in found)


# --- Addresses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://h",
        "https://h/",
        "HTTPS://H/F",
        "https://h:8443/a?b=c#d",
        "https://user@h/a",
        "https://user:pa%20ss@h/a",
        "https://127.0.0.1:9/a",
        "https://[::1]:8000/a",
        "https://[2001:db8::1]/",
        "https://sub_domain.example.org./a",
        "https://a--b.xn--bcher-kva.example/a",
        "https://bücher.example/größe",
        "https://h/a@b:c//d;e?f=[1]&g={x}|'",
        "https://" + ".".join(["a" * 63] * 3) + "/x",
        "https://h/" + "x" * 8182,
    ],
)
def test_accepts_addresses(url: str) -> None:
    """Every address that a browser and a server agree on is taken as it is."""
    assert check_url(url) == url


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("", "has no scheme"),
        ("h/f", "has no scheme"),
        ("//h/f", "has no scheme"),
        ("file:///etc/passwd", "starts with file:"),
        ("ftp://h/f", "starts with ftp:"),
        ("gopher://h/f", "starts with gopher:"),
        ("javascript:alert(1)", "starts with javascript:"),
        ("https:", "has no host"),
        ("https://", "has no host"),
        ("http:///f", "has no host"),
        ("http:/h/f", "has no host"),
        ("http://:80/", "has no host"),
        ("http://user@/f", "has no host"),
        ("http://?x", "has no host"),
        ("http://h:0/", "has a port"),
        ("http://h:65536/", "has a port"),
        ("http://h:8o/", "has a port"),
        ("http://h:-1/", "has a port"),
        (" http://h/", "has a space"),
        ("http://h/a b", "has a space"),
        ("http://h/\n", r"the character \\n"),
        ("ht\ntp://h/", r"the character \\n"),
        ("http://h/\t", r"the character \\t"),
        ("http://h\0/", r"the character \\x00"),
        ("http://h/\x7f", r"the character \\x7f"),
        ("http://h/\u202e", r"the character \\u202e"),
        ("http://h/\u3000", r"the character \\u3000"),
        ("http://h\\@evil/", "has a backslash"),
        ("http:\\\\h\\f", "has a backslash"),
        ("http://a@b@evil/", "must be percent-encoded there"),
        ("http://[a]@evil/", "host|percent-encoded"),
        ("http://a%2Fb/", "no valid name"),
        ("http://a%00b/", "no valid name"),
        ("http://a..b/", "no valid name"),
        ("http://.a/", "no valid name"),
        ("http://-a/", "no valid name"),
        ("http://a-/", "no valid name"),
        ("http://a,b/", "no valid name"),
        ("http://" + "a" * 64 + "/", "no valid name"),
        ("http://" + "a." * 127 + "a/", "a host of 255 characters"),
        ("http://" + "ä" * 64 + "/", "no valid international name"),
        ("http://h\uff0fevil/", "cannot be read"),
        ("http://[::1/", "cannot be read"),
        ("http://[::g]/", "cannot be read|no IPv6 address"),
        ("http://[v1.x]/", "cannot be read|no IPv6 address"),
        ("https://h/" + "x" * 8183, "is 8193 characters long; at most 8192"),
    ],
)
@pytest.mark.shows("M11", "S9")
def test_refuses_addresses_that_parsers_disagree_on(url: str, complaint: str) -> None:
    """An address whose host is not beyond doubt, or whose scheme is not http or https, is refused."""
    with pytest.raises(ValueError, match=complaint):
        check_url(url)


@given(st.from_regex(manifest_values._COMMON_URL, fullmatch=True))
@pytest.mark.shows("M11")
def test_the_short_cut_for_common_addresses_lets_nothing_more_through(url: str) -> None:
    """What is accepted at first sight would be accepted after a close look, too."""
    try:
        check_url(url)
    except ValueError:
        return
    with mock.patch.object(manifest_values, "_COMMON_URL", re.compile("(?!)")):
        assert check_url(url) == url


@given(st.one_of(st.text(), st.from_regex(r"https?://[^/]*", fullmatch=True)))
@pytest.mark.shows("M11")
def test_any_text_is_an_address_and_an_id_or_is_refused(text: str) -> None:
    """Nothing but ValueError comes out of text that is neither."""
    for check in (check_url, check_id):
        with contextlib.suppress(ValueError):
            assert check(text) == text


# --- Unknown keys ---------------------------------------------------------------------------------------------


@pytest.mark.shows("M10")
def test_unknown_keys_are_kept_and_named_in_one_warning() -> None:
    """What has no meaning here is kept where it is, and said once, with the key that was likely meant."""
    parsed = parse(
        entry(fallbackURLs=["x"], minimal={"url": URL, "Size": 3}),
        entry(id="two", localPath="two", fallbackURLs=[], sha256="y"),
        owner="me",
        **{"$schema": "https://example.org/s.json"},
    )
    first, second = parsed.manifest.assets
    assert parsed.manifest.extra == {"owner": "me", "$schema": "https://example.org/s.json"}
    assert first.extra == {"fallbackURLs": ["x"]}
    assert first.minimal is not None
    assert first.minimal.extra == {"Size": 3}
    assert second.extra == {"fallbackURLs": [], "sha256": "y"}
    (warning,) = parsed.warnings
    assert warning == (
        "unknown keys, kept but not used: 'owner' (top level), "
        "'fallbackURLs' (asset 'base' and 1 more; did you mean 'fallbackUrls'?), "
        "'minimal.Size' (asset 'base'; did you mean 'size'?), 'sha256' (asset 'two')"
    )


@pytest.mark.shows("U1")
def test_the_warning_stays_short() -> None:
    """A file full of unknown keys gives five of them and a number, without control characters."""
    (warning,) = parse(entry(**{f"key\x1b{n}": n for n in range(9)})).warnings
    assert warning.count("asset 'base'") == 5
    assert warning.endswith(", and 4 more")
    assert can_be_shown(warning)


@pytest.mark.parametrize("key", ["local_path", "model_config", "__class__", "model_fields", "_by_id", "self"])
def test_an_unknown_key_may_have_any_name(key: str) -> None:
    """No name in a file means anything to the code that reads it."""
    assert parse(entry(**{key: 1})).manifest.assets[0].extra == {key: 1}


# --- Values ---------------------------------------------------------------------------------------------------


def asset(asset_id: str, **fields: Any) -> Asset:
    """Return an asset of this id, with ``fields`` set."""
    return Asset(id=asset_id, url=URL, local_path=f"models/{asset_id}", **fields)


@pytest.mark.shows("M14")
def test_urls_are_tried_in_order_and_once() -> None:
    """The primary address is first, and no address is there twice."""
    assert asset("a", fallback_urls=("http://b/", URL, "http://c/", "http://b/")).urls == (
        URL,
        "http://b/",
        "http://c/",
    )


def test_a_stand_in_lies_apart_from_the_full_file() -> None:
    """A stand-in has its own content, addresses and place, so it can never be taken for the full file."""
    full = asset(
        "a", checksum=CHECKSUM, size=300, tags=("t",), minimal=StandIn("http://t/", NOTHING, 0, ("http://u/",))
    )
    small = full.stand_in()
    assert (small.id, small.local_path, small.urls) == ("a", "minimal/models/a", ("http://t/", "http://u/"))
    assert (small.checksum, small.size, small.minimal, small.is_stand_in) == (NOTHING, 0, None, True)
    assert small.tags == full.tags
    assert small.stand_in() is small
    assert asset("b").stand_in() == asset("b")
    assert not asset("b").stand_in().is_stand_in


def test_values_can_be_hashed_copied_and_pickled() -> None:
    """Assets and manifests are plain values."""
    manifest = parse(entry(metadata={"a": [1]}, note="x", minimal={"url": URL})).manifest
    assert hash(manifest) == hash(copy.deepcopy(manifest))
    assert pickle.loads(pickle.dumps(manifest)) == manifest
    assert pickle.loads(pickle.dumps(manifest)).get("base") == manifest.get("base")


TINY = StandIn("http://h/tiny")
MANIFEST = Manifest(
    assets=(
        asset("alpha", required=True, tags=("model", "audio")),
        asset("beta", tags=("essential", "model"), minimal=TINY),
        asset("gamma", required=True, minimal=TINY),
        asset("delta", tags=("audio",)),
    )
)


def test_an_unknown_id_suggests_the_nearest() -> None:
    """Whoever mistypes an id is told the ids that look like it, three at most."""
    assert MANIFEST.get("beta").id == "beta"
    with pytest.raises(UnknownAsset) as caught:
        MANIFEST.get("gama")
    assert caught.value.suggestions[0] == "gamma"
    with pytest.raises(UnknownAsset) as caught:
        MANIFEST.get("zzz")
    assert caught.value.suggestions == ()
    many = Manifest(assets=tuple(asset(f"model-{n}") for n in range(9)))
    with pytest.raises(UnknownAsset) as caught:
        many.get("model")
    assert len(caught.value.suggestions) == 3


@pytest.mark.parametrize(
    ("choice", "chosen"),
    [
        ({}, "alpha gamma"),
        ({"all": True}, "alpha beta gamma delta"),
        ({"all": True, "ids": ["beta"], "tags": ["audio"]}, "alpha beta gamma delta"),
        ({"ids": ["delta", "beta", "delta"]}, "beta delta"),
        ({"tags": ["audio"]}, "alpha delta"),
        ({"tags": ["audio", "essential"]}, "alpha beta delta"),
        ({"tags": ["nothing"]}, ""),
        ({"ids": ["gamma"], "tags": ["audio"]}, "alpha gamma delta"),
        ({"ids": ["alpha"], "tags": ["audio"]}, "alpha delta"),
        ({"minimal": True}, "beta*"),
        ({"minimal": True, "all": True}, "alpha beta* gamma* delta"),
        ({"minimal": True, "ids": ["alpha", "gamma"]}, "alpha gamma*"),
        ({"minimal": True, "tags": ["model"]}, "alpha beta*"),
    ],
)
def test_selects_assets(choice: dict[str, Any], chosen: str) -> None:
    """Ids and tags add up, in the manifest's order and once each; a * marks a stand-in."""
    selected = MANIFEST.select(**choice)
    assert " ".join(a.id + "*" * a.is_stand_in for a in selected) == chosen


def test_minimal_takes_the_required_where_none_is_essential() -> None:
    """Without any tag `essential`, --minimal means the required assets, in their stand-ins."""
    manifest = Manifest(assets=tuple(a for a in MANIFEST.assets if a.id != "beta"))
    assert [(a.id, a.is_stand_in) for a in manifest.select(minimal=True)] == [("alpha", False), ("gamma", True)]


@pytest.mark.parametrize("choice", [{"ids": ["alpha", "nope"]}, {"ids": ["nope"], "all": True}])
def test_an_unknown_id_is_never_passed_over(choice: dict[str, Any]) -> None:
    """A choice with an unknown id chooses nothing."""
    with pytest.raises(UnknownAsset):
        MANIFEST.select(**choice)


def test_tells_which_tags_no_asset_has() -> None:
    """A mistyped tag chooses nothing by itself, so the caller can ask."""
    assert MANIFEST.unknown_tags(["audio", "nope", "model", "nah", "nope"]) == ("nope", "nah")


# --- Hostile files --------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(st.characters(codec=None)),  # with lone surrogates
        st.sampled_from([URL, "models/a", CHECKSUM.bare, "base", "\ud800", 2**63, 10**25]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(st.characters(codec=None), max_size=8), inner, max_size=4),
    ),
    max_leaves=12,
)
entries = st.one_of(
    json_values, st.dictionaries(st.sampled_from([*NEEDED_KEYS, *OPTIONAL_KEYS, "Url", "\ud800"]), json_values)
)
valid_entries = st.builds(
    lambda keys, n: entry(**{**keys, "id": f"id-{n}", "localPath": f"p/{n}", "minimal": None}),
    st.dictionaries(st.sampled_from([*NEEDED_KEYS, *OPTIONAL_KEYS]), json_values, max_size=2),
    st.integers(0, 3),
)
files = st.one_of(
    json_values,
    st.builds(
        lambda assets, top: {**top, "assets": assets},
        st.lists(entries | valid_entries, max_size=5),
        st.dictionaries(st.sampled_from(["version", "updated", "$schema", "x"]), json_values),
    ),
)


def expect_manifest_or_error(data: bytes) -> None:
    """Parse ``data``; whatever it is, the outcome is a manifest or a `ManifestError` that can be shown."""
    found: list[str] = []
    try:
        manifest = parse_manifest(data, "assets.json").manifest
    except ManifestError as error:
        found = [str(problem) for problem in error.problems]
    else:
        kept = [manifest.extra, *([a.extra, a.metadata] for a in manifest.assets)]
        assert json.dumps(kept, ensure_ascii=False, allow_nan=False).encode()
        return
    assert found
    assert all(can_be_shown(line) for line in found)


@given(st.binary(max_size=400))
@pytest.mark.shows("M7", "S11")
def test_any_bytes_are_a_manifest_or_a_manifest_error(data: bytes) -> None:
    """No bytes make the parser raise anything else."""
    expect_manifest_or_error(data)


@given(st.text(st.sampled_from('{}[]",:\\u0d8 \n1eE-.NaInfity'), max_size=80))
@pytest.mark.shows("M7")
def test_anything_like_json_is_a_manifest_or_a_manifest_error(text: str) -> None:
    """No near-JSON makes the parser raise anything else."""
    expect_manifest_or_error(text.encode())


@given(files)
@pytest.mark.shows("M7", "S11")
def test_any_json_is_a_manifest_or_a_manifest_error(value: object) -> None:
    """No JSON value makes the parser raise anything else, and what is accepted can be written again."""
    expect_manifest_or_error(json.dumps(value).encode())


@pytest.mark.shows("M7")
def test_ten_thousand_assets_are_read_at_once() -> None:
    """A large manifest costs a fraction of a second (the bound is loose, for busy machines)."""
    data = json.dumps(
        {
            "assets": [
                entry(
                    id=f"model-{n}",
                    localPath=f"models/{n}/weights.bin",
                    url=f"https://models.example.org/{n}.bin",
                    checksum=Checksum.of(str(n).encode()).bare,
                    size=n + 1,
                    tags=["model"],
                )
                for n in range(10_000)
            ]
        }
    ).encode()
    start = time.process_time()
    assert len(parse_manifest(data, "assets.json").manifest.assets) == 10_000
    assert time.process_time() - start < 3


# --- The short cut for what is plainly right ------------------------------------------------------------------

PLAIN: dict[str, list[Any]] = {
    "id": ["base", "a b", "é"],
    "url": [URL, "HTTPS://h.example/", "http://[::1]:80/x?y#z"],
    "localPath": ["models/a.zip", "e\u0301", "a b/c"],
    "name": ["Base", "", None],
    "description": ["", "A model", None],
    "fallbackUrls": [[], [URL, URL], [URL] * 100, None],
    "checksum": [CHECKSUM.bare, f"SHA256:{CHECKSUM.hexdigest.upper()}", str(Checksum.of(b"x", "blake2b")), None],
    "size": [0, 1, 2**63 - 1, None],
    "version": ["1.0", "", None],
    "required": [True, False, None],
    "extract": [True, False, None],
    "tags": [[], ["a", "b", "a"], None],
    "metadata": [{}, {"a": [1, None, {"b": 2.5}]}, None],
    "minimal": [None, {"url": URL}, {"url": URL, "checksum": None, "size": 3, "fallbackUrls": [URL]}],
}
ODD: dict[str, list[Any]] = {
    "id": [5, None, "", "-a", "a/b", "\u00a0a", "\ud800", ["base"]],
    "url": [3, None, "", "ftp://h/", "https://a b/", "https://a@b@c/", "https://h/" + "x" * 9000],
    "localPath": [1, None, "", "../x", "/x", "minimal/x", "a\\b", "con"],
    "name": [1, True, []],
    "description": [1, {}],
    "fallbackUrls": [URL, [1], [None], ["x"], [URL] * 101, {}],
    "checksum": [1, "", "abc", "md5:" + "0" * 32, [], NOTHING.bare],
    "size": [-1, 2**63, True, 1.0, "1", 10**25, float("nan")],
    "version": [1, 2.5, True, {}],
    "required": [0, 1, "yes", []],
    "extract": [0, 1, "yes"],
    "tags": ["a", [""], [None], ["\u202e"], {"a": 1}],
    "metadata": [[], "x", {"a": float("inf")}, {"\ud800": 1}],
    "minimal": ["x", [], {}, {"url": None}, {"url": URL, "x": 1}, {"url": URL, "size": -1}, {"url": URL, "size": 0}],
    "unknown": [1],
}
PLAIN_HEADS: dict[str, list[Any]] = {
    "version": ["1.0", None],
    "updated": ["now", None],
    "$schema": ["https://example.org/s.json", 5],
}
ODD_HEADS: dict[str, list[Any]] = {
    "version": [1, True, {}],
    "updated": [1, []],
    "$schema": [None],
    "owner": ["me"],
    "assets": [1, {}],
}


def some_of(values: dict[str, list[Any]], max_size: int | None = None) -> st.SearchStrategy[dict[str, Any]]:
    """A few of these keys, each with one of its values."""
    pairs = st.sampled_from(sorted(values)).flatmap(lambda key: st.tuples(st.just(key), st.sampled_from(values[key])))
    return st.lists(pairs, unique_by=lambda pair: pair[0], max_size=max_size).map(dict)


plain_entries = some_of(PLAIN).map(lambda keys: entry(**keys))
nearly_plain_entries = st.builds(lambda plain, odd: {**plain, **odd}, plain_entries, some_of(ODD, max_size=2))
nearly_plain_files = st.builds(
    lambda assets, plain, odd: {"assets": assets, **plain, **odd},
    st.lists(nearly_plain_entries, max_size=2),
    some_of(PLAIN_HEADS),
    some_of(ODD_HEADS, max_size=1),
)


def outcome(data: bytes) -> ParsedManifest | list[str]:
    """The manifest and its warnings, or its problems, a line each."""
    try:
        return parse_manifest(data, "assets.json")
    except ManifestError as error:
        return [str(problem) for problem in error.problems]


def expect_same_without_short_cut(value: object) -> None:
    """The file is accepted with the same manifest, or refused for the same reasons, when the models judge all of it."""
    data = json.dumps(value).encode()
    with (
        mock.patch.object(manifest_parser, "read_plain_asset", return_value=None),
        mock.patch.object(manifest_parser, "read_plain_head", return_value=None),
    ):
        by_models = outcome(data)
    assert outcome(data) == by_models


@pytest.mark.parametrize("key", ODD)
@pytest.mark.shows("M7")
def test_the_short_cut_changes_no_outcome_for_one_key(key: str) -> None:
    """Each key with each value, right or wrong, has the same outcome with and without the short cut."""
    for value in (*PLAIN.get(key, ()), *ODD[key]):
        expect_same_without_short_cut({"assets": [entry(**{key: value})]})
        expect_same_without_short_cut({"assets": [entry(minimal={"url": URL, key: value})]})


@given(nearly_plain_files | files)
@pytest.mark.shows("M7")
def test_the_short_cut_changes_no_outcome(value: object) -> None:
    """With and without it the same files are accepted, with the same manifest, or refused for the same reasons."""
    expect_same_without_short_cut(value)


@given(plain_entries, some_of(PLAIN_HEADS))
def test_what_is_plainly_right_takes_the_short_cut(listed: dict[str, Any], head: dict[str, Any]) -> None:
    """Every key of the format, with null or any common value, is read without the models."""
    assert read_plain_asset(listed) is not None
    assert read_plain_head({"assets": [], **head}) is not None


# --- The JSON Schema ------------------------------------------------------------------------------------------


def test_the_schema_describes_every_key() -> None:
    """The schema names the keys as the file has them, describes each, and lets unknown ones through."""
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
    """Judge by the part of JSON Schema that our schema uses."""
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


@pytest.mark.parametrize(
    "keys",
    [
        {"size": -1}, {"size": "12"}, {"size": True}, {"checksum": "abc"}, {"url": "ftp://h/"}, {"id": ""},
        {"required": "yes"}, {"tags": "x"}, {"minimal": {}}, {"fallbackUrls": [URL] * 101}, {"version": True},
    ],
)  # fmt: skip
def test_the_schema_refuses_the_plain_mistakes(keys: dict[str, Any]) -> None:
    """Wrong types, ranges and forms are seen in the editor already."""
    schema: dict[str, Any] = manifest_json_schema()
    assert fits({"assets": [entry()]}, schema, schema)
    assert not fits({"assets": [entry(**keys)]}, schema, schema)
    assert problems(entry(**keys))
