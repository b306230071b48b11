"""What goes between processes is read by the same version only."""

from __future__ import annotations

import pytest

from grym_fetch._version import __version__
from grym_fetch.cluster import node, packets
from grym_fetch.cluster.packets import OtherVersion, pack, unpack
from grym_fetch.cluster.protocol import Job, Task
from grym_fetch.core.errors import ClusterError
from grym_fetch.settings import Settings

TASK = Task(Job("run", "/m.json", "/a", "/e", Settings(parallel=7)), 1, 2, 3, "ab")


def test_there_and_back() -> None:
    """What was packed comes out, with the choices that were named."""
    assert unpack(pack(TASK), Task) == TASK


@pytest.mark.shows("P19")
async def test_another_version_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The version is looked at before the bytes, which may mean anything; both ends say who has which."""
    monkeypatch.setattr(packets, "__version__", "9.9")
    packet = pack(TASK)
    monkeypatch.undo()
    with pytest.raises(OtherVersion, match=r"9\.9"):
        unpack((packet[0], b"no pickle"), Task)
    with pytest.raises(ClusterError, match=r"the driver has grym-fetch 9\.9, a worker has"):
        node.run_task(packet)
    version, data = await node.answer(packet)
    assert (version, data) == (__version__, b"")
