"""The journal: whatever happens to its bytes, it never claims anything that was not written before the damage."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field, replace
from itertools import accumulate

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from grym_fetch.core.http import NO_VALIDATOR, Validator
from grym_fetch.core.journal import (
    MAX_LINE_BYTES,
    MAX_PIECE_BYTES,
    JournalEncoder,
    JournalState,
    OriginRecord,
    Piece,
    PieceTable,
    address_hash,
    piece_digest,
    read_journal,
)
from grym_fetch.core.ranges import ByteRange
from tests.support.properties import examples
from tests.support.sweeps import typical

URL = "https://login:hunter2@models.example/base.bin?sig=hunter2#hunter2"
STRONG = Validator('"v1"', "Mon, 01 Jan 2024 00:00:00 GMT")


def piece(start: int, stop: int, origin: int = 0) -> Piece:
    """A piece whose digest tells its position and origin."""
    return Piece(start, stop, piece_digest(b"%d %d %d" % (start, stop, origin)), origin)


@dataclass
class Claims:
    """What a journal says, as plain values."""

    asset: str | None = None
    size: int | None = None
    origins: dict[int, OriginRecord] = field(default_factory=dict)
    pieces: list[Piece] = field(default_factory=list)

    @staticmethod
    def of(state: JournalState) -> Claims:
        """The claims of a journal's state."""
        return Claims(state.asset, state.size, dict(state.origins), list(state.pieces))


@dataclass
class Written:
    """A written journal: its lines, and the claims after each (``claims[n]`` after n lines)."""

    lines: list[bytes]
    claims: list[Claims]

    @property
    def data(self) -> bytes:
        """All of its bytes."""
        return b"".join(self.lines)

    @property
    def ends(self) -> list[int]:
        """Where the first n lines end, for n from 0."""
        return [0, *accumulate(len(line) for line in self.lines)]

    def lines_before(self, damage: int) -> int:
        """How many lines lie wholly before this byte."""
        return sum(1 for end in self.ends[1:] if end <= damage)


Step = tuple[str, int, int, int]


def write(asset: str, steps: list[Step], encoder: JournalEncoder | None = None) -> Written:
    """Write a journal step by step, beside a model that knows only lists."""
    encoder = encoder or JournalEncoder()
    now = Claims(asset)
    written = Written([encoder.header(asset)], [Claims(), Claims(asset)])
    for name, start, length, number in steps:
        stop = start + length
        if name == "piece":
            new = piece(start, stop, number)
            written.lines.append(encoder.piece(new))
            kept = [old for old in now.pieces if old.stop <= start or old.start >= stop]
            now = Claims(now.asset, now.size, now.origins, sorted([*kept, new], key=lambda p: p.start))
        elif name == "void":
            written.lines.append(encoder.void(start, stop))
            kept = [old for old in now.pieces if old.stop <= start or old.start >= stop]
            now = Claims(now.asset, now.size, now.origins, kept)
        elif name == "size":
            written.lines.append(encoder.size(1000 + start))
            now = Claims(now.asset, 1000 + start, now.origins, now.pieces)
        else:
            url = f"https://h{start}.example/"
            written.lines.append(encoder.origin(number, url, STRONG))
            origins = {**now.origins, number: OriginRecord(address_hash(url), STRONG)}
            now = Claims(now.asset, now.size, origins, now.pieces)
        written.claims.append(now)
    return written


STEPS: list[Step] = [
    ("origin", 1, 1, 0),
    ("size", 0, 1, 0),
    ("piece", 0, 10, 0),
    ("piece", 20, 10, 0),
    ("origin", 2, 1, 1),
    ("piece", 10, 10, 1),
    ("piece", 15, 10, 1),
    ("void", 0, 5, 0),
    ("piece", 0, 4, 0),
]
SAMPLE = write("asset", STEPS)
steps = st.lists(
    st.tuples(
        st.sampled_from(["piece", "piece", "piece", "void", "size", "origin"]),
        st.integers(0, 60),
        st.integers(1, 20),
        st.integers(0, 3),
    ),
    max_size=12,
)


