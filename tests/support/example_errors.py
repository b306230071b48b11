"""One example of every error that this package raises, for tests that go through them all."""

from __future__ import annotations

from collections.abc import Iterator

from grym_fetch.core import errors
from grym_fetch.core.errors import GrymFetchError, OriginFailure, Problem
from grym_fetch.disk.verified import ReplacedMeanwhile
from grym_fetch.repo.clean import FileChanged, NameTaken
from grym_fetch.repo.errors import NotMoved
from grym_fetch.repo.git import GitUnusable

URL = "https://login:hunter2@h.example:8443/a/b.bin?X-Sig=hunter2"
SOURCE = "/project/assets.json"
PROBLEMS = (Problem("assets[0]", "url", "is missing"), Problem("top level", "", "must be an object"))
FAILURES = (
    OriginFailure("https://h.example/b.bin", errors.Throttled(URL, 429, "status 429", 5.0)),
    OriginFailure("https://mirror.example/b.bin", errors.LengthMismatch(URL, 1000, 999)),
)

_ALL: tuple[GrymFetchError, ...] = (
    GrymFetchError("something else"),
    errors.ManifestError(SOURCE, PROBLEMS),
    errors.ManifestMissing(SOURCE),
    errors.ForeignManifest(SOURCE, "user 7"),
    errors.StaleManifest(SOURCE, "has expired"),
    errors.EditRefused(SOURCE, PROBLEMS),
    errors.EntryUnsuited(SOURCE, PROBLEMS),
    errors.ConfigurationError("pyproject.toml", [errors.Problem("paralel", "", "is not a setting")]),
    errors.UnknownAsset("modle", ["model", "mode"]),
    errors.UnknownTag(["typo"], ["audio", "speech"]),
    errors.UnknownSource("hf://org/modle", "there is no such repository", ["hf://org/model"]),
    errors.UnpinnedAsset("model"),
    errors.UnverifiedRead("model"),
    errors.AssetMissing("model", "not on disk"),
    errors.ClusterError("no scheduler answers at tcp://127.0.0.1:8786"),
    errors.RepositoryError("this is a folder"),
    errors.TransferError(URL, "failed"),
    errors.ConnectFailed(URL, "refused"),
    errors.CertificateRejected(URL, "expired"),
    errors.ConnectionLost(URL, "ended early"),
    errors.Stalled(URL, "nothing for 30 s"),
    errors.BadStatus(URL, 404, "status 404: not found"),
    errors.Throttled(URL, 503, "status 503", None),
    errors.BadResponse(URL, "an invalid Content-Length"),
    errors.RangeRefused(URL, "another range"),
    errors.ContentChanged(URL, "changed"),
    errors.TooManyRedirects(URL, "a loop"),
    errors.SourceFailed(URL, "Hugging Face", "the answer is not JSON"),
    errors.PolicyRefused(URL, "down to http"),
    errors.ProxyRefused(URL, "the proxy answered 407"),
    errors.IntegrityError("not what the manifest names"),
    errors.LengthMismatch(URL, 1000, 999, "it sent a web page"),
    errors.DigestMismatch("model", "sha256:aa", "sha256:bb", FAILURES, "Use a mirror."),
    errors.UnsafeArchive("/assets/a.tar", "a path leads out of it"),
    errors.StorageError("/assets", "input/output error"),
    errors.DiskFull("/assets", "no space left"),
    errors.NotWritable("/assets", "read-only"),
    errors.UnsafePath("/assets", "a symlink"),
    errors.Locked("/assets", "another process has it"),
    errors.MirrorsExhausted("model", FAILURES, "What has arrived is kept."),
    errors.SyncFailed({"model": errors.MirrorsExhausted("model", FAILURES), "voice": errors.DiskFull("/a", "full")}),
    ReplacedMeanwhile("/assets/a.bin", "somebody else replaced this file"),
    NotMoved("it is a symlink"),
    FileChanged("it was written meanwhile"),
    NameTaken("another file is there"),
    GitUnusable("git is not installed"),
)
EXAMPLES: dict[type[GrymFetchError], GrymFetchError] = {type(error): error for error in _ALL}


def every_error(base: type[GrymFetchError] = GrymFetchError) -> Iterator[type[GrymFetchError]]:
    """A class of the package and all its subclasses, each once."""
    found = [base]
    for kind in found:
        found += [below for below in kind.__subclasses__() if below not in found]
    return (kind for kind in found if kind.__module__.startswith("grym_fetch."))
