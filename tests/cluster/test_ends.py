"""What workers send becomes ends and answers in the same way under every engine."""

from __future__ import annotations

import asyncio

import pytest

from grym_fetch._version import __version__
from grym_fetch.cluster import packets
from grym_fetch.cluster.dask import DaskCluster
from grym_fetch.cluster.ends import TaskEnds, end_of, reply_of
from grym_fetch.cluster.packets import Packet, pack
from grym_fetch.cluster.protocol import Done, Reply, TaskEnd
from grym_fetch.cluster.ray import RayCluster

DONE = Done(("a",), (), (), {}, {"a": "/a"}, 1, 1.0)


class Engine(TaskEnds):
    """One whose tasks end when a test says so."""

    def end(self, *numbers: int) -> None:
        for number in numbers:
            self._ended.put_nowait(TaskEnd(number))


async def test_each_end_is_given_once() -> None:
    """All that are there, in order; where there is none, the next one is waited for."""
    engine = Engine()
    engine.end(1, 2)
    assert [ended.number for ended in await engine.gather()] == [1, 2]
    waiting = asyncio.create_task(engine.gather())
    await asyncio.sleep(0)
    assert not waiting.done()
    engine.end(3)
    assert [ended.number for ended in await waiting] == [3]


def test_both_engines_have_it() -> None:
    """There is one of it."""
    assert DaskCluster.gather is RayCluster.gather is TaskEnds.gather


@pytest.mark.shows("P19")
def test_another_version_ends_a_task_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bytes are not read: the end is an error, the answer a problem, and both have the two versions."""

    def foreign(thing: object) -> Packet:
        with monkeypatch.context() as other:
            other.setattr(packets, "__version__", "9.9")
            return pack(thing)[0], b"no pickle"

    assert end_of(7, pack(DONE), "w") == TaskEnd(7, DONE, node="w")
    assert reply_of(pack(Reply(3))) == Reply(3)
    ended, reply = end_of(7, foreign(DONE), "w"), reply_of(foreign(Reply(3)))
    assert (ended.number, ended.done, ended.node) == (7, None, "w")
    assert f"9.9, and the driver {__version__}" in str(ended.error)
    assert reply.problem == f"has grym-fetch 9.9, and the driver {__version__}"
