"""Errors: each says what happened, to what, and why, and none tells a secret."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st

import grym_fetch
from grym_fetch.core import errors
from grym_fetch.core.errors import GrymFetchError, OriginFailure, TransferError
from tests.support.example_errors import EXAMPLES, every_error

SECRET = "hunter2"
URL = f"https://login:{SECRET}@h.example:8443/a/b.bin?X-Sig={SECRET}&b=1#{SECRET}"
SHOWN = "https://h.example:8443/a/b.bin"


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
    "SourceFailed": lambda url: errors.SourceFailed(url, "The Hub", "the answer is not JSON"),
    "ProxyRefused": lambda url: errors.ProxyRefused(url, "the proxy answered 407"),
    "LengthMismatch": lambda url: errors.LengthMismatch(url, 1000, 999, "a web page?"),
}


def everything_shown(error: BaseException) -> str:
    """Everything an error could print."""
    text = "".join(traceback.format_exception(error))
    return f"{error} {error!r} {error.args} {vars(error)} {text}"


def test_every_error_with_an_address_is_here() -> None:
    """These tests cover every transfer error of the core package."""
    known = {c.__name__ for c in every_error(TransferError) if c.__module__ == errors.__name__}
    assert known <= MAKERS.keys()


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_no_secret_of_an_address_is_in_an_error(make: Callable[[str], GrymFetchError]) -> None:
    """No text, repr, argument or attribute of an error holds userinfo, a query or a fragment."""
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
    """An error about an address can always be created, however malformed the address is."""
    assert "\n" not in str(errors.ConnectFailed(url, "refused"))


def test_statuses_are_kept() -> None:
    """An error keeps the status of an answer and the wait it asks for."""
    error = errors.Throttled(URL, 503, "status 503", 7.5)
    assert (error.status, error.retry_after, error.reason) == (503, 7.5, "status 503")


FAILURES = (
    OriginFailure(SHOWN, errors.BadStatus(URL, 404, "status 404: not found")),
    OriginFailure("https://mirror.example/b.bin", errors.LengthMismatch(URL, 1000, 999)),
)


def test_exhausted_mirrors_name_each_reason() -> None:
    """When all mirrors fail, the error names the asset and each origin's reason, each on its own line."""
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
    """A wrong length is shown beside the right one, with a hint if there is one."""
    error = errors.LengthMismatch(URL, 1000, 999, "it sent a web page")
    assert str(error) == "size mismatch: the manifest says 1000 bytes, the server 999; it sent a web page"
    assert (error.expected, error.actual) == (1000, 999)


def test_an_origin_is_named_by_its_host() -> None:
    """In short messages an origin is shown as its host and port."""
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
    """A failed sync names each failed asset and why it failed, whatever kind of error it was."""
    failed = errors.SyncFailed({"model-a": errors.AssetMissing("model-a", "not on disk"), "model-b": error})
    text = str(failed)
    assert text.splitlines()[0] == "2 assets failed"
    assert "model-a" in text
    assert "model-b" in text
    assert str(error).splitlines()[-1] in text
    assert failed.failures["model-b"] is error
    assert text.count("model-b") == max(1, str(error).count("model-b"))


def test_one_failed_asset_is_singular() -> None:
    """One failed asset is counted in the singular."""
    assert str(errors.SyncFailed({"a": errors.AssetMissing("a", "x")})).splitlines() == ["1 asset failed", "a: x"]


def test_an_unknown_asset_suggests() -> None:
    """An unknown id suggests the nearest ones, and can be caught as a failed look-up."""
    error = errors.UnknownAsset("modle", ["model", "mode"])
    assert "no asset 'modle'" in str(error)
    assert "Did you mean model, mode?" in str(error)
    assert isinstance(error, LookupError)
    assert "mean" not in str(errors.UnknownAsset("x"))


def test_a_manifest_error_has_every_problem() -> None:
    """All problems of a manifest are reported at once, each on its own line with its place."""
    problems = [errors.Problem("assets[0]", "url", "is missing"), errors.Problem("top", "", "is no object")]
    error = errors.ManifestError("assets.json", problems)
    assert str(error).splitlines() == [
        "assets.json cannot be used: 2 problems",
        "  assets[0]: url: is missing",
        "  top: is no object",
    ]
    assert str(errors.ManifestError("m", problems[:1])).startswith("m cannot be used: 1 problem\n")


