"""Addresses: which may be requested, where redirects lead, and that credentials go only to their own host."""

from __future__ import annotations

import base64
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from grym_fetch.core.addresses import (
    METADATA_ADDRESSES,
    Credentials,
    follow_redirect,
    forbidden_reason,
    host_in,
    host_of,
    is_exempt,
    is_loopback,
    origin_key,
    parse_address,
    server_mark,
    token_variables,
)
from grym_fetch.core.errors import PolicyRefused

HERE = URL("https://h.example/a/b?q=1", encoded=True)
SIGNED = "https://h.example/a%2fb%2Bc/%e2%82%ac?X-Sig=a%2Bb%2f%3d&Expires=1+2&empty=&x=%7E~"


# -- reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "h.example/x",
        "/x",
        "//h.example/x",
        "http:x",
        "http://",
        "http:///x",
        "https://:443/x",
        "https://h.example:bad/",
        "https://h.example:99999/",
        "https://h.example:-1/",
        "https://[::1/x",
        "file:///etc/passwd",
        "ftp://h.example/x",
        "data:,x",
        "javascript:alert(1)",
        "ws://h.example/",
        "git+https://h.example/",
        "\\\\h.example\\x",
    ],
)
@pytest.mark.shows("M11", "A12", "S9")
def test_other_addresses_are_refused(text: str) -> None:
    """Only absolute http and https addresses with a host are requested."""
    with pytest.raises(PolicyRefused, match="not an http or https address"):
        parse_address(text)


@given(st.text(max_size=40) | st.text(max_size=20).map("https://".__add__))
@pytest.mark.shows("M11")
def test_any_text_is_read_or_refused(text: str) -> None:
    """Whatever the text, reading it as an address or as a redirect target either works or is refused."""
    try:
        address = parse_address(text)
    except PolicyRefused:
        pass
    else:
        assert address.scheme in ("http", "https")
        assert address.host
    try:
        target = follow_redirect(HERE, text)
    except PolicyRefused:
        return
    assert target.scheme == "https"
    assert target.user is None
    assert target.password is None


@pytest.mark.parametrize(
    "text",
    [
        SIGNED,
        "http://h.example/x",
        "https://h.example:8443/?a=%zz&&=",
        "https://[::1]/a%20b",
        "https://h.example/a?",
        "https://h.example/a/../b//c;d?e?f",
        'https://h.example/"<a>[b]{c}|^`\\?d="<>',
    ],
)
@pytest.mark.shows("A30")
def test_an_encoded_address_is_kept_to_the_letter(text: str) -> None:
    """A signature may cover every letter of an address, so none is changed, not even by a redirect to it."""
    assert str(parse_address(text)) == text
    if text.startswith("https:"):
        assert str(follow_redirect(HERE, text)) == text


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("https://h.example/a b", "https://h.example/a%20b"),
        ("https://h.example/é", "https://h.example/%C3%A9"),
        ("https://h.example/a\0b?c=\x7f", "https://h.example/a%00b?c=%7F"),
        ("https://h.example/a b%2fc?d=e+f%2F&g=%7E", "https://h.example/a%20b%2fc?d=e+f%2F&g=%7E"),
        ("https://h.example/é?", "https://h.example/%C3%A9?"),
        ("https://bücher.example:8443/é%2f?a b", "https://xn--bcher-kva.example:8443/%C3%A9%2f?a%20b"),
    ],
)
@pytest.mark.shows("A30")
def test_what_is_not_encoded_gets_encoded(text: str, sent: str) -> None:
    """An address as a person writes it is encoded for the wire."""
    assert str(parse_address(text)) == sent


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://h.example/x", "https://h.example:443/y?z", True),
        ("https://h.example/x", "https://H.EXAMPLE./x", True),
        ("https://u:p@h.example/x", "https://h.example/x", True),
        ("https://h.example/", "http://h.example/", False),
        ("https://h.example/", "https://h.example:8443/", False),
        ("https://h.example/", "https://www.h.example/", False),
        ("http://h.example/", "http://h.example:443/", False),
        ("http://h.example:8443/", "https://h.example:8443/", False),
    ],
)
@pytest.mark.shows("A10")
def test_an_origin_is_scheme_host_and_port(one: str, other: str, same: bool) -> None:
    """Two addresses have the same origin if scheme, host and port are equal (RFC 6454)."""
    assert (origin_key(parse_address(one)) == origin_key(parse_address(other))) is same
    assert (server_mark(parse_address(one)) == server_mark(parse_address(other))) is same
    assert "example" not in server_mark(parse_address(one))


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("https://u:p@h.example:8443/x?y", "h.example:8443"),
        ("https://h.example/x", "h.example:443"),
        ("http://H.example:/x", "h.example:80"),
        ("nothing", ""),
        ("https://[::1", ""),
    ],
)
def test_the_host_that_limits_count_by(address: str, host: str) -> None:
    """Limits per host count by host and port; an address that cannot be read has none."""
    assert host_of(address) == host


