"""Objects on Git LFS servers: asked for anew when a chain begins, and what is lent for one goes to one place alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from grym_fetch.core.addresses import Credentials
from grym_fetch.core.errors import BadResponse, BadStatus, PolicyRefused, Throttled, TooManyRedirects
from grym_fetch.core.http import Asked, Partial
from grym_fetch.core.lfs import MAX_BATCH_ANSWER_BYTES
from grym_fetch.core.origins import Origin
from grym_fetch.core.ranges import ByteRange
from grym_fetch.transfer.request import Requester
from tests.support.fakes import Answer, ScriptedConnection, ScriptedResponse

OID = "4d" * 32
ADDRESS = f"lfs://git.example/org/model.git/info/lfs/{OID}/1000"
BATCH = "https://git.example/org/model.git/info/lfs/objects/batch"
ASKED = Asked(ByteRange(10, 20), 1000)
TOKENS = {"GRYM_FETCH_TOKEN_GIT_EXAMPLE": "git-token", "GRYM_FETCH_TOKEN_OTHER_EXAMPLE": "other-token"}


class PostingConnection(ScriptedConnection):
    """Answers a POST as a GET. ``questions`` has what was sent."""

    def __init__(self, script: Mapping[str, list[Answer]]) -> None:
        super().__init__(script)
        self.questions: list[bytes] = []

    async def post(self, url: str, fields: Mapping[str, str], body: bytes) -> ScriptedResponse:
        """Give the next answer of this address."""
        self.questions.append(body)
        return await self.get(url, fields)


def lead(href: str, **action: Any) -> ScriptedResponse:
    """An answer that names a place."""
    found = {"oid": OID, "size": 1000, "actions": {"download": {"href": href, **action}}}
    return ScriptedResponse(200, {}, [json.dumps({"objects": [found]}).encode()])


def part(_: object = None) -> ScriptedResponse:
    """The requested range."""
    return ScriptedResponse(206, {"Content-Range": "bytes 10-19/1000"}, [b"0123456789"])


def at(number: int) -> str:
    """A place that is good for a while."""
    return f"https://store.example/4d?sig=hush-{number:06d}"


async def test_it_is_asked_once_and_again_when_that_has_expired() -> None:
    """Like the target of a redirect, the place is kept until it is refused; its fields go there alone."""
    expired = ScriptedResponse(403, {}, [b"expired"])
    connection = PostingConnection(
        {
            BATCH: [lead(at(1), header={"Authorization": "Basic bGVudA=="}), lead(at(2))],
            at(1): [part(), part(), expired],
            at(2): [part],
        }
    )
    origin, requester = Origin(0, ADDRESS), Requester(Credentials(TOKENS))
    for _ in range(4):
        assert isinstance((await requester.open(connection, origin, ASKED)).verdict, Partial)
    assert connection.addresses == [BATCH, at(1), at(1), at(1), BATCH, at(2), at(2)]
    sent = [fields.get("Authorization") for _, fields in connection.asked]
    lent = "Basic bGVudA=="
    assert sent == ["Bearer git-token", lent, lent, lent, "Bearer git-token", None, None]
    assert json.loads(connection.questions[0])["objects"] == [{"oid": OID, "size": 1000}]
    assert "lent" not in repr(origin)
    assert requester.secrets.hide("it was bGVudA== before") == "it was … before"


@pytest.mark.shows("S7")
async def test_what_is_lent_does_not_follow_a_redirect_elsewhere() -> None:
    """Not at first, and not when the target is asked directly."""
    there, elsewhere = "https://store.example/a", "https://other.example/a"
    moved = ScriptedResponse(302, {"Location": elsewhere})
    connection = PostingConnection({BATCH: [lead(there, header={"X-Key": "lent"})], there: [moved], elsewhere: [part]})
    origin, requester = Origin(0, ADDRESS), Requester(Credentials(TOKENS))
    for _ in range(2):
        await requester.open(connection, origin, ASKED)
    assert [(url, fields.get("X-Key")) for url, fields in connection.asked[1:]] == [
        (there, "lent"),
        (elsewhere, None),
        (elsewhere, None),
    ]
    assert all("Authorization" not in fields for _, fields in connection.asked[1:])


@pytest.mark.shows("S7")
async def test_a_question_that_is_redirected_takes_no_token_elsewhere() -> None:
    """The same question goes on, without what is for the first host."""
    elsewhere = "https://other.example/batch"
    moved = ScriptedResponse(307, {"Location": elsewhere})
    connection = PostingConnection({BATCH: [moved], elsewhere: [lead(at(1))], at(1): [part]})
    await Requester(Credentials(TOKENS)).open(connection, Origin(0, ADDRESS), ASKED)
    assert [fields.get("Authorization") for _, fields in connection.asked] == ["Bearer git-token", None, None]
    assert connection.questions[0] == connection.questions[1]
    circle = PostingConnection({BATCH: [ScriptedResponse(307, {"Location": BATCH})]})
    with pytest.raises(TooManyRedirects):
        await Requester(Credentials({})).open(circle, Origin(0, ADDRESS), ASKED)


@pytest.mark.parametrize(
    ("answer", "error", "reason"),
    [
        (ScriptedResponse(401, {}), BadStatus, "set GRYM_FETCH_TOKEN_GIT_EXAMPLE to a token, or add the host"),
        (ScriptedResponse(404, {}), BadStatus, "status 404"),
        (ScriptedResponse(429, {"Retry-After": "7"}), Throttled, "429"),
        (ScriptedResponse(200, {}, [b"<html>"]), BadResponse, "makes no sense"),
        (
            ScriptedResponse(200, {}, [bytes(1024)] * (MAX_BATCH_ANSWER_BYTES // 1024 + 1)),
            BadResponse,
            "is longer than",
        ),
        (ScriptedResponse(204, {}), BadResponse, "204"),
    ],
)
async def test_a_server_that_refuses(answer: ScriptedResponse, error: type[Exception], reason: str) -> None:
    """It is that origin's failure, with the reason and what to do."""
    connection = PostingConnection({BATCH: [answer]})
    with pytest.raises(error, match=reason):
        await Requester(Credentials({})).open(connection, Origin(0, ADDRESS), ASKED)


async def test_a_transport_that_cannot_post() -> None:
    """One line says what is missing."""
    connection = ScriptedConnection()
    with pytest.raises(PolicyRefused, match=r"its connections have no method `post`"):
        await Requester(Credentials({})).open(connection, Origin(0, ADDRESS), ASKED)
    assert connection.asked == []
