"""Single values of a manifest: which addresses and ids are accepted, and why others are refused."""

from __future__ import annotations

import contextlib
import re
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core import manifest_values
from grym_fetch.core.manifest_values import check_id, check_url


@pytest.mark.parametrize(
    "url",
    [
        "http://h",
        "https://h/",
        "HTTPS://H/F",
        "https://h:8443/a?b=c#d",
        "https://user@h/a",
        "https://user:pa%20ss@h/a",
        "https://127.0.0.1:9/a",
        "https://[::1]:8000/a",
        "https://[2001:db8::1]/",
        "https://sub_domain.example.org./a",
        "https://a--b.xn--bcher-kva.example/a",
        "https://bücher.example/größe",
        "https://h/a@b:c//d;e?f=[1]&g={x}|'",
        "https://" + ".".join(["a" * 63] * 3) + "/x",
        "https://h/" + "x" * 8182,
    ],
)
def test_accepts_addresses(url: str) -> None:
    """Every address that browsers and servers agree on is accepted unchanged."""
    assert check_url(url) == url


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("", "has no scheme"),
        ("h/f", "has no scheme"),
        ("//h/f", "has no scheme"),
        ("file:///etc/passwd", "starts with file:"),
        ("ftp://h/f", "starts with ftp:"),
        ("gopher://h/f", "starts with gopher:"),
        ("javascript:alert(1)", "starts with javascript:"),
        ("https:", "has no host"),
        ("https://", "has no host"),
        ("http:///f", "has no host"),
        ("http:/h/f", "has no host"),
        ("http://:80/", "has no host"),
        ("http://user@/f", "has no host"),
        ("http://?x", "has no host"),
        ("http://h:0/", "has a port"),
        ("http://h:65536/", "has a port"),
        ("http://h:8o/", "has a port"),
        ("http://h:-1/", "has a port"),
        (" http://h/", "has a space"),
        ("http://h/a b", "has a space"),
        ("http://h/\n", r"the character \\n"),
        ("ht\ntp://h/", r"the character \\n"),
        ("http://h/\t", r"the character \\t"),
        ("http://h\0/", r"the character \\x00"),
        ("http://h/\x7f", r"the character \\x7f"),
        ("http://h/\u202e", r"the character \\u202e"),
        ("http://h/\u3000", r"the character \\u3000"),
        ("http://h\\@evil/", "has a backslash"),
        ("http:\\\\h\\f", "has a backslash"),
        ("http://a@b@evil/", "must be percent-encoded there"),
        ("http://[a]@evil/", "host|percent-encoded"),
        ("http://a%2Fb/", "not a valid name"),
        ("http://a%00b/", "not a valid name"),
        ("http://a..b/", "not a valid name"),
        ("http://.a/", "not a valid name"),
        ("http://-a/", "not a valid name"),
        ("http://a-/", "not a valid name"),
        ("http://a,b/", "not a valid name"),
        ("http://" + "a" * 64 + "/", "not a valid name"),
        ("http://" + "a." * 127 + "a/", "a host of 255 characters"),
        ("http://" + "ä" * 64 + "/", "not a valid international name"),
        ("http://h\uff0fevil/", "cannot be read"),
        ("http://[::1/", "cannot be read"),
        ("http://[::g]/", "cannot be read|not an IPv6 address"),
        ("http://[v1.x]/", "cannot be read|not an IPv6 address"),
        ("https://h/" + "x" * 8183, "is 8193 characters long; at most 8192"),
    ],
)
@pytest.mark.shows("M11", "S9")
def test_refuses_addresses_that_parsers_disagree_on(url: str, complaint: str) -> None:
    """An address with a doubtful host, or with a scheme other than http and https, is refused."""
    with pytest.raises(ValueError, match=complaint):
        check_url(url)


@given(st.from_regex(manifest_values._COMMON_URL, fullmatch=True))
@pytest.mark.shows("M11")
def test_the_short_cut_for_common_addresses_lets_nothing_more_through(url: str) -> None:
    """Everything accepted at first sight would also be accepted after a close look."""
    try:
        check_url(url)
    except ValueError:
        return
    with mock.patch.object(manifest_values, "_COMMON_URL", re.compile("(?!)")):
        assert check_url(url) == url


@given(st.one_of(st.text(), st.from_regex(r"https?://[^/]*", fullmatch=True)))
@pytest.mark.shows("M11")
def test_any_text_is_an_address_and_an_id_or_is_refused(text: str) -> None:
    """Text that is neither raises ValueError and nothing else."""
    for check in (check_url, check_id):
        with contextlib.suppress(ValueError):
            assert check(text) == text
