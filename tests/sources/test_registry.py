"""Which source an address belongs to: ours and third parties' are found the same way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint

import pytest

from grym_fetch.errors import AssetMissing, SourceFailed, UnknownSource
from grym_fetch.sources import AssetSource, Resolved, SourceFile, Web, registry
from grym_fetch.sources.registry import recognize, resolve, schemes, source_of
from tests.sources.asking import web_over
from tests.support.fakes import ScriptedConnection

FILE = SourceFile("a", "https://shelf.example/a", "shelf:a")
NONSENSE: dict[str, object] = {
    "none": None,
    "a-list": Resolved("shelf", "1", [FILE]),  # type: ignore[arg-type]  # as all of these
    "a-dict": Resolved("shelf", "1", ({"path": "a"},)),  # type: ignore[arg-type]
    "no-name": Resolved(None, "1", (FILE,)),  # type: ignore[arg-type]
    "a-number": Resolved("shelf", 1, (FILE,)),  # type: ignore[arg-type]
    "text-size": Resolved("shelf", "1", (replace(FILE, size="12"),)),  # type: ignore[arg-type]
    "less-than-nothing": Resolved("shelf", "1", (replace(FILE, size=-1),)),
    "text-digest": Resolved("shelf", "1", (replace(FILE, checksum="0" * 64),)),  # type: ignore[arg-type]
    "text-stated": Resolved("shelf", "1", (replace(FILE, stated="md5:1"),)),  # type: ignore[arg-type]
    "no-path": Resolved("shelf", "1", (replace(FILE, path=None),)),  # type: ignore[arg-type]
    "moving-path": Resolved("shelf", "1", (replace(FILE, path="a\u202eb"),)),
    "one-mirror": Resolved("shelf", "1", (replace(FILE, mirrors="https://h.example/"),)),  # type: ignore[arg-type]
    "bad-mirror": Resolved("shelf", "1", (replace(FILE, mirrors=("file:///etc/passwd",)),)),
    "no-url": Resolved("shelf", "1", (replace(FILE, url=None),)),  # type: ignore[arg-type]
}
"""What a plug-in should not return."""


class Shelf:
    """A plug-in that does what its address says."""

    hub = "The Shelf"

    def recognize(self, address: str, environ: Mapping[str, str], /) -> str | None:
        """Recognise its own pages."""
        if "broken" in address:
            raise RuntimeError
        return address.replace("https://shelf.example/", "shelf:") if "shelf.example" in address else None

    async def resolve(self, address: str, web: Web, /) -> Resolved:
        """Return a file, or fail."""
        match address.removeprefix("shelf:"):
            case "bug":
                raise RuntimeError
            case "another-error":
                raise AssetMissing("a", "it is elsewhere")
            case "nonsense":
                raise ValueError("size is not a number")
            case "nothing":
                return Resolved("shelf", "1", ())
            case wrong if wrong in NONSENSE:
                return NONSENSE[wrong]  # type: ignore[return-value]  # that is the point
            case "bad-url":
                return Resolved("shelf", "1", (SourceFile("a", "file:///etc/passwd", "shelf:a"),))
            case name:
                return Resolved("shelf", "1", (SourceFile(name, f"https://shelf.example/{name}", f"shelf:{name}"),))

    async def newest(self, address: str, web: Web, /) -> Resolved:
        """The same as `resolve`."""
        return await self.resolve(address, web)


@pytest.fixture
def _plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two more entry points, one of which leads nowhere."""
    found = {
        **registry._entry_points(),
        "shelf": EntryPoint("shelf", f"{__name__}:Shelf", registry.GROUP),
        "lost": EntryPoint("lost", "grym_fetch.no.such:Module", registry.GROUP),
    }
    monkeypatch.setattr(registry, "_entry_points", lambda: found)
    registry._load.cache_clear()
    yield
    registry._load.cache_clear()


