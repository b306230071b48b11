"""Digests stated by hubs: read strictly, and computed beside the checksum."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core.digest import Checksum, new_hasher
from grym_fetch.core.stated import PairedHasher, StatedDigest

# `printf hello | git hash-object --stdin` and the like.
KNOWN = [
    (StatedDigest("git-blob", "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0", 5), b"hello"),
    (StatedDigest("git-blob", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391", 0), b""),
    (StatedDigest("md5", "5d41402abc4b2a76b9719d911017c592"), b"hello"),
    (StatedDigest("sha1", "aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d"), b"hello"),
]


@pytest.mark.parametrize(("stated", "content"), KNOWN, ids=lambda value: str(value)[:12])
def test_known_digests(stated: StatedDigest, content: bytes) -> None:
    """Each kind matches what md5sum, sha1sum and git compute."""
    assert stated.is_of(content)
    assert not stated.is_of(content + b".")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("sha256:" + "0" * 64, "md5: or sha1:"),
        ("0" * 32, "md5: or sha1:"),
        ("md5:" + "0" * 31, "32 lower-case"),
        ("md5:" + "g" * 32, "32 lower-case"),
        ("sha1:" + "0" * 32, "40 lower-case"),
        ("md5:" + "\u212a" * 32, "md5: or sha1:"),
    ],
)
def test_what_is_no_stated_digest(text: str, problem: str) -> None:
    """A digest that a manifest accepts is not one of these, nor is text that is too short or not hexadecimal."""
    with pytest.raises(ValueError, match=problem):
        StatedDigest.parse(text)


def test_how_it_is_read_and_shown() -> None:
    """Any case and surrounding space are accepted; the kind comes first when shown."""
    stated = StatedDigest.parse(" MD5:5D41402ABC4B2A76B9719D911017C592 ")
    assert stated == StatedDigest("md5", "5d41402abc4b2a76b9719d911017c592")
    assert StatedDigest.parse(str(stated)) == stated
    with pytest.raises(ValueError, match="size"):
        StatedDigest("git-blob", "0" * 40)
    with pytest.raises(ValueError, match="unknown"):
        StatedDigest("crc", "0" * 8)  # type: ignore[arg-type]  # what a plug-in may do


@given(st.lists(st.binary(max_size=50), max_size=8))
def test_both_at_once(parts: list[bytes]) -> None:
    """However the bytes arrive, and even from a copy, both digests cover the whole content."""
    whole = b"".join(parts)
    pair = PairedHasher(new_hasher("sha256"), StatedDigest("md5", "0" * 32).new_hasher())
    for part in parts:
        pair = pair.copy()
        pair.update(part)
    assert pair.hexdigest() == pair.digest().hex() == Checksum.of(whole).hexdigest
    assert pair.beside.hexdigest() == hashlib.md5(whole).hexdigest()
