"""Checks of single values in a manifest: addresses, ids and labels, and how long they may be.

Rules: a check returns its text or raises `ValueError`. The message says what is wrong and what is allowed. It never
repeats an address, which may hold a secret.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from urllib.parse import urlsplit

from grym_fetch.core.buckets import BucketAddress, is_bucket_address
from grym_fetch.core.columns import Column, are_all, match_all
from grym_fetch.core.lfs_addresses import LfsAddress, is_lfs_address
from grym_fetch.core.text import UNSAFE_CATEGORIES, safe_text

MAX_ID_CHARACTERS = 200
MAX_SIZE_BYTES = 2**63 - 1
"""The largest file: what an ``off_t`` holds."""
MAX_URL_CHARACTERS = 8192
"""The longest address: longer than any signed one, and about what servers accept."""
MAX_FALLBACK_URLS = 100

URL_RULE = "an http:// or https:// address"
ADDRESS_RULE = f"{URL_RULE}, or an object in a bucket (s3://, gs://, az://) or on a Git LFS server (lfs://)"
ID_RULE = f"a string of 1 to {MAX_ID_CHARACTERS} characters"
LABEL_RULE = "a string that is not empty"
SOURCE_RULE = "a short address such as hf://org/repo@main/file"

_NOT_IN_URLS = frozenset({*UNSAFE_CATEGORIES, "Zs"})
# What nearly every id and address looks like; all others are checked part by part.
_COMMON_ID = re.compile(rf"[\w.][\w.-]{{0,{MAX_ID_CHARACTERS - 1}}}", re.ASCII)
_COMMON_URL = re.compile(
    r"https?://(?=[a-z0-9.:-]{1,63}(?:[/?#]|$))"
    r"[a-z0-9]++(?:[.-][a-z0-9]++)*+(?::[1-9][0-9]{0,3})?+(?:[/?#][!-\[\]-~]*+)?+"
)
_are_common_ids = match_all(_COMMON_ID, max_characters=MAX_ID_CHARACTERS)
_are_common_urls = match_all(_COMMON_URL, max_characters=MAX_URL_CHARACTERS)
_SOURCE = re.compile(r"[a-z][a-z0-9+.-]*:[^\s]+")
_PLAIN_URL = re.compile(r"[!-\[\]-~]*")  # printable ASCII but space and backslash
_USERINFO = re.compile(r"[\w.~!$&'()*+,;=:%-]*", re.ASCII)  # RFC 3986, section 3.2.1
_HOST_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.IGNORECASE | re.ASCII)


def check_address(text: str) -> str:
    """Return ``text`` if it can be an address in a manifest: what `check_url` takes, or an object in a bucket or
    on a Git LFS server.

    Raises:
        ValueError: it cannot; the message says why.
    """
    if is_bucket_address(text) and len(text) <= MAX_URL_CHARACTERS:
        BucketAddress.parse(text)
        return text
    if is_lfs_address(text) and len(text) <= MAX_URL_CHARACTERS:
        check_url(f"https://{LfsAddress.parse(text).server}")
        return text
    return check_url(text, ADDRESS_RULE)


def check_url(text: str, rule: str = URL_RULE) -> str:
    """Return ``text`` if it is an address that every parser reads in the same way. ``rule``: what a refusal allows.

    Whatever parsers are known to disagree on (spaces, control characters, backslashes, a second @, escapes in the host)
    is refused, so that the host that was checked is the host that is asked.

    Raises:
        ValueError: it is not; the message says why.
    """
    if len(text) > MAX_URL_CHARACTERS:
        raise ValueError(f"is {len(text)} characters long; at most {MAX_URL_CHARACTERS} are allowed")
    if _COMMON_URL.fullmatch(text):
        return text
    if not _PLAIN_URL.fullmatch(text):
        _check_url_characters(text)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        if "port" in str(error).lower():
            raise ValueError("has a port that is not a number from 1 to 65535") from None
        raise ValueError("has a host that cannot be read") from None
    if parts.scheme not in ("http", "https"):
        scheme = f"starts with {parts.scheme}:" if parts.scheme else "has no scheme"
        if parts.scheme and not text.startswith(parts.scheme):
            scheme = f"starts with {parts.scheme}: in capitals"
        raise ValueError(f"{scheme}; allowed: {rule}")
    if not parts.hostname:
        raise ValueError(f"has no host; allowed: {rule}")
    if port == 0:
        raise ValueError("has a port that is not a number from 1 to 65535")
    userinfo, _, place = parts.netloc.rpartition("@")
    if not _USERINFO.fullmatch(userinfo):
        raise ValueError("has characters before the host that must be percent-encoded there (a second @, a bracket)")
    _check_host(parts.hostname, is_literal=place.startswith("["))
    return text


def check_all_urls(texts: Column) -> Column | None:
    """Return ``texts`` if all are common addresses."""
    return texts if _are_common_urls(texts) else None


def check_all_ids(texts: Column) -> Column | None:
    """Return ``texts`` if all are common ids."""
    return texts if _are_common_ids(texts) else None


def check_all_labels(texts: Column) -> Column | None:
    """Return ``texts`` if all are labels of printable ASCII."""
    is_common = (
        are_all(texts, str) and "" not in texts and (joined := "".join(texts)).isascii() and joined.isprintable()
    )
    return texts if is_common else None


def has_login(text: str) -> bool:
    """Whether an address has a user or a password in it. One that cannot be read has none."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False  # refused with a better reason by `check_url`
    return parts.username is not None or parts.password is not None


