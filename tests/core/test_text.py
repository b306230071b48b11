"""Text from outside made safe: it shows no secret of an address, and cannot steer a terminal or forge a line."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core import text as module
from grym_fetch.core.text import redact_text, redact_url, safe_text

CANARY = "hunter2"
UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


@given(st.text(st.characters(codec=None), max_size=60), st.integers(0, 80))
@pytest.mark.shows("U1", "U3", "S10")
def test_nothing_unsafe_is_left(text: str, limit: int) -> None:
    """No control, format, surrogate or separator character is left, and the text is one line."""
    shown = safe_text(text, limit=limit)
    assert not [char for char in shown if unicodedata.category(char) in UNSAFE]
    assert len(shown.splitlines()) <= 1
    shown.encode("utf-8")


@given(st.text(st.characters(codec=None), max_size=60), st.integers(1, 80))
def test_its_length_is_bounded(text: str, limit: int) -> None:
    """The text shown is no longer than the limit plus the sign that something is missing."""
    assert len(safe_text(text, limit=limit)) <= limit + 1


@given(st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=60))
def test_harmless_text_stays(text: str) -> None:
    """Text without unsafe characters is shown unchanged; a second pass changes nothing."""
    assert safe_text(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", "a\\nb"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x00\x7f\x9b", "\\x00\\x7f\\x9b"),
        ("a\u202eb", "a\\u202eb"),
        ("a\u200bb", "a\\u200bb"),
        ("\u2028\u2029\x85", "\\u2028\\u2029\\x85"),
        ("\udcff", "\\udcff"),
        ("\U000e0001", "\\U000e0001"),
        ("é🧊 中", "é🧊 中"),
    ],
)
@pytest.mark.shows("U1", "U3", "S10")
def test_how_unsafe_characters_are_shown(text: str, shown: str) -> None:
    """An unsafe character is shown as Python would write it."""
    assert safe_text(text) == shown


def test_what_is_cut_says_so() -> None:
    """Text longer than the limit ends in an ellipsis; text that just fits does not."""
    assert safe_text("abcdef", limit=6) == "abcdef"
    assert safe_text("abcdefg", limit=6) == "abcdef…"


words = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=8)
free = st.text(st.characters(codec="utf-8"), max_size=12)
secret = st.builds("{}{}{}".format, free, st.just(CANARY), free)


@st.composite
def addresses_with_secrets(draw: st.DrawFn) -> str:
    """An address as a manifest may hold it, with secrets wherever they can be."""
    userinfo = draw(st.one_of(st.just(""), secret.map(lambda text: "".join(c for c in text if c not in "/?#\\") + "@")))
    host = draw(words) + draw(st.sampled_from(["", ".example", ":8443"]))
    path = "/" + draw(words)
    query = draw(st.sampled_from(["", "?sig="])) and "?sig=" + draw(secret).replace("#", "")
    fragment = "#" + draw(secret) if draw(st.booleans()) else ""
    return draw(st.sampled_from(["https", "http", "HTTPS", "ftp"])) + "://" + userinfo + host + path + query + fragment


@given(addresses_with_secrets())
@pytest.mark.shows("M13", "U4", "S8")
def test_no_secret_of_an_address_is_shown(url: str) -> None:
    """Userinfo, query and fragment are dropped, whatever they contain."""
    assert CANARY not in redact_url(url)


@given(st.text(st.characters(codec=None), max_size=60))
@pytest.mark.shows("M13", "U4")
def test_any_text_can_be_redacted(text: str) -> None:
    """Whatever is given as an address, nothing raises, and the result is one safe line without query or fragment."""
    shown = redact_url(text)
    assert not [char for char in shown if unicodedata.category(char) in UNSAFE]
    assert len(shown) <= 501


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h.example/a/b.bin", "https://h.example/a/b.bin"),
        ("https://u:hunter2@h.example:8443/a?sig=hunter2#hunter2", "https://h.example:8443/a"),
        ("https://a@b:hunter2@h.example/x", "https://h.example/x"),
        ("https://[::1]:80/x?y", "https://[::1]:80/x"),
        ("https://h.example/npm/package@1.0/file", "https://h.example/npm/package@1.0/file"),
        ("https://h.example/\x1b[2Jx", "https://h.example/\\x1b[2Jx"),
        ("http://[::1/hunter2", "<unreadable address>"),
    ],
)
def test_how_an_address_is_shown(url: str, shown: str) -> None:
    """Only scheme, host, port and path are shown."""
    assert redact_url(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "login:hunter2@h.example/x",
        "https:login:hunter2@h.example/x",
        "https:/login:hunter2@h.example/x",
        "https:///login:hunter2@h.example/x",
        "https:\\\\login:hunter2@h.example\\x",
        "https//login:hunter2@h.example/x",
        "https://login:p/hunter2@h.example/x",
        "https://login:hunter2/w@h.example/x",
        "https://login:hunter2#w@h.example/x",
        "https://login:hunter2?w@h.example/x",
        "https://login:hunter2%40h.example/x",
    ],
)
@pytest.mark.shows("M13", "U4", "S8")
def test_a_misspelt_address_shows_no_password(url: str) -> None:
    """A malformed address, for example one with an unencoded password, is still shown without the password."""
    assert CANARY not in redact_url(url)


@given(free, addresses_with_secrets(), free)
@pytest.mark.shows("U4", "S8")
def test_no_secret_of_an_address_in_other_text_is_shown(before: str, url: str, after: str) -> None:
    """Whatever surrounds an address, as in the text of a foreign exception, its secrets do not get through."""
    url = "".join(char for char in url if char.isprintable() and char not in " '\"<>")
    before, after = before.replace("://", "").replace(CANARY, ""), after.replace(CANARY, "")
    assert CANARY not in redact_text(f"{before} {url} {after}")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("nothing to hide: 3 < 4, see a://b", "nothing to hide: 3 < 4, see a://b"),
        ("GET https://u:hunter2@h.example/x?sig=hunter2 failed", "GET https://h.example/x failed"),
        ("ClientError(url='http://h.example/x?hunter2')", "ClientError(url='http://h.example/x')"),
        ("two: http://a:hunter2@b/c,http://d:hunter2@e/f", "two: http://b/c,http://e/f"),
        ("at http://u:hunter2@h:8080, or https://h:8443.", "at http://h:8080, or https://h:8443."),
        ("dask, dask://HOST:PORT, ray://HOST:PORT, not x", "dask, dask://HOST:PORT, ray://HOST:PORT, not x"),
        ("a bucket (s3://, gs://, az://) or lfs://", "a bucket (s3://, gs://, az://) or lfs://"),
        ("u:p is http://me:hunter2, not http://HOST:hunter2", "u:p is <unreadable address>, not <unreadable address>"),
        ("socks5://me:hunter2@proxy.example:1080", "socks5://proxy.example:1080"),
        ("{'Authorization': 'Bearer hunter2', 'X': 1}", "{'Authorization: …"),
        ("Set-Cookie: id=hunter2\nnext line", "Set-Cookie: …\nnext line"),
        ("(('Proxy-Authorization', 'Basic hunter2'),)", "(('Proxy-Authorization: …"),
        ("no cookie was sent, and authorization failed", "no cookie was sent, and authorization failed"),
    ],
)
@pytest.mark.shows("U4", "S8")
def test_how_text_with_secrets_is_shown(text: str, shown: str) -> None:
    """Addresses are shown as usual, and the values of fields that hold secrets are not."""
    assert redact_text(text) == shown


@given(st.text(max_size=200) | st.text("htps:/@?#'= autorizngk", max_size=200))
def test_text_without_addresses_and_fields_stays(text: str) -> None:
    """Any text can be redacted, and text without addresses or such fields stays unchanged."""
    shown = redact_text(text)
    assert shown == text or "://" in text or "authorization" in text.lower() or "cookie" in text.lower()


@pytest.mark.parametrize(
    "rest", ["", "/", "/a/b.bin", "//a", "/a%20b", "/a;b", "/a?q", "/a#f", "/A~-._", ":80/a", ":/a"]
)
@pytest.mark.parametrize(
    "start", ["http://host.example", "https://127.0.0.1", "HTTP://Host", "http://u@host", "http://"]
)
def test_the_short_way_for_plain_addresses_changes_nothing(
    start: str, rest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text returned unchanged would have come out the same the long way."""
    shown = redact_url(start + rest)
    monkeypatch.setattr(module, "_PLAIN_ADDRESS", re.compile("(?!)"))
    assert redact_url(start + rest) == shown
