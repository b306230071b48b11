"""Every error of grym-fetch, split by whose fault it is, because that decides what happens next.

::

    GrymFetchError
    ├── ManifestError            the user's file; every problem at once
    │   ├── ManifestMissing      no file there
    │   └── StaleManifest        expired, or older than one seen before
    ├── UnknownAsset             no such id; with the nearest ones
    ├── UnpinnedAsset            no checksum, and unpinned assets were not allowed
    ├── AssetMissing             offline, and the file is not there
    ├── TransferError            the remote side
    │   ├── ConnectFailed        no connection: name, route, refusal, time-out
    │   │   └── CertificateRejected   TLS says this is not the host we asked for: final
    │   ├── ConnectionLost       the connection broke off, or the body ended early
    │   ├── Stalled              nothing arrived for too long
    │   ├── BadStatus            an answer that is not what we asked for
    │   │   └── Throttled        the server asks us to wait
    │   ├── BadResponse          an answer that breaks the rules of HTTP
    │   ├── RangeRefused         the server will not serve ranges, or serves wrong ones
    │   ├── ContentChanged       the origin now serves other content than before
    │   ├── TooManyRedirects
    │   └── PolicyRefused        a redirect or address we never follow
    ├── IntegrityError           never retried on the same origin, never a warning
    │   ├── LengthMismatch
    │   ├── DigestMismatch
    │   └── UnsafeArchive        an archive that is damaged, or not safe to unpack
    ├── StorageError             this machine's disk: never retried
    │   ├── DiskFull
    │   ├── NotWritable
    │   ├── UnsafePath
    │   └── Locked               another process holds the asset past the wait
    ├── MirrorsExhausted         every origin failed; each one's reason
    ├── SyncFailed               what a sync raises at its end; each asset's error
    └── RepositoryError          a git repository, or what was asked of it, does not allow this

An error's text says what happened, to which asset and address, and what to do next. Addresses are stored without
userinfo, query and fragment, so that no error can carry a secret.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from grym_fetch.core.text import redact_url

MOST_SHOWN = 200
"""Problems that the text of a `ManifestError` spells out; its ``problems`` has all."""


class GrymFetchError(Exception):
    """Base class of everything this package raises on purpose."""

    asset_id: str | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a manifest: where it is, and what is allowed there."""

    where: str
    key: str
    message: str

    def __str__(self) -> str:
        place = f"{self.where}: {self.key}" if self.key else self.where
        return f"{place}: {self.message}"


class ManifestError(GrymFetchError):
    """The manifest cannot be used. Holds every problem found, not only the first."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        count = len(self.problems)
        head = f"{source}: {count} problem{'s' if count != 1 else ''}; nothing was downloaded"
        lines = [f"  {problem}" for problem in self.problems[:MOST_SHOWN]]
        if count > MOST_SHOWN:
            lines.append(f"  … and {count - MOST_SHOWN} more")
        super().__init__("\n".join([head, *lines]))


class ManifestMissing(ManifestError):
    """There is no manifest where one was looked for."""

    def __init__(self, looked_for: str) -> None:
        super().__init__(looked_for, [Problem("no such file", "", looked_for)])
        advice = "Name another one with --config, or write one (`grym-fetch schema` prints the format)."
        self.args = (f"no manifest: there is no {looked_for}. {advice}",)


class StaleManifest(ManifestError):
    """The manifest has expired, or is older than the one that was used before."""

    def __init__(self, source: str, why: str) -> None:
        super().__init__(source, [Problem("top level", "", why)])
        self.args = (f"{source} {why}; nothing was done. Get a newer one, or pass --allow-stale to use it as it is.",)


class UnknownAsset(GrymFetchError, LookupError):
    """No asset of the manifest has this id."""

    def __init__(self, asset_id: str, suggestions: Sequence[str] = ()) -> None:
        self.asset_id = asset_id
        self.suggestions = tuple(suggestions)
        hint = f" Did you mean {', '.join(self.suggestions)}?" if self.suggestions else ""
        super().__init__(f"no asset {asset_id!r} in the manifest.{hint} `grym-fetch list` shows all.")


class UnpinnedAsset(GrymFetchError):
    """The asset has no checksum, so its bytes could not be verified."""

    def __init__(self, asset_id: str) -> None:
        self.asset_id = asset_id
        super().__init__(
            f"{asset_id}: no checksum in the manifest, so a download could not be verified. Run "
            f"`grym-fetch pin {asset_id}` to record it, or pass --allow-unpinned to take it unverified."
        )


class AssetMissing(GrymFetchError):
    """The asset is not on disk, and fetching was not allowed."""

    def __init__(self, asset_id: str, reason: str) -> None:
        self.asset_id = asset_id
        super().__init__(f"{asset_id}: {reason}")


class TransferError(GrymFetchError):
    """The remote side failed. ``url`` is redacted."""

    def __init__(self, url: str, reason: str) -> None:
        self.url = redact_url(url)
        self.reason = reason
        super().__init__(f"{reason} ({self.url})")


class ConnectFailed(TransferError):
    """No connection could be made."""


class CertificateRejected(ConnectFailed):
    """The server's certificate does not prove that it is the host we asked for."""


