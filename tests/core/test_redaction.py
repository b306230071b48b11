"""Secrets sent in this run are never shown, however a server repeats them."""

from __future__ import annotations

import base64

import pytest

from grym_fetch.core.addresses import parse_address
from grym_fetch.core.errors import BadStatus
from grym_fetch.core.redaction import MAX_OF_FILES, SentSecrets

BASIC = "Basic " + base64.b64encode(b"me:pass/word").decode()


def secrets(*authorizations: str) -> SentSecrets:
    """Secrets sent in these fields."""
    sent = SentSecrets()
    for each in authorizations:
        sent.note(each)
    return sent


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("status 403: hunter2hunter2 is not known", "status 403: … is not known"),
        ("HUNTER2hunter2", "…"),
        ("hunter2", "hunter2"),
        ("/pass%2Fword/x pass/word", "/…/x …"),
        (BASIC, "Basic …"),
        ("nothing", "nothing"),
    ],
)
@pytest.mark.shows("S8")
def test_what_is_shown(text: str, shown: str) -> None:
    """Tokens and passwords are removed in any case, encoded or not; other words stay."""
    sent = secrets("Bearer hunter2hunter2", BASIC, "Bearer hunter2hunter2")
    assert sent.hide(text) == shown
    assert sent.occur_in(text) is (text != shown)


@pytest.mark.shows("S8")
def test_a_signature_is_hidden() -> None:
    """The part of a query that grants access is removed from what a server says, encoded or not; the rest stays."""
    sent = SentSecrets()
    sent.note_address(parse_address("https://h.example/a?download=trueenough&sv=2024-11-04&se=1&sig=AbCd%2FEfGh%3D"))
    sent.note_address(parse_address("https://h.example/a?sig=short"))
    said = "sig AbCd%2FEfGh%3D, ABCD/EFGH=, abcd%2fefgh%3d, trueenough short 2024-11-04"
    assert sent.hide(said) == "sig …, …, …, trueenough short 2024-11-04"
    assert sent.occur_in('"AbCd/EfGh="')
    assert not sent.occur_in('"AbCd"')


def test_the_signatures_that_are_known_are_bounded() -> None:
    """A run of many files, each with a signature, does not search each answer for all of them."""
    sent = SentSecrets()
    for number in range(MAX_OF_FILES + 1):
        sent.note_address(parse_address(f"https://h.example/a?sig=signature{number:04}"))
    assert sent.hide("signature0000") == "signature0000"
    assert sent.hide("signature0001 signature0100") == "… …"


@pytest.mark.shows("S8")
@pytest.mark.parametrize(
    ("login", "is_secret"),
    [
        ("glpat-1234567890:", True),
        ("glpat-1234567890:api", True),
        ("ghp_123456789012345678901234567890123456:x-oauth-basic", True),
        ("glpat-1234567890:a-password", False),
        ("models:", False),
    ],
)
def test_a_login_that_may_be_a_token(login: str, is_secret: bool) -> None:
    """Some servers take a token as the login, with no password or a word in its place."""
    sent = secrets("Basic " + base64.b64encode(login.encode()).decode())
    name = login.partition(":")[0]
    assert sent.hide(f"user {name}") == ("user …" if is_secret else f"user {name}")


def test_short_and_no_secrets() -> None:
    """A one-letter password does not remove that letter from every word."""
    assert secrets().hide("abc") == "abc"
    assert secrets("Basic " + base64.b64encode(b"me:a").decode()).hide("abc") == "abc"


@pytest.mark.shows("S8")
def test_errors_and_the_repr() -> None:
    """A secret is neither in an error's text nor in its arguments; the object's own repr shows nothing."""
    sent = secrets("Bearer hunter2hunter2")
    error = BadStatus("https://h.example/hunter2hunter2/a", 403, "status 403: hunter2hunter2")
    sent.hide_in(error)
    assert "hunter2" not in f"{error} {error!r} {error.args} {vars(error)} {sent!r}"
    assert error.status == 403
