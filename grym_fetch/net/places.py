"""The addresses of a name. All connections of a run know which of them have failed lately, and try those last.

Rules: a failure is remembered for a minute, and only puts an address after the others of its name; if all have failed,
the one whose failure is oldest comes first. Wrong content is a failure too, but it may have come from any address used
so far: all of them count as failed, once for each name. Times are those of the event loop, in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence

from aiohappyeyeballs import AddrInfoType

PENALTY_S = 60.0
"""How long an address that has failed is tried after the others."""

Name = tuple[str, int]
"""Host and port, as in a URL."""


class Places:
    """What is known about the addresses of every name."""

    def __init__(self) -> None:
        self._known: dict[Name, frozenset[str]] = {}
        self._failed_at: dict[tuple[Name, str], float] = {}
        self._used: dict[Name, set[str]] = {}
        self._doubted: set[Name] = set()

    def used(self, name: Name, address: str) -> None:
        """A connection to this address is open."""
        self._used.setdefault(name, set()).add(address)

    def doubt(self, name: Name, now: float) -> None:
        """Content from this name was wrong. Counts only once: later, a good address may be among those used."""
        if name in self._doubted:
            return
        self._doubted.add(name)
        for address in self._used.get(name, ()):
            self.failed(name, address, now)

    def failed(self, name: Name, address: str, now: float) -> None:
        """A connection to this address failed or broke off."""
        self._failed_at[name, address] = now

    def is_worse(self, name: Name, address: str, now: float) -> bool:
        """Whether this address has failed lately, and another one of its name has not."""
        return self._is_bad(name, address, now) and any(
            not self._is_bad(name, other, now) for other in self._known.get(name, ())
        )

    def ranked(
        self, name: Name, found: Sequence[AddrInfoType], now: float
    ) -> tuple[list[AddrInfoType], list[AddrInfoType]]:
        """Return the addresses to try first, and those to try only if no connection to these can be made."""
        self._known[name] = frozenset(address_of(place) for place in found)
        bad = [place for place in found if self._is_bad(name, address_of(place), now)]
        bad.sort(key=lambda place: self._failed_at[name, address_of(place)])
        good = [place for place in found if place not in bad]
        return (good, bad) if good else (bad, [])

    def _is_bad(self, name: Name, address: str, now: float) -> bool:
        failed_at = self._failed_at.get((name, address))
        return failed_at is not None and now - failed_at < PENALTY_S


def address_of(place: AddrInfoType) -> str:
    """The address itself, without its port."""
    return str(place[4][0])
