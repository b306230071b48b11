"""One socket as a state machine: its moves, and what it does when things come in any order."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable
from contextlib import suppress
from socket import socketpair

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core.errors import BadResponse, ConnectionLost, GrymFetchError, Stalled
from grym_fetch.net.parser import MAX_FEED_BYTES
from grym_fetch.net.states import ENDED, MOVES, OPEN, PARSED, RAW, UNFINISHED, IllegalMove, State
from grym_fetch.net.wire import Wire
from tests.support.properties import examples
from tests.support.system import descriptors

URL = "http://host.example/a"
BODY = bytes(range(256)) * 4
SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n" + BODY
LAST = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


class FakeSocket(asyncio.Transport):
    """Stands in for asyncio's transport: data from the server waits here while reading is paused.

    ``goes_on``: what came at once is handed on whole, even if reading is paused meanwhile, as by the loop of Windows.
    """

    def __init__(self, *, goes_on: bool = False) -> None:
        super().__init__()
        self.goes_on = goes_on
        self.wire = Wire(stall_timeout=30.0)
        self.is_paused = False
        self.is_gone = False
        self.arrived = b""
        self.sent = b""
        self.extra: dict[str, object] = {}
        self.wire.connection_made(self)

    def get_extra_info(self, name: str, default: object = None) -> object:
        """Say something about the socket."""
        return self.extra.get(name, default)

    def pause_reading(self) -> None:
        """Leave incoming data where it is."""
        self.is_paused = True

    def resume_reading(self) -> None:
        """Pass incoming data to the wire, at the loop's next turn."""
        self.is_paused = False
        asyncio.get_running_loop().call_soon(self._deliver)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send."""
        self.sent += bytes(data)

    def abort(self) -> None:
        """Close at the loop's next turn."""
        asyncio.get_running_loop().call_soon(self.lose, None)

    def receive(self, data: bytes) -> None:
        """The server sends this."""
        self.arrived += data
        self._deliver()

    def _deliver(self) -> None:
        may_go_on = self.goes_on and not self.is_paused
        while self.arrived and (may_go_on or not self.is_paused) and not self.is_gone:
            buffer = self.wire.get_buffer(-1)
            count = min(len(buffer), len(self.arrived))
            buffer[:count] = self.arrived[:count]
            self.arrived = self.arrived[count:]
            self.wire.buffer_updated(count)

    def lose(self, error: Exception | None) -> None:
        """The socket is gone."""
        if not self.is_gone:
            self.is_gone = True
            self.wire.connection_lost(error)


async def turn() -> None:
    """Let everything that is due happen."""
    for _ in range(3):
        await asyncio.sleep(0)


async def asked(socket: FakeSocket, answer: bytes) -> None:
    """Send a request, and let this come back."""
    asking = asyncio.ensure_future(socket.wire.ask(b"GET", URL))
    await turn()
    socket.receive(answer)
    await asking


async def read_all(wire: Wire) -> bytes:
    """Read the body to its end, with a buffer smaller than the body."""
    body, buffer = b"", memoryview(bytearray(300))
    while count := await wire.readinto(buffer):
        body += buffer[:count]
    return body


# -- the table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", State)
def test_each_state_has_its_moves(state: State) -> None:
    """Every state can be reached, and only the final one cannot be left."""
    assert state is State.CONNECTING or any(state in moves for moves in MOVES.values())
    assert (MOVES[state] == frozenset()) == (state in (State.CLOSED, State.UNANSWERED))


@pytest.mark.parametrize("before", State, ids=lambda state: state.name)
async def test_only_legal_moves_are_made(before: State) -> None:
    """A move that is not in the table raises and changes nothing; one that is in it is made."""
    for after in State:
        wire = Wire(stall_timeout=30.0)
        wire.state = before
        if after in MOVES[before]:
            wire._move(after)
            assert wire.state is after
        else:
            with pytest.raises(IllegalMove, match=f"<Wire {before.name}.* cannot become {after.name}"):
                wire._move(after)
            assert wire.state is before


def test_what_has_ended_stays_ended() -> None:
    """No move leads from a closing socket back to a used one; an answer begins only when none is under way."""
    for state in ENDED:
        assert MOVES[state] <= set(ENDED)
    assert [state for state in State if State.SENT in MOVES[state]] == [State.IDLE, State.DONE]
    assert {state for state in State if State.IDLE in MOVES[state]} == {State.CONNECTING, State.DONE}


