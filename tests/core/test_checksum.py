"""Checksums: what is read, how it is written, and what it is compared with."""

from __future__ import annotations

import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core.digest import DIGESTS_OF_NOTHING, Algorithm, Checksum

CONTENT = bytes(range(256))
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SHA512 = hashlib.sha512(CONTENT).hexdigest()
BLAKE2B = hashlib.blake2b(CONTENT).hexdigest()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SHA256, Checksum("sha256", SHA256)),
        (SHA256.upper(), Checksum("sha256", SHA256)),
        (f"sha256:{SHA256}", Checksum("sha256", SHA256)),
        (f"SHA256:{SHA256.upper()}", Checksum("sha256", SHA256)),
        (f"sha512:{SHA512}", Checksum("sha512", SHA512)),
        (f"Blake2b:{BLAKE2B}", Checksum("blake2b", BLAKE2B)),
    ],
)
@pytest.mark.shows("M9")
def test_reads_every_form(text: str, expected: Checksum) -> None:
    """Bare hex is SHA-256; a prefix names the algorithm; case does not matter."""
    assert Checksum.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "0 hex digits where sha256 has 64"),
        (SHA256[:-1], "63 hex digits where sha256 has 64"),
        (SHA256 + "0", "65 hex digits where sha256 has 64"),
        (SHA512, "128 hex digits where sha256 has 64"),
        (f"sha512:{SHA256}", "64 hex digits where sha512 has 128"),
        (f"md5:{SHA256[:32]}", "known algorithm"),
        (f":{SHA256}", "known algorithm"),
        (f"sha256:sha256:{SHA256}", "known algorithm"),
        (f" {SHA256}", "not hex digits"),
        (f"{SHA256}\n", "not hex digits"),
        (f"sha256: {SHA256}", "not hex digits"),
        ("g" * 64, "not hex digits"),
        ("0x" + SHA256[2:], "not hex digits"),
        ("n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=", "not hex digits"),
        ("٣" * 64, "not made of hex digits"),
        (f"bla\u212ae2b:{BLAKE2B}", "known algorithm"),
    ],
)
@pytest.mark.shows("M9")
def test_refuses_all_else(text: str, complaint: str) -> None:
    """A checksum that cannot be read is refused with what is wrong with it and what is allowed."""
    with pytest.raises(ValueError, match=complaint) as caught:
        Checksum.parse(text)
    assert "allowed: 64 hex digits (SHA-256), or sha256:" in str(caught.value)


@pytest.mark.parametrize(
    ("algorithm", "digits", "complaint"),
    [
        ("md5", "0" * 32, "'md5' is unknown; known: sha256, sha512, blake2b"),
        ("sha256", "0" * 63, "63 hex digits where sha256 has 64"),
        ("sha256", SHA256.upper(), "not lower-case hex digits"),
    ],
)
def test_cannot_hold_what_is_no_checksum(algorithm: Algorithm, digits: str, complaint: str) -> None:
    """A `Checksum` is well formed however it is made."""
    with pytest.raises(ValueError, match=complaint):
        Checksum(algorithm, digits)


def test_is_written_with_its_algorithm_and_bare_only_for_sha256() -> None:
    """``str`` always names the algorithm; ``bare`` leaves out the default one."""
    assert str(Checksum.parse(SHA256)) == f"sha256:{SHA256}"
    assert Checksum.parse(f"sha256:{SHA256}").bare == SHA256
    assert Checksum.parse(f"sha512:{SHA512}").bare == f"sha512:{SHA512}"


@pytest.mark.parametrize("text", [f"sha256:{SHA256}", f"sha512:{SHA512}", f"blake2b:{BLAKE2B}"])
def test_hashes_with_its_own_algorithm(text: str) -> None:
    """A checksum's hasher, fed the content, produces the checksum's digest."""
    checksum = Checksum.parse(text)
    hasher = checksum.new_hasher()
    hasher.update(CONTENT[:100])
    forked = hasher.copy()
    hasher.update(memoryview(CONTENT)[100:])
    assert hasher.hexdigest() == checksum.hexdigest
    assert forked.hexdigest() != checksum.hexdigest
    assert Checksum.of(CONTENT, checksum.algorithm) == checksum


@pytest.mark.parametrize("algorithm", ["sha256", "sha512", "blake2b"])
def test_knows_the_digest_of_nothing(algorithm: Algorithm) -> None:
    """Only an empty file has the checksum of nothing."""
    assert Checksum.of(b"", algorithm).is_of_nothing
    assert not Checksum.of(CONTENT, algorithm).is_of_nothing
    assert DIGESTS_OF_NOTHING["sha256"].startswith("e3b0c44298fc1c14")


@given(st.binary(max_size=64), st.sampled_from(["sha256", "sha512", "blake2b"]))
def test_reads_what_it_writes(data: bytes, algorithm: Algorithm) -> None:
    """Both written forms read back as the same checksum."""
    checksum = Checksum.of(data, algorithm)
    assert Checksum.parse(str(checksum)) == checksum
    assert Checksum.parse(checksum.bare) == checksum


@given(st.text())
@pytest.mark.shows("M9")
def test_any_text_is_read_or_refused(text: str) -> None:
    """Text that is not a checksum raises ValueError and nothing else."""
    with contextlib.suppress(ValueError):
        assert Checksum.parse(text).bare
