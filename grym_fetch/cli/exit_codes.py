"""Exit codes, in one table."""

from __future__ import annotations

from collections.abc import Iterable

from grym_fetch.core.errors import (
    ConfigurationError,
    GrymFetchError,
    IntegrityError,
    Locked,
    ManifestError,
    MirrorsExhausted,
    RepositoryError,
    StorageError,
    SyncFailed,
    UnknownAsset,
    UnknownSource,
    UnknownTag,
)

DONE = 0
NOT_FETCHED = 1
WRONG_USAGE = 2
INTEGRITY = 3
STORAGE = 4
LOCKED = 5
INTERRUPTED = 130
TERMINATED = 143

_WORST_FIRST = (INTEGRITY, STORAGE, LOCKED, NOT_FETCHED, WRONG_USAGE)


def exit_code(error: GrymFetchError) -> int:
    """Return the code for an error; if several apply, the worst one."""
    match error:
        case SyncFailed(failures=failures):
            return worst(exit_code(failure) for failure in failures.values())
        case MirrorsExhausted(failures=failures):
            return worst(exit_code(failure.error) for failure in failures)
        case (
            ManifestError() | ConfigurationError() | UnknownAsset() | UnknownSource() | UnknownTag() | RepositoryError()
        ):
            return WRONG_USAGE
        case IntegrityError():
            return INTEGRITY
        case Locked():
            return LOCKED
        case StorageError():
            return STORAGE
        case _:
            return NOT_FETCHED


def ended_by(number: int) -> int:
    """Return the code for a run that was ended by a signal, as in shells: `INTERRUPTED`, `TERMINATED`."""
    return 128 + number


def worst(codes: Iterable[int]) -> int:
    """Return the code that matters most: integrity, then storage, then a lock, then the rest."""
    found = set(codes)
    return next((code for code in _WORST_FIRST if code in found), NOT_FETCHED)
