"""Registries, as Debian's registry and the specification have them; and models of Ollama."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence

import pytest

from grym_fetch.core.digest import Checksum
from grym_fetch.errors import SourceFailed, UnknownSource
from grym_fetch.sources import Resolved
from grym_fetch.sources.oci import Ollama
from grym_fetch.sources.registry import resolve
from grym_fetch.testing import seeded_bytes
from tests.sources.asking import ask, web_over
from tests.support.fakes import Answer, ScriptedConnection, ScriptedResponse
from tests.support.project import Project
from tests.support.registry import DockerRegistry

FILES = {"weights.bin": seeded_bytes(300_000, seed=1), "onnx/config.json": b'{"a": 1}'}
HEX = Checksum.of(b"content").hexdigest


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """One registry for all tests, with one artifact."""
    with DockerRegistry(tmp_path_factory.mktemp("oci")) as running:
        running.push("org/model", "v1", FILES)
        yield running


@pytest.mark.docker_registry
async def test_a_real_registry(registry: DockerRegistry, project: Project) -> None:
    """What was pushed is listed with digests and sizes, and fetched, whole or one file, by tag or by digest."""
    base = f"oci://{registry.host}/org/model"
    found = await ask(f"{base}:v1", {})
    assert {file.path: (file.size, file.checksum) for file in found.files} == {
        name: (len(content), Checksum.of(content)) for name, content in FILES.items()
    }
    assert (found.name, found.is_whole) == ("model", True)
    one = await ask(f"{base}@{found.revision}/weights.bin", {})
    assert [file.source for file in one.files] == [f"{base}@{found.revision}/weights.bin"]
    project.write()
    async with project.manager() as manager:
        added = await manager.add_from_source(f"{base}:v1")
        paths = [await manager.get_asset_path(asset.id) for asset in added]
    assert [path.read_bytes() for path in paths] == list(FILES.values())
    with pytest.raises(UnknownSource) as unknown:
        await ask(f"{base}:v2", {})
    assert f"{base}:v1" in str(unknown.value)
    with pytest.raises(UnknownSource, match=r"no file 'wieghts\.bin'"):
        await ask(f"{base}:v1/wieghts.bin", {})


def manifest(*layers: Mapping[str, object]) -> bytes:
    return json.dumps({"schemaVersion": 2, "config": {}, "layers": layers}).encode()


def layer(kind: str, **more: object) -> dict[str, object]:
    return {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{HEX}", "size": 7, **more}


async def answered(
    address: str, answers: Mapping[str, Sequence[Answer]], environ: Mapping[str, str] | None = None
) -> Resolved:
    """Ask a registry that answers so."""
    return await resolve(
        address, web_over(ScriptedConnection({url: list(of_url) for url, of_url in answers.items()}), environ)
    )


async def test_ollama() -> None:
    """The layers of a model have the names of what they are."""
    body = manifest(layer("model"), layer("license"), layer("license"), layer("params"), layer("template"))
    url = "https://registry.ollama.ai/v2/library/llama3.2/manifests/1b"
    found = await answered("ollama:llama3.2:1b", {url: [ScriptedResponse(200, {}, [body])]})
    assert [file.path for file in found.files] == ["model.gguf", "license", "license-2", "params.json", "template"]
    assert found.files[0].url == f"https://registry.ollama.ai/v2/library/llama3.2/blobs/sha256:{HEX}"
    assert found.files[0].source == "ollama:llama3.2:1b/model.gguf"
    assert found.revision == f"sha256:{hashlib.sha256(body).hexdigest()}"
    assert Ollama().recognize("https://ollama.com/library/llama3.2:1b", {}) == "ollama:llama3.2:1b"
    assert Ollama().recognize("https://ollama.com/search", {}) is None


@pytest.mark.shows("A23")
async def test_a_token_is_fetched_first() -> None:
    """The registry says where; the token goes to the registry alone. The types that are understood are asked for."""
    base = "https://registry.example/v2/org/model"
    challenge = 'Bearer realm="https://registry.example/token",service="r",scope="repository:org/model:pull"'
    realm = "https://registry.example/token?service=r&scope=repository%3Aorg%2Fmodel%3Apull"
    connection = ScriptedConnection(
        {
            f"{base}/manifests/v1": [
                ScriptedResponse(401, {"WWW-Authenticate": challenge}),
                ScriptedResponse(200, {}, [manifest(layer("x"))]),
            ],
            realm: [ScriptedResponse(200, {}, [b'{"token": "for-a-while"}'])],
        }
    )
    found = await resolve("oci://registry.example/org/model:v1", web_over(connection))
    assert found.files[0].checksum == Checksum("sha256", HEX)
    asked = dict(connection.asked[::-1])
    assert connection.asked[-1][1]["Authorization"] == "Bearer for-a-while"
    assert "application/vnd.oci.image.manifest.v1+json" in connection.asked[-1][1]["Accept"]
    assert "Authorization" not in asked[realm]


def index(*platforms: str) -> bytes:
    entries = [
        {"digest": f"sha256:{number:064x}", "platform": dict(zip(("os", "architecture"), each.split("/"), strict=True))}
        for number, each in enumerate(platforms, 1)
    ]
    return json.dumps({"schemaVersion": 2, "manifests": entries}).encode()


async def test_of_an_index_one_is_taken_or_all_are_named() -> None:
    """Linux on amd64, or the only one; else the error has each with its digest."""
    url = "https://r.example/v2/m/manifests/latest"
    body = manifest(layer("x"))
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    entries = [{"digest": digest, "platform": {"os": "linux", "architecture": "amd64"}}]
    both = {
        url: [ScriptedResponse(200, {}, [json.dumps({"manifests": entries}).encode()])],
        f"https://r.example/v2/m/manifests/{digest}": [ScriptedResponse(200, {}, [body])],
    }
    assert len((await answered("oci://r.example/m", both)).files) == 1
    with pytest.raises(UnknownSource, match=f"sha256:{2:064x}"):
        await answered("oci://r.example/m", {url: [ScriptedResponse(200, {}, [index("linux/arm64", "windows/amd64")])]})


async def test_a_manifest_must_be_what_names_it() -> None:
    """By digest, nothing else is taken."""
    digest = f"sha256:{HEX}"
    url = f"https://r.example/v2/m/manifests/{digest}"
    with pytest.raises(SourceFailed, match="does not have the digest that names it"):
        await answered(f"oci://r.example/m@{digest}", {url: [ScriptedResponse(200, {}, [manifest(layer("x"))])]})


@pytest.mark.parametrize(
    "body", [b"[]", b"{}", b'{"layers": [{"digest": "md5:x", "size": 1}]}', b'{"layers": [{"size": 1}]}', b"<html>"]
)
async def test_an_answer_that_makes_no_sense(body: bytes) -> None:
    """It ends as the registry's failure."""
    url = "https://r.example/v2/m/manifests/latest"
    with pytest.raises(SourceFailed, match="registry"):
        await answered("oci://r.example/m", {url: [ScriptedResponse(200, {}, [body])]})


