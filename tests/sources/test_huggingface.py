"""Addresses on Hugging Face: what they lead to on an imitation hub, which `huggingface_hub` itself has checked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core.digest import Checksum
from grym_fetch.errors import SourceFailed, UnknownSource
from grym_fetch.net.client import HttpTransport
from grym_fetch.sources.huggingface import MAX_PAGES, HuggingFace
from grym_fetch.sources.registry import resolve
from grym_fetch.testing import seeded_bytes
from tests.sources.asking import ask, web_over
from tests.support.hubs import HubRequest, HuggingFaceHub, Reply, closing_hub, git_blob

FILES = {
    "README.md": b"# A model\n",
    "config.json": b"{}",
    "model.safetensors": seeded_bytes(40_000, seed=1),
    "onnx/model.bin": seeded_bytes(3_000, seed=2),
    "onnx/notes 1.txt": b"notes",
    "empty.txt": b"",
}
TOKEN = "hf_canary_token"


@pytest.fixture
def hub() -> Iterator[HuggingFaceHub]:
    """A hub with a model that has two commits and a dataset."""
    with closing_hub(HuggingFaceHub(token=TOKEN)) as made:
        model = made.add("models/org/model", {"README.md": b"old"})
        model.branches["v1"] = model.branches["main"]
        model.commit(FILES)
        made.add("datasets/org/data", {"train/a.bin": b"data"})
        yield made


def environ(hub: HuggingFaceHub, **more: str) -> dict[str, str]:
    """The variables that lead to the hub."""
    return {"HF_ENDPOINT": hub.url, **more}


async def test_a_repository(hub: HuggingFaceHub) -> None:
    """All of its files, at one commit, with the digest that the hub has for each."""
    found = await ask("hf://org/model", environ(hub))
    commit = hub.repositories["models/org/model"].branches["main"]
    assert (found.name, found.revision, found.is_whole) == ("model", commit, True)
    assert [file.path for file in found.files] == list(FILES)
    by_path = {file.path: file for file in found.files}
    for path, content in FILES.items():
        file = by_path[path]
        assert file.size == len(content)
        if path.endswith((".safetensors", ".bin")):
            assert (file.checksum, file.stated) == (Checksum.of(content), None)
        else:
            assert file.checksum is None
            assert file.stated is not None
            assert file.stated.hexdigest == git_blob(content)
            assert file.stated.is_of(content)
    assert by_path["onnx/notes 1.txt"].url == f"{hub.url}/org/model/resolve/{commit}/onnx/notes%201.txt"
    assert by_path["onnx/notes 1.txt"].source == "hf://org/model@main/onnx/notes%201.txt"
    assert hub.downloads() == []


@pytest.mark.parametrize(
    ("address", "paths", "is_whole"),
    [
        ("hf://org/model/config.json", ["config.json"], False),
        ("hf://models/org/model@main/onnx/model.bin", ["onnx/model.bin"], False),
        ("hf://org/model/onnx", ["onnx/model.bin", "onnx/notes 1.txt"], True),
        ("hf://org/model/*.safetensors", ["model.safetensors"], True),
        ("hf://org/model/**/*.bin", ["onnx/model.bin"], True),
        ("hf://org/model@v1/README.md", ["README.md"], False),
        ("hf://datasets/org/data/train/a.bin", ["train/a.bin"], False),
    ],
)
async def test_parts_of_a_repository(hub: HuggingFaceHub, address: str, paths: list[str], is_whole: bool) -> None:
    """A file, a folder, a pattern, another revision, another kind; each file has an address to ask for it again."""
    found = await ask(address, environ(hub))
    assert ([file.path for file in found.files], found.is_whole) == (paths, is_whole)
    for file in found.files:
        [again] = (await ask(file.source, environ(hub))).files
        assert again == file


async def test_one_file_of_very_many(hub: HuggingFaceHub) -> None:
    """For a named file, the list of its folder is enough."""
    await ask("hf://org/model/onnx/model.bin", environ(hub))
    asked = [(request.path.rpartition("/")[2], request.query.get("recursive")) for request in hub.requests]
    assert asked == [("main", None), ("onnx", "false")]


async def test_a_list_is_read_once_for_all_its_files(hub: HuggingFaceHub) -> None:
    """`outdated` asks for each of them: with thousands, reading the list for each would take minutes."""
    connection = HttpTransport().connection()
    web = web_over(connection, environ(hub), retries=0)
    try:
        first = await resolve("hf://org/model@main/onnx", web)
        for file in first.files:
            [again] = (await resolve(file.source, web, newest=True)).files
            assert again == file
        [one] = (await resolve("hf://org/model@main/onnx/model.bin", web)).files
        [two] = (await resolve("hf://org/model@main/onnx/model.bin", web)).files
        assert one is two
        hub.repositories["models/org/model"].branches["other"] = hub.repositories["models/org/model"].branches["main"]
        [other] = (await resolve("hf://org/model@other/onnx/model.bin", web)).files
    finally:
        await connection.aclose()
    assert other.source == "hf://org/model@other/onnx/model.bin"


async def test_a_list_of_several_pages() -> None:
    """The Link field is followed until there is none."""
    with closing_hub(HuggingFaceHub(page_size=2)) as hub:
        hub.add("models/org/model", FILES)
        found = await ask("hf://org/model", environ(hub))
    assert {file.path for file in found.files} == set(FILES)


async def test_a_renamed_repository(hub: HuggingFaceHub) -> None:
    """It is listed under its new name, so that it is still found if somebody else takes the old one."""
    hub.renamed["models/old/name"] = "models/org/model"
    found = await ask("hf://old/name/config.json", environ(hub))
    assert found.files[0].source == "hf://org/model@main/config.json"
    assert "/org/model/resolve/" in found.files[0].url


@pytest.mark.parametrize(
    ("page", "address"),
    [
        ("/org/model/blob/main/config.json", "hf://org/model@main/config.json"),
        ("/org/model/blob/refs%2Fpr%2F1/a%20b.txt?download=true", "hf://org/model@refs%2Fpr%2F1/a%20b.txt"),
        ("/org/model/tree/main", "hf://org/model@main"),
        ("/org/model/tree/main/onnx", "hf://org/model@main/onnx"),
        ("/datasets/org/data/blob/v2/train/a.bin#L1", "hf://datasets/org/data@v2/train/a.bin"),
        ("/spaces/org/app", "hf://spaces/org/app"),
        ("/org/model", "hf://org/model"),
        ("/org/model/resolve/main/config.json", None),
        ("/org/model/discussions/1", None),
        ("/", None),
    ],
)
def test_pages(page: str, address: str | None) -> None:
    """The address of a page, as copied from a browser, means what the page shows."""
    assert HuggingFace().recognize(f"https://huggingface.co{page}", {}) == address
    mirror = {"HF_ENDPOINT": "https://mirror.example/hf/"}
    assert HuggingFace().recognize(f"https://mirror.example/hf{page}", mirror) == address
    assert HuggingFace().recognize(f"https://huggingface.co.example{page}", {}) is None


@pytest.mark.parametrize(
    ("address", "reason", "near"),
    [
        ("hf://org/modle", "no such repository", ["hf://org/model"]),
        ("hf://org/data", "no such repository", ["hf://datasets/org/data"]),
        ("hf://nobody/nothing", "no such repository", []),
        ("hf://org/model@release-9", "no revision 'release-9'", ["hf://org/model@main", "hf://org/model@v1"]),
        ("hf://org/model@mian", "no revision 'mian'", ["hf://org/model@main"]),
        ("hf://org/model/confg.json", "no file 'confg.json'", ["config.json"]),
        ("hf://org/model/onnx/modell.bin", "no file", ["onnx/model.bin"]),
        ("hf://org/model/*.gguf", "no file matches", []),
        ("hf://", "allowed: hf://ORG/REPO", []),
        ("hf://../../x", "allowed: hf://ORG/REPO", []),
        ("hf://org/model@", "allowed: hf://ORG/REPO", []),
        ("hf://org/model@@main", "allowed: hf://ORG/REPO", []),
        ("hf://dataset/org/data/x", "no such repository", ["hf://datasets/org/data/x"]),
        ("hf://org/model@%FF/x", "UTF-8", []),
    ],
)
async def test_what_is_not_there(hub: HuggingFaceHub, address: str, reason: str, near: list[str]) -> None:
    """The message says what is missing, and what is nearest to it."""
    with pytest.raises(UnknownSource, match=reason) as caught:
        await ask(address, environ(hub))
    assert list(caught.value.suggestions)[: len(near)] == near


@pytest.mark.parametrize("status", [410, 451])
async def test_what_is_withdrawn(hub: HuggingFaceHub, status: int) -> None:
    """There is such a repository: the hub says why nobody gets it."""
    hub.override = lambda _: Reply(status)
    with pytest.raises(SourceFailed, match=f"Hugging Face: status {status}"):
        await ask("hf://org/model", environ(hub))


@pytest.mark.shows("S7")
async def test_private_and_gated(hub: HuggingFaceHub) -> None:
    """Without a token the message says what to do; with one, they are like any other. It goes only to the hub."""
    hub.add("models/org/private", FILES, private=True)
    hub.add("models/org/gated", FILES, gated=True)
    with pytest.raises(UnknownSource, match=r"or it is private: .*no credentials were sent; set HF_TOKEN"):
        await ask("hf://org/private", environ(hub))
    with pytest.raises(SourceFailed, match=r"gated: accept its conditions at .*/org/gated, then set HF_TOKEN") as gated:
        await ask("hf://org/gated", environ(hub))
    assert str(gated.value).count("HF_TOKEN") == 1
    for name in ("private", "gated"):
        assert (await ask(f"hf://org/{name}", environ(hub, HF_TOKEN=TOKEN))).files


COMMIT = "a" * 40
BAD_TREES: dict[str, object] = {
    "an object": {"error": "no"},
    "no paths": [{"type": "file", "oid": COMMIT, "size": 1}],
    "a size in words": [{"type": "file", "oid": COMMIT, "size": "1", "path": "a"}],
    "a short digest": [{"type": "file", "oid": COMMIT, "size": 1, "path": "a", "lfs": {"oid": "12", "size": 1}}],
    "an unknown type": [{"type": "pipe", "oid": COMMIT, "size": 1, "path": "a"}],
    "an invisible path": [{"type": "file", "oid": COMMIT, "size": 1, "path": "a\u202eb"}],
}


@pytest.mark.shows("C15")
@pytest.mark.parametrize("tree", BAD_TREES.values(), ids=BAD_TREES)
async def test_a_tree_that_makes_no_sense(hub: HuggingFaceHub, tree: object) -> None:
    """The error is the hub's failure, and says where."""
    hub.override = lambda request: Reply.json(tree) if "/tree/" in request.path else None
    with pytest.raises(SourceFailed, match=r"Hugging Face: the answer makes no sense: the answer"):
        await ask("hf://org/model", environ(hub))


