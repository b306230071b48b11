"""Lines that prove themselves undamaged."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core.checked_lines import are_undamaged, chain_of, decode_line, encode_line

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
CHAINS = st.integers(0, 2**32 - 1)


@given(VALUES, CHAINS)
def test_a_line_is_read_as_it_was_written(value: object, chain: int) -> None:
    """Anything JSON can hold survives on one line of ASCII, with or without the newline."""
    line = encode_line(value, chain)
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert decode_line(line, chain) == decode_line(line.rstrip(b"\n"), chain) == value


def test_text_that_is_no_unicode_is_kept() -> None:
    """A file name that is not UTF-8 comes back as Python represents it."""
    assert decode_line(encode_line("\udcff\n\u2028")) == "\udcff\n\u2028"


@given(VALUES, CHAINS, st.data())
def test_a_damaged_line_is_refused(value: object, chain: int, draw: st.DataObject) -> None:
    """A line with a flipped bit, a missing end or another starting checksum is not read."""
    line = encode_line(value, chain)[:-1]
    at = draw.draw(st.integers(0, len(line) - 1))
    flipped = line[:at] + bytes([line[at] ^ 1 << draw.draw(st.integers(0, 7))]) + line[at + 1 :]
    for damaged, start in ((flipped, chain), (line[:at], chain), (line, chain ^ 1)):
        with pytest.raises(ValueError, match="damaged"):
            decode_line(damaged, start)


@given(st.lists(VALUES), st.data())
def test_one_damaged_line_of_many_is_noticed(values: list[object], draw: st.DataObject) -> None:
    """Many lines are judged at once; one flipped bit in any of them condemns them."""
    lines = [encode_line(value)[:-1] for value in values]
    assert are_undamaged(lines)
    if lines:
        number = draw.draw(st.integers(0, len(lines) - 1))
        line = lines[number]
        at = draw.draw(st.integers(0, len(line) - 1))
        lines[number] = line[:at] + bytes([line[at] ^ 1 << draw.draw(st.integers(0, 7))]) + line[at + 1 :]
        assert not are_undamaged(lines)


def test_a_chain() -> None:
    """A line that is chained to another is valid only after that one."""
    first = encode_line(1)
    second = encode_line(2, chain_of(first))
    assert decode_line(second, chain_of(first)) == 2
    with pytest.raises(ValueError, match="damaged"):
        decode_line(second)


def test_deep_nesting_is_an_error_like_another() -> None:
    """A line nested too deeply to be read raises the same error as any other bad line."""
    text = b"[" * 100_000
    with pytest.raises(ValueError, match="deeply"):
        decode_line(b"%08x %s" % (zlib.crc32(text), text))