def test_an_unpinned_asset_says_what_to_do() -> None:
    """For an asset without a checksum, the error says what to do and names the asset."""
    text = str(errors.UnpinnedAsset("model-a"))
    assert text.startswith("model-a: ")
    assert "grym-fetch pin model-a" in text
    assert text.endswith(errors.UnpinnedAsset("model-a").advice)
    assert "--allow-unpinned" not in str(errors.UnpinnedAsset("model-a", is_there=True))


@pytest.mark.parametrize("kind", [errors.DiskFull, errors.NotWritable, errors.UnsafePath, errors.Locked])
def test_a_storage_error_says_where(kind: type[errors.StorageError]) -> None:
    """A storage error names the path that the disk refused."""
    error = kind("/data/x", "no space left")
    assert (str(error), error.path, error.reason) == ("no space left (/data/x)", "/data/x", "no space left")


# --- Kept whole ---------------------------------------------------------------------------------------------


def looks(error: BaseException) -> object:
    """Everything known of an error and of those it holds: type, text, arguments, attributes."""

    def told(value: object) -> object:
        if isinstance(value, BaseException):
            attributes = {name: told(each) for name, each in vars(value).items()}
            return type(value), str(value), told(value.args), attributes
        if isinstance(value, OriginFailure):
            return type(value), value.url, told(value.error)
        if isinstance(value, dict):
            return {key: told(each) for key, each in value.items()}
        return [told(each) for each in value] if isinstance(value, list | tuple) else value

    return told(error)


COPIES: dict[str, Callable[[GrymFetchError], GrymFetchError]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle {protocol}": lambda error, protocol=protocol: pickle.loads(pickle.dumps(error, protocol))  # type: ignore[misc]  # a default binds the number
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
}


OF_OTHER_SYSTEMS = (
    ("system_posix", "system_linux", "system_darwin", "exchange") if sys.platform == "win32" else ("windows",)
)


def test_every_error_has_an_example() -> None:
    """Each class of the hierarchy has an example here, so that no new one escapes the checks below."""
    for module in pkgutil.walk_packages(grym_fetch.__path__, "grym_fetch."):
        is_for_another = any(part in module.name for part in OF_OTHER_SYSTEMS)
        if not is_for_another and not module.name.endswith(("__main__", "plugin")):
            import_module(module.name)
    assert [kind.__name__ for kind in every_error() if kind not in EXAMPLES] == []


@pytest.mark.parametrize("error", EXAMPLES.values(), ids=lambda error: type(error).__name__)
def test_an_error_survives_a_copy(error: GrymFetchError) -> None:
    """A copied or pickled error keeps its type, text, arguments, attributes and notes."""
    error = copy.copy(error)
    error.asset_id = "told later"
    error.add_note("a note")
    for way, copied in ((way, make(error)) for way, make in COPIES.items()):
        assert copied is not error, way
        assert looks(copied) == looks(error), way
        assert "told later" in repr(looks(copied)), way
        if isinstance(error, errors.SyncFailed):
            assert isinstance(copied, errors.SyncFailed)
            assert [*copied.failures.values()] == [*copied.exceptions], way


@pytest.mark.parametrize("error", EXAMPLES.values(), ids=lambda error: type(error).__name__)
def test_an_error_is_made_of_its_arguments(error: GrymFetchError) -> None:
    """`args` are what the class takes, so that an error can be rebuilt and its `repr` reads like the call."""
    assert looks(type(error)(*error.args)) == looks(error)
    assert repr(error).startswith(f"{type(error).__name__}(")


class Careless(errors.StorageError):
    """A third party's error that passes on other arguments than its own."""

    def __init__(self, *, place: str) -> None:
        super().__init__(f"/assets/{place}", "is out of order")
        self.place = place


@pytest.mark.parametrize("way", COPIES)
def test_a_subclass_need_not_know_how_it_is_copied(way: str) -> None:
    """An error survives copying whatever its own class takes: the base class alone says how to rebuild it."""
    error = Careless(place="a")
    copied = COPIES[way](error)
    assert isinstance(copied, Careless)
    assert (str(copied), vars(copied)) == ("is out of order (/assets/a)", vars(error))


