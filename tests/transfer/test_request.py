"""One requester: redirects are followed by hand, each hop is checked, and no hop learns what is not meant for it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from yarl import URL

from grym_fetch.core.addresses import MAX_REDIRECTS, Credentials, server_mark
from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import ConnectFailed, PolicyRefused, TooManyRedirects
from grym_fetch.core.http import (
    Asked,
    Broken,
    ErrorStatus,
    OtherRepresentation,
    Partial,
    UnusableRange,
    Validator,
)
from grym_fetch.core.origins import Origin
from grym_fetch.core.ranges import ByteRange
from grym_fetch.net.client import HttpTransport
from grym_fetch.testing import AssetServer, ExpiringRedirect, seeded_bytes
from grym_fetch.transfer.request import JudgedResponse, Requester
from tests.support.fakes import Answer as Scripted
from tests.support.fakes import ScriptedConnection, ScriptedResponse, read_some
from tests.support.project import Project

HUB = "https://hub.example/a.bin"
CDN = "https://cdn.example/a.bin?sig=hush"
ASKED = Asked(ByteRange(10, 20), 1000, Validator('"v1"'), ranges_proven=True, checksum=Checksum.of(b""))
UNPINNED = replace(ASKED, checksum=None)
TOKENS = {"GRYM_FETCH_TOKEN_HUB_EXAMPLE": "hub-token", "GRYM_FETCH_TOKEN_CDN_EXAMPLE": "cdn-token"}


def part(fields: Mapping[str, str] | None = None) -> ScriptedResponse:
    """The requested range."""
    return ScriptedResponse(
        206, {"Content-Range": "bytes 10-19/1000", "ETag": '"v1"', **(fields or {})}, [b"0123456789"]
    )


def to(location: str, status: int = 302) -> ScriptedResponse:
    """A redirect to this address."""
    return ScriptedResponse(status, {"Location": location}, [b"moved"])


async def ask(
    connection: ScriptedConnection, origin: Origin, environ: Mapping[str, str] | None = None
) -> JudgedResponse:
    return await Requester(Credentials(environ or {})).open(connection, origin, ASKED)


@pytest.mark.shows("R22")
@pytest.mark.parametrize("status", [304, 400, 412, 501])
@pytest.mark.parametrize("etag", ['"v1"', '"v2"'])
async def test_a_server_that_cannot_do_conditions(status: int, etag: str) -> None:
    """It is asked without If-Range from then on; the validator of its answer is compared as ever."""
    refused, answered = ScriptedResponse(status), part({"ETag": etag})
    connection = ScriptedConnection({HUB: [refused, answered, answered]})
    requester, origin = Requester(Credentials({})), Origin(0, HUB)
    for _ in range(2):
        answer = await requester.open(connection, origin, ASKED)
        assert isinstance(answer.verdict, Partial if etag == '"v1"' else OtherRepresentation)
    assert [fields.get("If-Range") for _, fields in connection.asked] == ['"v1"', None, None]
    assert {fields["Range"] for _, fields in connection.asked} == {"bytes=10-19"}


async def test_a_refusal_that_was_not_for_the_condition() -> None:
    """If the request without it is refused as well, the condition was not the reason, and is sent again next time."""
    connection = ScriptedConnection({HUB: [ScriptedResponse(400), ScriptedResponse(400), part()]})
    requester, origin = Requester(Credentials({})), Origin(0, HUB)
    assert isinstance((await requester.open(connection, origin, ASKED)).verdict, ErrorStatus)
    assert isinstance((await requester.open(connection, origin, ASKED)).verdict, Partial)
    assert [fields.get("If-Range") for _, fields in connection.asked] == ['"v1"', None, '"v1"']


# -- what is asked --------------------------------------------------------------------------------------------------


async def test_range_and_validator_go_along() -> None:
    """The requested range and the known validator are in the request, and the answer is judged by them."""
    connection = ScriptedConnection({HUB: [part()]})
    answer = await ask(connection, Origin(0, HUB))
    assert connection.asked == [(HUB, {"Range": "bytes=10-19", "If-Range": '"v1"'})]
    assert answer.verdict == Partial(ByteRange(10, 20), 1000, Validator('"v1"', None, server_mark(URL(HUB))))
    assert not answer.is_page


@pytest.mark.parametrize(
    "validator", [Validator(), Validator('W/"v1"'), Validator(None, "Thu, 01 Jan 2026 00:00:00 GMT")]
)
@pytest.mark.shows("R11", "B23")
async def test_only_a_strong_validator_goes_along(validator: Validator) -> None:
    """RFC 9110 section 13.1.5: no weak validator is sent in If-Range."""
    connection = ScriptedConnection({HUB: [part()]})
    await Requester(Credentials({})).open(connection, Origin(0, HUB), Asked(ByteRange(10, 20), 1000, validator))
    assert connection.asked == [(HUB, {"Range": "bytes=10-19"})]


async def test_the_whole_is_asked_for_without_conditions() -> None:
    """A request for everything carries neither range nor condition."""
    connection = ScriptedConnection({HUB: [ScriptedResponse(200, {"Content-Length": "0"})]})
    await Requester(Credentials({})).open(connection, Origin(0, HUB), Asked(None, None, Validator('"v1"')))
    assert connection.asked == [(HUB, {})]


async def test_a_page_is_noticed() -> None:
    """A web page in place of a file is remembered: it explains a wrong checksum."""
    connection = ScriptedConnection({HUB: [part({"Content-Type": "Text/HTML; charset=utf-8"})]})
    assert (await ask(connection, Origin(0, HUB))).is_page


@pytest.mark.parametrize("url", ["ftp://host.example/a", "file:///etc/passwd", "a.bin", "https://", "http://h:x/"])
@pytest.mark.shows("S9")
async def test_other_addresses_are_never_asked(url: str) -> None:
    """Only http and https addresses are requested."""
    connection = ScriptedConnection()
    with pytest.raises(PolicyRefused):
        await ask(connection, Origin(0, url))
    assert connection.asked == []


async def test_a_failure_to_connect_passes_through() -> None:
    """The connection's error is raised unchanged, and nothing is remembered."""
    origin = Origin(0, HUB)
    with pytest.raises(ConnectFailed):
        await ask(ScriptedConnection({HUB: [to(CDN)], CDN: [ConnectFailed(CDN, "no")]}), origin)
    assert origin.target is None