@pytest.mark.parametrize(
    "address",
    ["oci://r.example", "oci://r.example/UPPER", "oci://r.example/m:a b", "oci://me@r.example/m", "ollama:", "ollama:A",
     "oci://r.example/m@sha256:12", "oci://r.example/m:t/%ff"],
)  # fmt: skip
async def test_an_address_that_cannot_be_meant(address: str) -> None:
    """The forms that are understood are named."""
    with pytest.raises(UnknownSource, match=r"allowed: |UTF-8"):
        await answered(address, {})


@pytest.mark.parametrize(("status", "reason"), [(401, "private"), (404, "no such repository or version")])
async def test_what_is_not_there(status: int, reason: str) -> None:
    """A registry does not tell a private repository from none."""
    base = "https://r.example/v2/m"
    gone = {f"{base}/manifests/latest": [ScriptedResponse(status)], f"{base}/tags/list": [ScriptedResponse(404)]}
    with pytest.raises(UnknownSource, match=reason):
        await answered("oci://r.example/m", gone)


@pytest.mark.parametrize(
    ("tags", "near"),
    [(["v1", "latest", 5, "no tag"], ["oci://r.example/m:latest"]), ("latest", []), (5, []), (None, [])],
)
async def test_the_nearest_version(tags: object, near: list[str]) -> None:
    """Of the registry's tags, as far as they are some: nonsense there does not hide what is missing."""
    base = "https://r.example/v2/m"
    listed = ScriptedResponse(200, {}, [json.dumps({"tags": tags}).encode()])
    answers = {f"{base}/manifests/lates": [ScriptedResponse(404)], f"{base}/tags/list": [listed]}
    with pytest.raises(UnknownSource, match="there is no") as caught:
        await answered("oci://r.example/m:lates", answers)
    assert list(caught.value.suggestions) == near
