"""Asset files to parse, valid and invalid, and the results of parsing them."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import strategies as st

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import ManifestError
from grym_fetch.core.manifest import Manifest
from grym_fetch.core.manifest_parser import ParsedManifest, parse_manifest
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
    "source",
    "pieces",
]


def entry(**keys: Any) -> dict[str, Any]:
    """Return a valid asset of a file, with ``keys`` set."""
    return {"id": "base", "url": URL, "localPath": "models/base.bin", **keys}


def parse(*entries: Any, **top: Any) -> ParsedManifest[Manifest]:
    """Parse a file with these assets."""
    return parse_manifest(json.dumps({"assets": entries, **top}).encode(), "assets.json")


def problems_of(data: bytes) -> list[str]:
    """Return the problems of a file, one per line."""
    with pytest.raises(ManifestError) as caught:
        parse_manifest(data, "assets.json")
    assert caught.value.source == "assets.json"
    return [str(problem) for problem in caught.value.problems]


def problems(*entries: Any, **top: Any) -> list[str]:
    """Return the problems of a file with these assets, one per line."""
    return problems_of(json.dumps({"assets": entries, **top}).encode())


def can_be_shown(text: str) -> bool:
    """Whether ``text`` is one line without anything that moves the cursor."""
    return safe_text(text, limit=len(text)) == text


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