@given(
    st.text("aH0.-:@[]_", max_size=12),
    st.sampled_from(["", "/", "?", "#", "\\"]),
    st.text("ab/?#@:\\%é ", max_size=8),
)
def test_the_rest_of_an_address_does_not_matter(place: str, mark: str, rest: str) -> None:
    """The host to count by, which is found without reading the whole, is the one that is asked."""
    address = f"http://{place}{mark}{rest}"
    try:
        asked = parse_address(address)
    except PolicyRefused:
        return
    assert host_of(address) == host_in(asked)


@pytest.mark.parametrize(
    ("exempt", "url", "expected"),
    [
        ("host.example", "http://host.example/", True),
        ("host.example", "http://a.host.example/", True),
        ("host.example", "http://ahost.example/", False),
        (".host.example", "http://a.host.example/", True),
        ("*.host.example", "http://a.host.example/", True),
        ("*.host.example", "http://ahost.example/", False),
        ("HOST.example.", "http://Host.Example/", True),
        ("host.example", "http://host.example./", True),
        ("a, host.example", "http://host.example/", True),
        ("a host.example", "http://host.example/", True),
        ("host.example:8080", "http://host.example:8080/", True),
        ("host.example:8080", "http://host.example/", False),
        ("*", "http://anything/", True),
        ("10.0.0.0/8", "http://10.1.2.3/", True),
        ("10.0.0.0/8", "http://11.1.2.3/", False),
        ("10.0.0.0/8", "http://ten.example/", False),
        ("10.0.0.5/8", "http://10.1.2.3/", True),
        ("192.168.*", "http://192.168.7.9/", True),
        ("127.0.0.1", "http://127.0.0.1:8080/", True),
        ("127.0.0.1:8080", "http://127.0.0.1:8080/", True),
        ("::1", "http://[::1]/", True),
        ("0:0:0:0:0:0:0:1", "http://[::1]/", True),
        ("[::1]", "http://[::1]/", True),
        ("[::1]:8080", "http://[::1]:8080/", True),
        ("[::1]:8080", "http://[::1]/", False),
        ("fd00::/8", "http://[fd12::1]/", True),
        ("[fd00::/8]", "http://[fd12::1]/", True),
        ("fd00::/8", "http://[fe12::1]/", False),
        ("fd00::/129", "http://[fd00::]/", False),
        ("10.1.2.3/33", "http://10.1.2.3/", False),
        ("host.example/8", "http://host.example/", False),
        ("2001:DB8::5", "http://[2001:db8:0::5]/", True),
        ("fe80::1", "http://[fe80::1%25eth0]/", True),
        ("fe80::/10", "http://[fe80::1%25eth0]/", True),
        ("fe80::1%eth0", "http://[fe80::1%25eth0]/", True),
        ("[fe80::1%25eth0]", "http://[fe80::1%25eth0]/", True),
        ("[fe80::1%eth0]:8080", "http://[fe80::1%25eth0]:8080/", True),
        ("fe80::1%eth1", "http://[fe80::1%25eth0]/", False),
        ("[fd00::]/8", "http://[fd12::1]/", True),
        ("", "http://host.example/", False),
        (",, . *. /8 [] :80", "http://host.example/", False),
    ],
)
@pytest.mark.shows("A27")
def test_what_no_proxy_names(exempt: str, url: str, expected: bool) -> None:
    """All usual spellings of an exempt host are understood, and none exempts a different host."""
    assert is_exempt(parse_address(url), exempt) is expected