def test_the_groups_say_what_they_mean() -> None:
    """What arrives is either parsed or raw; while something is expected, silence and the end of the socket matter."""
    assert set(UNFINISHED) == set(PARSED) | set(RAW) < set(OPEN)
    assert not set(OPEN) & set(ENDED)
    for state in UNFINISHED:
        assert {State.FAILED, State.CLOSING} < MOVES[state]


# -- one request ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "arriving", "at_end"),
    [
        (SIZED, State.SIZED, State.DONE),
        (CHUNKED, State.CHUNKED, State.DONE),
        (LAST, State.SIZED, State.MUST_CLOSE),
        (UNTIL_CLOSE, State.UNTIL_CLOSE, State.CLOSED),
        (b"HTTP/1.1 204 No Content\r\n\r\n", State.DONE, State.DONE),
    ],
    ids=["sized", "chunked", "last", "until close", "no body"],
)
async def test_one_response_state_by_state(answer: bytes, arriving: State, at_end: State) -> None:
    """A response passes through the states of its framing, and the socket is idle again if both sides agree."""
    socket = FakeSocket()
    wire = socket.wire
    assert wire.is_idle
    asking = asyncio.ensure_future(wire.ask(b"GET", URL))
    await turn()
    states = [wire.state]
    head_end = answer.index(b"\r\n\r\n") + 4
    for portion in (answer[:9], answer[9:head_end]):
        socket.receive(portion)
        states.append(wire.state)
    assert states == [State.SENT, State.HEAD, arriving]
    await asking
    reading = asyncio.ensure_future(read_all(wire))
    socket.receive(answer[head_end:])
    if arriving is State.UNTIL_CLOSE:
        await turn()
        socket.lose(None)
    assert await reading == (BODY if len(answer) > head_end else b"")
    assert (wire.state, socket.sent) == (at_end, b"GET")
    wire.finish()
    assert wire.is_idle == (at_end is State.DONE)
    assert repr(wire) == f"<Wire {wire.state.name}>"


async def test_the_name_says_what_is_to_come() -> None:
    """In a log a wire shows its state, and how much of the body is missing."""
    socket = FakeSocket()
    await asked(socket, SIZED[:-1000])
    assert repr(socket.wire) == "<Wire SIZED, 1000 bytes to come>"


@pytest.mark.posix
async def test_gone_before_a_byte_came_is_a_state_of_its_own() -> None:
    """A socket that closed before a byte came back is distinguished from one that closed in the middle of a head."""
    for begun, state in ((b"", State.UNANSWERED), (b"HTTP/1.1", State.CLOSED)):
        socket = FakeSocket()
        asking = asyncio.ensure_future(socket.wire.ask(b"GET", URL))
        await turn()
        socket.receive(begun)
        socket.lose(ConnectionResetError(104, "reset"))
        with pytest.raises(ConnectionLost, match="without an answer: connection reset"):
            await asking
        assert socket.wire.state is state


@pytest.mark.shows("N5", "S3")
async def test_a_server_that_speaks_first_is_not_asked() -> None:
    """Data that came before the request is not its answer, nor is what follows."""
    socket = FakeSocket()
    socket.receive(SIZED)
    assert socket.wire.state is State.MUST_CLOSE
    with pytest.raises(BadResponse, match="before the request"):
        await socket.wire.ask(b"GET", URL)
    assert socket.sent == b""
    assert socket.is_paused, "nobody will read what else it says"


@pytest.mark.shows("N5", "S3")
async def test_what_follows_a_body_that_nobody_awaited_is_no_answer() -> None:
    """A body that came while its reader was busy is complete, and bytes after it close the connection there, too."""
    socket = FakeSocket()
    await asked(socket, SIZED[: -len(BODY)])
    socket.receive(BODY + SIZED)
    await turn()
    assert socket.wire.state is State.MUST_CLOSE
    assert await read_all(socket.wire) == BODY
    socket.wire.finish()
    assert not socket.wire.is_idle


async def test_closing_a_body_that_only_the_end_ends_is_not_its_end() -> None:
    """When we close the connection, the reader is told, and does not take what came for the whole content."""
    socket = FakeSocket()
    await asked(socket, UNTIL_CLOSE[: -len(BODY)])
    reading = asyncio.ensure_future(read_all(socket.wire))
    await turn()
    socket.wire.abort()
    with pytest.raises(ConnectionLost, match="was closed"):
        await reading
    await socket.wire.closed
    assert socket.wire.state is State.CLOSED