def assert_claims(data: bytes, written: Written, lines: int) -> JournalState:
    """A damaged journal claims what its first undamaged lines said, and can be continued from there."""
    state = read_journal(data)
    assert Claims.of(state) == written.claims[lines]
    assert state.valid_bytes == written.ends[lines]
    assert data[: state.valid_bytes] == written.data[: state.valid_bytes]
    return state


def go_on(data: bytes, state: JournalState) -> JournalState:
    """Cut a journal to its valid beginning, append to it, and read it again."""
    encoder = JournalEncoder(state.chain)
    lines = [] if state.asset is not None else [encoder.header("asset")]
    lines += [encoder.void(0, 1 << 40), encoder.piece(piece(500, 510, 2))]
    whole = data[: state.valid_bytes] + b"".join(lines)
    again = read_journal(whole)
    assert again.valid_bytes == len(whole)
    assert (again.size, again.origins) == (state.size, state.origins)
    assert list(again.pieces) == [piece(500, 510, 2)]
    return again


# -- undamaged ----------------------------------------------------------------------------------------------------


@given(steps)
def test_what_was_written_is_read(given_steps: list[Step]) -> None:
    """After each line the journal says what was written so far: later pieces replace earlier ones, voids remove."""
    written = write("asset", given_steps)
    for lines, end in enumerate(written.ends):
        assert_claims(written.data[:end], written, lines)


def test_a_later_piece_replaces_what_it_overlaps() -> None:
    """A byte is claimed by the last piece written over it; a partly overwritten piece is no longer claimed."""
    written = write("asset", [("piece", 0, 10, 0), ("piece", 10, 10, 0), ("piece", 5, 10, 1), ("piece", 40, 2, 0)])
    assert list(read_journal(written.data).pieces) == [piece(5, 15, 1), piece(40, 42, 0)]


def test_a_void_takes_every_piece_it_touches() -> None:
    """After a void nothing claims a byte in it; what only borders on it stays."""
    written = write("asset", [("piece", 0, 10, 0), ("piece", 10, 10, 0), ("piece", 20, 10, 0), ("void", 10, 1, 0)])
    assert list(read_journal(written.data).pieces) == [piece(0, 10), piece(20, 30)]


def test_a_later_origin_record_replaces_the_earlier_one() -> None:
    """Of two records for one origin, the later one counts."""
    encoder = JournalEncoder()
    data = encoder.header("a") + encoder.origin(0, URL, NO_VALIDATOR) + encoder.origin(0, URL, STRONG)
    assert read_journal(data).origins == {0: OriginRecord(address_hash(URL), STRONG)}


@pytest.mark.shows("R25")
def test_the_server_of_a_validator_is_remembered() -> None:
    """A validator is recorded with its server; a journal of an earlier version, which names none, can still be read."""
    of_a_server = replace(STRONG, server="b76c9f70d37dc6dd")
    encoder = JournalEncoder()
    header, line = encoder.header("a"), encoder.origin(0, URL, of_a_server)
    assert read_journal(header + line).origins[0].validator == of_a_server
    record = json.loads(line[9:])
    del record["server"]
    text = json.dumps(record, separators=(",", ":")).encode()
    chain = zlib.crc32(text, zlib.crc32(header[9:-1], zlib.crc32(b"grym-fetch journal")))
    assert read_journal(header + b"%08x %s\n" % (chain, text)).origins[0].validator == STRONG


@pytest.mark.shows("M13", "U4", "S8")
def test_nothing_of_an_address_is_in_it() -> None:
    """An address is stored only as a hash: neither its host nor its secrets can be read from it."""
    data = JournalEncoder().origin(0, URL, STRONG)
    for part in (b"hunter2", b"login", b"models", b"base.bin", b"http", b"sig"):
        assert part not in data
    assert address_hash(URL) != address_hash(URL + "x")
    assert len(address_hash("https://h/\udcff")) == 32