@pytest.mark.shows("C15")
async def test_a_list_without_end(hub: HuggingFaceHub) -> None:
    """An endless list of pages is abandoned."""

    def more(request: HubRequest) -> Reply | None:
        return Reply.json([], Link=f"<{request.target}>; rel=next") if "/tree/" in request.path else None

    hub.override = more
    with pytest.raises(SourceFailed, match=f"more than {MAX_PAGES} pages"):
        await ask("hf://org/model", environ(hub))


@pytest.mark.shows("C15")
@pytest.mark.parametrize("body", [b"<html>Welcome to this network</html>", b"", b"[" * 10_000, b'{"sha": "main"}'])
async def test_no_hub_at_all(hub: HuggingFaceHub, body: bytes) -> None:
    """A captive portal, or any other server that answers, is not a hub."""
    hub.override = lambda _: Reply(200, body)
    with pytest.raises(SourceFailed, match="Hugging Face: "):
        await ask("hf://org/model", environ(hub))


async def test_a_file_that_only_xet_knows(hub: HuggingFaceHub) -> None:
    """Git has the digest of the pointer, which says nothing about the content: so no digest is stated."""
    entry = {"type": "file", "oid": COMMIT, "size": 5, "path": "a", "xetHash": "b" * 64}
    hub.override = lambda request: Reply.json([entry]) if "/tree/" in request.path else None
    [file] = (await ask("hf://org/model/a", environ(hub))).files
    assert (file.size, file.checksum, file.stated) == (5, None, None)