# -- redirects ------------------------------------------------------------------------------------------------------


async def test_where_a_redirect_leads_is_told_before_it_is_asked() -> None:
    """So that connections to there can be opened meanwhile; what is known in the end is the target alone."""
    origin, told = Origin(0, HUB), list[tuple[URL | None, int]]()
    connection = ScriptedConnection({HUB: [to(CDN)], CDN: [part()]})
    requester = Requester(Credentials({}), on_led=lambda: told.append((origin.leads_to, len(connection.asked))))
    await requester.open(connection, origin, ASKED)
    assert told == [(URL(CDN), 1)]
    assert (origin.leads_to, origin.target) == (None, URL(CDN))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.shows("R25", "A15")
async def test_a_redirect_is_followed_with_the_same_question(status: int) -> None:
    """Each hop is asked for the same range under the same condition, and no redirect's body is read."""
    connection = ScriptedConnection({HUB: [to(CDN, status)], CDN: [part()]})
    answer = await ask(connection, Origin(0, HUB))
    fields = {"Range": "bytes=10-19", "If-Range": '"v1"'}
    assert connection.asked == [(HUB, fields), (CDN, fields)]
    assert [response.closed for response in connection.given] == [True, False]
    assert isinstance(answer.verdict, Partial)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/b.bin", "https://hub.example/b.bin"),
        ("b.bin?x=a%2Fb%2B", "https://hub.example/b.bin?x=a%2Fb%2B"),
        ("//cdn.example/a", "https://cdn.example/a"),
        ("https://cdn.example/a#fragment", "https://cdn.example/a"),
        ("https://user:pw@cdn.example/a", "https://cdn.example/a"),
    ],
)
@pytest.mark.shows("A16")
async def test_where_a_location_leads(location: str, target: str) -> None:
    """A location is relative to where it came from, keeps its encoding, and loses userinfo and fragment."""
    connection = ScriptedConnection({HUB: [to(location)], target: [part()]})
    await ask(connection, Origin(0, HUB))
    assert connection.addresses == [HUB, target]
    assert all("Authorization" not in fields for _, fields in connection.asked)


