"""From the bytes of a manifest: what is read, what is refused and how the refusal reads."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import ManifestError
from grym_fetch.core.manifest import Asset, Manifest, StandIn
from grym_fetch.core.manifest_parser import MAX_ASSETS, MAX_MANIFEST_BYTES, ParsedManifest, parse_manifest
from grym_fetch.core.strict_json import MAX_DEPTH
from tests.core.manifest_files import (
    CHECKSUM,
    CONTENT,
    NEEDED_KEYS,
    NOTHING,
    OPTIONAL_KEYS,
    URL,
    can_be_shown,
    entry,
    files,
    parse,
    problems,
    problems_of,
)

# --- What is read ---------------------------------------------------------------------------------------------


def test_reads_every_key() -> None:
    """Each key of the user's format ends up in its field."""
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
    """Only id, url and localPath are required; null means the same as leaving a key out."""
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
    """Values right at the limit are allowed."""
    assert parse(entry(**keys)).warnings == ()


# --- What is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "line 1, column 1: is empty; allowed: a JSON object"),
        (b" \n", "is empty; allowed: a JSON object"),
        (b'{"assets": [\n  {"id" "x"}\n]}', "line 2, column 9: is not valid JSON: Expecting ':' delimiter"),
        (b'{"assets": []} x', "line 1, column 16: is not valid JSON: Extra data"),
        (b"[]", "top level: is a list; allowed: an object with the list assets"),
        (b'"x"', "top level: is a string; allowed: an object with the list assets"),
        (b"null", "top level: is null; allowed: an object with the list assets"),
        (b"NaN", "top level: is NaN, which is not a JSON value"),
        (b"{}", "top level: assets: is missing; needed: a list of assets"),
        (b'{"asset": []}', "top level: assets: is missing; needed: a list of assets (is 'asset' meant?)"),
        (b'{"assets": {}}', "top level: assets: is an object; allowed: a list of assets"),
        (b'{"assets": null}', "top level: assets: is null; allowed: a list of assets"),
        (b'{"assets": [], "assets": []}', "top level: assets: is given more than once"),
        (b'{"assets": [], "version": true}', "top level: version: is true; allowed: a string or a number"),
        (b'{"assets": [], "updated": 5}', "top level: updated: is 5; allowed: a string such as 2025-"),
        (b'{"assets": [], "x": {"a": 1, "\\u0061": 2}}', "top level: x.a: is given more than once"),
        (b'{"assets": [], "x": [0, -Infinity]}', "top level: x[1]: is -Infinity, which is not a JSON value"),
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
    """A file that is not a manifest is refused with the place of the problem, however large, deep or odd it is."""
    found = problems_of(data)
    assert len(found) == 1
    assert problem in found[0]


@pytest.mark.shows("M7")
def test_brackets_in_strings_are_no_depth() -> None:
    """Only real lists and objects count as depth, whatever strings hold."""
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
        ({"url": "ftp://h/f"}, "starts with ftp:; allowed: an http:// or https:// address, or an object in a bucket"),
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
        ({"size": float("nan")}, "size: is NaN, which is not a JSON value"),
        ({"required": "yes"}, "required: is a string; allowed: true or false"),
        ({"required": 1}, "required: is 1; allowed: true or false"),
        ({"source": "no scheme"}, "source: does not begin with a scheme and a colon"),
        ({"source": "https://me:pw@h.example/a"}, "source: has a user or a password"),
        ({"pieces": 7}, "pieces: is 7; allowed: an object with size and sha256"),
        (
            {"size": 9, "pieces": {"size": 1000, "sha256": []}},
            "pieces.size: is 1000; allowed: a whole number of bytes from 16384",
        ),
        ({"size": 9, "pieces": {"size": 16384}}, "pieces.sha256: is missing"),
        ({"size": 9, "pieces": {"size": 16384, "sha256": ["x"]}}, "pieces.sha256[0]: is not the digest of a piece"),
        ({"pieces": {"size": 16384, "sha256": ["ab" * 32]}}, "pieces: needs the size of the asset"),
        (
            {"size": 16385, "pieces": {"size": 16384, "sha256": ["ab" * 32]}},
            "pieces.sha256: has 1 digests; a size of 16385 is 2 pieces of 16384 bytes",
        ),
        ({"size": 0, "pieces": {"size": 16384, "sha256": ["ab" * 32]}}, "pieces.sha256: has 1 digests; a size of 0"),
        ({"source": 7}, "source: is 7; allowed: a short address"),
        ({"tags": "model"}, "tags: is a string; allowed: a list of strings"),
        ({"tags": [None]}, "tags[0]: is null; allowed: a string that is not empty"),
        ({"tags": ["a", ""]}, "tags[1]: is empty; allowed: a string that is not empty"),
        ({"tags": ["a\n"]}, r"tags[0]: has a control or invisible character (\n)"),
        ({"name": 1}, "name: is 1; allowed: a string"),
        ({"description": []}, "description: is a list; allowed: a string"),
        ({"version": {}}, "version: is an object; allowed: a string or a number"),
        ({"metadata": []}, "metadata: is a list; allowed: an object"),
        ({"metadata": {"a": [float("inf")]}}, "asset 'base': metadata.a[0]: is Infinity, which is not a JSON"),
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
    """Each problem names the asset, the key, what is wrong and what is allowed, and is reported once."""
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


