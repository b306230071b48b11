"""Errors: each says what happened, to what, and why, and none tells a secret."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core import errors
from grym_fetch.core.errors import GrymFetchError, OriginFailure, TransferError

SECRET = "hunter2"
URL = f"https://login:{SECRET}@h.example:8443/a/b.bin?X-Sig={SECRET}&b=1#{SECRET}"
SHOWN = "https://h.example:8443/a/b.bin"


def every_subclass(base: type[GrymFetchError]) -> Iterator[type[GrymFetchError]]:
    """A class and all below it."""
    yield base
    for below in base.__subclasses__():
        yield from every_subclass(below)


MAKERS: dict[str, Callable[[str], GrymFetchError]] = {
    "TransferError": lambda url: errors.TransferError(url, "failed"),
    "ConnectFailed": lambda url: errors.ConnectFailed(url, "refused"),
    "CertificateRejected": lambda url: errors.CertificateRejected(url, "expired"),
    "ConnectionLost": lambda url: errors.ConnectionLost(url, "ended early"),
    "Stalled": lambda url: errors.Stalled(url, "nothing for 30 s"),
    "BadStatus": lambda url: errors.BadStatus(url, 404, "status 404: not found"),
    "Throttled": lambda url: errors.Throttled(url, 429, "status 429", 5.0),
    "BadResponse": lambda url: errors.BadResponse(url, "an invalid Content-Length"),
    "RangeRefused": lambda url: errors.RangeRefused(url, "another range"),
    "ContentChanged": lambda url: errors.ContentChanged(url, "changed"),
    "TooManyRedirects": lambda url: errors.TooManyRedirects(url, "a loop"),
    "PolicyRefused": lambda url: errors.PolicyRefused(url, "down to http"),
    "LengthMismatch": lambda url: errors.LengthMismatch(url, 1000, 999, "a web page?"),
}


def everything_shown(error: BaseException) -> str:
    """All that an error could ever print."""
    text = "".join(traceback.format_exception(error))
    return f"{error} {error!r} {error.args} {vars(error)} {text}"


def test_every_error_with_an_address_is_here() -> None:
    """These tests know every transfer error of the package's core."""
    known = {c.__name__ for c in every_subclass(TransferError) if c.__module__ == errors.__name__}
    assert known <= MAKERS.keys()


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_no_secret_of_an_address_is_in_an_error(make: Callable[[str], GrymFetchError]) -> None:
    """Neither text, repr, arguments nor attributes of an error hold userinfo, query or fragment."""
    error = make(URL)
    assert SECRET not in everything_shown(error)
    assert "login" not in everything_shown(error)
    assert getattr(error, "url") == SHOWN  # noqa: B009 - the base class has none


@pytest.mark.parametrize("make", [MAKERS[name] for name in MAKERS if name != "LengthMismatch"])
def test_a_transfer_error_says_why_and_where(make: Callable[[str], GrymFetchError]) -> None:
    """A transfer error's text has the reason and the address."""
    error = make(URL)
    assert isinstance(error, TransferError)
    assert str(error) == f"{error.reason} ({SHOWN})"


@given(st.text(max_size=40))
def test_any_address_makes_an_error(url: str) -> None:
    """An error about an address can always be made, however wrong the address is."""
    assert "\n" not in str(errors.ConnectFailed(url, "refused"))


def test_statuses_are_kept() -> None:
    """An answer's status and the wait it asks for can be read from the error."""
    error = errors.Throttled(URL, 503, "status 503", 7.5)
    assert (error.status, error.retry_after, error.reason) == (503, 7.5, "status 503")


FAILURES = (
    OriginFailure(SHOWN, errors.BadStatus(URL, 404, "status 404: not found")),
    OriginFailure("https://mirror.example/b.bin", errors.LengthMismatch(URL, 1000, 999)),
)


def test_exhausted_mirrors_name_each_reason() -> None:
    """The end of all origins names the asset and every origin's reason, each on its own line."""
    error = errors.MirrorsExhausted("base-model", FAILURES, "What has arrived is kept.")
    assert str(error).splitlines() == [
        "base-model: could not be fetched from any of its 2 origins",
        f"  {SHOWN}: status 404: not found",
        "  https://mirror.example/b.bin: size mismatch: the manifest says 1000 bytes, the server 999",
        "  What has arrived is kept.",
    ]
    assert (error.asset_id, error.failures) == ("base-model", FAILURES)
    first = str(errors.MirrorsExhausted("a", FAILURES[:1])).splitlines()[0]
    assert first.startswith("a: could not be fetched: status 404")