# -- redirects ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/x?sig=a%2Bb%2f&y=+", "https://h.example/x?sig=a%2Bb%2f&y=+"),
        ("../z", "https://h.example/z"),
        ("?other", "https://h.example/a/b?other"),
        ("", "https://h.example/a/b?q=1"),
        ("#part", "https://h.example/a/b?q=1"),
        ("//cdn.example/x", "https://cdn.example/x"),
        ("https://cdn.example/x#part", "https://cdn.example/x"),
        ("HTTPS://cdn.example/x", "https://cdn.example/x"),
        ("https://h.example/a/b?q=1", "https://h.example/a/b?q=1"),
        ("/a b", "https://h.example/a%20b"),
        ("/a b%2f?c+d%2B", "https://h.example/a%20b%2f?c+d%2B"),
        ("/a?", "https://h.example/a?"),
        ("é".encode().decode("latin-1"), "https://h.example/a/%C3%A9"),
        ("/\xe9?\xe9", "https://h.example/%E9?%E9"),
        ("https://bücher.example/é".encode().decode("latin-1"), "https://xn--bcher-kva.example/%C3%A9"),
        ("https://login:hunter2@cdn.example/x?s=%2f", "https://cdn.example/x?s=%2f"),
        ("https://login@cdn.example/x", "https://cdn.example/x"),
        ("https://:hunter2@cdn.example/x", "https://cdn.example/x"),
        ("//login:hunter2@cdn.example/x", "https://cdn.example/x"),
    ],
)
@pytest.mark.shows("A16")
def test_where_a_redirect_leads(location: str, target: str) -> None:
    """A redirect may be relative; it keeps its letters, loses its fragment, and never brings credentials along."""
    assert str(follow_redirect(HERE, location)) == target


@pytest.mark.parametrize(
    "location",
    [
        "http://h.example/x",
        "HTTP://h.example/x",
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "ftp://h.example/x",
        "data:,x",
        "javascript:alert(1)",
        "https://[::1/",
        "https://[::]:x@",
        "https://h.example:99999/",
        "https://h.example:bad/",
        "//h.example:bad/",
    ],
)
@pytest.mark.shows("A11", "A12", "S6", "S9")
def test_redirects_that_are_never_followed(location: str) -> None:
    """A redirect from https to http, to another scheme, or to an unreadable address is never followed."""
    with pytest.raises(PolicyRefused):
        follow_redirect(HERE, location)


def test_a_redirect_from_an_empty_query() -> None:
    """The question mark of an empty query is not part of the path that a redirect is relative to."""
    base = parse_address("https://h.example/a?")
    assert str(follow_redirect(base, "?b")) == "https://h.example/a?b"
    assert str(follow_redirect(base, "b?")) == "https://h.example/b?"


@pytest.mark.shows("A16", "S7")
def test_a_relative_redirect_drops_the_userinfo_of_its_base() -> None:
    """Userinfo of the redirecting address is not carried into the next one."""
    base = URL("https://login:hunter2@h.example/a", encoded=True)
    assert str(follow_redirect(base, "/b")) == "https://h.example/b"


def test_http_may_lead_up_and_sideways() -> None:
    """From http a redirect may lead to https, or stay at http."""
    base = URL("http://h.example/a")
    assert str(follow_redirect(base, "https://h.example/b")) == "https://h.example/b"
    assert str(follow_redirect(base, "http://cdn.example/b")) == "http://cdn.example/b"


