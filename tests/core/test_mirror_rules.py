"""Rules for mirrors: how they are written, and what a mirror gets of an address."""

from __future__ import annotations

import pytest

from grym_fetch.core.mirror_rules import MirrorRule, parse_mirrors, read_mirrors

HUB = "https://huggingface.co/"
CACHE = "https://cache.example.org/hf/"


@pytest.mark.parametrize(
    ("prefix", "url", "found"),
    [
        (HUB, "https://huggingface.co/org/m/resolve/main/a", f"{CACHE}org/m/resolve/main/a"),
        (HUB, "https://HuggingFace.co/a?download=true", f"{CACHE}a?download=true"),
        ("HTTPS://HuggingFace.CO/", "https://huggingface.co/a", f"{CACHE}a"),
        (HUB, "https://huggingface.co:443/a", f"{CACHE}a"),
        (HUB, "https://huggingface.co./a", f"{CACHE}a"),
        ("https://huggingface.co:443/", "https://huggingface.co/a", f"{CACHE}a"),
        (HUB, "https://huggingface.co:80/a", None),
        ("https://", "https://[::1]:8443/a", f"{CACHE}[::1]:8443/a"),
        (HUB, "http://huggingface.co/a", None),
        (HUB, "https://huggingface.co.example.com/a", None),
        ("https://", "https://zenodo.org/records/1/a", f"{CACHE}zenodo.org/records/1/a"),
        ("s3://models/", "s3://models/a/b", f"{CACHE}a/b"),
        (HUB, "https://huggingface.co", CACHE),
        (HUB, "https://huggingface.co?a", f"{CACHE}?a"),
        (HUB, HUB + "a" * 9000, None),
    ],
)
def test_a_rule_replaces_the_beginning(prefix: str, url: str, found: str | None) -> None:
    """Only whole hosts and folders match, and the rest of the address stays."""
    assert MirrorRule(prefix, CACHE).apply(url) == found


@pytest.mark.shows("A14", "S7")
@pytest.mark.parametrize(
    "url",
    [
        "https://me:hunter22@huggingface.co/a",
        "https://huggingface.co/a?X-Amz-Signature=00112233445566778899",
        "https://huggingface.co/a?file=1&token=abcdefghijkl",
    ],
)
def test_a_mirror_gets_no_secret(url: str) -> None:
    """Neither the login nor a signed query of the first host goes to a mirror."""
    assert MirrorRule(HUB, CACHE).apply(url) == f"{CACHE}a"


@pytest.mark.parametrize(
    ("prefix", "mirror", "reason"),
    [
        ("https://huggingface.co", CACHE, "ends with /"),
        ("huggingface.co/", CACHE, "ends with /"),
        ("ftp://huggingface.co/", CACHE, "ends with /"),
        (HUB, "https://cache.example.org/hf", "ends with /"),
        (HUB, "s3://cache/", "http:// or https://"),
        (HUB, "https://me:hunter22@cache.example.org/", "GRYM_FETCH_TOKEN_<HOST>"),
        (HUB, "https://cache.example.org/?a=/", "ends with /"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(prefix: str, mirror: str, reason: str) -> None:
    """A rule is refused where it is written, and no password in it is repeated."""
    with pytest.raises(ValueError, match=reason) as refused:
        MirrorRule(prefix, mirror)
    assert "hunter22" not in str(refused.value)


def test_an_address_may_have_equals_signs() -> None:
    """The first sign that is followed by a scheme parts the two."""
    assert parse_mirrors(f"{HUB}a=b/ = {CACHE}c=d/").rules == (MirrorRule(f"{HUB}a=b/", f"{CACHE}c=d/"),)


def test_rules_in_a_variable() -> None:
    """Rules, the mode and `only` stand in any order, with or without spaces around the sign."""
    words = parse_mirrors(f"  {HUB} = {CACHE}\n https://zenodo.org/={CACHE}z/ together only")
    assert words.mode == "together"
    assert words.rules == (
        MirrorRule(HUB, CACHE, only=True),
        MirrorRule("https://zenodo.org/", f"{CACHE}z/", only=True),
    )
    assert parse_mirrors("Fallback").rules is None
    assert parse_mirrors(f"{HUB}={CACHE}").mode is None


@pytest.mark.shows("S9")
@pytest.mark.parametrize(
    "url",
    [
        "https://host.example/m%6Fdels/a%2fb",
        "https://host.example/./models/a%2Fb",
        "https://host.example/x/%2E%2e/models/a%2Fb",
        "https://host.example/../models/./a%2Fb",
        "https://host.example/%6D%6f%64els/y/../a%2Fb#fragment",
    ],
)
@pytest.mark.parametrize("prefix", ["https://host.example/models/", "https://host.example/x/../m%6fdels/"])
def test_another_spelling_of_an_address_is_the_same_one(url: str, prefix: str) -> None:
    """Percent-encoding and dots that mean nothing (RFC 3986 section 6.2.2) do not get past a rule with ``only``."""
    assert MirrorRule(prefix, CACHE, only=True).apply(url) == f"{CACHE}a%2Fb"


@pytest.mark.parametrize(
    ("prefix", "url"),
    [
        ("https://m\u00fcnchen.example/", "https://xn--mnchen-3ya.example/a"),
        ("https://xn--mnchen-3ya.example/", "https://M\u00dcNCHEN.example/a"),
        ("https://[::1]:8443/", "https://[0:0:0:0:0:0:0:1]:8443/a"),
    ],
)
def test_another_spelling_of_a_host_is_the_same_one(prefix: str, url: str) -> None:
    """As it is asked for over the wire."""
    assert MirrorRule(prefix, CACHE).apply(url) == f"{CACHE}a"


@pytest.mark.parametrize("url", ["https://host.example/models/../other/a", "https://host.example/models%2Fa"])
def test_what_only_looks_as_if_it_began_so(url: str) -> None:
    """It is another folder, or one name with a slash in it."""
    assert MirrorRule("https://host.example/models/", CACHE, only=True).apply(url) is None


@pytest.mark.parametrize("text", ["both", "only", f"{HUB}", f"{HUB} {CACHE}", f"{HUB}=cache.example.org/", "a=b"])
def test_other_words_in_a_variable_are_refused(text: str) -> None:
    """A typing error must not leave an origin unguarded."""
    with pytest.raises(ValueError, match=r"is neither|only is for rules|is not"):
        parse_mirrors(text)


def test_rules_in_a_table() -> None:
    """A prefix has one mirror or a list; `only` and `use` are about the whole table."""
    words = read_mirrors({HUB: [CACHE, "https://b.example.org/"], "only": True, "use": "together"})
    assert words.mode == "together"
    assert words.rules == (MirrorRule(HUB, CACHE, only=True), MirrorRule(HUB, "https://b.example.org/", only=True))


@pytest.mark.parametrize("table", [{"only": 1}, {"use": "both"}, {HUB: 3}, {HUB: []}, {HUB: [3]}, {"onyl": True}])
def test_a_wrong_table_is_refused(table: dict[str, object]) -> None:
    """Each wrong key or value is named."""
    with pytest.raises(ValueError, match=r"must|is not"):
        read_mirrors(table)
