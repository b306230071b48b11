"""Short answers that are read whole: bounded in bytes and in time."""

from __future__ import annotations

import asyncio

import pytest

from grym_fetch.core.errors import BadResponse, Stalled
from grym_fetch.core.http import ResponseHead
from grym_fetch.transfer.answers import MAX_ANSWER_S, read_answer
from tests.support.fakes import ScriptedResponse, VirtualLoop


class Drip:
    """A body of one byte every nine seconds, without end."""

    head = ResponseHead(200)

    async def readinto(self, buffer: memoryview) -> int:
        """The next byte."""
        await asyncio.sleep(9)
        buffer[:1] = b" "
        return 1

    def close(self) -> None:
        """Nothing to close."""


def test_an_answer_that_drips_comes_to_an_end() -> None:
    """No time-out of a connection notices a byte now and then, so the whole answer has a time of its own."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        began = runner.get_loop().time()
        with pytest.raises(Stalled, match="the registry was not complete after 30 s"):
            runner.run(read_answer(Drip(), "https://h/x", whose="the registry", most=1000))
        assert runner.get_loop().time() - began <= MAX_ANSWER_S + 9


async def test_an_answer_has_a_most() -> None:
    """What is as long as allowed is read, and one byte more is refused."""
    answer = ScriptedResponse(200, {}, [b"12", b"34"])
    assert await read_answer(answer, "https://h/x", whose="it", most=4) == b"1234"
    with pytest.raises(BadResponse, match="the answer of it is longer than 4 bytes"):
        await read_answer(ScriptedResponse(200, {}, [b"123", b"45"]), "https://h/x", whose="it", most=4)
