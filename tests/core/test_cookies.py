"""Cookies of one redirect chain: sent back to the server that set them, and to nobody else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from grym_fetch.core.cookies import MAX_COOKIE_BYTES, MAX_COOKIES, ChainCookies

HERE = URL("https://h.example/a")


def learned(*fields: str) -> ChainCookies:
    """The cookies that this origin has set."""
    cookies = ChainCookies()
    cookies.learn(HERE, fields)
    return cookies


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        (["a=1"], "a=1"),
        (["a=1; Path=/; Secure; HttpOnly", "b=2; Domain=.example"], "a=1; b=2"),
        (["a=1", "a=2"], "a=2"),
        (["a=1", "a=; Max-Age=0"], ""),
        (["a=1", "a=gone; max-age=-1; Path=/"], ""),
        (["a=1", "a=deleted; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/"], ""),
        (["a=1", "a=; expires=Thu, 01-Jan-1970 00:00:01 GMT"], ""),
        (["a=1; Expires=Wed, 01 Jan 2031 19:19:19 GMT"], "a=1"),
        (["a=1; Domain=other.example"], "a=1"),
        (["a=1; Max-Age=60"], "a=1"),
        (['a="x"'], 'a="x"'),
        (["a="], "a="),
        (["=1", "a", "", "a b=1", "a=1 2", "a=\r\nX: y", "a=é", "a=1,2"], ""),
        ([f"a={'x' * MAX_COOKIE_BYTES}"], ""),
    ],
)
def test_what_is_sent_back(fields: list[str], sent: str) -> None:
    """The last value of each name is sent back; a malformed, deleted or overlong cookie is not."""
    assert learned(*fields).field(HERE) == sent


@pytest.mark.shows("S7")
@pytest.mark.parametrize(
    "other", ["https://www.h.example/", "https://h.example:8443/", "http://h.example/", "https://example/"]
)
def test_nobody_else_gets_them(other: str) -> None:
    """A cookie is for the scheme, host and port that set it, whatever its Domain says."""
    assert learned("a=1; Domain=.example; Path=/").field(URL(other)) == ""


@pytest.mark.shows("S4")
def test_their_number_is_bounded() -> None:
    """A server that sets endless cookies does not fill memory."""
    cookies = learned(*(f"c{number}=1" for number in range(1000)))
    assert cookies.field(HERE).count(";") == MAX_COOKIES - 1


@given(st.lists(st.text(max_size=40)))
def test_no_text_ends_a_line(fields: list[str]) -> None:
    """Whatever a server sets, the field sent back is one printable line."""
    sent = learned(*fields).field(HERE)
    assert sent.isascii()
    assert sent.isprintable()


def test_they_are_not_shown() -> None:
    """Cookies are never shown, since one may be a login."""
    assert "hunter2" not in repr(learned("a=hunter2"))
