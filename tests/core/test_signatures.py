"""Which addresses are signed, by which service, and which parts of them are secret."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core.addresses import Credentials, parse_address
from grym_fetch.core.signatures import is_not_for_all, is_signed, may_be_signed, query_secrets
from tests.support.properties import examples

BASE = "https://h.example/a.bin"
SIGNED = {
    "S3 version 4, R2": "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=3600&X-Amz-Signature=0123456789abcdef",
    "S3 version 2": "AWSAccessKeyId=AKIA&Expires=1700000000&Signature=AbCdEfGhIj%3D",
    "S3 version 2, no end": "AWSAccessKeyId=AKIA&Signature=AbCdEfGhIj%3D",
    "GCS version 4": "X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Signature=0123456789abcdef",
    "GCS version 2": "GoogleAccessId=me%40p.iam&Expires=1700000000&Signature=AbCdEfGhIj%3D",
    "Google Cloud CDN": "Expires=1700000000&KeyName=k&Signature=AbCdEfGhIj%3D",
    "CloudFront": "Expires=1700000000&Signature=AbCdEfGhIj~&Key-Pair-Id=APKA",
    "CloudFront with a policy": "Policy=eyJ&Signature=AbCdEfGhIj~&Key-Pair-Id=APKA",
    "Azure": "sv=2024-11-04&se=2026-01-01T00%3A00%3A00Z&sr=b&sp=r&sig=AbCdEfGhIj%3D",
    "Azure with a policy's name": "sv=2024-11-04&si=readers&sr=b&sig=AbCdEfGhIj%3D",
    "GitHub's assets": "sp=r&se=2026-01-01&sig=AbCdEfGhIj%3D&jwt=eyJ0eXAiOiJKV1QifQ.e30.sig",
    "a JWT alone": "jwt=eyJ0eXAiOiJKV1QifQ.e30.sig",
    "Akamai": "hdnts=exp=1700000000~acl=/*~hmac=0123456789abcdef",
    "Akamai's other names": "hdnea=st=1~exp=2~hmac=0123456789abcdef",
    "Alibaba version 1": "OSSAccessKeyId=LTAI&Expires=1700000000&Signature=AbCdEfGhIj%3D",
    "Alibaba version 4": "x-oss-signature-version=OSS4&x-oss-signature=0123456789abcdef",
    "Tencent": "q-sign-algorithm=sha1&q-ak=AKID&q-signature=0123456789abcdef",
    "Bunny": "token=AbCdEfGhIj&expires=1700000000",
    "encoded and in another case": "x%2Damz%2Dsignature=0123456789abcdef",
}
SECRETS = ("0123456789abcdef", "AbCdEfGhIj", "eyJ0eXAi")


@pytest.mark.parametrize("query", SIGNED.values(), ids=SIGNED)
@pytest.mark.shows("A21", "S7", "S8")
def test_an_address_that_is_signed(query: str) -> None:
    """No credential of ours goes with a signed address, whatever is set; the part that grants access is a secret."""
    url = parse_address(f"{BASE}?{query}")
    assert is_signed(url)
    assert may_be_signed(url)
    assert Credentials({"GRYM_FETCH_TOKEN_H_EXAMPLE": "hunter2"}).find(url) is None
    assert any(secret in value for value in query_secrets(url) for secret in SECRETS)


@pytest.mark.parametrize(
    ("query", "guessed"),
    [
        ("sig=AbCdEfGhIj", True),
        ("token=AbCdEfGhIj", True),
        ("Signature=AbCdEfGhIj", True),
        ("se=2026&sp=r", False),
        ("expires=1700000000", False),
        ("design=AbCdEfGhIj&signed=yes", False),
        ("download=true", False),
        ("", False),
    ],
)
@pytest.mark.shows("S7")
def test_an_address_that_may_be_signed(query: str, guessed: bool) -> None:
    """A name alone proves nothing: a token that the user has set for the host is still sent."""
    url = parse_address(f"{BASE}?{query}" if query else BASE)
    assert not is_signed(url)
    assert may_be_signed(url) is guessed
    assert Credentials({"GRYM_FETCH_TOKEN_H_EXAMPLE": "hunter2"}).find(url) is not None
    assert (query_secrets(url) != []) is guessed


@pytest.mark.parametrize(
    ("query", "warned"),
    [
        ("X-Signature=x", True),
        ("apiKey=x", True),
        ("AWSAccessKeyId=x", True),
        ("X-Amz-Credential=x", True),
        ("expires=1700000000", True),
        ("pass%77ord=x", True),
        ("design=x&keyword=y&monkey=z&author=a", False),
        ("download=true", False),
        ("", False),
    ],
)
def test_an_address_that_is_not_for_all(query: str, warned: bool) -> None:
    """The warning looks for whole words in a name, however they are joined."""
    assert is_not_for_all(parse_address(f"{BASE}?{query}" if query else BASE)) is warned


@pytest.mark.shows("S8")
@pytest.mark.parametrize("name", ["key", "apiKey", "X-Api-Key", "pass%77ord", "my_auth_token", "sessionToken"])
def test_a_value_that_may_be_a_secret(name: str) -> None:
    """A whole word in its name is enough for a value to be removed from what a server says."""
    assert query_secrets(parse_address(f"{BASE}?x=1&{name}=AbCdEfGhIj&monkey=AbCdEfGhIk")) == ["AbCdEfGhIj"]


def test_what_is_no_secret() -> None:
    """Short words, and values that may also be an ETag, are not removed from every message."""
    assert query_secrets(parse_address(f"{BASE}?token=main&md5=d41d8cd98f00b204e980&hash=d41d8cd98f00b204e980")) == []


@examples(200)
@given(st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#"), max_size=60))
def test_any_query_is_read(query: str) -> None:
    """No query raises, and whatever is certain is also likely."""
    url = parse_address(f"{BASE}?{query}")
    query_secrets(url)
    assert may_be_signed(url) or not is_signed(url)
    assert is_not_for_all(url) or not may_be_signed(url)
