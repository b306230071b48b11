"""Signed addresses: which parts of a query give access for a while to anyone who has the address.

Rules: `is_signed` is certain; no other credential is then sent (S3 answers 400 to both). `may_be_signed` guesses from
names that signatures and tokens usually have, and affects only what is said and hidden. `is_not_for_all` guesses most
freely, and only warns.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from yarl import URL

# Each row: one of the first names, together with one of the second if there are any.
_SIGNATURES: tuple[tuple[frozenset[str], frozenset[str]], ...] = (
    (frozenset({"x-amz-signature"}), frozenset()),  # S3 version 4, and what is compatible: R2, B2, MinIO, Spaces
    (frozenset({"x-goog-signature"}), frozenset()),  # Google Cloud Storage, version 4
    (frozenset({"x-oss-signature"}), frozenset()),  # Alibaba, version 4
    (frozenset({"q-signature"}), frozenset()),  # Tencent
    (frozenset({"hdnts", "hdnea", "hdntl"}), frozenset()),  # Akamai
    (frozenset({"jwt"}), frozenset()),  # GitHub's assets, besides `sig`
    (frozenset({"sig"}), frozenset({"se", "si"})),  # Azure: an expiry, or the name of a policy
    (
        frozenset({"signature"}),
        frozenset(
            {
                "awsaccesskeyid",  # S3 version 2
                "googleaccessid",  # Google Cloud Storage, version 2
                "ossaccesskeyid",  # Alibaba, version 1
                "accesskeyid",  # Huawei
                "key-pair-id",  # CloudFront
                "keyname",  # Google Cloud CDN
                "policy",
                "expires",
            }
        ),
    ),
    (frozenset({"token", "sign", "md5", "hash", "hmac"}), frozenset({"expires", "expire", "exp"})),  # Bunny, nginx
)
_SECRETS = frozenset(
    {
        "access_token",
        "api_key",
        "apikey",
        "auth",
        "auth_key",
        "hdnea",
        "hdntl",
        "hdnts",
        "hmac",
        "jwt",
        "private_token",
        "q-signature",
        "secret",
        "security-token",
        "sig",
        "sign",
        "signature",
        "token",
        "verify",
        "x-amz-security-token",
        "x-amz-signature",
        "x-cos-security-token",
        "x-goog-security-token",
        "x-goog-signature",
        "x-oss-security-token",
        "x-oss-signature",
    }
)
"""Names whose value gives access, alone or with others. Not `md5` and `hash`: an ETag may be the same."""
_GUESSED = frozenset({"access_token", "auth_key", "sig", "sign", "signature", "token", "verify"})
"""Names that by themselves make a signature or token likely."""
_SECRET_WORDS = frozenset(
    {"apikey", "auth", "credential", "credentials", "hmac", "jwt", "key", "passwd", "password", "secret", "sig"}
    | {"sign", "signature", "token"}
)
"""Words in a name that make it likely that the value gives access."""
_WORDS = _SECRET_WORDS | {"expires"}
"""Words in a name that make it likely that the address is personal or temporary."""
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
MIN_VALUE_CHARS = 8
"""Shorter values would be found in any text, and are not signatures."""


def is_signed(url: URL) -> bool:
    """Whether a signature in the address gives access for a while to anyone who has it."""
    names = _names(url)
    return any(names & needed and (not others or names & others) for needed, others in _SIGNATURES) if names else False


def may_be_signed(url: URL) -> bool:
    """Whether something in the address looks like a signature or a token."""
    return is_signed(url) or not _names(url).isdisjoint(_GUESSED)


def is_not_for_all(url: URL) -> bool:
    """Whether somebody should think twice before writing the address where everyone can read it."""
    names = [unquote(part.partition("=")[0]) for part in url.raw_query_string.split("&")]
    return may_be_signed(url) or any(not _words(name).isdisjoint(_WORDS) for name in names)


def query_secrets(url: URL) -> list[str]:
    """Return the values in the query that give access, as they are sent; in doubt, also others."""
    if not url.raw_query_string:
        return []
    pairs = (part.partition("=") for part in url.raw_query_string.split("&"))
    return [value for name, _, value in pairs if len(value) >= MIN_VALUE_CHARS and _is_secret(unquote(name))]


def _is_secret(name: str) -> bool:
    return name.lower() in _SECRETS or not _words(name).isdisjoint(_SECRET_WORDS)


def _words(name: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(name)}


def _names(url: URL) -> frozenset[str]:
    query = url.raw_query_string
    return frozenset(unquote(part.partition("=")[0]).lower() for part in query.split("&")) if query else frozenset()
