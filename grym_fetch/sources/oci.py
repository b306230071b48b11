"""Registries (``oci://HOST/REPO[(:TAG|@DIGEST)[/FILE or PATTERN]]``) and Ollama (``ollama:NAME[:TAG[/FILE]]``).

Rules: a manifest names each layer by its digest, and so does its address, which therefore never changes. A file is a
layer; its name is its annotation ``org.opencontainers.image.title``, as ORAS writes it, or for Ollama what it is. Of an
index, the manifest for linux/amd64 is taken, unless it has only one. The requests and the token are those of the OCI
Distribution Specification 1.1. A registry on this machine is asked over http, as Docker does.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from yarl import URL

from grym_fetch.core.addresses import is_loopback
from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import SourceFailed, UnknownSource
from grym_fetch.sources.answers import HubAnswer
from grym_fetch.sources.choice import choose_paths, nearest_version, numbered, quoted, unquoted
from grym_fetch.sources.protocol import Page, Resolved, SourceFile, Web

MAX_LAYERS = 10_000
MAX_TAGS = 10_000
OLLAMA = "registry.ollama.ai"
_TITLE = "org.opencontainers.image.title"
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_ACCEPT = ", ".join((*_MANIFESTS, *_INDEXES))
_DIGEST = r"sha(?:256:[0-9a-f]{64}|512:[0-9a-f]{128})"
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_OCI = re.compile(
    rf"oci://(?P<host>[A-Za-z0-9.-]+(?::[0-9]{{1,5}})?|\[[0-9a-f:]+\](?::[0-9]{{1,5}})?)/(?P<repo>{_PART}(?:/{_PART})*)"
    rf"(?:(?::(?P<tag>{_TAG})|@(?P<digest>{_DIGEST}))(?:/(?P<path>.*))?)?"
)
_OLLAMA = re.compile(rf"ollama:(?://)?(?P<repo>{_PART}(?:/{_PART})?)(?::(?P<tag>{_TAG}))?(?:/(?P<path>.*))?")
# A slash may belong to the model's name: `ollama:NAME/FILE` is not an address, `ollama:NAME:TAG/FILE` is.
_ENDINGS = {"model": "model.gguf", "projector": "projector.gguf", "adapter": "adapter.gguf", "params": "params.json"}


@dataclass(frozen=True, slots=True)
class _Artifact:
    """What a short address names. ``path`` stays encoded. ``short`` is the repository's short address."""

    host: str
    repo: str
    reference: str
    path: str
    short: str
    is_ollama: bool = False

    @property
    def base(self) -> str:
        url = URL.build(scheme="https", authority=self.host)
        return f"{'http' if is_loopback(url) else 'https'}://{self.host}/v2/{self.repo}"

    @property
    def versioned(self) -> str:
        joint = "@" if ":" in self.reference else ":"
        return f"{self.short}{joint}{self.reference}"


class Registry:
    """The source ``oci``."""

    hub = "the registry"

    def recognize(self, address: str, environ: Mapping[str, str], /) -> str | None:  # noqa: ARG002 - the Protocol's
        """Return None: a registry has no pages."""
        return None

    async def resolve(self, address: str, web: Web, /) -> Resolved:
        """Return the layers of a manifest."""
        match = _OCI.fullmatch(address)
        if match is None:
            form = "oci://HOST/REPO:TAG/FILE, oci://HOST/REPO@sha256:… or oci://HOST/REPO"
            raise UnknownSource(address, f"is not an address in a registry; allowed: {form}")
        reference = match["digest"] or match["tag"] or "latest"
        short = f"oci://{match['host']}/{match['repo']}"
        place = _Artifact(match["host"], match["repo"], reference, match["path"] or "", short)
        return await _resolve(address, place, web, self.hub)

    async def newest(self, address: str, web: Web, /) -> Resolved:
        """Return the same as `resolve`: a tag moves by itself."""
        return await self.resolve(address, web)


class Ollama:
    """The source ``ollama``."""

    hub = "Ollama"

    def recognize(self, address: str, environ: Mapping[str, str], /) -> str | None:  # noqa: ARG002 - the Protocol's
        """Return the short address for the page of a model."""
        match = re.fullmatch(
            rf"https://(?:www\.)?ollama\.com/(?:library/)?(?P<repo>{_PART}(?:/{_PART})?)(?::(?P<tag>{_TAG}))?/?",
            address,
        )
        if match is None or match["repo"] in _PAGES:
            return None
        return f"ollama:{match['repo']}" + (f":{match['tag']}" if match["tag"] else "")

    async def resolve(self, address: str, web: Web, /) -> Resolved:
        """Return the layers of a model: weights, template, license and so on."""
        match = _OLLAMA.fullmatch(address)
        if match is None:
            form = "ollama:NAME, ollama:NAME:TAG, ollama:USER/NAME:TAG or ollama:NAME:TAG/model.gguf"
            raise UnknownSource(address, f"is not a model of Ollama; allowed: {form}")
        repo = match["repo"] if "/" in match["repo"] else f"library/{match['repo']}"
        place = _Artifact(OLLAMA, repo, match["tag"] or "latest", match["path"] or "", f"ollama:{match['repo']}", True)
        return await _resolve(address, place, web, self.hub)

    async def newest(self, address: str, web: Web, /) -> Resolved:
        """Return the same as `resolve`: a tag moves by itself."""
        return await self.resolve(address, web)


