"""Releases on GitHub, as the documented API returns them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core.digest import Checksum
from grym_fetch.errors import SourceFailed, UnknownSource
from grym_fetch.sources import Resolved
from grym_fetch.sources.github import GitHub, _read
from grym_fetch.sources.registry import resolve
from tests.sources.asking import web_over
from tests.support.fakes import Answer, ScriptedConnection, ScriptedResponse

API = "https://api.github.com"
HEX = Checksum.of(b"content").hexdigest


def asset(name: str, digest: str | None = f"sha256:{HEX}", **more: object) -> dict[str, object]:
    """One asset of a release."""
    url = f"https://github.com/org/tool/releases/download/v2/{name}"
    return {"name": name, "size": 7, "digest": digest, "browser_download_url": url, "state": "uploaded", **more}


RELEASE = {"tag_name": "v2", "assets": [asset("tool.tar.gz"), asset("tool.zip", None), asset("notes.txt")]}


def api(answers: Mapping[str, object]) -> ScriptedConnection:
    """The API: JSON by path, and 404 for paths listed as None."""
    script: dict[str, list[Answer]] = {
        f"{API}{path}": [
            ScriptedResponse(404) if value is None else ScriptedResponse(200, {}, [json.dumps(value).encode()])
        ]
        for path, value in answers.items()
    }
    return ScriptedConnection(script)


async def ask(address: str, answers: Mapping[str, object], *, newest: bool = False) -> Resolved:
    """Ask this API."""
    return await resolve(address, web_over(api(answers)), newest=newest)


async def test_a_release() -> None:
    """All of its assets, with their digests if known, and an address for each."""
    found = await ask("github:org/tool@v2", {"/repos/org/tool/releases/tags/v2": RELEASE})
    assert (found.name, found.revision, found.is_whole) == ("tool", "v2", True)
    assert [(file.path, file.size, file.checksum and file.checksum.hexdigest) for file in found.files] == [
        ("tool.tar.gz", 7, HEX),
        ("tool.zip", 7, None),
        ("notes.txt", 7, HEX),
    ]
    assert found.files[0].source == "github:org/tool@v2/tool.tar.gz"
    assert found.files[0].url == "https://github.com/org/tool/releases/download/v2/tool.tar.gz"


async def test_one_asset_and_its_newest_version() -> None:
    """The tag names one release; the newest version is the asset of the same name in the latest release."""
    old = {"tag_name": "release/1", "assets": [asset("tool.zip")]}
    answers = {"/repos/org/tool/releases/tags/release%2F1": old, "/repos/org/tool/releases/latest": RELEASE}
    found = await ask("github:org/tool@release%2F1/tool.zip", answers)
    assert (found.revision, found.is_whole, found.files[0].source) == (
        "release/1",
        False,
        "github:org/tool@release%2F1/tool.zip",
    )
    newer = await ask(found.files[0].source, answers, newest=True)
    assert (newer.revision, newer.files[0].source) == ("v2", "github:org/tool@v2/tool.zip")
    assert [file.path for file in (await ask("github:org/tool/*.txt", answers)).files] == ["notes.txt"]


LISTS: dict[str, Any] = {
    "/repos/org/tool/releases?per_page=100": [{"tag_name": "v1"}, {"tag_name": "v2"}],
    "/repos/org/tol/releases?per_page=100": None,
    "/users/org/repos?per_page=100": [{"full_name": "org/tool"}, {"full_name": "org/other"}],
    "/repos/org/tool/releases/tags/v22": None,
    "/repos/org/tol/releases/latest": None,
    "/repos/org/tool/releases/latest": RELEASE,
}


@pytest.mark.parametrize(
    ("address", "reason", "near"),
    [
        ("github:org/tool@v22", "no release 'v22'", ["github:org/tool@v2"]),
        ("github:org/tol", "no such repository, or it is private", ["github:org/tool"]),
        ("github:org/tool/tool.tgz", "no file 'tool.tgz'", ["tool.tar.gz"]),
        ("github:org", "allowed: github:OWNER/REPO", []),
        ("github:org/tool@v2/a/b", "allowed: github:OWNER/REPO", []),
        ("github:org/tool@%FF", "UTF-8", []),
    ],
)
async def test_what_is_not_there(address: str, reason: str, near: list[str]) -> None:
    """The message says what is missing, and what is nearest."""
    with pytest.raises(UnknownSource, match=reason) as caught:
        await ask(address, LISTS)
    assert list(caught.value.suggestions)[: len(near)] == near


@pytest.mark.shows("C15")
@pytest.mark.parametrize(
    "release",
    [
        [],
        {"tag_name": "v2"},
        {"tag_name": "v2", "assets": [{**asset("a"), "size": "7"}]},
        {"tag_name": "v2", "assets": [asset("../a")]},
        {"tag_name": "v2", "assets": [asset("a", "sha256:12")]},
        {"tag_name": "v2", "assets": [{**asset("a"), "browser_download_url": "file:///etc/passwd"}]},
    ],
)
async def test_an_answer_that_makes_no_sense(release: object) -> None:
    """The error is GitHub's failure."""
    with pytest.raises(SourceFailed, match="GitHub: the answer makes no sense"):
        await ask("github:org/tool@v2", {"/repos/org/tool/releases/tags/v2": release})


async def test_asked_too_often() -> None:
    """Without a token GitHub allows few requests: the message names the variable for a token."""
    refused = ScriptedResponse(403, {})
    connection = ScriptedConnection({f"{API}/repos/org/tool/releases/latest": [refused]})
    with pytest.raises(SourceFailed, match=r"GitHub: status 403.*GRYM_FETCH_TOKEN_API_GITHUB_COM"):
        await resolve("github:org/tool", web_over(connection, retries=0))


async def test_another_api() -> None:
    """GITHUB_API_URL leads to a private server."""
    url = "https://git.example/api/v3"
    script: dict[str, list[Answer]] = {
        f"{url}/repos/org/tool/releases/latest": [ScriptedResponse(200, {}, [json.dumps(RELEASE).encode()])]
    }
    web = web_over(ScriptedConnection(script), {"GITHUB_API_URL": f"{url}/"})
    assert len((await resolve("github:org/tool", web)).files) == 3


@pytest.mark.parametrize(
    ("page", "address"),
    [
        ("https://github.com/org/tool/releases/tag/v2", "github:org/tool@v2"),
        ("https://github.com/org/tool/releases/tag/a%2Fb?x#y", "github:org/tool@a%2Fb"),
        ("https://github.com/org/tool/releases/latest", "github:org/tool"),
        ("https://github.com/org/tool/releases", "github:org/tool"),
        ("https://github.com/org/tool/releases/download/v2/a", None),
        ("https://github.com/org/tool", None),
        ("https://github.com.example/org/tool/releases", None),
    ],
)
def test_pages(page: str, address: str | None) -> None:
    """The page of a release stands for the release; the plain address of a file stays one."""
    assert GitHub().recognize(page, {}) == address


@given(st.text("aA0/@%*#:.-_ é", max_size=40))
def test_any_text_is_an_address_or_none(text: str) -> None:
    """No text breaks the readers."""
    GitHub().recognize(f"https://github.com/{text}", {})
    with suppress(UnknownSource):
        _read(f"github:{text}")
