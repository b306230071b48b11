"""The limits of a run hold for all nodes together, at any moment, and nobody is left with nothing for long."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from grym_fetch.cluster.protocol import Allowance, Reply
from grym_fetch.cluster.shares import PROBE_S, Shares, fair, regrant
from grym_fetch.core.hosts import HostUse

COUNTS = st.dictionaries(st.sampled_from("abcdefg"), st.integers(0, 20), max_size=7)
HOST = "h.example:443"


@given(st.integers(0, 30), COUNTS)
def test_fair_shares(total: int, wants: dict[str, int]) -> None:
    """All that is there is given to those who want it, and who gets less than another one has all that they want."""
    shares = fair(total, wants)
    assert sum(shares.values()) == min(total, sum(wants.values()))
    assert all(0 <= shares[name] <= wants[name] for name in wants)
    most = max(shares.values(), default=0)
    assert all(shares[name] == wants[name] or shares[name] >= most - 1 for name in wants)


@given(st.integers(0, 30), st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=7))
@pytest.mark.shows("P18")
def test_nothing_is_given_before_it_is_free(total: int, nodes: list[tuple[int, int]]) -> None:
    """What anybody may use, before or after, is never more than there is; and what is not wanted is given back."""
    wants = {str(n): wanted for n, (wanted, _) in enumerate(nodes)}
    held = {str(n): had for n, (_, had) in enumerate(nodes)}
    granted = regrant(total, wants, held)
    assert sum(max(granted[name], held[name]) for name in held) <= max(total, sum(held.values()))
    assert all(granted[name] <= wants[name] for name in wants)
    if granted == held:  # it has settled
        assert sum(granted.values()) == min(total, sum(wants.values()))


class Node:
    """A node that obeys, after a while: what it has at work stays at work until it is done."""

    def __init__(self) -> None:
        self.share = Allowance()
        self.at_work: dict[str, int] = {}
        self.wants: set[str] = set()
        self.refusals: dict[str, int] = {}
        self.is_working = True

    def work(self) -> None:
        """Begin as much as the share allows."""
        for host in sorted(self.wants):
            free = self.share.connections - sum(self.at_work.values())
            more = min(free, self.share.at(host) - self.at_work.get(host, 0))
            if more > 0:
                self.at_work[host] = self.at_work.get(host, 0) + more

    def finish(self) -> None:
        """End everything that is under way."""
        self.at_work = {}

    def answer(self) -> Reply:
        """Say what is in force, and what is wanted."""
        hosts = {host: max(count, self.share.at(host)) for host, count in self.at_work.items() if count}
        in_force = replace(
            self.share,
            connections=max(self.share.connections, sum(self.at_work.values())),
            hosts={**self.share.hosts, **hosts},
        )
        seen = {
            host: HostUse(
                self.at_work.get(host, 0),
                waits=host in self.wants,
                refusals=self.refusals.get(host, 0),
            )
            for host in {*self.wants, *self.at_work}
        }
        return Reply(1, tasks=(1,) if self.is_working else (), in_force=in_force, hosts=seen)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.sampled_from("abcd"), st.just("")),
        st.tuples(st.just("lose"), st.sampled_from("abcd"), st.just("")),
        st.tuples(st.just("want"), st.sampled_from("abcd"), st.sampled_from("xyz")),
        st.tuples(st.just("done"), st.sampled_from("abcd"), st.just("")),
        st.tuples(st.just("idle"), st.sampled_from("abcd"), st.just("")),
        st.tuples(st.just("deaf"), st.sampled_from("abcd"), st.just("")),
        st.tuples(st.just("refused"), st.sampled_from("abcd"), st.sampled_from("xyz")),
    ),
    max_size=40,
)


@given(STEPS, st.integers(1, 9), st.one_of(st.none(), st.integers(1, 9)))
@pytest.mark.shows("P18")
@example([("join", "a", ""), *[("want", "a", "x")] * 3, ("join", "b", ""), *[("want", "b", "x")] * 4], 8, None)
def test_the_limits_hold_whatever_happens(
    steps: list[tuple[str, str, str]], parallel: int, per_host: int | None
) -> None:
    """Nodes come and go, want this and that, miss orders: all of them together never have more than the limits say.

    A lost node works on until its lease has ended.
    """
    shares, nodes, lost, now = Shares(parallel, per_host), dict[str, Node](), list[tuple[float, Node]](), 0.0
    named: dict[str, str] = {}  # a process that comes again is another node
    for what, letter, host in steps:
        now += 1.0
        lost = [(until, node) for until, node in lost if until > now]
        name = named.get(letter, "")
        node = nodes.get(name)
        if what == "join" and node is None:
            name = named[letter] = f"{letter}{now}"
            nodes[name] = Node()
            shares.joined(name)
        elif node is not None and what == "lose":
            del nodes[name]
            lost.append((now + 3, node))
            shares.lost(name, now + 3)
        elif node is not None and what == "want":
            node.wants.add(host)
            node.is_working = True
        elif node is not None and what == "done":
            node.finish()
        elif node is not None and what == "idle":
            node.finish()
            node.wants.clear()
            node.is_working = False
        elif node is not None and what == "refused":
            node.refusals[host] = node.refusals.get(host, 0) + 1
        told = shares.next_shares(nodes, now, all_work=what == "want")
        for each, share in told.items():
            if what != "deaf" or each != name:  # the order got lost on its way
                nodes[each].share = share
                nodes[each].work()
                shares.answered(each, nodes[each].answer(), now)
        everyone = [*nodes.values(), *(node for _, node in lost)]
        assert sum(sum(node.at_work.values()) for node in everyone) <= parallel
        for each_host in "xyz":
            assert sum(node.at_work.get(each_host, 0) for node in everyone) <= (per_host or parallel)


def settled(shares: Shares, nodes: dict[str, Node], now: float, rounds: int = 4) -> None:
    """Send orders and answers until nothing changes any more."""
    for _ in range(rounds):
        for name, share in shares.next_shares(nodes, now).items():
            nodes[name].share = share
            nodes[name].work()
            shares.answered(name, nodes[name].answer(), now)


def test_shares_follow_the_nodes_as_they_come_and_go() -> None:
    """A second node gets half; when the first is idle or gone, the other one gets everything."""
    shares, nodes = Shares(8), {"a": Node()}
    nodes["a"].wants = {HOST}
    shares.joined("a")
    settled(shares, nodes, 0.0)
    assert nodes["a"].at_work == {HOST: 8}
    nodes["b"] = Node()
    nodes["b"].wants = {HOST}
    shares.joined("b")
    settled(shares, nodes, 1.0)
    assert nodes["b"].at_work == {}, "what is under way is not cut off"
    nodes["a"].finish()
    settled(shares, nodes, 2.0)
    assert [node.at_work[HOST] for node in nodes.values()] == [4, 4]
    shares.lost("a", 10.0)
    del nodes["a"]
    settled(shares, nodes, 9.0)
    assert nodes["b"].at_work == {HOST: 4}, "it may still be working"
    settled(shares, nodes, 10.0)
    assert nodes["b"].at_work == {HOST: 8}


def test_a_host_may_be_used_by_fewer_nodes_than_there_are() -> None:
    """With one connection to a host for all, one node works there, and the next one follows when it is done."""
    shares, nodes = Shares(8, 1), {name: Node() for name in "ab"}
    for name, node in nodes.items():
        node.wants = {HOST}
        shares.joined(name)
    settled(shares, nodes, 0.0)
    assert sorted(node.at_work.get(HOST, 0) for node in nodes.values()) == [0, 1]
    first = next(node for node in nodes.values() if node.at_work)
    first.finish()
    first.wants = set()
    settled(shares, nodes, 1.0)
    assert sorted(node.at_work.get(HOST, 0) for node in nodes.values()) == [0, 1]
    assert not first.at_work


def test_what_a_host_teaches_one_node_holds_for_all() -> None:
    """A refusal lowers the limit of all together, for a time that doubles; a pause reaches every node."""
    shares, nodes = Shares(8), {name: Node() for name in "ab"}
    for name, node in nodes.items():
        node.wants = {HOST}
        shares.joined(name)
    settled(shares, nodes, 0.0)
    assert shares.limit_of(HOST, 0.0) == 8
    nodes["a"].refusals[HOST] = 1
    settled(shares, nodes, 0.0)
    assert shares.limit_of(HOST, 0.0) == 7
    settled(shares, nodes, 1.0)
    assert shares.limit_of(HOST, 1.0) == 7, "one refusal is counted once"
    assert shares.limit_of(HOST, PROBE_S) == 8
    shares.answered("b", replace(nodes["b"].answer(), hosts={HOST: HostUse(1, pause=30.0)}), 10.0)
    assert [share.pauses[HOST] for share in shares.next_shares("ab", 15.0).values()] == [25.0, 25.0]
    assert [share.pauses for share in shares.next_shares("ab", 40.0).values()] == [{}, {}]