def test_ours_are_entry_points() -> None:
    """Our own sources are registered like everybody else's."""
    assert schemes() == ["doi", "git-lfs", "github", "hf", "modelscope", "oci", "ollama", "zenodo"]
    for address, hub in (("hf://a/b", "Hugging Face"), ("github:a/b", "GitHub"), ("doi:10.5281/zenodo.1", "Zenodo")):
        source: AssetSource = source_of(address)
        assert source.hub == hub


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("hff://a/b", ["hf:"]),
        ("htps://h.example/", ["https:"]),
        ("huggingface:a/b", ["hf:"]),
        ("gh:a/b", ["github:"]),
        ("docker://a/b", ["oci:"]),
        ("abfss://a/b", ["az:"]),
        ("xyzzy:a", []),
    ],
)
def test_an_unknown_scheme(text: str, near: list[str]) -> None:
    """The error names the existing ones, and the nearest."""
    with pytest.raises(UnknownSource, match=r"known are .*hf:.*https:") as caught:
        recognize(text, {})
    assert list(caught.value.suggestions) == near


def test_the_address_of_a_file_on_this_machine() -> None:
    """It is not a source, and the error says how a file is added."""
    with pytest.raises(UnknownSource, match="a file is named by its path"):
        recognize("file:///srv/a.bin", {})


def test_a_scheme_in_capitals() -> None:
    """It is the same one."""
    assert recognize("HF://a/B", {}) == "hf://a/B"


@pytest.mark.usefixtures("_plugins")
async def test_a_source_of_somebody_else() -> None:
    """An entry point is enough: its addresses and its pages are recognised."""
    assert recognize("https://shelf.example/a", {}) == "shelf:a"
    assert recognize("https://h.example/a", {}) is None
    assert recognize("plain/file.bin", {}) is None
    found = await resolve("shelf:a", web_over(ScriptedConnection()))
    assert found.files[0].url == "https://shelf.example/a"


@pytest.mark.shows("C15")
@pytest.mark.usefixtures("_plugins")
@pytest.mark.parametrize(
    ("what", "error", "reason"),
    [
        ("bug", SourceFailed, r"The Shelf: .*RuntimeError"),
        ("another-error", SourceFailed, r"The Shelf: .*AssetMissing"),
        ("nonsense", SourceFailed, r"The Shelf: the answer makes no sense: size is not a number"),
        ("bad-url", SourceFailed, r"The Shelf: .*starts with file"),
        ("nothing", UnknownSource, "no files"),
    ],
)
async def test_a_source_that_fails(what: str, error: type[Exception], reason: str) -> None:
    """Whatever a plug-in raises or returns is a failure of that hub, by name."""
    with pytest.raises(error, match=reason):
        await resolve(f"shelf:{what}", web_over(ScriptedConnection()))


@pytest.mark.shows("C15")
@pytest.mark.usefixtures("_plugins")
@pytest.mark.parametrize("what", NONSENSE)
async def test_a_source_that_returns_nonsense(what: str) -> None:
    """Types are not checked when a plug-in runs, so what it returns is."""
    with pytest.raises(SourceFailed, match=r"The Shelf: the answer makes no sense"):
        await resolve(f"shelf:{what}", web_over(ScriptedConnection()))


@pytest.mark.usefixtures("_plugins")
@pytest.mark.parametrize("hub", [None, "", "a\nb", property(lambda _: 1 / 0)])
async def test_a_source_without_a_proper_name(hub: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is called by its scheme."""
    monkeypatch.setattr(Shelf, "hub", hub)
    with pytest.raises(SourceFailed, match=r"the source shelf: the answer makes no sense"):
        await resolve("shelf:bug", web_over(ScriptedConnection()))


@pytest.mark.usefixtures("_plugins")
@pytest.mark.parametrize("said", [True, 7, "", "no-such:a", b"shelf:a"])
def test_a_source_that_recognizes_nonsense(said: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the address is a plain one."""
    monkeypatch.setattr(Shelf, "recognize", lambda *_: said)
    assert recognize("https://shelf.example/a", {}) is None


@pytest.mark.usefixtures("_plugins")
def test_a_source_that_cannot_be_loaded() -> None:
    """It fails only when it is used, and does not disturb anything before."""
    with pytest.raises(UnknownSource, match="cannot be loaded"):
        source_of("lost:a")
    assert recognize("https://shelf.example/broken", {}) is None
