"""Records on Zenodo, as its API returns them: the MD5 is compared, and a SHA-256 is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from grym_fetch import AssetManager, Settings
from grym_fetch.core.digest import Checksum
from grym_fetch.errors import DigestMismatch, SourceFailed, UnknownSource
from grym_fetch.sources import Resolved
from grym_fetch.sources.registry import resolve
from grym_fetch.sources.zenodo import Zenodo
from grym_fetch.testing import seeded_bytes
from grym_fetch.transport import BytesResponse
from tests.sources.asking import web_over
from tests.support.fakes import Answer, ScriptedConnection, ScriptedResponse
from tests.support.project import ImpatientClock, Project

API = "https://zenodo.org/api/records"
CONTENTS = {"data 1.csv": seeded_bytes(5000, seed=1), "model.bin": seeded_bytes(60_000, seed=2)}


def record(number: int | str, names: Mapping[str, bytes] = CONTENTS) -> dict[str, object]:
    """A record."""
    files = [
        {
            "key": name,
            "size": len(content),
            "checksum": f"md5:{hashlib.md5(content).hexdigest()}",
            "links": {"self": f"{API}/{number}/files/{name.replace(' ', '%20')}/content"},
        }
        for name, content in names.items()
    ]
    return {"id": number, "conceptrecid": "100", "files": files}


def answer(value: object) -> ScriptedResponse:
    """JSON."""
    return ScriptedResponse(200, {}, [json.dumps(value).encode()])


async def ask(address: str, script: Mapping[str, list[Answer]], *, newest: bool = False) -> Resolved:
    """Ask a Zenodo with these answers."""
    return await resolve(address, web_over(ScriptedConnection(script), retries=0), newest=newest)


@pytest.mark.parametrize("address", ["zenodo:101", "doi:10.5281/zenodo.101", "DOI:10.5281/ZENODO.101"])
async def test_a_record(address: str) -> None:
    """All of its files, each with its address and the MD5 that it must have."""
    found = await ask(address, {f"{API}/101": [answer(record(101))]})
    assert (found.name, found.revision, found.is_whole) == ("zenodo-101", "101", True)
    for file, (name, content) in zip(found.files, CONTENTS.items(), strict=True):
        assert (file.path, file.size, file.checksum) == (name, len(content), None)
        assert file.stated is not None
        assert file.stated.is_of(content)
    assert found.files[0].source == "zenodo:101/data%201.csv"


async def test_a_concept_and_the_newest_version() -> None:
    """A concept's number leads to its newest record, and a record knows the newest version."""
    script: dict[str, list[Answer]] = {
        f"{API}/100": [ScriptedResponse(301, {"Location": "/api/records/102"})],
        f"{API}/101/versions/latest": [ScriptedResponse(302, {"Location": f"{API}/102"})],
        f"{API}/102": [lambda _: answer(record("102"))],
    }
    found = await ask("zenodo:100/model.bin", script)
    assert (found.revision, found.files[0].source) == ("102", "zenodo:102/model.bin")
    newer = await ask("zenodo:101/model.bin", script, newest=True)
    assert (newer.revision, newer.files[0].source) == ("102", "zenodo:102/model.bin")


@pytest.mark.parametrize(
    ("page", "address"),
    [
        ("https://zenodo.org/records/101", "zenodo:101"),
        ("https://zenodo.org/record/101/", "zenodo:101"),
        ("https://zenodo.org/records/101/files/data%201.csv?download=1", "zenodo:101/data%201.csv"),
        ("https://zenodo.org/records/101/preview/a.csv", "zenodo:101/a.csv"),
        ("https://doi.org/10.5281/zenodo.101", "zenodo:101"),
        ("https://zenodo.org/doi/10.5281/zenodo.101", "zenodo:101"),
        ("https://zenodo.org/api/records/101/files/a/content", None),
        ("https://doi.org/10.1000/182", None),
        ("https://zenodo.org.example/records/101", None),
    ],
)
def test_pages(page: str, address: str | None) -> None:
    """The page of a record or of a file, and a DOI address."""
    assert Zenodo().recognize(page, {}) == address


@pytest.mark.parametrize(
    ("address", "reply", "reason"),
    [
        ("zenodo:101", ScriptedResponse(404), "no such record"),
        ("zenodo:101", ScriptedResponse(410), "deleted"),
        ("zenodo:101", answer({"id": 101}), "no files, or they are restricted"),
        ("zenodo:101/model.bn", answer(record(101)), "no file 'model.bn'.*Nearest: model.bin"),
        ("zenodo:abc", ScriptedResponse(404), "allowed: zenodo:RECORD"),
        ("doi:10.1000/182", ScriptedResponse(404), "only DOIs of Zenodo"),
    ],
)
async def test_what_is_not_there(address: str, reply: ScriptedResponse, reason: str) -> None:
    """The message says what is missing."""
    with pytest.raises(UnknownSource, match=reason):
        await ask(address, {f"{API}/101": [reply]})


@pytest.mark.shows("C15")
@pytest.mark.parametrize(
    "change", [{"id": "x"}, {"files": {}}, {"files": [{"key": "a"}]}, {"files": [{"key": "a", "checksum": "crc:1"}]}]
)
async def test_an_answer_that_makes_no_sense(change: dict[str, object]) -> None:
    """The error is Zenodo's failure; so is a refusal."""
    reply = answer({**record(101), **change})
    for each in (reply, ScriptedResponse(403)):
        with pytest.raises((SourceFailed, UnknownSource), match=r"Zenodo: |no files"):
            await ask("zenodo:101", {f"{API}/101": [each]})


class ZenodoTransport:
    """A transport that serves one record and its files."""

    host = ""

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        self.answers = {f"{API}/101": json.dumps(record(101)).encode()}
        for name, content in contents.items():
            self.answers[f"{API}/101/files/{name.replace(' ', '%20')}/content"] = content

    def connection(self) -> ZenodoTransport:
        """One connection serves everything."""
        return self

    async def get(self, url: str, fields: Mapping[str, str]) -> BytesResponse:
        """Return the complete content."""
        return BytesResponse(200, {}, self.answers[url]) if url in self.answers else BytesResponse(404)

    async def aclose(self) -> None:
        """There is nothing to close."""


@pytest.mark.shows("C14")
async def test_md5_is_compared_and_sha256_is_written(tmp_path: Path) -> None:
    """Bytes with the stated MD5 get a SHA-256 in the manifest; others get nothing."""
    project = Project(tmp_path)
    project.write()
    settings = Settings(retries=0)
    bad = {**CONTENTS, "model.bin": bytes(60_000)}
    for contents in (bad, CONTENTS):
        transport = ZenodoTransport(contents)
        async with AssetManager(
            project.manifest, settings=settings, environ={}, transport=transport, clock=ImpatientClock()
        ) as manager:
            if contents is bad:
                with pytest.raises(DigestMismatch, match="md5:"):
                    await manager.add_from_source("zenodo:101/model.bin")
                assert json.loads(project.manifest.read_bytes())["assets"] == []
                assert not (project.assets / "model.bin").exists()
                continue
            added = await manager.add_from_source("zenodo:101", local_path="data")
    assert [(asset.id, asset.local_path, asset.checksum) for asset in added] == [
        ("zenodo-101-data 1.csv", "data/data 1.csv", Checksum.of(CONTENTS["data 1.csv"])),
        ("zenodo-101-model.bin", "data/model.bin", Checksum.of(CONTENTS["model.bin"])),
    ]
