"""What reading a response leads to for the asset as a whole, as values. Only `Transfer` acts on them.

Rule: a failure is not among them, it is raised.
"""

from __future__ import annotations

from dataclasses import dataclass

from grym_fetch.core.origins import Origin


@dataclass(frozen=True, slots=True)
class Finished:
    """The body was read as far as it was wanted, and nothing else follows."""


@dataclass(frozen=True, slots=True)
class SingleStream:
    """This origin's ranges are of no use, so it is to be asked for everything in one response. Not a failure."""

    reason: str


@dataclass(frozen=True, slots=True)
class StartAfresh:
    """Everything on hand must be given up.

    ``repeats``: only the budget of retries bounds how often this happens, so getting as far again is no progress.
    """

    reason: str
    forget_size: bool = False
    repeats: bool = False


@dataclass(frozen=True, slots=True)
class DropOrigin:
    """What this origin gave must be given up; what others gave stays."""

    reason: str
    origin: Origin
    forget_size: bool = False


@dataclass(frozen=True, slots=True)
class TrustOrigin:
    """Everything that this origin did not give in this run must be given up; from now on it is asked for all of it."""

    reason: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class DoubtOrigin:
    """All of it came from this origin and is wrong: it is asked for the whole, and whether that is the same is seen."""

    reason: str
    origin: Origin


Restart = StartAfresh | DropOrigin | TrustOrigin | DoubtOrigin
Outcome = Finished | SingleStream | StartAfresh | DropOrigin