@pytest.mark.parametrize(
    "location",
    ["http://hub.example/a.bin?sig=hush", "file:///etc/passwd", "ftp://hub.example/a", "javascript:1", "data:,x"],
)
@pytest.mark.shows("A11", "A12", "S6", "S9")
async def test_a_redirect_to_somewhere_bad_is_refused(location: str) -> None:
    """A redirect never leads down to http or to another scheme, and the refusal reveals no query."""
    connection = ScriptedConnection({HUB: [to(location)]})
    with pytest.raises(PolicyRefused) as caught:
        await ask(connection, Origin(0, HUB))
    assert connection.addresses == [HUB]
    assert connection.given[0].closed
    assert "hush" not in str(caught.value)


async def test_a_redirect_from_http_up_to_https_is_fine() -> None:
    """A redirect from http up to https is allowed."""
    connection = ScriptedConnection({"http://hub.example/a.bin": [to(HUB)], HUB: [part()]})
    assert isinstance((await ask(connection, Origin(0, "http://hub.example/a.bin"))).verdict, Partial)


async def test_a_redirect_without_an_address_is_broken() -> None:
    """A redirect without an address is a broken response."""
    answer = await ask(ScriptedConnection({HUB: [ScriptedResponse(302)]}), Origin(0, HUB))
    assert isinstance(answer.verdict, Broken)


def chain(length: int) -> ScriptedConnection:
    """``length`` redirects in a row, and the content at the end."""
    hops = [HUB] + [f"https://hop{n}.example/?sig=hush" for n in range(length)]
    script: dict[str, list[Scripted]] = {hop: [to(following)] for hop, following in pairwise(hops)}
    return ScriptedConnection(script | {hops[-1]: [part()]})


async def test_the_longest_chain() -> None:
    """Redirects are followed up to the limit."""
    assert isinstance((await ask(chain(MAX_REDIRECTS), Origin(0, HUB))).verdict, Partial)


@pytest.mark.shows("A8", "S4")
async def test_one_redirect_too_many() -> None:
    """One more is refused, nothing stays open, and nothing is remembered."""
    connection, origin = chain(MAX_REDIRECTS + 1), Origin(0, HUB)
    with pytest.raises(TooManyRedirects, match="more than 10"):
        await ask(connection, origin)
    assert len(connection.asked) == MAX_REDIRECTS + 1
    assert all(response.closed for response in connection.given)
    assert origin.target is None


@pytest.mark.parametrize("back", [HUB, CDN, "https://cdn.example/a.bin?sig=hush#again"])
@pytest.mark.shows("A8", "S4")
async def test_a_loop_is_noticed_when_it_closes(back: str) -> None:
    """A redirect to an earlier address is refused at once, and the refusal reveals no query."""
    connection = ScriptedConnection({HUB: [to(CDN)], CDN: [to(back)]})
    with pytest.raises(TooManyRedirects, match="lead back") as caught:
        await ask(connection, Origin(0, HUB))
    assert connection.addresses == [HUB, CDN]
    assert "hush" not in str(caught.value)


# -- credentials ----------------------------------------------------------------------------------------------------


def authorizations(connection: ScriptedConnection) -> list[str | None]:
    return [fields.get("Authorization") for _, fields in connection.asked]


@pytest.mark.shows("S7")
async def test_credentials_go_to_their_own_origin() -> None:
    """The token of a host goes to that host, even after a redirect that stays there."""
    there = "https://hub.example/b.bin"
    connection = ScriptedConnection({HUB: [to("/b.bin")], there: [part()]})
    await ask(connection, Origin(0, HUB), TOKENS)
    assert authorizations(connection) == ["Bearer hub-token", "Bearer hub-token"]


@pytest.mark.parametrize(
    "target",
    [CDN, "https://hub.example:8443/a.bin", "https://sub.hub.example/a.bin", "https://hub.example.evil.example/a.bin"],
)
@pytest.mark.shows("A9", "A10", "S7")
async def test_credentials_stay_behind(target: str) -> None:
    """Another host, another port or a subdomain gets no token: neither the first origin's nor one of its own."""
    connection = ScriptedConnection({HUB: [to(target)], target: [part()]})
    await ask(connection, Origin(0, HUB), TOKENS)
    assert authorizations(connection) == ["Bearer hub-token", None]


