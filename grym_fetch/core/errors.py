"""The errors of grym-fetch, split by whose fault they are, because that decides what happens next.

Rules: an error keeps what it was made from, as attributes, and builds its text in `__str__`. So it can be copied and
pickled. A ``url`` is kept without userinfo, query and fragment, which may hold secrets.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from grym_fetch.core.nearest import nearest_names
from grym_fetch.core.text import redact_text, redact_url, safe_text

MOST_SHOWN = 200
"""The most problems of an unusable file that an error's text spells out."""


E = TypeVar("E", bound=Exception)


class GrymFetchError(Exception):
    """Base class of this package's own errors. ``asset_id``: which asset it is about, or None."""

    asset_id: str | None = None
    advice: str = ""
    """A hint what to do next, or empty: the end of the text, which a command shows on a line of its own."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Unlike other exceptions, do not call the class with ``args``: each class has its own parameters, and an error
        # that cannot be unpickled hangs `multiprocessing.Pool` and breaks `ProcessPoolExecutor`.
        return _remade, (type(self), self.args), self.__dict__


def _remade(kind: type[E], args: tuple[Any, ...]) -> E:
    """Make an error without calling `__init__`; unpickling then sets its attributes."""
    return kind.__new__(kind, *args)


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem, as in a manifest or a settings file: where it is, and what is wrong, or allowed there."""

    where: str
    key: str
    message: str

    def __str__(self) -> str:
        place = f"{self.where}: {self.key}" if self.key else self.where
        return f"{place}: {self.message}"


class ManifestError(GrymFetchError):
    """The manifest cannot be used. ``problems`` says what is wrong with it."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__(source, self.problems)

    def __str__(self) -> str:
        count = len(self.problems)
        lines = [f"{self.source} cannot be used: {count} problem{'s' if count != 1 else ''}"]
        lines += [f"  {problem}" for problem in self.problems[:MOST_SHOWN]]
        if count > MOST_SHOWN:
            lines.append(f"  … and {count - MOST_SHOWN} more")
        return "\n".join(lines)


class ManifestMissing(ManifestError):
    """There is no manifest where one was looked for."""

    advice = "Name another one with --config, or start one with `grym-fetch add URL`."

    def __init__(self, looked_for: str) -> None:
        super().__init__(looked_for, [Problem("no such file", "", looked_for)])
        self.args = (looked_for,)

    def __str__(self) -> str:
        return f"no manifest: there is no {self.source}. {self.advice}"


class ForeignManifest(ManifestError):
    """The manifest was found rather than named, and belongs to another user. ``owner`` says which."""

    def __init__(self, source: str, owner: str) -> None:
        super().__init__(source, [Problem("file", "", f"belongs to {owner}")])
        self.owner = owner
        self.args = (source, owner)

    def __str__(self) -> str:
        from grym_fetch.core.command_lines import command_line  # errors are imported by every start, and this is rare

        return (
            f"the manifest {self.source} belongs to {self.owner}, who may not be trusted to say what is fetched. "
            f"If you trust it, name it: {command_line('--config', self.source)}"
        )


class StaleManifest(ManifestError):
    """The manifest has expired, or may be older than the one that was used before. ``why`` says which."""

    advice = "Get a newer one, or pass --allow-stale to use it as it is."

    def __init__(self, source: str, why: str) -> None:
        super().__init__(source, [Problem("top level", "", why)])
        self.why = why
        self.args = (source, why)

    def __str__(self) -> str:
        return f"{self.source} {self.why}; nothing was fetched. {self.advice}"


class EditRefused(ManifestError):
    """A change was not made, because it would break the manifest or cannot be made."""

    def __str__(self) -> str:
        return "\n".join([f"{self.source} was not changed", *(f"  {problem}" for problem in self.problems)])


class EntryUnsuited(EditRefused):
    """What was asked cannot be done with an entry: it names no source to ask, or a format cannot express it."""

    def __str__(self) -> str:
        lines = [str(problem) for problem in self.problems]
        return f"{self.source}: {lines[0]}" if len(lines) == 1 else "\n  ".join([f"{self.source}:", *lines])


class ConfigurationError(GrymFetchError):
    """A settings file cannot be used. ``problems`` says what is wrong with it."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__(source, self.problems)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return f"{self.source}: {self.problems[0]}"
        lines = [f"  {problem}" for problem in self.problems[:MOST_SHOWN]]
        return "\n".join([f"{self.source}: {len(self.problems)} problems", *lines])


