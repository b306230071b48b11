"""What a registry asks for: where its token is, who may see a credential for it, and what counts as a token."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from grym_fetch.core.challenges import MAX_CHALLENGE_CHARS, read_token, token_address, trusts_realm

HERE = URL("https://registry.example/v2/a/blobs/x")
REALM = "https://auth.example/token"


@pytest.mark.parametrize(
    ("challenges", "address"),
    [
        ([f'Bearer realm="{REALM}"'], REALM),
        (
            [f'Bearer realm="{REALM}",service="registry.example",scope="repository:a/b:pull"'],
            f"{REALM}?service=registry.example&scope=repository%3Aa%2Fb%3Apull",
        ),
        ([f'bearer service=x , realm="{REALM}?a=1"'], f"{REALM}?a=1&service=x"),
        (['Basic realm="x"', f'Bearer realm="{REALM}"'], REALM),
        ([f'Basic realm="x", Bearer realm="{REALM}", error="invalid_token"'], REALM),
        ([f'Bearer realm="{REALM}",scope="a,b"'], f"{REALM}?scope=a%2Cb"),
        ([f'Bearer realm="{REALM}", Basic realm="x", service="y"'], REALM),
        ([f'Negotiate, NTLM TlRMTVNTUAAB==, Bearer realm="{REALM}"'], REALM),
        ([f'Basic realm="a, Bearer realm=https://other.example/", Bearer realm="{REALM}"'], REALM),
        ([f'Basic realm="\\", Bearer realm=\\"https://other.example/\\"", Bearer realm="{REALM}"'], REALM),
        ([f'Bearer error="a \\"q\\" b", realm="{REALM}"'], REALM),
        ([f'Bearer realm="/token", Bearer realm="{REALM}"'], REALM),
        ([f'Digest realm="d", nonce="n", Bearer scope="s", realm="{REALM}"'], f"{REALM}?scope=s"),
        (['Basic realm="x"'], None),
        (["Bearer"], None),
        (['Bearer realm="/token"'], None),
        (['Bearer realm="http://auth.example/token"'], None),
        (['Bearer realm="http://127.0.0.1/token"'], None),
        (['Bearer realm="file:///etc/passwd"'], None),
        (['Bearer realm="https://me:pw@auth.example/token"'], REALM),
        ([f'Bearer realm="{REALM}", scope="{"x" * MAX_CHALLENGE_CHARS}"'], None),
        ([], None),
    ],
)
@pytest.mark.shows("A23", "S9")
def test_where_the_token_is(challenges: list[str], address: str | None) -> None:
    """The token is at the realm of a Bearer challenge, with its service and scope: over https, and nowhere else."""
    found = token_address(HERE, challenges)
    assert (None if found is None else str(found)) == address


def test_a_realm_on_this_machine() -> None:
    """A registry on this machine may name a realm here over plain http; any other registry may not."""
    here = URL("http://127.0.0.1:5000/v2/")
    assert str(token_address(here, ['Bearer realm="http://127.0.0.1:5001/t"'])) == "http://127.0.0.1:5001/t"
    assert token_address(here, ['Bearer realm="http://auth.example/t"']) is None


@given(st.lists(st.text(max_size=60) | st.text(max_size=40).map(lambda text: f'Bearer realm="https://h/{text}"')))
@pytest.mark.shows("S11")
def test_any_challenge_is_read_or_ignored(challenges: list[str]) -> None:
    """Whatever a server sends, nothing raises, and the address found is one that may be requested."""
    found = token_address(HERE, challenges)
    assert found is None or (found.scheme == "https" and found.user is None)


@pytest.mark.shows("A23", "S7")
def test_who_is_shown_a_credential() -> None:
    """A realm elsewhere is asked anonymously; otherwise any server that names it could collect the credential."""
    assert trusts_realm(HERE, URL("https://registry.example/token"))
    assert trusts_realm(URL("https://registry-1.docker.io/v2/"), URL("https://auth.docker.io/token"))
    assert not trusts_realm(HERE, URL("https://auth.example/token"))
    assert not trusts_realm(HERE, URL("https://auth.docker.io/token"))
    assert not trusts_realm(HERE, URL("https://registry.example:8443/token"))


@pytest.mark.parametrize(
    ("data", "token"),
    [
        (b'{"token": "abc", "expires_in": 300}', "abc"),
        (b'{"access_token": "abc"}', "abc"),
        (b'{"token": ""}', None),
        (b'{"token": 1}', None),
        (b'{"token": "a b"}', None),
        (b'{"token": "a\\r\\nX: y"}', None),
        (b'["token"]', None),
        (b"[" * 60_000, None),
        (b"\xff", None),
        (b"", None),
    ],
)
@pytest.mark.shows("S11")
def test_what_is_a_token(data: bytes, token: str | None) -> None:
    """A token is one printable word in JSON; anything else is not a token."""
    assert read_token(data) == token