def fail(number: int) -> None:
    """Raise an example, in another process."""
    raise list(EXAMPLES.values())[number]


@pytest.fixture(scope="module", params=["Pool", "ProcessPoolExecutor"])
def other_process(request: pytest.FixtureRequest) -> Iterator[Callable[[int], object]]:
    """Calls `fail` in another process, and raises what comes back."""
    fresh = multiprocessing.get_context("spawn")
    if request.param == "Pool":
        with fresh.Pool(1) as pool:
            yield lambda number: pool.apply_async(fail, [number]).get(60)
    else:
        with ProcessPoolExecutor(1, mp_context=fresh) as executor:
            yield lambda number: executor.submit(fail, number).result(60)


def test_an_error_comes_out_of_a_process_pool(other_process: Callable[[int], object]) -> None:
    """An error from a pool's worker is raised here as it was there; its cause is the worker's traceback."""
    for number, error in enumerate(EXAMPLES.values()):
        with pytest.raises(type(error)) as caught:
            other_process(number)
        assert looks(caught.value) == looks(error)
        assert "in fail" in str(caught.value.__cause__)


# --- What a sync raises -------------------------------------------------------------------------------------

FULL, LOST = errors.DiskFull("/assets", "full"), errors.AssetMissing("b", "not on disk")
FAILED = errors.SyncFailed({"a": FULL, "b": LOST, "c": FULL})


def test_a_failed_sync_is_a_group() -> None:
    """A failed sync raises an exception group of the assets' errors, which is also one of our own errors."""
    assert isinstance(FAILED, GrymFetchError)
    assert isinstance(FAILED, ExceptionGroup)
    assert FAILED.exceptions == (FULL, LOST, FULL)
    assert (FAILED.message, FAILED.args) == (str(FAILED), (FAILED.failures,))


def test_a_failed_sync_is_caught_by_kind() -> None:
    """`except*` takes the errors of one kind and leaves the others, and both groups know their assets."""
    taken: list[BaseException] = []

    def sync() -> None:
        try:
            raise FAILED
        except* errors.StorageError as group:
            taken.append(group)

    with pytest.raises(errors.SyncFailed) as left:
        sync()
    (group,) = taken
    assert isinstance(group, errors.SyncFailed)
    assert group.failures == {"a": FULL, "c": FULL}
    assert str(group).splitlines()[0] == "2 assets failed"
    assert left.value.failures == {"b": LOST}


def test_a_failed_sync_is_split() -> None:
    """`split` and `subgroup` keep the ids, the cause and the notes."""
    failed = errors.SyncFailed(FAILED.failures)
    failed.__cause__ = FULL
    failed.add_note("in the night")
    matching, rest = failed.split(errors.DiskFull)
    assert isinstance(matching, errors.SyncFailed)
    assert isinstance(rest, errors.SyncFailed)
    assert (matching.failures, rest.failures) == ({"a": FULL, "c": FULL}, {"b": LOST})
    assert (matching.__cause__, matching.__notes__) == (FULL, ["in the night"])
    assert failed.subgroup(errors.Locked) is None
    assert failed.split(GrymFetchError) == (failed, None)


def test_a_group_of_others_is_no_failed_sync() -> None:
    """A group derived with errors of non-members is a plain one, since nobody knows their assets."""
    derived = FAILED.derive([FULL, errors.Locked("/assets", "busy")])
    assert type(derived) is ExceptionGroup
    assert type(FAILED.derive([FULL])) is errors.SyncFailed


def test_everything_is_ours() -> None:
    """One base class catches every error of the module; only errors of the remote side are transfer errors."""
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, BaseException):
            assert issubclass(value, GrymFetchError)
    assert not issubclass(errors.IntegrityError, TransferError)
    assert not issubclass(errors.StorageError, TransferError)


def test_a_command_in_an_error_can_be_pasted() -> None:
    """Whatever the id contains, the shell reads exactly that."""
    assert "`grym-fetch pin 'a b;c'`" in str(errors.UnpinnedAsset("a b;c"))
    assert "`grym-fetch pin -- -x`" in str(errors.UnpinnedAsset("-x"))


def test_a_manifest_to_be_named() -> None:
    """The option can be pasted, whatever the path."""
    assert str(errors.ForeignManifest("/p/my assets.json", "user 7")).endswith("--config '/p/my assets.json'")