@pytest.mark.shows("D19")
@pytest.mark.parametrize("answer", [SIZED, CHUNKED, UNTIL_CLOSE], ids=["sized", "chunked", "until close"])
async def test_what_nobody_reads_waits_in_the_operating_system(answer: bytes) -> None:
    """After one piece that nobody was waiting for, no more is received until there is a reader, whatever the framing.

    Otherwise a fast server would fill the memory of a slow reader.
    """
    socket = FakeSocket()
    head_end = answer.index(b"\r\n\r\n") + 4
    await asked(socket, answer[:head_end])
    for at in range(head_end, len(answer), 100):
        socket.receive(answer[at : at + 100])
    assert socket.is_paused
    assert len(socket.arrived) == len(answer) - head_end - 100
    reading = asyncio.ensure_future(read_all(socket.wire))
    while socket.arrived:
        await turn()
    if answer is UNTIL_CLOSE:
        socket.lose(None)
    assert await reading == BODY


@pytest.mark.shows("D19")
async def test_a_buffer_that_is_full_is_read_before_more_comes() -> None:
    """What goes straight into the reader's buffer stops at its end, and not before."""
    socket = FakeSocket()
    await asked(socket, SIZED[: -len(BODY)])
    reading = asyncio.ensure_future(socket.wire.readinto(memoryview(bytearray(300))))
    await turn()
    socket.receive(BODY[:100])
    assert not socket.is_paused
    socket.receive(BODY[100:])
    assert socket.is_paused
    assert len(socket.arrived) == len(BODY) - 300
    assert await reading == 300
    assert await read_all(socket.wire) == BODY[300:]


async def test_a_buffer_that_is_full_is_not_offered_again() -> None:
    """A loop may go on with what it has received already, although reading is paused: that is kept."""
    socket = FakeSocket()
    await asked(socket, SIZED[: -len(BODY)])
    reading = asyncio.ensure_future(socket.wire.readinto(memoryview(bytearray(300))))
    await turn()
    for portion in (BODY[:300], BODY[300:]):
        socket.wire.get_buffer(-1)[: len(portion)] = portion
        socket.wire.buffer_updated(len(portion))
    assert await reading == 300
    assert await read_all(socket.wire) == BODY[300:]


@pytest.mark.shows("N5")
async def test_a_body_whose_end_came_during_a_pause_is_read_on_after() -> None:
    """Otherwise the answer to the next request would never be seen."""
    socket = FakeSocket(goes_on=True)
    await asked(socket, SIZED[: -len(BODY)])
    reading = asyncio.ensure_future(read_all(socket.wire))
    await turn()
    socket.receive(BODY)
    assert await reading == BODY
    socket.wire.finish()
    await asked(socket, SIZED)
    assert await read_all(socket.wire) == BODY


async def test_what_was_kept_fills_a_buffer_exactly() -> None:
    """Nothing is left of it then, which would look like the end of the body."""
    socket = FakeSocket()
    await asked(socket, SIZED[: -len(BODY)])
    socket.receive(BODY[:300])
    reading = asyncio.ensure_future(read_all(socket.wire))
    await turn()
    socket.receive(BODY[300:])
    assert await reading == BODY


@pytest.mark.parametrize(
    ("peer", "is_local"),
    [(("127.0.0.1", 80), True), (("::1", 80, 0, 0), True), (("93.184.216.34", 80), False), ("", False), (None, False)],
)
async def test_where_the_other_end_is(peer: object, is_local: bool) -> None:
    """Asked once: a socket does not move."""
    socket = FakeSocket()
    socket.extra = {"peername": peer}
    assert socket.wire.is_local is is_local
    socket.extra = {"peername": ("127.0.0.1" if not is_local else "93.184.216.34", 80)}
    assert socket.wire.is_local is is_local


async def test_a_socket_that_is_gone_is_not_asked() -> None:
    """The request was not sent, so it may be sent over another one."""
    socket = FakeSocket()
    socket.lose(None)
    with pytest.raises(ConnectionLost, match="without an answer"):
        await socket.wire.ask(b"GET", URL)
    assert socket.sent == b""


async def test_nothing_is_waited_for_once_the_socket_is_gone() -> None:
    """A timer would keep it in memory until the time is up; so would that of one that was given away."""
    lost, left = FakeSocket(), FakeSocket()
    for socket in (lost, left):
        await asked(socket, SIZED[: -len(BODY)])
    timers = [socket.wire._watchdog for socket in (lost, left)]
    lost.lose(None)
    assert left.wire.leave() is left
    assert left.wire.state is State.CLOSED
    assert [timer is not None and timer.cancelled() for timer in timers] == [True, True]


