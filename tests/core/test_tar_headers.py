"""Header blocks of a tar, read from bytes: what matters is read, and what is doubtful is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from grym_fetch.core.tar_headers import (
    MAX_NAME_BYTES,
    MAX_RECORDS,
    TarHeader,
    read_header,
    read_records,
    record_size,
)


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
    "data",
    [
        b"x", b"0 a=b\n", b"6 a=b", b"9 a=b\n", b"6 ab \n", b"6  a=b\n", b"-6 a=b\n", b" a=b\n", b"6 a=b ", b"7 a=b\n",
        b"00000000000000000025 a=b\n",
    ],
)  # fmt: skip
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


@pytest.mark.shows("S4")
def test_a_number_is_read_only_after_its_digits_were_counted() -> None:
    """Nineteen digits of a record's length are read, and twenty of a size; with one more, neither is."""
    assert read_records(b"0000000000000000027 path=b\n", is_global=False) == {b"path": b"b"}
    with pytest.raises(ValueError, match="invalid extended header"):
        read_records(b"00000000000000000028 path=b\n", is_global=False)
    assert record_size(b"7".zfill(20)) == 7
    with pytest.raises(ValueError, match="length that cannot be"):
        record_size(b"7".zfill(21))


def test_a_block_of_zeros_is_the_end() -> None:
    """A block of zeros is the end, and any other block without a right checksum is damage."""
    assert read_header(bytes(512)) is None
    with pytest.raises(ValueError, match="invalid header"):
        read_header(b"\1" + bytes(511))


def block(
    name: bytes = b"file",
    size: bytes = b"00000000007\0",
    magic: bytes = b"ustar\0",
    prefix: bytes = b"",
    checksum: Callable[[bytes], int] = sum,
) -> bytes:
    """A header block. ``checksum`` adds up its bytes, with spaces in the place of the sum."""
    with_spaces = (
        name.ljust(100, b"\0") + b"0000755\0" + bytes(16) + size.ljust(12, b"\0") + bytes(12) + b" " * 8
        + b"2" + b"target".ljust(100, b"\0") + magic.ljust(8, b"\0") + bytes(80) + prefix.ljust(167, b"\0")
    )  # fmt: skip
    return with_spaces[:148] + b"%06o\0 " % checksum(with_spaces) + with_spaces[156:]


def signed_sum(data: bytes) -> int:
    """Add up the bytes as signed characters."""
    return sum(byte - 256 if byte > 127 else byte for byte in data)


def test_a_header() -> None:
    """Every field is read from its place."""
    assert read_header(block()) == TarHeader(name=b"file", type=b"2", size=7, mode=0o755, target=b"target")


@pytest.mark.parametrize("checksum", [sum, signed_sum])
@pytest.mark.parametrize("name", ["déjà vu".encode(), "日本".encode(), b"\x7f\x80"])
def test_both_checksums(name: bytes, checksum: Callable[[bytes], int]) -> None:
    """The sum of unsigned bytes is right (POSIX), and so is that of signed ones, which some old programs wrote."""
    header = read_header(block(name, checksum=checksum))
    assert header is not None
    assert header.name == name


@pytest.mark.parametrize("at", [0, 99, 124, 135, 257, 511])
@pytest.mark.shows("S4")
def test_a_changed_header(at: int) -> None:
    """A header of which any byte has changed is damage."""
    good = block()
    with pytest.raises(ValueError, match="invalid header"):
        read_header(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])


@pytest.mark.parametrize(
    ("field", "size"),
    [
        (b"", 0),
        (b"   17 \0", 0o17),
        (b"777\0junk", 0o777),
        (b"\x80" + (2**40 + 3).to_bytes(11, "big"), 2**40 + 3),
        (b"\x80" + (2**63 - 1).to_bytes(11, "big"), 2**63 - 1),
    ],
)
def test_how_numbers_are_written(field: bytes, size: int) -> None:
    """Octal digits up to a NUL, with spaces around them, or a number in base 256."""
    header = read_header(block(size=field))
    assert header is not None
    assert header.size == size


@pytest.mark.parametrize(
    ("field", "complaint"),
    [
        (b"\xff" * 12, "length that cannot be"),
        (b"\x80" + (2**63).to_bytes(11, "big"), "length that cannot be"),
        (b"8", "invalid header"),
        (b"-1", "invalid header"),
        (b"0x1", "invalid header"),
        (b"1_0", "invalid header"),
        (b"1 1", "invalid header"),
    ],
)
@pytest.mark.shows("S4")
def test_what_is_not_a_number(field: bytes, complaint: str) -> None:
    """Anything else is refused, also what Python would read as a number; so is a length below 0 or past 63 bits."""
    with pytest.raises(ValueError, match=complaint):
        read_header(block(size=field))


def test_the_prefix_of_a_name() -> None:
    """Only a POSIX header begins its name elsewhere; GNU tar writes other things there."""
    posix, gnu = read_header(block(prefix=b"folder")), read_header(block(magic=b"ustar  ", prefix=b"00000000"))
    assert posix is not None
    assert gnu is not None
    assert (posix.name, gnu.name) == (b"folder/file", b"file")
    assert posix == TarHeader(name=b"folder/file", type=b"2", size=7, mode=0o755, target=b"target")