@pytest.mark.shows("A9", "S7")
async def test_credentials_do_not_come_back() -> None:
    """Once another origin has redirected, even the first one gets no credentials: it did not choose the address."""
    back = "https://hub.example/chosen-by-cdn"
    connection = ScriptedConnection({HUB: [to(CDN)], CDN: [to(back)], back: [part()]})
    await ask(connection, Origin(0, HUB), TOKENS)
    assert authorizations(connection) == ["Bearer hub-token", None, None]


@pytest.mark.shows("A9", "S7")
async def test_a_remembered_address_gets_no_credentials() -> None:
    """The target of a redirect gets no credentials, even if requested directly."""
    connection, origin = ScriptedConnection({HUB: [to(CDN)], CDN: [part()]}), Origin(0, HUB)
    await ask(connection, origin, TOKENS)
    await ask(connection, origin, TOKENS)
    assert connection.addresses == [HUB, CDN, CDN]
    assert authorizations(connection) == ["Bearer hub-token", None, None]


@pytest.mark.parametrize(
    ("userinfo", "field"),
    [("user:p%40ss", "Basic dXNlcjpwQHNz"), ("user", "Basic dXNlcjo="), (":p%40ss", "Basic OnBAc3M=")],
    ids=["both", "user only", "password only"],
)
@pytest.mark.shows("S7", "S8")
async def test_userinfo_becomes_a_field(userinfo: str, field: str) -> None:
    """User and password of an address are sent as a field to its origin, and are not part of the request target."""
    connection = ScriptedConnection({"https://hub.example/a.bin?q=1": [to(CDN)], CDN: [part()]})
    await ask(connection, Origin(0, f"https://{userinfo}@hub.example/a.bin?q=1#part"))
    assert connection.addresses == ["https://hub.example/a.bin?q=1", CDN]
    assert authorizations(connection) == [field, None]


@pytest.mark.shows("S7")
async def test_plain_http_gets_no_credentials() -> None:
    """Over plain http everybody could read a token; to this machine it is sent."""
    away, here = "http://hub.example/a.bin", "http://127.0.0.1:8000/a.bin"
    connection = ScriptedConnection({away: [part()], here: [part()]})
    environ = {**TOKENS, "GRYM_FETCH_TOKEN_127_0_0_1_PORT_8000": "local"}
    await ask(connection, Origin(0, away), environ)
    await ask(connection, Origin(0, here), environ)
    assert authorizations(connection) == [None, "Bearer local"]


@pytest.mark.parametrize("is_redirect", [False, True])
@pytest.mark.shows("S7", "A21")
async def test_a_signed_address_gets_no_token(is_redirect: bool) -> None:
    """A signature in the address is the credential: S3 answers 400 to a signed address that comes with a token."""
    signed = f"{HUB}?X-Amz-Signature=abc"
    connection = ScriptedConnection({HUB: [to(signed)], signed: [part()]})
    await ask(connection, Origin(0, HUB if is_redirect else signed), TOKENS)
    assert authorizations(connection)[-1] is None


@pytest.mark.parametrize("status", [400, 401, 403, 410])
@pytest.mark.shows("A21")
async def test_an_expired_signed_address_says_so(status: int) -> None:
    """A signed address that is refused has most likely expired: the advice is to get a fresh one, not a token."""
    signed = f"{HUB}?X-Amz-Signature=abc"
    refusal = (await ask(ScriptedConnection({signed: [ScriptedResponse(status, {})]}), Origin(0, signed))).refusal
    assert str(refusal) == (
        f"status {status}: this address is signed and has probably expired; "
        "put a fresh one in; with a checksum, what has arrived is kept"
    )