class UnknownAsset(GrymFetchError, LookupError):
    """No asset in the manifest has this id, or matches this glob."""

    def __init__(self, asset_id: str, suggestions: Sequence[str] = ()) -> None:
        self.asset_id: str = asset_id
        self.suggestions = tuple(suggestions)
        super().__init__(asset_id, self.suggestions)

    @property
    def advice(self) -> str:  # type: ignore[override]  # its text names the nearest
        near = f"Did you mean {', '.join(self.suggestions)}? " if self.suggestions else ""
        return f"{near}`grym-fetch list` shows all."

    def __str__(self) -> str:
        return f"no asset {self.asset_id!r} in the manifest. {self.advice}"


class UnknownTag(GrymFetchError, LookupError):
    """No asset in the manifest has these ``tags``. ``known`` are tags that exist."""

    def __init__(self, tags: Sequence[str], known: Sequence[str] = ()) -> None:
        self.tags = tuple(tags)
        self.known = tuple(known)
        super().__init__(self.tags, self.known)

    @property
    def advice(self) -> str:  # type: ignore[override]  # its text names the nearest
        near = [each for tag in self.tags for each in nearest_names(tag, self.known, most=2)]
        hint = f"Did you mean {', '.join(dict.fromkeys(near))}? " if near else ""
        return f"{hint}Tags in the manifest: {', '.join(self.known[:30]) or 'none'}."

    def __str__(self) -> str:
        return f"no asset has the tag {', '.join(map(repr, self.tags))}. {self.advice}"


class UnknownSource(GrymFetchError, LookupError):
    """A short address leads nowhere, or a list of checksums does not have the file. ``reason`` says why."""

    def __init__(self, address: str, reason: str, suggestions: Sequence[str] = ()) -> None:
        self.address = redact_text(safe_text(address))
        self.reason = reason
        self.suggestions = tuple(safe_text(each) for each in suggestions)
        super().__init__(self.address, reason, self.suggestions)

    def __str__(self) -> str:
        # Not a question: after an address, a question mark would begin a query.
        hint = f". Nearest: {', '.join(self.suggestions)}" if self.suggestions else ""
        return f"{self.address}: {self.reason}{hint}"


class UnpinnedAsset(GrymFetchError):
    """The asset has no checksum, so its bytes could not be verified."""

    def __init__(self, asset_id: str, *, is_there: bool = False) -> None:
        self.asset_id: str = asset_id
        self.is_there = is_there
        super().__init__(asset_id)

    @property
    def advice(self) -> str:  # type: ignore[override]  # its text names the asset
        from grym_fetch.core.command_lines import command_line  # as above

        pin = f"Run `{command_line('grym-fetch', 'pin', names=(self.asset_id,))}` to record it"
        return f"{pin}." if self.is_there else f"{pin}, or pass --allow-unpinned to take it unverified."

    def __str__(self) -> str:
        unknown = "nothing says which bytes are right" if self.is_there else "a download could not be verified"
        return f"{self.asset_id}: no checksum in the manifest, so {unknown}. {self.advice}"


class UnverifiedRead(GrymFetchError):
    """No file of the asset was verified here, and no part of it could be: the manifest has no pieces or no checksum."""

    def __init__(self, asset_id: str, *, is_pinned: bool = True) -> None:
        self.asset_id: str = asset_id
        self.is_pinned = is_pinned
        super().__init__(asset_id)

    def __str__(self) -> str:
        from grym_fetch.core.command_lines import command_line  # as above

        pin = command_line("grym-fetch", "pin", "--pieces", names=(self.asset_id,))
        if not self.is_pinned:
            return (
                f"{self.asset_id}: no checksum in the manifest, so nothing of it can be verified. Run `{pin}` to "
                "record it, or pass unverified_ok=True and Settings(allow_unpinned=True)."
            )
        return (
            f"{self.asset_id}: the manifest has no digests of its pieces, so it cannot be read before all of it is "
            f"there and verified. Run `{pin}` to add them, fetch it first, or pass unverified_ok=True."
        )


