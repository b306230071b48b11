"""What reading a response means for the asset as a whole, as values. Only `Transfer` acts on them.

Rule: failures are not among them; they are raised.
"""

from __future__ import annotations

from dataclasses import dataclass

from grym_fetch.core.origins import Origin


@dataclass(frozen=True, slots=True)
class Finished:
    """The body was read as far as needed; there is nothing more to do."""


@dataclass(frozen=True, slots=True)
class SingleStream:
    """This origin's ranges are unusable, so ask it for everything in one response. Not a failure."""

    reason: str


@dataclass(frozen=True, slots=True)
class StartAfresh:
    """Discard everything on hand.

    ``repeats``: only the retry budget bounds how often this happens, so getting as far again is not progress.
    """

    reason: str
    forget_size: bool = False
    repeats: bool = False


@dataclass(frozen=True, slots=True)
class DropOrigin:
    """Discard the bytes from this origin; keep those from others."""

    reason: str
    origin: Origin
    forget_size: bool = False


@dataclass(frozen=True, slots=True)
class TrustOrigin:
    """Discard everything that did not come from this origin in this run; from now on, ask it for all of it."""

    reason: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class LeaveOrigins:
    """Discard what came from these origins in this run, and ask this one and the others that have the same."""

    reason: str
    origin: Origin
    left: tuple[Origin, ...]


@dataclass(frozen=True, slots=True)
class CompareWith:
    """Ask this origin, a part at a time, for what did not come from it in this run, until the whole is right."""

    reason: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class CompareMore:
    """Ask the same origin for the next part. ``reason``: why the whole is to be looked at again; empty if it is not."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class DoubtOrigin:
    """Everything came from this origin and is wrong: ask it for the whole, and compare."""

    reason: str
    origin: Origin


Restart = StartAfresh | DropOrigin | TrustOrigin | LeaveOrigins | CompareWith | CompareMore | DoubtOrigin
Outcome = Finished | SingleStream | StartAfresh | DropOrigin
