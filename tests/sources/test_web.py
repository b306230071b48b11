"""How hubs are asked: within limits, with the right token, and again if that may help."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from grym_fetch.core.errors import ConnectFailed
from grym_fetch.errors import SourceFailed
from grym_fetch.sources.web import MAX_ANSWER_S
from tests.sources.asking import web_over
from tests.support.fakes import Answer, ScriptedConnection, ScriptedResponse, VirtualClock

URL = "https://hub.example/api/x"


async def test_an_answer() -> None:
    """Body, header fields and the address at the end of the redirects."""
    script: Mapping[str, list[Answer]] = {
        URL: [ScriptedResponse(307, {"Location": "/api/y"})],
        "https://hub.example/api/y": [ScriptedResponse(200, {"Link": "</api/z>; rel=next"}, [b'{"a"', b": 1}"])],
    }
    connection = ScriptedConnection(script)
    page = await web_over(connection).get(URL)
    assert (page.url, page.json(), page.next_url) == (
        "https://hub.example/api/y",
        {"a": 1},
        "https://hub.example/api/z",
    )
    assert all(response.closed for response in connection.given)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_what_is_not_there_is_an_answer(status: int) -> None:
    """The source decides what the status means; the reason says what to do."""
    page = await web_over(ScriptedConnection({URL: [ScriptedResponse(status, {"X-Error-Code": "No"})]})).get(URL)
    assert (page.status, page.fields["x-error-code"], page.body) == (status, "No", b"")
    assert str(status) in page.refusal


@pytest.mark.shows("C15")
async def test_what_may_pass_is_asked_again() -> None:
    """A busy hub is waited for as long as it says, and a lost connection is replaced; a limited number of times."""
    clock = VirtualClock()
    script: list[Answer] = [
        ScriptedResponse(429, {"Retry-After": "7"}),
        ConnectFailed(URL, "refused"),
        ScriptedResponse(200, {}, [b"[]"]),
    ]
    assert (await web_over(ScriptedConnection({URL: script}), clock=clock).get(URL)).json() == []
    assert clock.slept[0] >= 7
    connection = ScriptedConnection({URL: [ScriptedResponse(503)]})
    with pytest.raises(SourceFailed, match=r"The Hub: status 503.*hub\.example"):
        await web_over(connection, clock=VirtualClock()).get(URL)
    assert len(connection.asked) == 3


@pytest.mark.shows("C15", "S4")
async def test_too_much() -> None:
    """An endless body is abandoned at the limit, and the hub is not asked again."""
    connection = ScriptedConnection({URL: [ScriptedResponse(200, {}, [b"x" * 1000] * 1000)]})
    with pytest.raises(SourceFailed, match="longer than 10,000 bytes"):
        await web_over(connection, max_bytes=10_000).get(URL)
    assert len(connection.asked) == 1
    assert connection.given[0].closed


@pytest.mark.shows("C15", "S4")
async def test_too_slow() -> None:
    """A hub that sends a byte now and then is given up after a while."""
    clock = VirtualClock()

    class Slow(ScriptedResponse):
        async def readinto(self, buffer: memoryview) -> int:
            clock.now += 20
            return await super().readinto(buffer)

    connection = ScriptedConnection({URL: [Slow(200, {}, [b"x"] * 1000)]})
    with pytest.raises(SourceFailed, match=f"not complete after {MAX_ANSWER_S:.0f} seconds"):
        await web_over(connection, clock=clock).get(URL)
    assert clock.now < 1000 + MAX_ANSWER_S + 40


@pytest.mark.shows("C15")
async def test_what_breaks_the_rules() -> None:
    """Redirect loops, encoded bodies and plain http are the hub's failure, by name."""
    for bad in (
        ScriptedResponse(302, {"Location": URL}),
        ScriptedResponse(302, {"Location": "http://hub.example/api/x"}),
        ScriptedResponse(200, {"Content-Encoding": "gzip"}, [b"x"]),
        ScriptedResponse(206, {"Content-Range": "bytes 0-0/1"}, [b"x"]),
        ScriptedResponse(416),
    ):
        with pytest.raises(SourceFailed, match=r"^The Hub: "):
            await web_over(ScriptedConnection({URL: [bad]})).get(URL)
    with pytest.raises(SourceFailed, match="plain http"):
        await web_over(ScriptedConnection()).get("http://hub.example/")


@pytest.mark.shows("S7")
async def test_a_token_stays_with_its_host() -> None:
    """The hub's own token goes to the hub, and to no host that it names."""
    there = "https://elsewhere.example/x"
    script: Mapping[str, list[Answer]] = {
        URL: [ScriptedResponse(302, {"Location": there})],
        there: [ScriptedResponse(200, {}, [b"[]"])],
    }
    connection = ScriptedConnection(script)
    await web_over(connection, {"HF_TOKEN": "secret", "HF_ENDPOINT": "https://hub.example"}).get(URL)
    assert [fields.get("Authorization") for _, fields in connection.asked] == ["Bearer secret", None]


@pytest.mark.shows("S8")
async def test_a_token_that_is_repeated_is_not_shown() -> None:
    """It is hidden even in a header field that a source may put into a message."""
    environ = {"HF_TOKEN": "hunter2222", "HF_ENDPOINT": "https://hub.example"}
    response = ScriptedResponse(404, {"X-Error-Message": "no hunter2222 here"})
    page = await web_over(ScriptedConnection({URL: [response]}), environ).get(URL)
    assert "hunter2222" not in repr(page)


async def test_offline() -> None:
    """No one is asked."""
    connection = ScriptedConnection()
    with pytest.raises(SourceFailed, match="--offline"):
        await web_over(connection, offline=True).get(URL)
    assert not connection.asked