@pytest.mark.shows("A5")
async def test_who_refused_and_what_was_sent() -> None:
    """A refusal names the host that refused, if a redirect led there, and says whether a credential was sent."""

    async def told(environ: Mapping[str, str], answers: Mapping[str, list[Scripted]]) -> str:
        return str((await ask(ScriptedConnection(answers), Origin(0, HUB), environ)).refusal)

    no = ScriptedResponse(403, {})
    assert "no credentials were sent; set GRYM_FETCH_TOKEN_HUB_EXAMPLE to a token" in await told({}, {HUB: [no]})
    assert "credentials from GRYM_FETCH_TOKEN_HUB_EXAMPLE were not accepted" in await told(TOKENS, {HUB: [no]})
    there = await told(TOKENS, {HUB: [to("https://cdn.example/a")], "https://cdn.example/a": [no]})
    assert there == "status 403 from cdn.example, where a redirect led: access denied; no credentials are sent there"


@pytest.mark.parametrize("url", ["http://hub.example/a", "http://127.0.0.1:8000/a", "https://hub.example/a"])
@pytest.mark.shows("S6")
async def test_without_a_checksum_no_hop_is_plain_http(url: str) -> None:
    """Over plain http anybody on the way could change the bytes: neither the address nor a redirect is requested."""
    away = "http://cdn.example/a"
    connection = ScriptedConnection({url: [to(away)], away: [part()]})
    with pytest.raises(PolicyRefused):
        await Requester(Credentials({})).open(connection, Origin(0, url), UNPINNED)
    assert away not in connection.addresses
    assert connection.addresses == ([] if url == "http://hub.example/a" else [url])


@pytest.mark.parametrize("is_local", [True, False, None])
@pytest.mark.shows("S6")
async def test_the_name_of_this_machine_must_lead_to_it(is_local: bool | None) -> None:
    """Behind `a.localhost`, or a proxy to localhost, may be anybody: only where the bytes came from counts."""
    url = "http://a.localhost:8000/a"
    answer = part()
    answer.head = replace(answer.head, is_local=is_local)
    opening = Requester(Credentials({})).open(ScriptedConnection({url: [answer]}), Origin(0, url), UNPINNED)
    if is_local is False:
        with pytest.raises(PolicyRefused, match="plain http and no checksum"):
            await opening
        assert answer.closed
    else:
        assert isinstance((await opening).verdict, Partial)


@pytest.mark.shows("A14", "S7")
async def test_each_origin_has_its_own() -> None:
    """A mirror gets its own token and never the first origin's."""
    mirror = "https://mirror.example/a.bin"
    connection = ScriptedConnection({HUB: [part()], mirror: [part()]})
    for number, url in enumerate((HUB, mirror)):
        await ask(connection, Origin(number, url), TOKENS)
    assert authorizations(connection) == ["Bearer hub-token", None]


@pytest.mark.parametrize(
    "answer",
    [
        ScriptedResponse(206, {"Content-Range": "bytes hub-token", "ETag": '"v1"'}),
        ScriptedResponse(206, {"Content-Range": "bytes " + "x" * 35 + "hub-token" + "x" * 70}),
        ScriptedResponse(206, {"Content-Range": "bytes 10-19/1000", "Content-Length": "hub-token"}),
        ScriptedResponse(200, {"Content-Encoding": "hub-token"}),
        ScriptedResponse(206, {"Content-Range": "bytes 10-19/1000", "ETag": '"hub-token"'}),
        to("https://hub-token.cdn.example/hub-token/a"),
        to("http://cdn.example/hub-token"),
    ],
    ids=["range", "long range", "length", "encoding", "validator", "refused there", "down to http"],
)
@pytest.mark.shows("S8")
async def test_what_a_server_repeats_is_not_shown(answer: ScriptedResponse) -> None:
    """A token that comes back in a field or an address is in no message, and in no validator that gets stored."""
    away = "https://hub-token.cdn.example/hub-token/a"
    connection = ScriptedConnection({HUB: [answer], away: [ScriptedResponse(403)]})
    try:
        told = await ask(connection, Origin(0, HUB), TOKENS)
        text = f"{told.verdict} {told.refusal}"
    except PolicyRefused as error:
        text = f"{error} {error!r}"
    assert authorizations(connection)[0] == "Bearer hub-token"
    # A token in pieces would be no better.
    assert "hub-t" not in text


def cookies(connection: ScriptedConnection) -> list[str | None]:
    """The cookies of each request."""
    return [fields.get("Cookie") for _, fields in connection.asked]