@pytest.mark.parametrize("count", [1, 20])
@pytest.mark.parametrize("key", NEEDED_KEYS)
@pytest.mark.shows("M10")
def test_a_key_that_no_asset_has_is_missing_from_each(key: str, count: int) -> None:
    """Also where the list is so long that it is read by columns."""
    assets = [entry(id=f"a{n}", localPath=f"{n}.bin") for n in range(count)]
    for asset in assets:
        del asset[key]
    found = problems(*assets)
    assert len(found) == count
    assert all(f": {key}: is missing; needed:" in each for each in found)
    assert len(problems(*(entry(id=f"a{n}", localPath=f"{n}.bin", minimal={}) for n in range(count)))) == count


@pytest.mark.shows("M10")
def test_ids_are_distinct() -> None:
    """Each repetition of an id is reported by index, since the id is ambiguous."""
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
    """All problems of a file are reported together, in the order of the assets, so they can be fixed in one go."""
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
        "asset 'five': size: is NaN, which is not a JSON value",
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


# --- Unknown keys ---------------------------------------------------------------------------------------------


@pytest.mark.shows("M10")
def test_unknown_keys_are_kept_and_named_in_one_warning() -> None:
    """Keys without a meaning here are kept in place and reported once, with the key that was probably meant."""
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
    """A file full of unknown keys lists five of them and a count, without control characters."""
    (warning,) = parse(entry(**{f"key\x1b{n}": n for n in range(9)})).warnings
    assert warning.count("asset 'base'") == 5
    assert warning.endswith(", and 4 more")
    assert can_be_shown(warning)


@pytest.mark.parametrize("key", ["local_path", "model_config", "__class__", "model_fields", "_by_id", "self"])
def test_an_unknown_key_may_have_any_name(key: str) -> None:
    """No name in a file means anything to the code that reads it, so an unknown key may have any."""
    assert parse(entry(**{key: 1})).manifest.assets[0].extra == {key: 1}


# --- Hostile files --------------------------------------------------------------------------------------------


def expect_manifest_or_error(data: bytes) -> None:
    """Parse ``data``; whatever it is, the outcome is a manifest or a `ManifestError` that is safe to show."""
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
    """Whatever the bytes, the parser raises nothing else."""
    expect_manifest_or_error(data)


@given(st.text(st.sampled_from('{}[]",:\\u0d8 \n1eE-.NaInfity'), max_size=80))
@pytest.mark.shows("M7")
def test_anything_like_json_is_a_manifest_or_a_manifest_error(text: str) -> None:
    """Whatever the near-JSON, the parser raises nothing else."""
    expect_manifest_or_error(text.encode())


@given(files)
@pytest.mark.shows("M7", "S11")
def test_any_json_is_a_manifest_or_a_manifest_error(value: object) -> None:
    """Whatever the JSON value, the parser raises nothing else, and an accepted one can be written again."""
    expect_manifest_or_error(json.dumps(value).encode())


@pytest.mark.shows("M7")
def test_ten_thousand_assets_are_read_at_once() -> None:
    """A large manifest takes a fraction of a second (the bound is loose, for busy machines)."""
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


ODD = st.sampled_from(
    [
        {"id": "b/c"}, {"id": 7}, {"url": "ftp://h/x"}, {"url": None}, {"localPath": "../x"}, {"checksum": "0"},
        {"checksum": 64 * "A"}, {"checksum": "sha512:" + 128 * "0"}, {"checksum": None}, {"size": -1}, {"size": True},
        {"size": 1.0}, {"size": None}, {"required": 1}, {"required": None}, {"tags": ["x", "x"]}, {"tags": ["x", ""]},
        {"tags": "x"}, {"tags": None}, {"fallbackUrls": ["http://h/y"]}, {"fallbackUrls": 101 * ["http://h/y"]},
        {"version": 2}, {"version": "2"}, {"name": ""}, {"name": "n"}, {"minimal": {"url": "http://h/m"}},
        {"minimal": {"url": "m"}}, {"metadata": {"k": 1}}, {"metadata": 1}, {"extract": False}, {"unknown": [1]},
        {"source": "hf://o/r"}, {"source": "x"},
    ]
)  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 19), ODD), max_size=6))
def test_many_assets_are_read_as_each_of_them_alone(changes: list[tuple[int, dict[str, Any]]]) -> None:
    """A long list is read by columns: with the same values and the same problems as a short one."""
    assets: list[dict[str, Any]] = [
        {
            "id": f"a{n}",
            "url": f"https://h.example/{n}",
            "localPath": f"d/{n}.bin",
            "checksum": f"{n:064x}",
            "size": n + 1,
        }
        for n in range(20)
    ]
    for index, change in changes:
        assets[index] |= change

    def read(entries: list[dict[str, Any]]) -> tuple[list[Asset], list[tuple[str, str]]]:
        try:
            return list(parse_manifest(json.dumps({"assets": entries}).encode(), "m").manifest.assets), []
        except ManifestError as error:
            return [], [(problem.key, problem.message) for problem in error.problems]

    alone = [read([entry]) for entry in assets]
    found, problems = read(assets)
    assert problems == [problem for _, each in alone for problem in each]
    if not problems:
        assert found == [asset for each, _ in alone for asset in each]
        assert all(asset.extra == {} or asset.extra == {"unknown": [1]} for asset in found)