# -- damaged ------------------------------------------------------------------------------------------------------


@pytest.mark.shows("P4")
def test_cut_at_every_byte() -> None:
    """A journal cut anywhere says what its complete lines say, and can be continued."""
    for cut in range(len(SAMPLE.data) + 1):
        data = SAMPLE.data[:cut]
        go_on(data, assert_claims(data, SAMPLE, SAMPLE.lines_before(cut)))


@pytest.mark.shows("P4", "S11")
def test_one_bit_flipped_at_every_byte() -> None:
    """Wherever a bit is flipped, the journal ends before that line."""
    for at in range(len(SAMPLE.data)):
        for bit in range(8):
            data = bytearray(SAMPLE.data)
            data[at] ^= 1 << bit
            state = assert_claims(bytes(data), SAMPLE, SAMPLE.lines_before(at))
        go_on(bytes(data), state)


@pytest.mark.parametrize("zeros", [1, 8, 9, 512, 2 * MAX_LINE_BYTES])
@pytest.mark.shows("P4", "B30")
def test_zero_filled_from_every_byte(zeros: int) -> None:
    """A tail of zeros, which some file systems leave after a power cut, claims nothing."""
    for cut in range(len(SAMPLE.data) + 1):
        data = SAMPLE.data[:cut] + bytes(zeros)
        go_on(data, assert_claims(data, SAMPLE, SAMPLE.lines_before(cut)))


@given(steps, st.integers(0), st.binary(max_size=100))
@pytest.mark.shows("P4")
def test_overwritten_with_garbage(given_steps: list[Step], where: int, garbage: bytes) -> None:
    """Wherever garbage overwrites a journal, it ends at the first byte that differs."""
    written = write("asset", given_steps)
    at = where % (len(written.data) + 1)
    data = written.data[:at] + garbage + written.data[at + len(garbage) :]
    differs = next((i for i, (new, old) in enumerate(zip(data, written.data, strict=False)) if new != old), len(data))
    go_on(data, assert_claims(data, written, written.lines_before(differs)))


@pytest.mark.parametrize("other_asset", typical(["asset", "other"], "asset"))
@pytest.mark.shows("P5")
def test_spliced_from_two_journals(other_asset: str) -> None:
    """The end of one journal appended to the beginning of another claims nothing, even where both begin alike."""
    other = write(other_asset, [("piece", 100, 10, 3), *STEPS, ("piece", 200, 10, 3)])
    for at in range(1, len(SAMPLE.data)):
        for begin in other.ends[2:]:
            data = SAMPLE.data[:at] + other.data[begin:]
            differs = next((i for i, (x, y) in enumerate(zip(data, SAMPLE.data, strict=False)) if x != y), len(data))
            assert_claims(data, SAMPLE, SAMPLE.lines_before(differs))


@pytest.mark.parametrize("drop", range(len(SAMPLE.lines)))
def test_a_line_lost_from_the_middle(drop: int) -> None:
    """A missing, doubled or misplaced line ends the journal: each line vouches for all lines before it."""
    lines = SAMPLE.lines
    without = b"".join(lines[:drop] + lines[drop + 1 :])
    assert_claims(without, SAMPLE, drop)
    doubled = b"".join([*lines[: drop + 1], lines[drop], *lines[drop + 1 :]])
    assert_claims(doubled, SAMPLE, drop + 1)
    if drop + 1 < len(lines):
        swapped = b"".join([*lines[:drop], lines[drop + 1], lines[drop], *lines[drop + 2 :]])
        assert_claims(swapped, SAMPLE, drop)


