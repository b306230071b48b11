"""Where readers meet the transfer: who waits is told of any change, and no read outlives the transfer."""

from __future__ import annotations

import asyncio

import pytest

from grym_fetch.core.errors import StorageError
from grym_fetch.core.ranges import ByteRange
from grym_fetch.transfer.readers import Readers


class _Content:
    """A transfer's content whose reads wait."""

    def __init__(self, failure: StorageError | None = None) -> None:
        self.size: int | None = 9
        self.may_read = asyncio.Event()
        self._failure = failure

    async def read_judged(self, position: int) -> tuple[int, bytes] | None:
        await self.may_read.wait()
        if self._failure is not None:
            raise self._failure
        return position, b"data"


async def test_what_is_waited_for_is_known_and_hurried() -> None:
    """The transfer is told at once, and no longer than somebody waits."""
    readers, hurried = Readers(), list[list[ByteRange]]()
    with readers.waiting_for(ByteRange(0, 5)):
        readers.begin(_Content(), lambda: hurried.append(list(readers.wanted)))
        with readers.waiting_for(ByteRange(3, 4)):
            pass
        assert readers.wanted == [ByteRange(0, 5)]
    assert hurried == [[ByteRange(0, 5), ByteRange(3, 4)]]
    assert readers.wanted == []


async def test_without_a_transfer_there_is_nothing() -> None:
    """Before it begins and after it has ended."""
    readers = Readers()
    assert (readers.size, await readers.read(0)) == (None, None)
    change = readers.change
    readers.begin(content := _Content(), lambda: None)
    assert change.is_set()
    content.may_read.set()
    assert (readers.size, await readers.read(3)) == (9, (3, b"data"))
    await readers.end()
    assert (readers.size, await readers.read(0)) == (None, None)


async def test_no_read_outlives_the_transfer() -> None:
    """`end` returns once the last read has ended, even one whose reader is gone; its error reaches nobody."""
    readers = Readers()
    readers.begin(content := _Content(StorageError("part", "gone")), lambda: None)
    read = asyncio.create_task(readers.read(0))
    await asyncio.sleep(0)
    read.cancel()
    with pytest.raises(asyncio.CancelledError):
        await read
    ending = asyncio.create_task(readers.end())
    for _ in range(9):
        await asyncio.sleep(0)
    assert not ending.done()
    content.may_read.set()
    await ending
