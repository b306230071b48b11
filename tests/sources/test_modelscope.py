"""ModelScope, as far as its own client shows what it answers."""

from __future__ import annotations

import json

import pytest

from grym_fetch.core.digest import Checksum
from grym_fetch.errors import SourceFailed, UnknownSource
from grym_fetch.sources import Resolved
from grym_fetch.sources.modelscope import ModelScope
from grym_fetch.sources.registry import resolve
from tests.sources.asking import web_over
from tests.support.fakes import ScriptedConnection, ScriptedResponse

COMMIT = "0123456789" * 4
HEX = Checksum.of(b"content").hexdigest
LIST = "https://modelscope.cn/api/v1/models/org/m/repo/files?Revision=master&Recursive=true"


def entry(path: str, **more: object) -> dict[str, object]:
    """One file in a list."""
    return {"Path": path, "Type": "blob", "Size": 7, "Sha256": HEX, "Revision": COMMIT, **more}


async def ask(address: str, answer: object, *, status: int = 200) -> Resolved:
    """Ask the hub, which has one list."""
    connection = ScriptedConnection({LIST: [ScriptedResponse(status, {}, [json.dumps(answer).encode()])]})
    return await resolve(address, web_over(connection, retries=0))


async def test_a_repository() -> None:
    """Digests, sizes and commits are the hub's; folders are no files; one file can be chosen."""
    listed = {"Code": 200, "Data": {"Files": [{"Path": "a", "Type": "tree"}, entry("a/x y.bin"), entry("z.json")]}}
    found = await ask("modelscope:org/m", listed)
    assert [(file.path, file.size, str(file.checksum)) for file in found.files] == [
        ("a/x y.bin", 7, f"sha256:{HEX}"),
        ("z.json", 7, f"sha256:{HEX}"),
    ]
    assert found.files[0].url == f"https://modelscope.cn/models/org/m/resolve/{COMMIT}/a/x%20y.bin"
    assert found.files[0].source == "modelscope:org/m@master/a/x%20y.bin"
    assert [file.path for file in (await ask("modelscope:org/m/a/x%20y.bin", listed)).files] == ["a/x y.bin"]
    with pytest.raises(UnknownSource, match=r"Nearest: z\.json"):
        await ask("modelscope:org/m/y.json", listed)


@pytest.mark.parametrize(
    ("address", "short"),
    [
        ("https://modelscope.cn/models/org/m", "modelscope:org/m"),
        ("https://www.modelscope.cn/models/org/m/summary", "modelscope:org/m"),
        ("https://modelscope.cn/models/org/m/file/view/v1/a/b.bin?status=1", "modelscope:org/m@v1/a/b.bin"),
        ("https://modelscope.cn/datasets/org/m", None),
        ("https://example.org/models/org/m", None),
    ],
)
def test_pages(address: str, short: str | None) -> None:
    """What people paste from a browser."""
    assert ModelScope().recognize(address, {}) == short


@pytest.mark.parametrize(
    "answer",
    [[], {}, {"Data": {}}, {"Data": {"Files": [entry("a", Sha256="12")]}}, {"Data": {"Files": [entry("a", Size="7")]}},
     {"Data": {"Files": [entry("a", Revision="master")]}}],
)  # fmt: skip
async def test_an_answer_that_makes_no_sense(answer: object) -> None:
    """It ends as this hub's failure."""
    with pytest.raises(SourceFailed, match="ModelScope"):
        await ask("modelscope:org/m", answer)


@pytest.mark.parametrize(("status", "answer"), [(404, {}), (200, {"Code": 10010205001, "Message": "not found"})])
async def test_what_is_not_there(status: int, answer: object) -> None:
    """The hub says so with a status, or with a code."""
    with pytest.raises(UnknownSource, match="no such repository"):
        await ask("modelscope:org/m", answer, status=status)


@pytest.mark.parametrize("address", ["modelscope:m", "modelscope:org/m@", "modelscope:org/m@%ff"])
async def test_an_address_that_cannot_be_meant(address: str) -> None:
    """The forms that are understood are named."""
    with pytest.raises(UnknownSource, match=r"allowed|UTF-8"):
        await ask(address, {})