@given(st.binary(max_size=300))
@example(b"rubbish of no known kind\n")
@pytest.mark.shows("P4", "B30", "S11")
def test_garbage_is_no_journal(data: bytes) -> None:
    """Any bytes can be read, but garbage claims nothing."""
    assert Claims.of(read_journal(data)) == Claims()


def forged(*texts: bytes) -> bytes:
    """A journal of arbitrary records with right checksums: the worst that a damaged or hostile writer could make."""
    lines, chain = [], zlib.crc32(b"grym-fetch journal")
    for text in texts:
        chain = zlib.crc32(text, chain)
        lines.append(b"%08x %s\n" % (chain, text))
    return b"".join(lines)


HEADER = b'{"journal":1,"asset":"a"}'
DIGEST = b"0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"17",
        b'"text"',
        b"{",
        b"\xff\xfe\x00",
        b"NaN",
        b"[" * 3000,
        b'{"future":1}',
        HEADER,
        b'{"size":-1}',
        b'{"size":null}',
        b'{"size":1.5}',
        b'{"size":"10"}',
        b'{"size":%d}' % (1 << 62),
        b'{"size":%s}' % (b"9" * 4000),
        b'{"piece":[]}',
        b'{"piece":[0,10,"%s"]}' % DIGEST,
        b'{"piece":[0,0,"%s",0]}' % DIGEST,
        b'{"piece":[-1,10,"%s",0]}' % DIGEST,
        b'{"piece":[0,-10,"%s",0]}' % DIGEST,
        b'{"piece":[0,10,"short",0]}',
        b'{"piece":[0,10,null,0]}',
        b'{"piece":[0,%d,"%s",0]}' % (MAX_PIECE_BYTES + 1, DIGEST),
        b'{"piece":[%d,10,"%s",0]}' % (1 << 62, DIGEST),
        b'{"void":[5,5]}',
        b'{"void":[-1,5]}',
        b'{"void":[5]}',
        b'{"origin":0,"address":1,"etag":null,"modified":null}',
        b'{"origin":0,"address":"x","etag":7,"modified":null}',
        b'{"origin":0,"address":"x","etag":null,"modified":7}',
        b'{"origin":"0","address":"x","etag":null,"modified":null}',
    ],
)
def test_a_record_that_nobody_writes_ends_it(record: bytes) -> None:
    """A record with a right checksum but a wrong meaning ends the journal before it, as damage does."""
    before = forged(HEADER)
    good = b'{"piece":[0,10,"%s",0]}' % DIGEST
    state = read_journal(forged(HEADER, record, good))
    assert Claims.of(state) == Claims("a")
    assert state.valid_bytes == len(before)
    assert len(read_journal(forged(HEADER, good)).pieces) == 1


@pytest.mark.parametrize("first", [b'{"size":10}', b'{"journal":2,"asset":"a"}', b'{"journal":1}', b'{"void":[0,1]}'])
@pytest.mark.shows("P5")
def test_the_first_record_is_a_header_of_this_version(first: bytes) -> None:
    """A file that begins otherwise, or with another version, is not a journal of ours."""
    state = read_journal(forged(first, HEADER))
    assert (Claims.of(state), state.valid_bytes) == (Claims(), 0)


# -- bounds -------------------------------------------------------------------------------------------------------


def test_no_claim_beyond_the_size() -> None:
    """A piece that would end past the known size is not believed; one that ends exactly there is."""
    encoder = JournalEncoder()
    within = encoder.header("a") + encoder.size(100) + encoder.piece(piece(90, 100))
    beyond = within + encoder.piece(piece(91, 101))
    assert read_journal(beyond).valid_bytes == len(within)
    assert list(read_journal(beyond).pieces) == [piece(90, 100)]


def test_the_largest_piece() -> None:
    """A piece may be exactly as long as the bound and not a byte longer."""
    encoder = JournalEncoder()
    data = encoder.header("a") + encoder.piece(piece(0, MAX_PIECE_BYTES))
    assert len(read_journal(data + encoder.piece(piece(MAX_PIECE_BYTES, 2 * MAX_PIECE_BYTES + 1))).pieces) == 1


