"""Tokens of registries: fetched when required, renewed when they expire, and shown to nobody else."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from yarl import URL

from grym_fetch.core.addresses import Credentials
from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import ConnectFailed
from grym_fetch.core.http import Asked, ErrorStatus, Partial
from grym_fetch.core.origins import Origin
from grym_fetch.core.ranges import ByteRange
from grym_fetch.transfer.registry import fetch_token
from grym_fetch.transfer.request import Requester
from tests.support.fakes import Answer, ScriptedConnection, ScriptedResponse

BLOB = "https://registry.example/v2/a/blobs/x"
REALM = "https://registry.example/token"
ELSEWHERE = "https://auth.example/token"
ASKED = Asked(ByteRange(0, 10), 1000, ranges_proven=True, checksum=Checksum.of(b""))


def given(token: str) -> ScriptedResponse:
    """The answer of a realm."""
    return ScriptedResponse(200, {}, [json.dumps({"token": token}).encode()])


class Registry:
    """Serves a blob to any request with a token that is valid now."""

    def __init__(self, realm: str, *good: str) -> None:
        self.realm = realm
        self.good = set(good)

    def __call__(self, fields: Mapping[str, str]) -> ScriptedResponse:
        """Answer a request for the blob."""
        if fields.get("Authorization", "").removeprefix("Bearer ") in self.good:
            return ScriptedResponse(206, {"Content-Range": "bytes 0-9/1000"}, [b"0123456789"])
        return ScriptedResponse(401, {"WWW-Authenticate": f'Bearer realm="{self.realm}",scope="pull"'})


def sent(connection: ScriptedConnection) -> list[tuple[str, str | None]]:
    """Each requested address, without its query, and the credential sent there."""
    return [(url.partition("?")[0], fields.get("Authorization")) for url, fields in connection.asked]


@pytest.mark.shows("A23")
async def test_a_token_is_fetched_kept_and_renewed() -> None:
    """One 401 leads to a token, the next request carries it at once, and a fresh one is fetched when it has expired."""
    registry = Registry(ELSEWHERE, "t1")
    connection = ScriptedConnection({BLOB: [registry], f"{ELSEWHERE}?scope=pull": [given("t1"), given("t2")]})
    requester, origin = Requester(Credentials({})), Origin(0, BLOB)
    for turn in range(3):
        registry.good = {"t2"} if turn == 2 else {"t1"}
        answer = await requester.open(connection, origin, ASKED)
        assert isinstance(answer.verdict, Partial)
    assert sent(connection) == [
        (BLOB, None),
        (ELSEWHERE, None),
        (BLOB, "Bearer t1"),
        (BLOB, "Bearer t1"),
        (BLOB, "Bearer t1"),
        (ELSEWHERE, None),
        (BLOB, "Bearer t2"),
    ]


@pytest.mark.parametrize(("realm", "is_shown"), [(REALM, True), (ELSEWHERE, False)])
@pytest.mark.shows("A23", "S7")
async def test_a_realm_elsewhere_sees_no_credential(realm: str, is_shown: bool) -> None:
    """A realm is sent the token, whoever named it: so a credential goes only to the registry's own realm."""
    environ = {"GRYM_FETCH_TOKEN_REGISTRY_EXAMPLE": "mine", "GRYM_FETCH_TOKEN_AUTH_EXAMPLE": "other"}
    connection = ScriptedConnection({BLOB: [Registry(realm, "t1")], f"{realm}?scope=pull": [given("t1")]})
    await Requester(Credentials(environ)).open(connection, Origin(0, BLOB), ASKED)
    assert sent(connection) == [
        (BLOB, "Bearer mine"),
        (realm, "Bearer mine" if is_shown else None),
        (BLOB, "Bearer t1"),
    ]


@pytest.mark.parametrize(
    "answer", [ScriptedResponse(403), ScriptedResponse(200, {}, [b"no"]), ConnectFailed(REALM, "no"), given("wrong")]
)
@pytest.mark.shows("A23", "A5")
async def test_without_a_token_it_is_the_401(answer: Answer) -> None:
    """If a realm gives nothing, or nothing that is accepted, the refusal stands after one try."""
    connection = ScriptedConnection({BLOB: [Registry(REALM, "t1")], f"{REALM}?scope=pull": [answer]})
    told = await Requester(Credentials({})).open(connection, Origin(0, BLOB), ASKED)
    assert isinstance(told.verdict, ErrorStatus)
    assert told.verdict.status == 401
    assert "set GRYM_FETCH_TOKEN_REGISTRY_EXAMPLE" in str(told.refusal)
    told.response.close()
    assert [url for url, _ in sent(connection)].count(REALM) == 1


@pytest.mark.shows("A23", "S7")
async def test_a_token_stays_with_its_registry() -> None:
    """The blob store that a registry redirects to gets no token, and cannot request one."""
    store = "https://store.example/x"

    def registry(fields: Mapping[str, str]) -> ScriptedResponse:
        answer = Registry(ELSEWHERE, "t1")(fields)
        return ScriptedResponse(307, {"Location": store}) if answer.head.status == 206 else answer

    script: dict[str, list[Answer]] = {BLOB: [registry], f"{ELSEWHERE}?scope=pull": [given("t1")]}
    connection = ScriptedConnection({**script, store: [Registry(ELSEWHERE, "t1")]})
    answer = await Requester(Credentials({})).open(connection, Origin(0, BLOB), ASKED)
    assert answer.response.head.status == 401
    assert sent(connection)[-1] == (store, None)
    assert [url for url, _ in sent(connection)].count(ELSEWHERE) == 1


@pytest.mark.shows("A23", "S7")
async def test_no_registry_gets_the_token_of_another_one() -> None:
    """Any server can name somebody else's realm: the token that we have from there is not for it."""
    other = "https://other.example/v2/a/blobs/x"
    script: dict[str, list[Answer]] = {BLOB: [Registry(REALM, "t1")], other: [Registry(REALM, "t2")]}
    connection = ScriptedConnection({**script, f"{REALM}?scope=pull": [given("t1"), given("t2")]})
    requester = Requester(Credentials({"GRYM_FETCH_TOKEN_REGISTRY_EXAMPLE": "mine"}))
    for url in (BLOB, other):
        await requester.open(connection, Origin(0, url), ASKED)
    assert sent(connection) == [
        (BLOB, "Bearer mine"),
        (REALM, "Bearer mine"),
        (BLOB, "Bearer t1"),
        (other, None),
        (REALM, None),
        (other, "Bearer t2"),
    ]


@pytest.mark.parametrize("to", ["http://auth.example/token", "https://other.example/token"])
@pytest.mark.shows("A23", "S6", "S7")
async def test_a_realm_that_redirects(to: str) -> None:
    """A realm's redirects follow the same rules: never down to http, and no credential to another origin."""
    moved = ScriptedResponse(302, {"Location": to})
    connection = ScriptedConnection({REALM: [moved], to: [given("t1")]})
    token = await fetch_token(connection, URL(REALM), "Basic abc")
    is_down = to.startswith("http:")
    assert token == (None if is_down else "t1")
    assert sent(connection)[1:] == ([] if is_down else [(to, None)])


@pytest.mark.shows("S4")
async def test_an_answer_without_end_is_no_token() -> None:
    """A realm cannot fill memory."""
    endless = ScriptedResponse(200, {}, [b"x" * 60_000] * 1000)
    connection = ScriptedConnection({REALM: [endless]})
    assert await fetch_token(connection, URL(REALM), None) is None
    assert len(endless._body) > 990