@pytest.mark.posix
@pytest.mark.shows("N1", "N4")
async def test_a_body_without_a_length_that_breaks_off_is_not_whole() -> None:
    """Only a proper close is its end; what came before is given first."""
    socket = FakeSocket()
    await asked(socket, UNTIL_CLOSE[:-1000])
    socket.lose(ConnectionResetError(104, "reset"))
    with pytest.raises(ConnectionLost, match="broke off: connection reset"):
        await read_all(socket.wire)


@pytest.mark.linux
@pytest.mark.shows("X10")
async def test_a_child_leaves_alone_what_is_no_longer_the_wires() -> None:
    """A socket that was given away belongs to another wire; for one that is closed, nothing is opened."""
    ours, theirs = socketpair()
    socket = FakeSocket()
    with ours, theirs:
        await asked(socket, SIZED[: -len(BODY)])
        before = descriptors()
        socket.wire.forget()
        socket.extra = {"socket": ours}
        assert socket.wire.leave() is socket
        socket.wire.forget()
        assert stat.S_ISSOCK(os.fstat(ours.fileno()).st_mode)
        assert descriptors() == before
    gone = FakeSocket()
    gone.extra = {"socket": ours}
    before = descriptors()
    gone.wire.forget()
    assert descriptors() == before


async def test_silence_fails_the_response_and_keeps_what_came() -> None:
    """After a stall the bytes that came are given first, then the error."""
    socket = FakeSocket()
    await asked(socket, SIZED[:-1000])
    asking = asyncio.ensure_future(read_all(socket.wire))
    await turn()
    socket.wire._last_arrival -= 3600
    socket.wire._look()
    with pytest.raises(Stalled):
        await asking
    assert socket.wire.state is State.FAILED


# -- requests ahead of their turn --------------------------------------------------------------------------------------


async def test_the_watchdog_leaves_alone_what_is_being_closed() -> None:
    """It may be due between the closing and its end: whoever waits is told that it was closed."""
    socket = FakeSocket()
    asking = asyncio.ensure_future(socket.wire.ask(b"GET", URL))
    await turn()
    await aborts(socket)
    await looks(socket)
    with pytest.raises(ConnectionLost, match="was closed"):
        await asking


async def next_answer(wire: Wire) -> bytes:
    """Release the last response, and read the next one."""
    wire.finish()
    await wire.head()
    return await read_all(wire)


@pytest.mark.parametrize("cut", [1, 50, len(SIZED) - 1, len(SIZED), len(SIZED) + 50, 3 * len(SIZED)])
@pytest.mark.shows("N24")
async def test_answers_come_in_the_order_of_the_requests(cut: int) -> None:
    """However they are split: three answers, one after the other, and then the socket is idle."""
    bodies = [bytes([n]) * (len(BODY) + n) for n in range(3)]
    raw = b"".join(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body) for body in bodies)
    socket = FakeSocket()
    await asked(socket, raw[:60])
    for _ in range(2):
        assert socket.wire.takes_more
        socket.wire.send(b"NEXT", URL)
    await turn()
    assert socket.sent == b"GETNEXTNEXT"
    rest = raw[60:]
    for at in range(0, len(rest), cut):
        asyncio.get_running_loop().call_soon(socket.receive, rest[at : at + cut])
    read = [await read_all(socket.wire)]
    read += [await next_answer(socket.wire) for _ in range(2)]
    assert read == bodies
    socket.wire.finish()
    assert socket.wire.is_idle
    assert not socket.is_paused


@pytest.mark.parametrize(
    ("answer", "takes_more"),
    [
        (SIZED[:60], True),
        (SIZED[:60].replace(b"1.1", b"1.0").replace(b"\r\n", b"\r\nConnection: keep-alive\r\n", 1), False),
        (LAST[:80], False),
        (CHUNKED[:60], False),
        (UNTIL_CLOSE[:40], False),
    ],
    ids=["1.1", "1.0", "last", "chunked", "until close"],
)
@pytest.mark.shows("N24")
async def test_who_is_sent_requests_ahead(answer: bytes, takes_more: bool) -> None:
    """A server that has shown HTTP/1.1, an open connection, and where the body ends; no other one."""
    socket = FakeSocket()
    asking = asyncio.ensure_future(socket.wire.ask(b"GET", URL))
    await turn()
    assert not socket.wire.takes_more
    socket.receive(answer)
    await asking
    assert socket.wire.takes_more is takes_more
    if not takes_more:
        with pytest.raises(IllegalMove):
            socket.wire.send(b"NEXT", URL)