@given(st.text("aA0/@%*#:.-_ é", max_size=40))
def test_any_text_is_an_address_or_none(text: str) -> None:
    """No text breaks the readers of addresses and pages."""
    from grym_fetch.sources.huggingface import _Place

    HuggingFace().recognize(f"https://huggingface.co/{text}", {})
    try:
        place = _Place.read(f"hf://{text}")
    except UnknownSource:
        return
    assert _Place.read(place.short("a b/c")).short("a b/c") == place.short("a b/c")


@pytest.mark.skipif(
    find_spec("huggingface_hub") is None and not os.environ.get("CI"), reason="huggingface_hub is not installed"
)
async def test_the_library_agrees(hub: HuggingFaceHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that `huggingface_hub` lists and downloads from the same hub match our addresses and digests."""
    import anyio.to_thread

    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    from huggingface_hub import HfApi, RepoFile

    api = HfApi(endpoint=hub.url, token=TOKEN)
    found = await ask("hf://org/model", environ(hub, HF_TOKEN=TOKEN))
    tree = api.list_repo_tree("org/model", recursive=True)
    listed = {each.path: each for each in tree if isinstance(each, RepoFile)}
    assert {file.path for file in found.files} == set(listed)
    assert api.model_info("org/model").sha == found.revision
    folder = await anyio.to_thread.run_sync(
        lambda: Path(api.snapshot_download("org/model", cache_dir=tmp_path, max_workers=1))
    )
    for file in found.files:
        content = (folder / file.path).read_bytes()
        assert len(content) == file.size == listed[file.path].size
        if file.checksum is not None:
            lfs = listed[file.path].lfs
            assert lfs is not None
            assert file.checksum.hexdigest == hashlib.sha256(content).hexdigest() == lfs.sha256
        else:
            assert file.stated is not None
            assert file.stated.is_of(content)
            assert file.stated.hexdigest == listed[file.path].blob_id