@pytest.mark.shows("A22", "S7")
async def test_a_cookie_goes_back_to_who_set_it() -> None:
    """A redirect to itself that wants its cookie back is not a loop; the cookie also goes to the remembered address."""

    def wall(fields: Mapping[str, str]) -> ScriptedResponse:
        moved = to(HUB)
        moved.head = replace(moved.head, fields={**moved.head.fields, "set-cookie": ["pass=1; Path=/", "lb=2"]})
        return part() if "pass=1" in fields.get("Cookie", "") else moved

    connection, origin = ScriptedConnection({HUB: [wall]}), Origin(0, HUB)
    for _ in range(2):
        assert isinstance((await ask(connection, origin)).verdict, Partial)
    assert cookies(connection) == [None, "pass=1; lb=2", "pass=1; lb=2"]
    other = Origin(1, HUB)
    await ask(connection, other)
    assert cookies(connection)[3:] == [None, "pass=1; lb=2"], "each chain begins without"


@pytest.mark.shows("A22", "S7")
async def test_a_cookie_goes_nowhere_else() -> None:
    """Another host gets none, and a chain that returns has its own again."""
    setting = ScriptedResponse(302, {"Location": "https://cdn.example/b", "Set-Cookie": "pass=1; Domain=.example"})
    back = f"{HUB}?2"
    connection = ScriptedConnection({HUB: [setting], "https://cdn.example/b": [to(back)], back: [part()]})
    await ask(connection, Origin(0, HUB))
    assert cookies(connection) == [None, None, "pass=1"]


@pytest.mark.shows("A8")
async def test_a_loop_that_sets_cookies_ends() -> None:
    """A new cookie at every hop does not keep us going forever."""
    turns = iter(range(1000))

    def again(_: Mapping[str, str]) -> ScriptedResponse:
        return ScriptedResponse(302, {"Location": HUB, "Set-Cookie": f"c={next(turns)}"})

    connection = ScriptedConnection({HUB: [again]})
    with pytest.raises(TooManyRedirects):
        await ask(connection, Origin(0, HUB))
    assert len(connection.asked) == MAX_REDIRECTS + 1


# -- what is remembered, and expires --------------------------------------------------------------------------------


async def test_no_redirect_leaves_nothing_to_remember() -> None:
    """An origin that answers without a redirect is asked directly."""
    connection, origin = ScriptedConnection({HUB: [part()]}), Origin(0, HUB)
    await ask(connection, origin)
    assert origin.target is None


@pytest.mark.shows("R25", "R13")
async def test_a_validator_is_for_the_server_that_said_it() -> None:
    """Of two servers behind one address, only the one that gave the validator gets it back."""
    other = "https://cdn2.example/a.bin"
    connection = ScriptedConnection({HUB: [to(other), to(CDN)], CDN: [part()], other: [part({"ETag": '"v2"'})]})
    asked = Asked(ByteRange(10, 20), 1000, Validator('"v1"', None, server_mark(URL(CDN))))
    for origin in (Origin(0, HUB), Origin(0, HUB)):
        assert isinstance((await Requester(Credentials({})).open(connection, origin, asked)).verdict, Partial)
    conditions = [(url, fields.get("If-Range")) for url, fields in connection.asked]
    assert conditions == [(HUB, None), (other, None), (HUB, None), (CDN, '"v1"')]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
@pytest.mark.shows("A6")
async def test_an_expired_address_is_found_anew(status: int) -> None:
    """When the remembered address has expired, the chain is followed again, to wherever it leads now."""
    fresh = "https://cdn.example/a.bin?sig=fresh"
    connection = ScriptedConnection(
        {HUB: [to(CDN), to(fresh)], CDN: [part(), ScriptedResponse(status)], fresh: [part()]}
    )
    origin = Origin(0, HUB)
    await ask(connection, origin)
    answer = await ask(connection, origin)
    assert connection.addresses == [HUB, CDN, CDN, HUB, fresh]
    assert isinstance(answer.verdict, Partial)
    assert str(origin.target) == fresh
    assert [response.closed for response in connection.given] == [True, False, True, True, False]