class AssetMissing(GrymFetchError):
    """The asset would have to be fetched, which was not allowed, not possible or not asked for."""

    def __init__(self, asset_id: str, reason: str, advice: str = "") -> None:
        self.asset_id: str = asset_id
        self.reason = reason
        self.advice = advice
        super().__init__(asset_id, reason, advice)

    def __str__(self) -> str:
        return f"{self.asset_id}: {self.reason}{f'. {self.advice}' if self.advice else ''}"


class TransferError(GrymFetchError):
    """The remote side failed. ``url`` is redacted."""

    def __init__(self, url: str, reason: str) -> None:
        self.url = redact_url(url)
        self.reason = reason
        super().__init__(self.url, reason)

    def __str__(self) -> str:
        return f"{self.reason} ({self.url})"


class ConnectFailed(TransferError):
    """No connection could be made."""


class CertificateRejected(ConnectFailed):
    """TLS does not prove who the other side is, or our own certificate is not accepted or cannot be used."""


class ConnectionLost(TransferError):
    """The connection broke off, or the body ended before its length."""


class Stalled(TransferError):
    """Nothing arrived for too long, or next to nothing."""


class BadStatus(TransferError):
    """The server answered with a status that gives no content, or with a page where a file was asked for."""

    def __init__(self, url: str, status: int, reason: str) -> None:
        super().__init__(url, reason)
        self.status = status
        self.args = (self.url, status, reason)


class Throttled(BadStatus):
    """The server asks us to wait. ``retry_after`` is in seconds; None if it does not say how long."""

    def __init__(self, url: str, status: int, reason: str, retry_after: float | None) -> None:
        super().__init__(url, status, reason)
        self.retry_after = retry_after
        self.args = (self.url, status, reason, retry_after)


class BadResponse(TransferError):
    """The response breaks the rules of HTTP, or cannot be read."""


class RangeRefused(TransferError):
    """The server does not serve the range we asked for, or serves another one."""


class ContentChanged(TransferError):
    """The origin serves other content again and again."""


class TooManyRedirects(TransferError):
    """More redirects than allowed, or a loop."""


class SourceFailed(TransferError):
    """A hub did not say where a short address leads, or a list of checksums cannot be had."""

    def __init__(self, url: str, hub: str, reason: str) -> None:
        super().__init__(url, f"{hub}: {reason}")
        self.hub = hub
        self.args = (self.url, hub, reason)


class PolicyRefused(TransferError):
    """An address, a redirect or an answer that must not be used, or cannot be used here."""


class ProxyRefused(TransferError):
    """The proxy does not connect us; asking again would not help."""


class IntegrityError(GrymFetchError):
    """A content is not what it must be."""


@dataclass(frozen=True, slots=True)
class OriginFailure:
    """Why one origin failed."""

    url: str
    error: GrymFetchError

    @property
    def host(self) -> str:
        """The origin's host and port, for short messages."""
        return urlsplit(self.url).netloc or self.url

    @property
    def reason(self) -> str:
        """What happened."""
        return self.error.reason if isinstance(self.error, TransferError) else str(self.error)

    def __str__(self) -> str:
        return f"{self.url}: {self.reason}"


class LengthMismatch(IntegrityError):
    """An origin's content has another length than it must have. Lengths in bytes."""

    def __init__(self, url: str, expected: int, actual: int, hint: str = "") -> None:
        self.url = redact_url(url)
        self.expected = expected
        self.actual = actual
        self.hint = hint
        super().__init__(self.url, expected, actual, hint)

    def __str__(self) -> str:
        hint = f"; {self.hint}" if self.hint else ""
        return f"size mismatch: the manifest says {self.expected} bytes, the server {self.actual}{hint}"


class DigestMismatch(IntegrityError):
    """The content has another digest than it must have."""

    def __init__(
        self,
        asset_id: str,
        expected: str,
        actual: str,
        failures: Sequence[OriginFailure] = (),
        advice: str = "",
    ) -> None:
        self.asset_id: str = asset_id
        self.expected = expected
        self.actual = actual
        self.failures = tuple(failures)
        self.advice = advice
        super().__init__(asset_id, expected, actual, self.failures, advice)

    def __str__(self) -> str:
        lines = [f"{self.asset_id}: checksum mismatch", f"  expected {self.expected}", f"  got      {self.actual}"]
        lines += [f"  {failure}" for failure in self.failures]
        if self.advice:
            lines.append(f"  {self.advice}")
        return "\n".join(lines)