class ConnectionLost(TransferError):
    """The connection broke off, or the body ended before its length."""


class Stalled(TransferError):
    """Nothing arrived for longer than the stall time-out."""


class BadStatus(TransferError):
    """The server answered with a status that gives no content."""

    def __init__(self, url: str, status: int, reason: str) -> None:
        self.status = status
        super().__init__(url, reason)


class Throttled(BadStatus):
    """The server asks to be left alone for a while (429, 503). ``retry_after`` is in seconds, None if unsaid."""

    def __init__(self, url: str, status: int, reason: str, retry_after: float | None) -> None:
        self.retry_after = retry_after
        super().__init__(url, status, reason)


class BadResponse(TransferError):
    """The response breaks the rules of HTTP, so nothing in it can be trusted."""


class RangeRefused(TransferError):
    """The server does not serve the range we asked for, or serves another one."""


class ContentChanged(TransferError):
    """The origin serves other content than it did before."""


class TooManyRedirects(TransferError):
    """More redirects than allowed, or a loop."""


class PolicyRefused(TransferError):
    """An address or a redirect that is never followed."""


class IntegrityError(GrymFetchError):
    """What arrived is not what the manifest names."""


@dataclass(frozen=True, slots=True)
class OriginFailure:
    """Why one origin could not deliver. ``url`` is redacted."""

    url: str
    error: GrymFetchError

    @property
    def host(self) -> str:
        """The origin's host and port, for short messages."""
        return urlsplit(self.url).netloc or self.url

    @property
    def reason(self) -> str:
        """What happened, without the address."""
        return self.error.reason if isinstance(self.error, TransferError) else str(self.error)

    def __str__(self) -> str:
        return f"{self.url}: {self.reason}"


class LengthMismatch(IntegrityError):
    """An origin's content has another length than the manifest says. Lengths in bytes."""

    def __init__(self, url: str, expected: int, actual: int, hint: str = "") -> None:
        self.url = redact_url(url)
        self.expected = expected
        self.actual = actual
        super().__init__(
            f"size mismatch: the manifest says {expected} bytes, the server {actual}{f'; {hint}' if hint else ''}"
        )


class DigestMismatch(IntegrityError):
    """The content's digest is not the manifest's. ``failures`` has each origin's reason."""

    def __init__(
        self,
        asset_id: str,
        expected: str,
        actual: str,
        failures: Sequence[OriginFailure] = (),
        advice: str = "",
    ) -> None:
        self.asset_id = asset_id
        self.expected = expected
        self.actual = actual
        self.failures = tuple(failures)
        lines = [f"{asset_id}: checksum mismatch", f"  expected {expected}", f"  got      {actual}"]
        lines += [f"  {failure}" for failure in self.failures]
        if advice:
            lines.append(f"  {advice}")
        super().__init__("\n".join(lines))


class UnsafeArchive(IntegrityError):
    """An archive is damaged, or holds what must not be unpacked. ``path`` is where it lies; nothing was unpacked."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(
            f"the archive cannot be unpacked: {reason}; nothing of it was ({path}). If its maker can be trusted, "
            'unpack it by hand and drop "extract" from the manifest; else remove it'
        )


class StorageError(GrymFetchError):
    """The local disk refused. ``path`` is where."""

    def __init__(self, path: object, reason: str) -> None:
        self.path = str(path)
        self.reason = reason
        super().__init__(f"{reason} ({self.path})")


class DiskFull(StorageError):
    """No space left, or a quota or file-size limit was reached."""


class NotWritable(StorageError):
    """Permission denied, a read-only file system, or a device error."""


class UnsafePath(StorageError):
    """The path leads out of the assets folder, through a symlink, or to something that is not a file."""


class Locked(StorageError):
    """Another process holds the asset, and did not finish within the wait."""


class MirrorsExhausted(GrymFetchError):
    """Every origin of an asset failed. ``failures`` has each one's reason, in the manifest's order."""

    def __init__(self, asset_id: str, failures: Sequence[OriginFailure], advice: str = "") -> None:
        self.asset_id = asset_id
        self.failures = tuple(failures)
        head = f"{asset_id}: could not be fetched"
        if len(self.failures) == 1:
            lines = [f"{head}: {self.failures[0].reason} ({self.failures[0].url})"]
        else:
            lines = [f"{head} from any of its {len(self.failures)} origins", *(f"  {each}" for each in self.failures)]
        if advice:
            lines.append(f"  {advice}")
        super().__init__("\n".join(lines))


class SyncFailed(GrymFetchError):
    """Some assets could not be made present. ``failures`` maps each id to its error."""

    def __init__(self, failures: Mapping[str, GrymFetchError]) -> None:
        self.failures = dict(failures)
        count = len(self.failures)
        head = f"{count} asset{'s' if count != 1 else ''} failed"
        super().__init__("\n".join([head, *(_naming(asset, error) for asset, error in self.failures.items())]))


def _naming(asset: str, error: GrymFetchError) -> str:
    text = str(error)
    return text if error.asset_id == asset else f"{asset}: {text}"


class RepositoryError(GrymFetchError):
    """A repository does not allow what was asked for, or it makes no sense there. Nothing was changed."""