_PAGES = frozenset({"blog", "download", "models", "search", "library", "signin", "docs", "pricing", "public"})
"""Pages that are not of a model."""


async def _resolve(address: str, place: _Artifact, web: Web, hub: str) -> Resolved:
    try:
        unquoted(place.path)
    except ValueError:
        raise UnknownSource(address, "has a % that is not followed by UTF-8") from None
    manifest, digest = await _manifest(address, place, place.reference, web, hub)
    if manifest.has("manifests"):
        of_platform = _chosen(address, manifest)
        manifest, _ = await _manifest(address, place, of_platform, web, hub)
    layers = list(manifest.each("layers", most=MAX_LAYERS))
    names = numbered([_name(layer, place) for layer in layers])
    files = {name: _file(layer, place, name) for layer, name in zip(layers, names, strict=True)}
    chosen = choose_paths(place.path, list(files), address)
    name = place.repo.rpartition("/")[2]
    return Resolved(name, digest, tuple(files[path] for path in chosen.paths), is_whole=chosen.is_whole)


async def _manifest(address: str, place: _Artifact, reference: str, web: Web, hub: str) -> tuple[HubAnswer, str]:
    """A manifest, and its digest."""
    page = await web.get(f"{place.base}/manifests/{reference}", accept=_ACCEPT)
    if page.status != 200:
        raise await _missing(address, place, page, web, hub)
    algorithm, _, wanted = reference.partition(":") if ":" in reference else ("sha256", "", "")
    found = hashlib.new(algorithm, page.body).hexdigest()
    if wanted and found != wanted:
        raise SourceFailed(page.url, hub, f"the manifest does not have the digest that names it ({reference})")
    answer = HubAnswer(page.json())
    if not (answer.has("layers") or answer.has("manifests")):
        raise ValueError("the answer is not a manifest with layers")
    return answer, f"{algorithm}:{found}"


def _chosen(address: str, index: HubAnswer) -> str:
    """The digest of the manifest to take from an index."""
    found: dict[str, str] = {}
    for entry in index.each("manifests", most=MAX_LAYERS):
        platform = entry.inner("platform") if entry.has("platform") else None
        named = f"{platform.text('os')}/{platform.text('architecture')}" if platform is not None else ""
        if named != "unknown/unknown":  # what a build says of itself, and no image
            found.setdefault(named, entry.text("digest", _DIGEST))
    if len(found) == 1:
        return next(iter(found.values()))
    if "linux/amd64" in found:
        return found["linux/amd64"]
    base = address.partition("@")[0]
    raise UnknownSource(
        address, "is an index of several: name one by its digest", [f"{base}@{d}" for d in found.values()]
    )


def _name(layer: HubAnswer, place: _Artifact) -> str:
    media_type = layer.text("mediaType") if layer.has("mediaType") else ""
    name = layer.text("digest", _DIGEST).partition(":")[2][:16]
    if layer.has("annotations") and layer.inner("annotations").has(_TITLE):
        return layer.inner("annotations").text(_TITLE)
    if place.is_ollama and (kind := re.fullmatch(r"application/vnd\.ollama\.image\.([a-z]+)", media_type)):
        return _ENDINGS.get(kind[1], kind[1])
    if media_type.endswith(("+gzip", ".tar.gzip")):
        return f"{name}.tar.gz"
    return f"{name}.tar.zst" if media_type.endswith("+zstd") else name


def _file(layer: HubAnswer, place: _Artifact, name: str) -> SourceFile:
    digest, size = layer.text("digest", _DIGEST), layer.size("size")
    url = f"{place.base}/blobs/{digest}"
    return SourceFile(name, url, f"{place.versioned}/{quoted(name)}", size, Checksum.parse(digest))


async def _missing(address: str, place: _Artifact, page: Page, web: Web, hub: str) -> UnknownSource | SourceFailed:
    if page.status in (401, 403):
        return UnknownSource(address, f"there is no such repository, or it is private: {page.refusal}")
    if page.status != 404:
        return SourceFailed(page.url, hub, page.refusal)
    tags: list[str] = []
    with suppress(SourceFailed, ValueError):
        listed = await web.get(f"{place.base}/tags/list")
        if listed.status == 200:
            found = listed.json()
            named = found.get("tags") if isinstance(found, dict) else None
            named = named if isinstance(named, list) else []
            tags = [tag for tag in named if isinstance(tag, str) and re.fullmatch(_TAG, tag)][:MAX_TAGS]
    if not tags:
        return UnknownSource(address, "there is no such repository or version")
    near = nearest_version(place.reference, tags)
    return UnknownSource(address, f"there is no version {place.reference!r}", [f"{place.short}:{tag}" for tag in near])
