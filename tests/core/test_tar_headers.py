"""Header blocks of a tar, read from bytes: what matters is read, and what is doubtful is refused."""

from __future__ import annotations

import pytest

from grym_fetch.core.tar_headers import MAX_NAME_BYTES, MAX_RECORDS, read_header, read_records, record_size


def record(keyword: str, value: str) -> bytes:
    """One record of a pax header, of at most 94 bytes, or of any length where the number has as many digits."""
    body = f" {keyword}={value}\n".encode()
    digits = next(count for count in range(1, 9) if len(str(len(body) + count)) == count)
    return str(len(body) + digits).encode() + body


def test_records() -> None:
    """Only three kinds of record matter, and the last one of each name wins."""
    data = record("mtime", "1.5") + record("path", "a=b\nc") + record("size", "7") + record("path", "z")
    assert read_records(data, is_global=False) == {b"path": b"z", b"size": b"7"}


@pytest.mark.parametrize("keyword", ["GNU.sparse.map", "GNU.sparse.major", "SCHILY.realsize"])
@pytest.mark.shows("S4")
def test_sparse_members(keyword: str) -> None:
    """Sparse members are refused under each of the names they may have."""
    with pytest.raises(ValueError, match="sparse"):
        read_records(record(keyword, "1"), is_global=False)


@pytest.mark.shows("S4")
def test_how_many_records() -> None:
    """The number of records is limited, whatever they are."""
    read_records(record("a", "b") * MAX_RECORDS, is_global=False)
    with pytest.raises(ValueError, match="more than 4,096 records"):
        read_records(record("a", "b") * (MAX_RECORDS + 1), is_global=False)


@pytest.mark.shows("S4")
def test_how_long_a_name() -> None:
    """The length of a name is limited."""
    read_records(record("path", "n" * MAX_NAME_BYTES), is_global=False)
    with pytest.raises(ValueError, match="longer than any"):
        read_records(record("path", "n" * (MAX_NAME_BYTES + 1)), is_global=False)


@pytest.mark.parametrize("keyword", ["path", "linkpath", "size"])
def test_a_global_header_names_no_member(keyword: str) -> None:
    """A header that applies to all members cannot give the name or size of each."""
    with pytest.raises(ValueError, match="global"):
        read_records(record(keyword, "1"), is_global=True)
    assert read_records(record("comment", "x"), is_global=True) == {}


@pytest.mark.parametrize(
    "data", [b"x", b"0 a=b\n", b"6 a=b", b"9 a=b\n", b"6 ab \n", b"6  a=b\n", b"-6 a=b\n", b" a=b\n"]
)
def test_what_is_no_record(data: bytes) -> None:
    """A record with a wrong length is refused."""
    with pytest.raises(ValueError, match="invalid extended header"):
        read_records(data, is_global=False)


@pytest.mark.parametrize("value", [b"", b"-1", b"1.5", b"1e3", b" 1", b"9" * 21, b"9223372036854775808"])
def test_a_size_that_cannot_be(value: bytes) -> None:
    """A size is a whole number of bytes that fits in 63 bits."""
    with pytest.raises(ValueError, match="length that cannot be"):
        record_size(value)
    assert record_size(b"9223372036854775807") == 2**63 - 1
    assert record_size(b"0") == 0


def test_a_block_of_zeros_is_the_end() -> None:
    """A block of zeros is the end, and any other block without a right checksum is damage."""
    assert read_header(bytes(512)) is None
    with pytest.raises(ValueError, match="invalid header"):
        read_header(b"\1" + bytes(511))