@pytest.mark.shows("U4", "S8")
def test_a_refused_redirect_shows_no_secret() -> None:
    """The reason for refusing a redirect shows no secret of either address."""
    base = URL("https://login:hunter2@h.example/a?sig=hunter2", encoded=True)
    for location in (
        "http://login:hunter2@h.example/x?sig=hunter2",
        "ftp://login:hunter2@h/x?hunter2",
        "https://[hunter2",
    ):
        with pytest.raises(PolicyRefused) as caught:
            follow_redirect(base, location)
        assert "hunter2" not in f"{caught.value} {caught.value!r} {caught.value.args} {vars(caught.value)}"


# -- forbidden addresses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ip",
    [
        "169.254.169.254",
        "169.254.0.1",
        "::ffff:169.254.169.254",
        "::ffff:a9fe:a9fe",
        "fe80::1",
        "fe80::1%eth0",
        "100.100.100.200",
        "::ffff:100.100.100.200",
        "192.0.0.192",
        "fd00:ec2::254",
        "fd20:ce::254",
        "::169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "2001:0:4136:e378:8000:63bf:5601:5601",
    ],
)
@pytest.mark.parametrize("allow_private", [True, False])
@pytest.mark.shows("M12", "S9")
def test_metadata_is_never_asked(ip: str, allow_private: bool) -> None:
    """Link-local and cloud metadata addresses are forbidden in every spelling, and no setting allows them."""
    assert forbidden_reason(ip, allow_private=allow_private) == "a link-local or cloud metadata address"


def nat64(address: str, length: int) -> str:
    """An IPv4 address under a NAT64 prefix of this length (RFC 6052 section 2.2), bit for bit."""
    bits = f"{int(ipaddress.IPv4Address(address)):032b}"
    prefix = f"{int(ipaddress.IPv6Address('2001:db8:122:344::')):0128b}"[:length]
    text = prefix + bits
    if length < 96:
        text = text[:64] + "0" * 8 + text[64:]  # bits 64 to 71 do not belong to the address
    return str(ipaddress.IPv6Address(int(text.ljust(128, "0"), 2)))


@pytest.mark.parametrize("address", sorted(METADATA_ADDRESSES))
@pytest.mark.parametrize("allow_private", [True, False])
@pytest.mark.shows("M12", "S9")
def test_the_table_of_metadata_addresses(address: str, allow_private: bool) -> None:
    """Each address where a cloud hands out credentials is refused in every spelling, and behind any kind of NAT64."""
    spellings = [address, f"{address}.", address.upper()]
    if "." in address:
        octets = "".join(f"{int(octet):02x}" for octet in address.split("."))
        tail = f"{octets[:4]}:{octets[4:]}"
        prefixes = ("::ffff:", "::", "64:ff9b::", "64:ff9b:1::", "64:ff9b:1:0:ff::")
        spellings += [f"{prefix}{end}" for prefix in prefixes for end in (address, tail)]
        spellings += [f"2002:{tail}::1"]
        spellings += [nat64(address, length) for length in (32, 40, 48, 56, 64, 96)]
    reasons = {spelling: forbidden_reason(spelling, allow_private=allow_private) for spelling in spellings}
    assert set(reasons.values()) == {"a link-local or cloud metadata address"}, reasons


def test_the_examples_of_nat64() -> None:
    """The test's own arithmetic reproduces the table of RFC 6052 section 2.4."""
    assert nat64("192.0.2.33", 64) == "2001:db8:122:344:c0:2:2100:0"
    assert nat64("192.0.2.33", 56) == "2001:db8:122:3c0:0:221::"
    assert nat64("192.0.2.33", 96) == "2001:db8:122:344::c000:221"