@pytest.mark.parametrize("text", ["x" * 2000, "x" * 10_000, "é" * 2000])
def test_a_validator_too_long_is_not_kept(text: str) -> None:
    """An overlong validator is left out: the digests prove the bytes without it."""
    encoder = JournalEncoder()
    data = encoder.header("a") + encoder.origin(0, URL, Validator(text, text))
    assert read_journal(data).origins[0].validator == NO_VALIDATOR


@pytest.mark.parametrize("char", ["x", '"', "\\", "\x01", "é", "\u2028", "\udcff", "\U0001f9ca"])
@pytest.mark.parametrize("length", [1, 100, 340, 500])
def test_every_record_can_be_read_back(char: str, length: int) -> None:
    """No validator that a server can send makes a line that ends the journal when read back."""
    encoder = JournalEncoder()
    data = encoder.header("a")
    data += encoder.origin(0, URL, Validator(char * length, char * length))
    data += encoder.piece(piece(0, 10))
    state = read_journal(data)
    assert state.valid_bytes == len(data)
    assert list(state.pieces) == [piece(0, 10)]
    assert max(len(line) for line in data.splitlines(keepends=True)) <= MAX_LINE_BYTES


def test_a_line_is_one_line_of_ascii() -> None:
    """Whatever a validator contains, its record is one line of printable ASCII."""
    line = JournalEncoder().origin(0, URL, Validator('"\n\r\x00é\u2028"', None))
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert json.loads(line[9:])["etag"] == '"\n\r\x00é\u2028"'


# -- the table of pieces ------------------------------------------------------------------------------------------


@given(steps, st.integers(0, 80), st.integers(0, 80))
@examples(200)
def test_a_piece_table_is_a_list_of_pieces(given_steps: list[Step], start: int, stop: int) -> None:
    """Pieces are kept by position; adding one drops those it overlaps, and dropping returns what was dropped."""
    table, model = PieceTable(), list[Piece]()
    for name, first, length, number in given_steps:
        new = piece(first, first + length, number)
        hit = [old for old in model if old.start < new.stop and new.start < old.stop]
        model = sorted((old for old in model if old not in hit), key=lambda old: old.start)
        if name == "piece":
            table.add(new)
            model = sorted([*model, new], key=lambda old: old.start)
        else:
            assert table.drop(new.start, new.stop) == hit
    assert list(table) == model == list(PieceTable(model))
    assert len(table) == len(model)
    assert [table.at(position) for position in range(81)] == [
        next((old for old in model if old.start == position), None) for position in range(81)
    ]
    if start < stop:
        hit = [old for old in model if old.start < stop and start < old.stop]
        assert table.drop(start, stop) == hit
        assert list(table) == [old for old in model if old not in hit]


def test_the_piece_around_a_position() -> None:
    """It is the one that has this byte; between pieces there is none."""
    pieces = [Piece(0, 10, "0" * 32, 0), Piece(20, 30, "0" * 32, 0)]
    table = PieceTable(pieces)
    assert [table.around(at) for at in (0, 9, 10, 19, 20, 29, 30)] == [
        pieces[0],
        pieces[0],
        None,
        None,
        pieces[1],
        pieces[1],
        None,
    ]
    assert PieceTable().around(0) is None


def test_a_piece_knows_its_range() -> None:
    """A piece knows the range it covers."""
    assert piece(3, 8).range == ByteRange(3, 8)


def test_a_digest_tells_bytes_apart() -> None:
    """The digest of a piece depends on every byte and their order, and is the same for every kind of buffer."""
    content = bytes(range(256))
    assert piece_digest(content) == piece_digest(memoryview(content))
    assert len({piece_digest(content), piece_digest(content[::-1]), piece_digest(content[:-1])}) == 3
    assert len(piece_digest(b"")) == 32
