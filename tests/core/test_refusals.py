"""Why a server refused, in words: which server, whether a credential was sent, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from grym_fetch.core.addresses import Credential, Credentials, parse_address
from grym_fetch.core.http import status_text
from grym_fetch.core.refusals import explain_refusal, shown_host

FIRST = "https://hub.example/a.bin"
SENT = Credential("Bearer hunter2", "HF_TOKEN")


def told(
    status: int,
    *,
    first: str = FIRST,
    here: str = "",
    sent: Credential | None = None,
    reason: str = "",
    challenges: Sequence[str] = (),
) -> str:
    """The message for this status."""
    return str(
        explain_refusal(
            status,
            reason or status_text(status),
            first=parse_address(first),
            here=parse_address(here or first),
            sent=sent,
            credentials=Credentials({}),
            challenges=challenges,
        )
    )


@pytest.mark.shows("A5")
def test_whether_a_credential_was_sent() -> None:
    """A refused credential and a missing one need different fixes; the one sent is named but not shown."""
    assert told(401) == (
        "status 401: the server wants credentials; no credentials were sent; "
        "set GRYM_FETCH_TOKEN_HUB_EXAMPLE to a token, or add the host to ~/.netrc (readable by you alone)"
    )
    assert told(403, sent=SENT) == (
        "status 403: access denied; the credentials from HF_TOKEN were not accepted; "
        "renew HF_TOKEN, and see that the account has access"
    )
    assert told(404) == "status 404: not found"
    assert told(404, sent=SENT).startswith("status 404: not found; or the account of the credentials from HF_TOKEN")


@pytest.mark.shows("A5")
def test_a_server_that_takes_a_login_only() -> None:
    """Git servers do, and so does a password that nginx asks for: a bearer token would get the same answer."""
    advice = "put a login and a password, or a token in its place, for this host into ~/.netrc"
    assert advice in told(401, challenges=['Basic realm="Git"'])
    assert advice not in told(401, challenges=['Basic realm="a"', 'Bearer realm="b"'])
    assert advice not in told(401, challenges=['Basic realm="a", Bearer realm="b"'])


@pytest.mark.shows("S7")
def test_a_token_is_not_sent_over_plain_http() -> None:
    """If a token is held back because the address is http, the advice is https, not another token."""
    assert "over https only: use the https address" in told(401, first="http://models.example.org/a.bin")


@pytest.mark.shows("A5")
def test_who_refused() -> None:
    """After a redirect, the message names the host that refused and gives no advice about a token it would not get."""
    there = told(403, here="https://cdn.example:8443/a", sent=None)
    assert there.startswith("status 403 from cdn.example:8443, where a redirect led: access denied")
    assert "GRYM_FETCH_TOKEN" not in there
    assert told(503, here="https://cdn.example/a") == "status 503 from cdn.example, where a redirect led"
    assert "may lack access" in told(403, here="https://cdn.example/a?X-Goog-Signature=abc")


@pytest.mark.shows("A29")
@pytest.mark.parametrize("here", ["", "https://cdn.example/a"])
def test_what_the_head_says_is_kept(here: str) -> None:
    """The message says that a page came with the refusal, whichever server refused."""
    text = told(503, here=here, reason="status 503: it sent a web page")
    assert text.startswith("status 503")
    assert text.endswith(": it sent a web page")
    assert "it sent a web page; no credentials" in told(
        403, here=here, reason="status 403: access denied; it sent a web page"
    )


@pytest.mark.shows("A31")
def test_a_client_certificate_that_is_wanted_after_the_handshake() -> None:
    """nginx answers 400 here; over plain http, or after a redirect, that means something else."""
    assert "want a client certificate (GRYM_FETCH_CLIENT_CERT and GRYM_FETCH_CLIENT_KEY)" in told(400)
    assert told(400, first="http://hub.example/a.bin") == "status 400"


@pytest.mark.parametrize("query", ["sig=abc", "token=abc"])
def test_an_address_that_may_be_signed(query: str) -> None:
    """If the address seems to contain a token, the advice is to get a fresh one, but nothing is claimed for certain."""
    text = told(403, first=f"{FIRST}?{query}")
    assert text == (
        "status 403: access denied; no credentials were sent; "
        "if the address is signed or holds a token, it may have expired: put a fresh one in"
    )


@pytest.mark.shows("A21")
@pytest.mark.parametrize(
    "query", ["X-Amz-Signature=a", "Signature=a&Expires=1", "sv=1&se=1&sig=a", "Policy=a&Signature=b"]
)
def test_an_expired_signature(query: str) -> None:
    """A signed address that is refused has expired; a token would not help."""
    for status in (400, 403, 410):
        text = told(status, first=f"{FIRST}?{query}")
        assert "signed and has probably expired; put a fresh one in; with a checksum, what has arrived is kept" in text
        assert "TOKEN" not in text
    assert told(404, first=f"{FIRST}?{query}") == "status 404: not found"


@pytest.mark.parametrize(
    ("address", "shown"), [("https://h.example/x", "h.example"), ("https://u:p@[::1]:8443/x?y", "[::1]:8443")]
)
def test_the_host_in_a_message(address: str, shown: str) -> None:
    """A port is named if it is not the scheme's default; user and password never are."""
    assert shown_host(parse_address(address)) == shown