class UnsafeArchive(IntegrityError):
    """An archive is damaged or not safe to unpack."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(path, reason)

    def __str__(self) -> str:
        return (
            f"the archive cannot be unpacked: {self.reason}; nothing was unpacked ({self.path}). If you trust its "
            'maker, unpack it by hand and drop "extract" from the manifest; otherwise remove it'
        )


class StorageError(GrymFetchError):
    """This machine's disk failed or refused, or a limit of this machine was reached."""

    def __init__(self, path: object, reason: str) -> None:
        self.path = str(path)
        self.reason = reason
        super().__init__(self.path, reason)

    def __str__(self) -> str:
        return f"{self.reason} ({self.path})"


class DiskFull(StorageError):
    """No space left, or a quota or file-size limit was reached."""


class NotWritable(StorageError):
    """Permission denied, a read-only file system, a device error, a file that somebody else has changed, say."""


class UnsafePath(StorageError):
    """The path may not be used: it leads out of the assets folder, through a symlink, or not to a file, say."""


class Locked(StorageError):
    """Another process holds what is needed, such as the asset or the manifest."""


class MirrorsExhausted(GrymFetchError):
    """Every origin of an asset failed. ``failures`` has each one's reason."""

    def __init__(self, asset_id: str, failures: Sequence[OriginFailure], advice: str = "") -> None:
        self.asset_id: str = asset_id
        self.failures = tuple(failures)
        self.advice = advice
        super().__init__(asset_id, self.failures, advice)

    def __str__(self) -> str:
        head = f"{self.asset_id}: could not be fetched"
        if len(self.failures) == 1:
            lines = [f"{head}: {self.failures[0].reason} ({self.failures[0].url})"]
        else:
            lines = [f"{head} from any of its {len(self.failures)} origins", *(f"  {each}" for each in self.failures)]
        if self.advice:
            lines.append(f"  {self.advice}")
        return "\n".join(lines)


class SyncFailed(GrymFetchError, ExceptionGroup[GrymFetchError]):
    """Some assets failed: a group of their errors. ``failures`` has the errors by id.

    Catch it as a whole with ``except SyncFailed``, or by kind with ``except* DiskFull``, whose group has ``failures``,
    too.
    """

    failures: dict[str, GrymFetchError]

    def __new__(cls, failures: Mapping[str, GrymFetchError]) -> Self:
        self = super().__new__(cls, _count(failures), [*failures.values()])
        self.failures = dict(failures)
        self.args = (self.failures,)
        return self

    def __init__(self, failures: Mapping[str, GrymFetchError]) -> None:
        """Do nothing: `__new__` has done it, and the `__init__` of a group would misread ``args``."""

    def derive(self, errors: Sequence[Any], /) -> ExceptionGroup[Any]:
        """Return a group of these errors: a `SyncFailed` if all of them are members of this one."""
        chosen = {id(error) for error in errors}
        failures = {asset: error for asset, error in self.failures.items() if id(error) in chosen}
        if {id(error) for error in failures.values()} != chosen:
            return ExceptionGroup(_count(errors), errors)
        return SyncFailed(failures)

    @property
    def message(self) -> str:
        """The whole text: `pytest.raises` looks here."""
        return str(self)

    def __str__(self) -> str:
        return "\n".join([_count(self.failures), *(_naming(each, error) for each, error in self.failures.items())])


def _count(failures: Collection[object]) -> str:
    return f"{len(failures)} asset{'s' if len(failures) != 1 else ''} failed"


def _naming(asset: str, error: GrymFetchError) -> str:
    text = str(error)
    return text if error.asset_id == asset else f"{asset}: {text}"


class ClusterError(GrymFetchError):
    """A cluster cannot be reached, is gone or fails, or has a node that cannot take part."""


class RepositoryError(GrymFetchError):
    """A repository does not allow what was asked for, or it makes no sense there."""
