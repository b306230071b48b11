"""Divides the limits of a run among nodes: `--parallel`, `--max-per-host`, and what hosts have taught.

Rules: what all nodes together may use never exceeds a limit, at any moment, even while messages are on their way. So
what is taken from one node is given to another only when the first has said that it no longer uses it; and what a lost
node had is free again only when it must have stopped by itself (`Order.lease`). Nodes that want nothing get nothing;
the others get equal shares. Time is an argument, in monotonic seconds.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from grym_fetch.cluster.protocol import Allowance, Reply

PROBE_S = 5.0
"""After this long without a refusal, allow one attempt more than a learned limit; each refusal doubles the time."""
MAX_HOSTS = 1000
"""Learn about so many hosts; the others have the common share."""


def fair(total: int, wants: Mapping[str, int]) -> dict[str, int]:
    """Divide ``total`` so that nobody gets more than they want, and the least is as much as possible.

    What cannot be divided goes to the first ones.
    """
    shares = dict.fromkeys(wants, 0)
    left, hungry = max(total, 0), [name for name, wanted in wants.items() if wanted > 0]
    while left > 0 and hungry:
        each, more = divmod(left, len(hungry))
        if modest := [name for name in hungry if wants[name] <= each]:
            shares |= {name: wants[name] for name in modest}
            left -= sum(wants[name] for name in modest)
            hungry = [name for name in hungry if wants[name] > each]
            continue
        for place, name in enumerate(hungry):
            shares[name] = each + (place < more)
        break
    return shares


def regrant(total: int, wants: Mapping[str, int], held: Mapping[str, int]) -> dict[str, int]:
    """Return what each of these may use next, if ``held`` is what each may still be using. All have the same keys.

    The fair shares; but what is not free yet is not given. The sum of what each has, then or now, is at most ``total``,
    or what is held if that is more.
    """
    # Among equals, who has more keeps it.
    first = sorted(wants, key=lambda name: -held[name])
    target = fair(total, {name: wants[name] for name in first})
    free = total - sum(held.values())
    granted = {}
    for name in first:
        more = min(max(target[name] - held[name], 0), max(free, 0))
        free -= more
        granted[name] = min(target[name], held[name]) + more
    return granted


@dataclass(slots=True)
class _Node:
    """What is known of a node. ``sent`` was told last; ``most`` is what it may be using, by limit."""

    sent: Allowance = field(default_factory=Allowance)
    in_force: Allowance = field(default_factory=Allowance)
    is_working: bool = False
    hosts: set[str] = field(default_factory=set)
    """The hosts that it wants connections to."""
    refusals: dict[str, int] = field(default_factory=dict)
    expires: float = math.inf
    """When it has certainly stopped: it was lost, and had its last order some time before."""


@dataclass(slots=True)
class _Lesson:
    """What a host has taught. ``limit`` None: nothing about how many."""

    limit: int | None = None
    probe_at: float = 0.0
    probe_wait: float = PROBE_S
    not_before: float = -math.inf


class Shares:
    """The shares of all nodes. ``parallel``: connections at once; ``per_host``: of them, at one host."""

    def __init__(self, parallel: int, per_host: int | None = None) -> None:
        self._parallel = parallel
        self._per_host = min(per_host or parallel, parallel)
        self._nodes: dict[str, _Node] = {}
        self._lessons: dict[str, _Lesson] = {}

    @property
    def most_nodes(self) -> int:
        """How many nodes can have a connection to one host at the same time."""
        return self._per_host

    # -- what happened ----------------------------------------------------------------------------------------------

    def joined(self, node: str) -> None:
        """A node is there, which uses nothing yet. One that comes back counts with what it had."""
        known = self._nodes.setdefault(node, _Node())
        known.expires = math.inf

    def lost(self, node: str, expires: float) -> None:
        """A node is gone, and may use what it had until ``expires``."""
        if (known := self._nodes.get(node)) is not None:
            known.expires = min(known.expires, expires)
            known.is_working = False
            known.hosts.clear()

    def answered(self, node: str, answer: Reply, now: float) -> None:
        """A node has said what it uses, what it wants, and what hosts have taught it."""
        known = self._nodes[node]
        known.in_force = answer.in_force
        known.is_working = bool(answer.tasks)
        known.hosts = {host for host, seen in answer.hosts.items() if seen.waits or seen.at_work}
        for host, seen in answer.hosts.items():
            if host not in self._lessons and len(self._lessons) >= MAX_HOSTS:
                continue
            lesson = self._lessons.setdefault(host, _Lesson())
            if seen.pause > 0:
                lesson.not_before = max(lesson.not_before, now + seen.pause)
            if seen.refusals > known.refusals.get(host, 0):
                known.refusals[host] = seen.refusals
                self._lower(host, lesson, now)

    def _lower(self, host: str, lesson: _Lesson, now: float) -> None:
        """The host has refused one more than what was at work."""
        used = sum(node.in_force.at(host) for node in self._nodes.values())
        before = self._per_host if lesson.limit is None else lesson.limit
        lesson.limit = max(1, min(before, used) - 1)
        lesson.probe_at = now + lesson.probe_wait
        lesson.probe_wait *= 2

    # -- what follows -----------------------------------------------------------------------------------------------

    def limit_of(self, host: str, now: float) -> int:
        """How many connections all nodes together may have to this host."""
        lesson = self._lessons.get(host)
        if lesson is None or lesson.limit is None:
            return self._per_host
        if now >= lesson.probe_at and lesson.limit < self._per_host:
            lesson.limit += 1
            lesson.probe_at = now + lesson.probe_wait
        return lesson.limit

    def next_shares(self, nodes: Collection[str], now: float, *, all_work: bool = False) -> dict[str, Allowance]:
        """Return the next share of each of these nodes. It counts as theirs from now on.

        ``all_work``: there is work for all of them, also for one that has none at this moment.
        """
        for name in [name for name, node in self._nodes.items() if node.expires <= now]:
            del self._nodes[name]
        working = {name for name in nodes if all_work or self._nodes[name].is_working}
        connections = self._divide(self._parallel, working, {n: _most(k, None) for n, k in self._nodes.items()})
        common = self._divide(self._per_host, working, {n: _most_common(k) for n, k in self._nodes.items()})
        hosts: dict[str, dict[str, int]] = {}
        for host in self._contested(working):
            held = {name: _most(node, host) for name, node in self._nodes.items()}
            wanting = {name for name in working if host in self._nodes[name].hosts}
            hosts[host] = self._divide(self.limit_of(host, now), wanting, held)
        pauses = {host: lesson.not_before - now for host, lesson in self._lessons.items() if lesson.not_before > now}
        shares = {}
        for name in nodes:
            named = {host: given[name] for host, given in hosts.items()}
            share = Allowance(connections[name], common[name], named, pauses)
            self._nodes[name].sent = shares[name] = share
        return shares

    def _divide(self, total: int, wanting: Iterable[str], held: Mapping[str, int]) -> dict[str, int]:
        wants = dict.fromkeys(self._nodes, 0) | dict.fromkeys(wanting, total)
        return regrant(total, wants, held)

    def _contested(self, working: Collection[str]) -> list[str]:
        """The hosts that have a share of their own: wanted now, limited by what they have taught, or still in use."""
        found = {host for name in working for host in self._nodes[name].hosts}
        found |= {host for host, lesson in self._lessons.items() if lesson.limit is not None}
        for node in self._nodes.values():
            found |= {host for share in (node.sent, node.in_force) for host in share.hosts if share.at(host)}
        return sorted(found)[:MAX_HOSTS]


def _most(node: _Node, host: str | None) -> int:
    """What a node may be using: what it was told last, or what it still has."""
    both = (node.sent, node.in_force)
    return max(share.connections for share in both) if host is None else max(share.at(host) for share in both)


def _most_common(node: _Node) -> int:
    return max(node.sent.per_host, node.in_force.per_host)