def test_a_digest_mismatch_names_both() -> None:
    """A wrong checksum is shown beside the right one, in full, with each origin's reason and what to do."""
    error = errors.DigestMismatch("base-model", "sha256:" + "a" * 64, "sha256:" + "b" * 64, FAILURES, "Use a mirror.")
    lines = str(error).splitlines()
    assert lines[:3] == [
        "base-model: checksum mismatch",
        "  expected sha256:" + "a" * 64,
        "  got      sha256:" + "b" * 64,
    ]
    assert lines[3].startswith(f"  {SHOWN}: ")
    assert lines[-1] == "  Use a mirror."
    assert len(lines) == 6


def test_a_length_mismatch_names_both() -> None:
    """A wrong length is shown beside the right one, with a hint where there is one."""
    error = errors.LengthMismatch(URL, 1000, 999, "it sent a web page")
    assert str(error) == "size mismatch: the manifest says 1000 bytes, the server 999; it sent a web page"
    assert (error.expected, error.actual) == (1000, 999)


def test_an_origin_is_named_by_its_host() -> None:
    """For short messages an origin is its host and port."""
    assert FAILURES[0].host == "h.example:8443"
    assert OriginFailure("<unreadable address>", FAILURES[0].error).host == "<unreadable address>"


@pytest.mark.parametrize(
    "error",
    [
        FAILURES[0].error,
        errors.DiskFull("/data/models", "no space left"),
        errors.MirrorsExhausted("model-b", FAILURES),
        errors.DigestMismatch("model-b", "a", "b"),
        errors.AssetMissing("model-b", "not on disk"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_failed_sync_names_every_asset(error: GrymFetchError) -> None:
    """What a sync raises names each asset that failed and why, whatever kind of error it was."""
    failed = errors.SyncFailed({"model-a": errors.AssetMissing("model-a", "not on disk"), "model-b": error})
    text = str(failed)
    assert text.splitlines()[0] == "2 assets failed"
    assert "model-a" in text
    assert "model-b" in text
    assert str(error).splitlines()[-1] in text
    assert failed.failures["model-b"] is error
    assert text.count("model-b") == max(1, str(error).count("model-b"))


def test_one_failed_asset_is_singular() -> None:
    """One asset is counted as one."""
    assert str(errors.SyncFailed({"a": errors.AssetMissing("a", "x")})).splitlines() == ["1 asset failed", "a: x"]


def test_an_unknown_asset_suggests() -> None:
    """An id that is not there is answered with the nearest ones, and can be caught as a failed look-up."""
    error = errors.UnknownAsset("modle", ["model", "mode"])
    assert "no asset 'modle'" in str(error)
    assert "Did you mean model, mode?" in str(error)
    assert isinstance(error, LookupError)
    assert "mean" not in str(errors.UnknownAsset("x"))


def test_a_manifest_error_has_every_problem() -> None:
    """A manifest's problems are told all at once, each on its own line with its place."""
    problems = [errors.Problem("assets[0]", "url", "is missing"), errors.Problem("top", "", "is no object")]
    error = errors.ManifestError("assets.json", problems)
    assert str(error).splitlines() == [
        "assets.json: 2 problems; nothing was downloaded",
        "  assets[0]: url: is missing",
        "  top: is no object",
    ]
    assert str(errors.ManifestError("m", problems[:1])).startswith("m: 1 problem;")


def test_an_unpinned_asset_says_what_to_do() -> None:
    """Without a checksum the way out is named, with the asset."""
    text = str(errors.UnpinnedAsset("model-a"))
    assert text.startswith("model-a: ")
    assert "grym-fetch pin model-a" in text


@pytest.mark.parametrize("kind", [errors.DiskFull, errors.NotWritable, errors.UnsafePath, errors.Locked])
def test_a_storage_error_says_where(kind: type[errors.StorageError]) -> None:
    """What the disk refused is told with its path."""
    error = kind("/data/x", "no space left")
    assert (str(error), error.path, error.reason) == ("no space left (/data/x)", "/data/x", "no space left")


def test_everything_is_ours() -> None:
    """Every error of the module can be caught as one; only the remote side's are transfer errors."""
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, BaseException):
            assert issubclass(value, GrymFetchError)
    assert not issubclass(errors.IntegrityError, TransferError)
    assert not issubclass(errors.StorageError, TransferError)
