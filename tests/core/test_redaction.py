"""What this run has sent is not shown, however a server repeats it."""

from __future__ import annotations

import base64

import pytest

from grym_fetch.core.errors import BadStatus
from grym_fetch.core.redaction import SentSecrets

BASIC = "Basic " + base64.b64encode(b"me:pass/word").decode()


def secrets(*authorizations: str) -> SentSecrets:
    """Those that were sent in these fields."""
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
    """A token and a password are taken out in any case, encoded or not; other words stay."""
    sent = secrets("Bearer hunter2hunter2", BASIC, "Bearer hunter2hunter2")
    assert sent.hide(text) == shown
    assert sent.occur_in(text) is (text != shown)


def test_short_and_no_secrets() -> None:
    """A password of one letter is no reason to take that letter out of every word."""
    assert secrets().hide("abc") == "abc"
    assert secrets("Basic " + base64.b64encode(b"me:a").decode()).hide("abc") == "abc"


@pytest.mark.shows("S8")
def test_errors_and_the_repr() -> None:
    """An error has it neither in its text nor in what it was made from; the object itself shows nothing."""
    sent = secrets("Bearer hunter2hunter2")
    error = BadStatus("https://h.example/hunter2hunter2/a", 403, "status 403: hunter2hunter2")
    sent.hide_in(error)
    assert "hunter2" not in f"{error} {error!r} {error.args} {vars(error)} {sent!r}"
    assert error.status == 403