@pytest.mark.shows("A6", "B50")
async def test_an_expired_address_is_walked_once() -> None:
    """If the address is expired after the second walk too, that is the answer: nobody goes in circles."""
    connection = ScriptedConnection({HUB: [to(CDN)], CDN: [part(), ScriptedResponse(403)]})
    origin = Origin(0, HUB)
    await ask(connection, origin)
    answer = await ask(connection, origin)
    assert connection.addresses == [HUB, CDN, CDN, HUB, CDN]
    assert isinstance(answer.verdict, ErrorStatus | UnusableRange)
    assert answer.response.head.status == 403


@pytest.mark.parametrize("status", [416, 429, 500, 503])
async def test_other_failures_do_not_expire_an_address(status: int) -> None:
    """An address that is busy or fails is kept."""
    connection = ScriptedConnection({HUB: [to(CDN)], CDN: [part(), ScriptedResponse(status)]})
    origin = Origin(0, HUB)
    await ask(connection, origin)
    answer = await ask(connection, origin)
    assert connection.addresses == [HUB, CDN, CDN]
    assert answer.response.head.status == status
    assert origin.target is not None


async def test_a_remembered_address_that_redirects_is_found_anew() -> None:
    """If the remembered address redirects, the walk starts at the first address, so that it ends."""
    moved = "https://cdn2.example/a.bin"
    connection = ScriptedConnection({HUB: [to(CDN), to(moved)], CDN: [part(), to(moved)], moved: [part()]})
    origin = Origin(0, HUB)
    await ask(connection, origin)
    await ask(connection, origin)
    assert connection.addresses == [HUB, CDN, CDN, HUB, moved]
    assert str(origin.target) == moved


@pytest.mark.shows("A6")
async def test_who_comes_late_uses_what_another_has_found() -> None:
    """Of several workers that meet the same expiry one follows the chain; the others use the address it found."""
    fresh = "https://cdn.example/a.bin?sig=fresh"
    origin = Origin(0, HUB)

    def expired_while_another_walked(_: Mapping[str, str]) -> ScriptedResponse:
        origin.resolved(origin.target and origin.target.with_query("sig=fresh"), is_own=False)
        return ScriptedResponse(403)

    connection = ScriptedConnection({HUB: [to(CDN)], CDN: [part(), expired_while_another_walked], fresh: [part()]})
    await ask(connection, origin)
    await ask(connection, origin)
    assert connection.addresses == [HUB, CDN, CDN, fresh]
    assert str(origin.target) == fresh


@pytest.mark.shows("A6", "B50")
async def test_an_expiring_link_of_a_real_server() -> None:
    """From a server whose links open a file twice, six ranges come, with as few walks as that takes."""
    content = seeded_bytes(6000, seed=71)
    async with AssetServer() as hub, AssetServer() as cdn:
        file = cdn.add("/blob.bin", content)
        origin = Origin(0, hub.add("/a.bin", faults=[ExpiringRedirect(file.url, uses=2)]).url)
        connection = HttpTransport().connection()
        body = b""
        for start in range(0, 6000, 1000):
            answer = await Requester(Credentials({})).open(connection, origin, Asked(ByteRange(start, start + 1000)))
            body += await read_some(answer.response)
            answer.response.close()
        await connection.aclose()
        assert body == content
        assert len(hub.stats.requests) == 3