@pytest.mark.shows("N24")
@pytest.mark.parametrize("is_quiet", [True, False])
async def test_who_is_sent_requests_over_an_idle_socket(monkeypatch: pytest.MonkeyPatch, is_quiet: bool) -> None:
    """A server that has proved itself, unless something has come that could be taken for an answer."""
    monkeypatch.setattr("grym_fetch.net.wire.is_quiet", lambda _: is_quiet)
    for cut in (60, len(SIZED)):
        socket = FakeSocket()
        wire = socket.wire
        assert (wire.is_quiet, wire.takes_more) == (is_quiet, False)
        assert wire.head_now is None
        await asked(socket, SIZED[:cut])
        assert not wire.is_quiet
        assert wire.head_now is not None
        socket.receive(SIZED[cut:])
        assert await read_all(wire) == BODY
        wire.finish()
        assert wire.is_idle
        assert (wire.is_quiet, wire.takes_more) == (is_quiet, is_quiet)


async def test_who_breaks_its_word_before_an_answer() -> None:
    """Not one that had closed an idle socket: it may not have seen the request. One that has answered before has."""
    for begun, has_answered, is_blamed in ((b"", False, False), (b"HTTP/1.1", False, True), (b"", True, True)):
        socket = FakeSocket()
        if has_answered:
            await asked(socket, SIZED)
            socket.wire.send(b"NEXT", URL)
            await read_all(socket.wire)
            socket.wire.finish()
        else:
            socket.wire.send(b"GET", URL)
        await turn()
        assert socket.sent == (b"GETNEXT" if has_answered else b"GET")
        socket.receive(begun)
        socket.lose(None)
        assert socket.wire.breaks_its_word is is_blamed


async def test_the_head_of_an_answer_that_was_let_go_is_none() -> None:
    """It would be taken for the head of the next one."""
    socket = FakeSocket()
    await asked(socket, SIZED[:60])
    socket.wire.finish()
    assert socket.wire.head_now is None


@pytest.mark.shows("N5", "N24", "S3")
async def test_what_follows_an_announced_end_is_no_answer() -> None:
    """Not even if a request was sent ahead before the server said that it would close."""
    socket = FakeSocket()
    await asked(socket, SIZED)
    await read_all(socket.wire)
    socket.wire.finish()
    asking = asyncio.ensure_future(socket.wire.ask(b"GET", URL))
    await turn()
    socket.wire.send(b"NEXT", URL)
    socket.receive(LAST + SIZED)
    await asking
    assert socket.wire.state is State.MUST_CLOSE
    assert await read_all(socket.wire) == BODY
    socket.wire.finish()
    with pytest.raises(ConnectionLost):
        await socket.wire.head()
    assert not socket.wire.breaks_its_word, "it was announced"


@pytest.mark.shows("D19", "N24")
async def test_of_the_next_answer_little_is_kept() -> None:
    """What comes before its turn waits in the operating system, but for as much as is received at once."""
    socket, body = FakeSocket(), bytes(3 * MAX_FEED_BYTES)
    await asked(socket, SIZED[:60])
    socket.wire.send(b"NEXT", URL)
    socket.receive(SIZED[60:])
    await read_all(socket.wire)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    socket.receive(answer)
    assert socket.is_paused
    assert len(socket.arrived) == len(answer) - MAX_FEED_BYTES
    assert await next_answer(socket.wire) == body


@pytest.mark.shows("N24")
async def test_the_answer_after_the_next_is_read_when_its_turn_comes() -> None:
    """What waited in the operating system while there was enough of the next answer, is not waited for in vain."""
    socket = FakeSocket()
    await asked(socket, SIZED[:60])
    for _ in range(2):
        socket.wire.send(b"NEXT", URL)
    socket.receive(SIZED[60:])
    await read_all(socket.wire)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 65000\r\n\r\n"
    body = bytes(65000)
    fill = MAX_FEED_BYTES - len(head) - len(body)
    head = head.replace(b"\r\n\r\n", b"\r\nX: " + b"x" * (fill - 5) + b"\r\n\r\n")
    socket.receive(head + body + SIZED)
    assert (socket.is_paused, socket.arrived) == (True, SIZED)
    assert await next_answer(socket.wire) == body
    socket.wire.finish()
    await turn()
    assert socket.wire.head_now is not None
    assert await read_all(socket.wire) == BODY


