"""What a source is given: a hub's page, read strictly."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from grym_fetch.errors import SourceFailed, UnknownSource
from grym_fetch.sources import Page, registry
from tests.sources.asking import web_over
from tests.support.fakes import ScriptedConnection, ScriptedResponse

HERE = "https://hub.example/api/tree?page=1"


@pytest.mark.parametrize(
    ("link", "following"),
    [
        ("", None),
        ('<https://hub.example/api/tree?page=2>; rel="next"', "https://hub.example/api/tree?page=2"),
        ('</api/a>; rel="prev", </api/b>; rel="next"', "https://hub.example/api/b"),
        ("</api/b>; title=x; rel=next", "https://hub.example/api/b"),
        ('</api/a>; rel="last"', None),
        ("rel=next", None),
        ("<" + "x" * 10_000, None),
    ],
)
def test_the_next_page(link: str, following: str | None) -> None:
    """It is the one marked so in the Link field, relative to this page."""
    assert Page(HERE, fields={"link": link}).next_url == following


@pytest.mark.shows("C15", "S9")
@pytest.mark.parametrize("where", ["https://evil.example/x", "http://hub.example/x", "https://hub.example:8443/x"])
def test_a_next_page_elsewhere_is_not_followed(where: str) -> None:
    """A list that continues on another host is not a list."""
    with pytest.raises(ValueError, match="another host"):
        assert Page(HERE, fields={"link": f"<{where}>; rel=next"}).next_url


@pytest.mark.shows("C15", "S11")
@pytest.mark.parametrize("body", [b"", b"<html>", b'{"a": 1, "a": 2}', b"[NaN]", b"[" * 100, b"\xff", b"[1e999]"])
def test_what_is_no_json(body: bytes) -> None:
    """HTML pages, duplicate keys and numbers that are not valid are refused."""
    with pytest.raises(ValueError, match=r".+"):
        Page(HERE, body=body).json()


async def test_the_example_in_the_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """The source shown on the page works exactly as printed, even if the answer makes no sense."""
    page = (Path(__file__).parents[2] / "docs/sources.md").read_text(encoding="utf-8")
    example = re.search(r"^## A source of your own\n.*?^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert example is not None
    assert len(example[1].splitlines()) <= 40
    names: dict[str, Any] = {}
    exec(example[1], names)
    monkeypatch.setattr(registry, "schemes", lambda: ["figshare"])
    monkeypatch.setattr(registry, "_load", lambda _: names["Figshare"]())
    file = {
        "name": "a.csv",
        "size": 5,
        "download_url": "https://h.example/1",
        "computed_md5": hashlib.md5(b"hello").hexdigest(),
    }
    good = json.dumps({"version": 2, "files": [file, {**file, "name": "b.csv"}]}).encode()
    url = "https://api.figshare.com/v2/articles/7"
    for body, address, expected in (
        (good, "figshare:7", ["a.csv", "b.csv"]),
        (good, "figshare:7/b.csv", ["b.csv"]),
        (good.replace(b"name", b"title"), "figshare:7", SourceFailed),
        (good, "figshare:7/c.csv", UnknownSource),
    ):
        web = web_over(ScriptedConnection({url: [ScriptedResponse(200, {}, [body])]}))
        if isinstance(expected, list):
            found = await registry.resolve(address, web)
            assert [each.path for each in found.files] == expected
            assert found.files[0].stated is not None
            assert found.files[0].stated.is_of(b"hello")
        else:
            with pytest.raises(expected):
                await registry.resolve(address, web)