@pytest.mark.shows("S8")
async def test_the_log_of_requests_holds_no_query(
    tmp_path: Path, server: AssetServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A program that logs everything sees each request, its status and its time, and nothing that may be secret."""
    project = Project(tmp_path)
    project.add("a", [f"{server.add('/a', b'content').url}?k=s3cr3t"], b"content")
    caplog.set_level("DEBUG", "grym_fetch.transfer.request")
    async with project.manager() as manager:
        await manager.get_asset_path("a")
    assert "/a bytes=0-6: 206 in " in caplog.text
    assert "s3cr3t" not in caplog.text


@pytest.mark.shows("S8", "U4")
async def test_a_secret_in_the_path_of_a_redirect_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A server may put the token that it was sent, or the password of a proxy before it, into a path or a host."""
    caplog.set_level("DEBUG", "grym_fetch.transfer.request")
    places = ["https://cdn.example/x/hub-token/a", "https://hub-token.example/a", "https://cdn.example/of-the-proxy/a"]
    connection = ScriptedConnection(
        {HUB: [to(places[0])], places[0]: [to(places[1])], places[1]: [to(places[2])], places[2]: [part()]}
    )
    proxy = "Basic " + base64.b64encode(b"me:of-the-proxy").decode()
    await Requester(Credentials(TOKENS), also_sent=[proxy]).open(connection, Origin(0, HUB), ASKED)
    assert "GET https://cdn.example/x/…/a bytes=10-19: 302 in " in caplog.text
    assert "GET https://….example/a bytes=10-19: 302 in " in caplog.text
    assert "GET https://cdn.example/…/a bytes=10-19: 206 in " in caplog.text
    assert "hub-token" not in caplog.text


# -- buckets --------------------------------------------------------------------------------------------------------

BUCKET = "s3://models/a.bin"
OBJECT = "https://models.s3.example/a.bin"


class Signer:
    """Signs with a new number each time."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, address: str) -> str:
        assert address == BUCKET
        self.count += 1
        return f"{OBJECT}?X-Amz-Signature=number-{self.count:06d}"


def signed_as(number: int) -> str:
    return f"{OBJECT}?X-Amz-Signature=number-{number:06d}"


async def test_a_bucket_is_signed_once_and_again_when_that_has_expired() -> None:
    """Like the target of a redirect, a signed address is kept until it is refused; nothing else is sent along."""
    refused = ScriptedResponse(403, {}, [b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message>"])
    connection = ScriptedConnection({signed_as(1): [part(), part(), refused], signed_as(2): [part()]})
    signer, origin = Signer(), Origin(0, BUCKET)
    requester = Requester(Credentials({"GRYM_FETCH_TOKEN_MODELS_S3_EXAMPLE": "token"}), sign=signer)
    for _ in range(3):
        answer = await requester.open(connection, origin, ASKED)
        assert isinstance(answer.verdict, Partial)
    assert [url for url, _ in connection.asked] == [signed_as(1), signed_as(1), signed_as(1), signed_as(2)]
    assert all("Authorization" not in fields for _, fields in connection.asked)
    assert origin.shown == BUCKET


async def test_keys_that_are_refused_are_not_tried_again() -> None:
    """An address that was signed just now cannot have expired, so the advice is about the keys."""
    connection = ScriptedConnection({signed_as(1): [ScriptedResponse(403, {}, [b"<Error/>"])]})
    signer = Signer()
    answer = await Requester(Credentials({}), sign=signer).open(connection, Origin(0, BUCKET), ASKED)
    assert answer.refusal is not None
    assert "see that AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in str(answer.refusal)
    assert signer.count == 1


@pytest.mark.parametrize(
    ("status", "token", "advice"),
    [
        (403, "", "access denied; set AWS_ACCESS_KEY_ID"),
        (404, "", "not found; see that bucket and key are right; if it is not public: set AWS_ACCESS_KEY_ID"),
        (403, "s3cr3t", "the credentials from GRYM_FETCH_TOKEN_MODELS_S3_EXAMPLE were not accepted; renew"),
        (404, "s3cr3t", "not found; see that bucket and key are right; if it is not public"),
    ],
)
async def test_why_an_object_is_refused_that_nobody_signed(status: int, token: str, advice: str) -> None:
    """Without keys it says where they are taken from; a token that was sent is named."""

    async def sign(_: str) -> str:
        return OBJECT

    connection = ScriptedConnection({OBJECT: [ScriptedResponse(status, {}, [])]})
    credentials = Credentials({"GRYM_FETCH_TOKEN_MODELS_S3_EXAMPLE": token} if token else {})
    answer = await Requester(credentials, sign=sign).open(connection, Origin(0, BUCKET), ASKED)
    assert advice in str(answer.refusal)


async def test_a_plain_address_of_a_bucket_gets_the_token_of_its_host() -> None:
    """Google's store also takes a bearer token; it goes to that host alone, also in later requests."""

    async def sign(_: str) -> str:
        return OBJECT

    connection = ScriptedConnection({OBJECT: [part(), part()]})
    requester = Requester(Credentials({"GRYM_FETCH_TOKEN_MODELS_S3_EXAMPLE": "token"}), sign=sign)
    origin = Origin(0, BUCKET)
    for _ in range(2):
        await requester.open(connection, origin, ASKED)
    assert [fields["Authorization"] for _, fields in connection.asked] == ["Bearer token"] * 2