async def test_who_breaks_its_word() -> None:
    """A connection that ends before requests sent ahead are answered: by the server, as it had announced, or by us."""
    for answer, ends, blamed in (
        (SIZED, lambda socket: socket.lose(None), True),
        (SIZED[:60], lambda socket: socket.lose(OSError(104, "reset")), True),
        (SIZED[:60], lambda _: None, False),
    ):
        socket = FakeSocket()
        await asked(socket, answer[:60])
        socket.wire.send(b"NEXT", URL)
        await turn()
        socket.receive(answer[60:])
        with suppress(ConnectionLost):
            await socket.wire.readinto(memoryview(bytearray(2000))) if answer is SIZED else None
        ends(socket)
        socket.wire.finish()
        with pytest.raises(ConnectionLost):
            await socket.wire.head()
        assert socket.wire.breaks_its_word is blamed


# -- anything in any order --------------------------------------------------------------------------------------------

Event = Callable[[FakeSocket], Awaitable[None]]


def receives(data: bytes) -> Event:
    """The server sends something."""

    async def event(socket: FakeSocket) -> None:
        if not socket.is_gone:
            socket.receive(data)
        await turn()

    return event


def is_lost(error: Exception | None) -> Event:
    """The socket closes."""

    async def event(socket: FakeSocket) -> None:
        socket.lose(error)

    return event


async def asks(socket: FakeSocket) -> None:
    """Send a request, if one may be sent; nobody waits for the head."""
    if socket.wire.is_idle:
        asking = asyncio.ensure_future(socket.wire.ask(b"GET", URL))
        asking.add_done_callback(lambda done: done.cancelled() or done.exception())
    await turn()


async def asks_ahead(socket: FakeSocket) -> None:
    """Send a request ahead of its turn, if one may be sent."""
    if socket.wire.state is not State.IDLE and socket.wire.takes_more:
        socket.wire.send(b"NEXT", URL)
    await turn()


async def reads(socket: FakeSocket) -> None:
    """A caller with the head reads for a while."""
    if socket.wire.state in (State.SENT, State.HEAD):
        return
    reading = asyncio.ensure_future(socket.wire.readinto(memoryview(bytearray(500))))
    await turn()
    reading.cancel()
    with suppress(GrymFetchError, asyncio.CancelledError):
        await reading


async def finishes(socket: FakeSocket) -> None:
    """The reader releases the response, as it does once for each."""
    if socket.wire.state not in (State.IDLE, State.SENT, State.HEAD):
        socket.wire.finish()


async def aborts(socket: FakeSocket) -> None:
    """We close the connection."""
    socket.wire.abort()


async def looks(socket: FakeSocket) -> None:
    """An hour has passed, and the watchdog checks."""
    socket.wire._last_arrival -= 3600
    socket.wire._look()


WHOLE = [SIZED, SIZED * 3, CHUNKED, UNTIL_CLOSE, LAST, b"HTTP/1.1 100 Continue\r\n\r\n"]
PARTS = [SIZED[:50], SIZED[50:], CHUNKED[:70], CHUNKED[70:]]


async def turns(_: FakeSocket) -> None:
    """Give others time."""
    await turn()


EVENTS = st.one_of(
    st.sampled_from([asks, asks_ahead]),
    st.sampled_from(WHOLE + PARTS).map(receives),
    st.binary(max_size=40).map(receives),
    st.sampled_from([reads, finishes, turns]),
    st.sampled_from([is_lost(None), is_lost(OSError(104, "reset")), aborts, looks]),
)


@examples(300)
@given(st.lists(EVENTS, max_size=25), st.booleans())
@pytest.mark.shows("S11")
def test_whatever_happens_is_a_legal_move(events: list[Event], goes_on: bool) -> None:
    """Whatever comes in whatever order: no illegal move, an idle socket listens, and a closed one stays closed."""

    async def run() -> None:
        socket = FakeSocket(goes_on=goes_on)
        for event in events:
            before = socket.wire.state
            await event(socket)
            state = socket.wire.state
            assert before not in ENDED or state in ENDED
            assert state is not State.IDLE or not socket.is_paused, "it would not notice what it did not ask for"
            assert socket.wire.closed.done() == (state in (State.CLOSED, State.UNANSWERED))
        socket.wire.abort()
        await socket.wire.closed
        assert MOVES[socket.wire.state] == frozenset()

    asyncio.run(run())