def _check_url_characters(text: str) -> None:
    if "\\" in text:
        raise ValueError("has a backslash; separate with / or write it as %5C")
    for char in text:
        if unicodedata.category(char) in _NOT_IN_URLS:
            shown = "a space" if char == " " else f"the character {char.encode('unicode_escape').decode()}"
            raise ValueError(f"has {shown}, which must be percent-encoded")


def _check_host(host: str, *, is_literal: bool) -> None:
    if is_literal:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError("has brackets around a host that is not an IPv6 address") from None
        return
    # A name is at most 253 characters (RFC 1035); the limit also bounds the IDNA codec, which is quadratic.
    if len(host) > 253:
        raise ValueError(f"has a host of {len(host)} characters; at most 253 are allowed")
    try:
        name = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        raise ValueError("has a host that is not a valid international name") from None
    if not all(_HOST_LABEL.fullmatch(label) for label in name.removesuffix(".").split(".")):
        raise ValueError("has a host that is not a valid name (letters, digits, - and _ in parts joined by dots)")


def check_id(text: str) -> str:
    """Return ``text`` if it can be an asset's id, which people type on a command line and read in a log.

    Raises:
        ValueError: it cannot; the message says why.
    """
    if _COMMON_ID.fullmatch(text):
        return text
    if not text:
        raise ValueError(f"is empty; allowed: {ID_RULE}")
    if len(text) > MAX_ID_CHARACTERS:
        raise ValueError(f"is {len(text)} characters long; at most {MAX_ID_CHARACTERS} are allowed")
    check_label(text)
    if text != text.strip():
        raise ValueError("begins or ends with white space")
    if text.startswith("-"):
        raise ValueError("begins with -, so a command line would take it for an option")
    if "/" in text:
        raise ValueError("has a /; an id is a name, not a path")
    return text


def check_label(text: str) -> str:
    """Return ``text`` if it can be shown: it is not empty, and nothing in it is invisible.

    Raises:
        ValueError: it cannot; the message says why.
    """
    if not text:
        raise ValueError(f"is empty; allowed: {LABEL_RULE}")
    if not (text.isascii() and text.isprintable()):
        for char in text:
            if unicodedata.category(char) in UNSAFE_CATEGORIES:
                raise ValueError(f"has a control or invisible character ({safe_text(char)})")
    return text


def check_source(text: str) -> str:
    """Return ``text`` if it has the form of a short address: a scheme, a colon, and something that can be shown.

    Which schemes there are is not said here: a manifest may come from a machine that knows more of them.

    Raises:
        ValueError: it has not; the message says why.
    """
    if len(text) > MAX_URL_CHARACTERS:
        raise ValueError(f"is {len(text)} characters long; at most {MAX_URL_CHARACTERS} are allowed")
    check_label(text)
    if not _SOURCE.fullmatch(text):
        raise ValueError(f"does not begin with a scheme and a colon; allowed: {SOURCE_RULE}")
    if has_login(text):
        raise ValueError("has a user or a password in it, which everyone could read")
    return text