@pytest.mark.parametrize(
    "ip",
    [
        "fec0::1",
        "feff::1",
        "224.0.0.1",
        "239.1.2.3",
        "233.252.0.1",
        "ff02::1",
        "ff0e::1",
        "127.0.0.1",
        "127.9.9.9",
        "::1",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "fd00::1",
        "0.0.0.0",
        "::",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:c0a8:101",
        "::10.0.0.1",
        "64:ff9b::a00:1",
        "2002:c0a8:101::1",
    ],
)
@pytest.mark.shows("M12", "S9")
def test_private_addresses_need_leave(ip: str) -> None:
    """Private and loopback addresses are requested only where that is allowed."""
    assert forbidden_reason(ip, allow_private=True) is None
    assert forbidden_reason(ip, allow_private=False) == "a private address, and these were not allowed"


@pytest.mark.parametrize(
    "ip", ["8.8.8.8", "172.32.0.1", "192.169.0.1", "2606:4700::1", "::ffff:8.8.8.8", "h.example", ""]
)
@pytest.mark.parametrize("allow_private", [True, False])
def test_public_addresses_are_asked(ip: str, allow_private: bool) -> None:
    """Public addresses are allowed; a name is not judged here, only the address it resolves to."""
    assert forbidden_reason(ip, allow_private=allow_private) is None


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("http://localhost/", True),
        ("http://LOCALHOST:8000/", True),
        ("http://a.localhost/", True),
        ("http://127.0.0.1/", True),
        ("http://127.1.2.3/", True),
        ("http://[::1]/", True),
        ("http://localhost.example/", False),
        ("http://notlocalhost/", False),
        ("http://10.0.0.1/", False),
        ("http://128.0.0.1/", False),
    ],
)
def test_loopback_is_this_machine(address: str, loopback: bool) -> None:
    """Only loopback addresses and the localhost names (RFC 6761) are this machine."""
    assert is_loopback(parse_address(address)) is loopback


# -- credentials --------------------------------------------------------------------------------------------------


def basic(login: str, password: str) -> str:
    """The header field for a login and a password (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{login}:{password}".encode()).decode()


ENVIRON = {
    "HF_TOKEN": "hf_hunter2",
    "GRYM_FETCH_TOKEN_FILES_EXAMPLE_COM": " files-hunter2\n",
    "GRYM_FETCH_TOKEN_localhost_port_8000": "local-hunter2",
    "GRYM_FETCH_TOKEN_GITHUB_COM": "github-hunter2",
    "GRYM_FETCH_TOKEN_PORT_EXAMPLE_PORT_8443": "port-hunter2",
    "GRYM_FETCH_TOKEN_XN____BCHER__KVA_EXAMPLE": "idna-hunter2",
    "GRYM_FETCH_TOKEN_EMPTY_EXAMPLE": "",
    "OTHER_TOOL_TOKEN_H_EXAMPLE": "unrelated-hunter2",
}
NETRC = {"netrc.example": ("me", "netrc-hunter2"), "empty.example": ("me", "x"), "localhost": ("me", "x")}


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        # A token from the environment goes to the host it names.
        ("https://files.example.com/x", "Bearer files-hunter2"),
        ("https://FILES.example.com/x", "Bearer files-hunter2"),
        ("https://sub.files.example.com/x", None),
        ("https://example.com/x", None),
        ("https://files.example.com.evil.example/x", None),
        # Each host has its own variable: a dash is written as two underscores.
        ("https://files-example.com/x", None),
        ("https://files_example.com/x", None),
        ("https://files.example.com./x", "Bearer files-hunter2"),
        # Hosts are compared as they go over the wire: a dotless i is not an i, though both are I in capitals.
        ("https://github.com/x", "Bearer github-hunter2"),
        ("https://g\u0131thub.com/x", None),
        ("https://b\xfccher.example/x", "Bearer idna-hunter2"),
        # A token is for the scheme's default port unless another one is named.
        ("https://files.example.com:443/x", "Bearer files-hunter2"),
        ("https://files.example.com:8443/x", None),
        ("https://port.example:8443/x", "Bearer port-hunter2"),
        ("https://port.example/x", None),
        ("https://port.example.port.8443/x", None),
        # A signed address is itself a credential.
        ("https://files.example.com/x?X-Amz-Signature=abc&X-Amz-Expires=60", None),
        ("https://you:own@h.example/x?sv=1&se=2&sig=abc", None),
        ("https://files.example.com/x?signature=abc", "Bearer files-hunter2"),
        # Hugging Face's token goes only to its own origin.
        ("https://huggingface.co/x", "Bearer hf_hunter2"),
        ("https://cdn-lfs.huggingface.co/x", None),
        ("https://huggingface.co:8443/x", None),
        ("https://huggingface.co.evil.example/x", None),
        # netrc goes to the exact host.
        ("https://netrc.example/x", basic("me", "netrc-hunter2")),
        ("https://sub.netrc.example/x", None),
        ("https://empty.example/x", basic("me", "x")),
        # The address's own userinfo takes precedence.
        ("https://you:own@netrc.example/x", basic("you", "own")),
        ("https://you@files.example.com/x", basic("you", "")),
        ("https://y%40u:p%2fw@h.example/x", basic("y@u", "p/w")),
        # Nothing is sent over plain http, except to this machine.
        ("http://files.example.com/x", None),
        ("http://huggingface.co/x", None),
        ("http://netrc.example/x", None),
        ("http://you:own@h.example/x", None),
        ("http://localhost:8000/x", "Bearer local-hunter2"),
        ("http://localhost:8001/x", basic("me", "x")),
        ("http://you:own@127.0.0.1/x", basic("you", "own")),
        ("https://h.example/x", None),
    ],
)
@pytest.mark.shows("A13", "A14", "S7")
def test_who_gets_which_credentials(address: str, expected: str | None) -> None:
    """Credentials go only to the host they are for, over https or to loopback."""
    assert Credentials(ENVIRON, NETRC).authorization(parse_address(address)) == expected


@pytest.mark.shows("S7", "U4")
@pytest.mark.parametrize("token", ["hunter2\nX-Evil: 1", "“hunter2”", "hunter2\x01"])
def test_a_token_that_cannot_be_sent(token: str) -> None:
    """A line end or a typographic quote that was pasted along is said of the variable, and the token is not shown."""
    for environ in ({"GRYM_FETCH_TOKEN_HUGGINGFACE_CO": token}, {"HF_TOKEN": token}):
        with pytest.raises(PolicyRefused, match=f"the token in {next(iter(environ))} has a line end") as caught:
            Credentials(environ).find(parse_address("https://huggingface.co/x"))
        assert "hunter2" not in str(caught.value)
    ends = Credentials({"HF_TOKEN": " hunter2\n"})
    assert ends.authorization(parse_address("https://huggingface.co/x")) == "Bearer hunter2"


@pytest.mark.shows("S7")
def test_the_own_variable_of_a_host_comes_before_hf_token() -> None:
    """A variable that names Hugging Face's host takes precedence over ``HF_TOKEN``."""
    environ = ENVIRON | {"GRYM_FETCH_TOKEN_HUGGINGFACE_CO": "own-hunter2"}
    assert Credentials(environ).authorization(parse_address("https://huggingface.co/x")) == "Bearer own-hunter2"


@pytest.mark.parametrize(
    ("endpoint", "address", "sent"),
    [
        ("https://hub.example", "https://hub.example/x", True),
        ("https://hub.example", "https://huggingface.co/x", False),
        ("https://hub.example/", "https://hub.example:443/x", True),
        ("http://hub.example", "http://hub.example/x", False),
        ("http://hub.example", "https://hub.example/x", False),
        ("http://127.0.0.1:9", "http://127.0.0.1:9/x", True),
        ("", "https://huggingface.co/x", True),
        ("rubbish", "https://huggingface.co/x", False),
        ("hub.example", "https://hub.example/x", False),
        ("hub.example", "https://huggingface.co/x", False),
        ("https://[bad", "https://huggingface.co/x", False),
    ],
)
@pytest.mark.shows("S7")
def test_the_endpoint_of_hugging_face(endpoint: str, address: str, sent: bool) -> None:
    """``HF_ENDPOINT`` moves the token to another origin; if it cannot be read, the token goes nowhere."""
    credentials = Credentials({"HF_TOKEN": "hf_hunter2", "HF_ENDPOINT": endpoint})
    assert (credentials.authorization(parse_address(address)) is not None) is sent
    if endpoint in ("rubbish", "hub.example"):
        assert "HF_ENDPOINT is not a whole address" in credentials.advice(parse_address(address))


HOSTS = st.lists(st.sampled_from("ab1.-_"), min_size=1, max_size=12).map("".join) | st.just("a.port.8443")


@given(HOSTS, HOSTS, st.sampled_from([443, 8443]), st.sampled_from([443, 8443]))
@pytest.mark.shows("S7")
def test_no_two_hosts_share_a_variable(one: str, other: str, port: int, other_port: int) -> None:
    """No two hosts and ports share a variable, so no token goes to a name that only looks alike."""
    first, second = (URL(f"https://{h}:{p}/", encoded=True) for h, p in ((one, port), (other, other_port)))
    if origin_key(first) != origin_key(second):
        assert not {*token_variables(first)} & {*token_variables(second)}


@pytest.mark.parametrize(
    ("address", "variables"),
    [
        ("https://files-acme.com/", ["FILES__ACME_COM", "FILES__ACME_COM_PORT_443"]),
        ("https://files_acme.com:8443/", ["FILES___ACME_COM_PORT_8443"]),
        ("https://xn--bcher-kva.example/", ["XN____BCHER__KVA_EXAMPLE", "XN____BCHER__KVA_EXAMPLE_PORT_443"]),
        ("https://a._b.example/", []),
        ("https://a-_b.example/", []),
        ("https://[::1]/", []),
    ],
)
def test_how_the_variable_of_a_host_is_written(address: str, variables: list[str]) -> None:
    """A dot is `_`, a dash `__`, an underscore `___`, a port `_PORT_8443`; an ambiguous name has no variable."""
    assert list(token_variables(parse_address(address))) == [f"GRYM_FETCH_TOKEN_{name}" for name in variables]


@pytest.mark.parametrize(
    ("address", "set_is", "wanted"),
    [
        ("https://files-acme.com/", "FILES_ACME_COM", "FILES__ACME_COM"),
        ("https://files.acme.com:8443/", "FILES_ACME_COM", "FILES_ACME_COM_PORT_8443"),
    ],
)
@pytest.mark.shows("S7")
def test_the_old_spelling_is_refused_and_told(address: str, set_is: str, wanted: str) -> None:
    """A variable that could mean two hosts sends nothing to the wrong one, and the advice says how to spell it."""
    credentials = Credentials({f"GRYM_FETCH_TOKEN_{set_is}": "hunter2"})
    url = parse_address(address)
    assert credentials.authorization(url) is None
    advice = credentials.advice(url)
    assert advice == (f"GRYM_FETCH_TOKEN_{set_is} is not for this host and port: set GRYM_FETCH_TOKEN_{wanted} instead")


def test_an_empty_token_is_none() -> None:
    """A token that is empty or blank is not sent."""
    for blank in ("", "  ", "\n"):
        credentials = Credentials({"HF_TOKEN": blank, "GRYM_FETCH_TOKEN_H_EXAMPLE": blank})
        assert credentials.authorization(URL("https://huggingface.co/x")) is None
        assert credentials.authorization(URL("https://h.example/x")) is None


@pytest.mark.shows("U4", "S8")
def test_credentials_are_never_shown() -> None:
    """Neither the repr nor the text of credentials reveals any of them."""
    credentials = Credentials(ENVIRON, NETRC)
    found = credentials.find(URL("https://files.example.com/x"))
    assert "hunter2" not in f"{credentials!r} {credentials} {[credentials]} {found!r} {found}"
