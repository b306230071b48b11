"""How far the download of one asset is: the bytes on its stage, where they came from, its length, its digest so far.

Rules: what an earlier process left is used as far as it may be combined, and proved on the way (`Frontier`). What is on
hand is given up only where it is known to be wrong, and the journal records that first.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from grym_fetch.core.comparison import Comparison
from grym_fetch.core.content_hasher import ContentHasher
from grym_fetch.core.digest import Algorithm, Checksum, new_hasher
from grym_fetch.core.errors import DigestMismatch, DiskFull, IntegrityError, StorageError
from grym_fetch.core.http import Validator
from grym_fetch.core.journal import NOBODY, Piece, PieceTable, address_hash, piece_digest, piece_hasher
from grym_fetch.core.manifest import Asset
from grym_fetch.core.origins import Origin, Origins
from grym_fetch.core.piece_digests import PieceDigests, PieceSums, piece_length
from grym_fetch.core.ranges import ByteRange, IntervalSet
from grym_fetch.core.segments import MIB, UNBOUNDED, Segments, SegmentSizes
from grym_fetch.core.stated import PairedHasher
from grym_fetch.core.world import Stage, Threads
from grym_fetch.transfer.hashing import Frontier
from grym_fetch.transfer.readers import Readers

if TYPE_CHECKING:
    from xxhash import xxh3_128

log = logging.getLogger(__name__)

ECHO_PIECES = 16
"""After this many pieces (32 MiB) that are the same a second time, assume that all of the content is the same."""
ECHO_BORDERS = 2
"""They must include this many beginnings of segments, if there were any: a wrong range would show there."""
ECHO_AHEAD = 4
"""And this many that were asked for ahead of their turn: another request's answer would show there."""


@dataclass(frozen=True, slots=True)
class Echo:
    """What an origin sent before it was asked again, kept to see whether it sends the same.

    ``borders``: where its ranges began, except the first. ``stop``: it counts as the same if it is so up to here.
    """

    validator: Validator
    size: int | None
    borders: frozenset[int]
    stop: int

    def is_told_by(self, validator: Validator, size: int | None) -> bool:
        """Whether the same validator and length prove enough: content that came as one stream has no wrong range."""
        return not self.borders and bool(validator) and validator == self.validator and size in (None, self.size)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(eq=False, slots=True)
class _Writing:
    """Bytes on their way to the disk. ``is_void``: they turned out to be wrong meanwhile."""

    start: int
    stop: int
    origin: int
    is_void: bool = False


class DownloadState:
    """The part of one asset that is on hand. ``on_change`` is called when more is hashed or some is lost."""

    def __init__(
        self,
        asset: Asset,
        origins: Origins,
        stage: Stage,
        threads: Threads,
        on_change: Callable[[], None],
        sizes: SegmentSizes,
        readers: Readers | None = None,
    ) -> None:
        self._asset = asset
        self._origins = origins
        self._stage = stage
        self._threads = threads
        self._on_change = on_change
        self._sizes = sizes
        self._readers = readers or Readers()
        self._losses = 0
        """How often bytes on hand were given up."""
        self._algorithm: Algorithm = asset.checksum.algorithm if asset.checksum is not None else "sha256"
        self._suspects: PieceTable | None = None
        self._borders: set[int] = set()
        self._borders_ahead: set[int] = set()
        self._echo: Echo | None = None
        self._writings: set[_Writing] = set()
        self.condemned: list[tuple[ByteRange, set[int]]] = []
        """Pieces that are not what the manifest says, each with the numbers of the origins that gave it.

        `NOBODY` for an earlier run. They are missing again, and wait for somebody to decide whom to ask.
        """
        self._retelling: tuple[Piece, int, xxh3_128] | None = None
        self.size = asset.size if asset.size is not None else stage.recovered.size
        self.no_room: DiskFull | None = None
        """Why no length was learned: the length that an origin claimed does not fit, and none has claimed less."""
        self.size_origin: Origin | None = None
        """The origin that told the length, if neither the manifest nor an earlier run did."""
        self.differing: set[Origin] = set()
        """The origins whose bytes differ from those of the origin that is trusted now; see `compare_with`."""
        self.first_piece: Piece | None = None
        """The first that came in this run and is long enough to be compared."""
        self.looks: dict[Origin, str] = {}
        """What each origin that was asked for it sent: the digest."""
        self.comparison: Comparison | None = None
        """How far what is on hand is compared with what that origin has, if it is asked for a part at a time."""
        self.inherited = self._recover()
        self._begin(self.inherited)

    # -- what an earlier process left -------------------------------------------------------------------------------

    def _recover(self) -> PieceTable:
        left = self._stage.recovered
        by_address = {address_hash(origin.url): origin for origin in self._origins.all}
        numbers: dict[int, int] = {}
        for number, record in left.origins.items():
            origin = by_address.get(record.address)
            if origin is not None:
                origin.identified(record.validator)
                numbers[number] = origin.number
        claims = PieceTable(
            Piece(piece.start, piece.stop, piece.digest, numbers.get(piece.origin, NOBODY)) for piece in left.pieces
        )
        if self.size is not None:
            claims.drop(self.size, UNBOUNDED)
        return claims if self._asset.pinned or self._is_one_representation(claims) else PieceTable()

    def _is_one_representation(self, pieces: PieceTable) -> bool:
        """RFC 9110 section 15.3.7.3: without a checksum, parts are combined only under one strong validator."""
        givers = {piece.origin for piece in pieces}
        return not givers or (
            len(givers) == 1 and NOBODY not in givers and self._origins.all[givers.pop()].validator.is_strong
        )

    def _begin(self, pieces: PieceTable) -> None:
        on_hand = IntervalSet()
        for piece in pieces:
            on_hand.add(piece.start, piece.stop)
        self.pieces = PieceTable(pieces)
        self._losses += 1
        self.segments = Segments(self.size, on_hand, self._sizes, wanted=self._readers.wanted)
        self.frontier = Frontier(
            self._new_content(),
            self._stage,
            self._threads,
            claims=pieces,
        )

    def _new_content(self) -> ContentHasher:
        hasher, stated = new_hasher(self._algorithm), self._asset.stated
        whole = hasher if stated is None else PairedHasher(hasher, stated.new_hasher())
        return ContentHasher(whole, self.size, self._judged)

    async def hash(self) -> None:
        """Hash bytes as they arrive, until cancelled. Raises the same errors as the stage."""
        await self.frontier.run(on_bad=self._lose, on_advance=self._on_change, on_wrong=self._condemn)

    def _lose(self, piece: Piece) -> None:
        log.warning("%s: a piece that an earlier run left is damaged and is fetched again", self._asset.id)
        self._losses += 1
        self.segments.lose(piece.start, piece.stop)
        self.pieces.drop(piece.start, piece.stop)
        self._on_change()

    async def _condemn(self, wrong: ByteRange) -> None:
        """A piece is not what the manifest says: its bytes are missing again, and who gave them is named."""
        self._losses += 1
        givers = {
            NOBODY if self.is_inherited(piece) else piece.origin for piece in self.pieces.drop(wrong.start, wrong.stop)
        }
        for writing in self._writings:
            if writing.start < wrong.stop and wrong.start < writing.stop:
                writing.is_void = True
                givers.add(writing.origin)
        self.segments.lose(wrong.start, wrong.stop)
        # The same thread writes what is on its way now before this, and what comes anew after it.
        await self._stage.note_void(wrong.start, wrong.stop)
        self.condemned.append((wrong, givers))
        self._on_change()

    def room_in_piece(self, start: int) -> int:
        """How many bytes there are from here to the end of a piece of the manifest, if it has any.

        What is written lies within one, so that what is void costs no neighbour.
        """
        digests = self._asset.pieces
        return UNBOUNDED if digests is None else digests.size - start % digests.size

    # -- what comes in ----------------------------------------------------------------------------------------------

    async def learn_size(self, size: int, origin: Origin) -> None:
        """The length became known. Raises `DiskFull` if the rest would not fit; then nothing is learned."""
        try:
            await self._stage.note_size(size)
        except DiskFull as error:
            self.no_room = error
            raise
        if self.size is not None:
            return  # another answer was faster
        self.no_room = None
        self.size = size
        self.size_origin = origin
        self.segments.learn_size(size)

    async def learn_validator(self, origin: Origin, validator: Validator) -> None:
        """The origin sent the validator of its representation, which also says which server it is."""
        if validator.server != origin.server:
            origin.served_by(validator.server, has_given=self.bytes_given(origin) > 0)
        if validator and validator != origin.validator:
            origin.identified(validator)
            await self._stage.note_origin(origin.number, origin.url, validator)

    def served_range(self, start: int, *, is_ahead: bool = False) -> None:
        """A range that begins here is about to come. ``is_ahead``: it was asked for ahead of its turn."""
        if start:
            self._borders.add(start)
        if is_ahead:
            self._borders_ahead.add(start)

    def says_the_same(self, validator: Validator, size: int | None) -> bool:
        """Whether the head alone of a doubted origin's response shows that the same wrong content follows."""
        echo = self._echo
        if echo is None:
            return False
        if echo.validator.contradicts(validator):
            self._echo = None  # other content: it may turn out to be the right one
            return False
        return echo.is_told_by(validator, size)

    def retold(self, start: int, data: memoryview, origin: Origin) -> None:
        """A whole stream passes over these bytes. A piece of an earlier run that it repeats counts as its own from now.

        So that piece need not be requested again if the digest turns out to be wrong.
        """
        end, here = start + len(data), start
        while here < end:
            if self._retelling is None or self._retelling[1] != here:
                piece = self.inherited.at(here)
                if piece is None or self.pieces.at(here) is not piece:
                    here = min(self.inherited.starts_in(here + 1, end), default=end)
                    self._retelling = None
                    continue
                self._retelling = piece, here, piece_hasher()
            piece, _, hasher = self._retelling
            stop = min(piece.stop, end)
            hasher.update(data[here - start : stop - start])
            self._retelling, here = (piece, stop, hasher), stop
            if stop == piece.stop:
                self._retelling = None
                if hasher.hexdigest() == piece.digest and self.is_inherited(piece):
                    self.pieces.add(replace(piece, origin=origin.number))

    async def store(self, start: int, data: bytes | memoryview, origin: Origin, *, keep: bool = True) -> None:
        """Write a piece. ``keep``: it may stay in memory until it is hashed."""
        if keep:
            self.frontier.offer(start, data)
        if self._suspects is not None:
            await self._compare(start, data, origin)
        is_echo = self._echo is not None and await self._is_echo(self._echo, start, data)
        writing = _Writing(start, start + len(data), origin.number)
        self._writings.add(writing)
        try:
            piece = await self._stage.write(start, data, origin.number)
        finally:
            self._writings.discard(writing)
        if writing.is_void:
            return  # found wrong while it was written, from memory
        self.pieces.add(piece)
        if self.first_piece is None and piece.range.length >= self._sizes.smallest:
            self.first_piece = piece
            self.looks[origin] = piece.digest
        self.frontier.stored(piece.start, piece.stop)
        self._readers.tell()
        if is_echo:
            raise IntegrityError("asked once more for the whole, it sends the same")

    def looked(self, data: memoryview, origin: Origin) -> None:
        """An origin was asked for the first piece as well, and sent this."""
        self.looks[origin] = piece_digest(data)

    async def first_digest(self) -> str | None:
        """The digest of what is on hand where the first piece was; None if nobody else was asked for it."""
        if self.first_piece is None or len(self.looks) < 2:
            return None
        data = await self._stage.read(self.first_piece.start, self.first_piece.stop)
        return await self._threads.compute(piece_digest, data)

    # -- for readers ------------------------------------------------------------------------------------------------

    async def read_judged(self, position: int) -> tuple[int, bytes] | None:
        """Read the piece around ``position`` and judge it in memory; return where it begins, and its bytes.

        With digests in the manifest, a piece of the manifest that has the right one. Without, whatever arrived here as
        it was written. None if it is not on hand, or wrong: then it is fetched again. Raises `StorageError` if the disk
        gives something else than was written.
        """
        while (unit := self._unit_around(position)) is not None:
            piece, digest = unit
            losses, is_hashed = self._losses, self.frontier.position >= piece.stop
            data = await self._stage.read(piece.start, piece.stop)
            digest_of = piece_digest if self._judged is None else _sha256
            if await self._threads.compute(digest_of, data) == digest:
                return piece.start, data
            if losses != self._losses:
                continue  # it was found wrong meanwhile, and may be right by now
            if is_hashed or self._judged is None:
                raise StorageError("the part file", "it has other content than was written there; run again")
            self.frontier.doubt(piece)
            return None
        return None

    @property
    def _judged(self) -> PieceDigests | None:
        return self._asset.pieces if self._asset.pinned else None

    def _unit_around(self, position: int) -> tuple[ByteRange, str] | None:
        if self.size is None:
            return None
        if (digests := self._judged) is not None:
            index = position // digests.size
            piece = ByteRange(index * digests.size, min((index + 1) * digests.size, self.size))
            return (piece, digests.sha256[index]) if self.frontier.has(piece.start, piece.stop) else None
        written = self.pieces.around(position)
        # What an earlier run left is only claimed until the frontier has passed it.
        if written is None or (self.is_inherited(written) and self.frontier.position < written.stop):
            return None
        return written.range, written.digest

    # -- what is known of it ----------------------------------------------------------------------------------------

    @property
    def is_hashed(self) -> bool:
        """Whether every byte is on disk and hashed."""
        return self.segments.is_complete and self.frontier.position == self.size

    @property
    def digest(self) -> Checksum:
        """The digest of the bytes hashed so far."""
        return Checksum(self._algorithm, self.frontier.content.whole.hexdigest())

    @property
    def sums(self) -> PieceSums:
        """The sums of the pieces of what was hashed so far."""
        return self.frontier.content.sums

    def refuse_if_stated_otherwise(self) -> None:
        """Raise `DigestMismatch` if all is hashed and the digest that a hub states is another one."""
        stated, hasher = self._asset.stated, self.frontier.content.whole
        if stated is not None and isinstance(hasher, PairedHasher):
            actual = hasher.beside.hexdigest()
            if actual != stated.hexdigest:
                advice = "The hub names one content and delivers another; nothing was written."
                raise DigestMismatch(self._asset.id, str(stated), f"{stated.kind}:{actual}", (), advice)

    def reaches_past(self, size: int) -> bool:
        """Whether there are bytes on hand at or after ``size``, which then cannot be the length."""
        return any(piece.stop > size for piece in self.pieces) or any(
            segment.position > size for segment in self.segments.in_flight
        )

    def is_inherited(self, piece: Piece) -> bool:
        """Whether an earlier process fetched it: then no origin that can be asked now answers for it."""
        return self.inherited.at(piece.start) is piece

    def bytes_given(self, origin: Origin) -> int:
        """How many of the bytes on hand came from this origin in this run."""
        return sum(
            piece.stop - piece.start
            for piece in self.pieces
            if piece.origin == origin.number and not self.is_inherited(piece)
        )

    def is_bound_to(self, origin: Origin) -> bool:
        """Whether some bytes came from this origin, now or earlier: then its validator must stay the same."""
        return any(piece.origin == origin.number for piece in self.pieces)

    # -- giving up --------------------------------------------------------------------------------------------------

    async def reduce(self, keep: Callable[[Piece], bool], *, forget_size: bool = False) -> int:
        """Start again with the pieces that ``keep`` accepts. Returns how many bytes were discarded.

        Only while no connection is at work.
        """
        before = self.segments.on_hand_bytes
        kept, dropped = PieceTable(), IntervalSet()
        for piece in self.pieces:
            if keep(piece):
                kept.add(piece)
            else:
                dropped.add(piece.start, piece.stop)
        for gone in dropped:
            await self._stage.note_void(gone.start, gone.stop)
        if forget_size and self._asset.size is None:
            self.size = self.size_origin = None
        self._begin(kept)
        return before - self.segments.on_hand_bytes

    def compare_with(self, trusted: Origin, *, in_rounds: bool) -> None:
        """From now on, find out which origins gave other bytes than ``trusted`` gives.

        ``in_rounds``: ask it for a part of them at a time, as `comparison` says.
        """
        self._suspects = PieceTable(piece for piece in self.pieces if piece.origin != trusted.number)
        self.differing.clear()
        self.comparison = Comparison(self._units(trusted)) if in_rounds else None

    def _units(self, trusted: Origin) -> Iterator[ByteRange]:
        """What this origin has not given in this run: neighbours together, up to a length that is worth a request."""
        most, unit = self._sizes.smallest * piece_length(self.size) // MIB, None
        for piece in self.pieces:
            if piece.origin == trusted.number and not self.is_inherited(piece):
                continue
            if unit is not None and unit.stop == piece.start and piece.stop - unit.start <= most:
                unit = ByteRange(unit.start, piece.stop)
                continue
            if unit is not None:
                yield unit
            unit = piece.range
        if unit is not None:
            yield unit

    def doubt(self, origin: Origin) -> None:
        """From now on, find out whether this origin sends the same bytes again. All those on hand must be its own."""
        borders = frozenset(self._borders)
        telling = (*sorted(borders)[:ECHO_BORDERS], *sorted(self._borders_ahead)[:ECHO_AHEAD])
        last = max(telling, default=0)
        pieces = max(ECHO_PIECES, last // self._sizes.piece + 1)
        self._echo = Echo(origin.validator, self.size, borders, pieces * self._sizes.piece)
        self._borders.clear()
        self._borders_ahead.clear()

    async def _is_echo(self, echo: Echo, start: int, data: bytes | memoryview) -> bool:
        """Whether a doubted origin has sent the same as before for long enough. After a difference, never."""
        if await self._stage.read(start, start + len(data)) != bytes(data):
            self._echo = None
            return False
        return start + len(data) >= echo.stop

    async def _compare(self, start: int, data: bytes | memoryview, origin: Origin) -> None:
        assert self._suspects is not None
        old = await self._stage.read(start, start + len(data))
        if old == data[: len(old)]:
            return
        if self.comparison is not None:
            self.comparison.differs(start, start + len(data))
        for piece in self._suspects.drop(start, start + len(data)):
            own = slice(max(0, piece.start - start), piece.stop - start)
            if old[own] == data[: len(old)][own]:
                self._suspects.add(piece)  # the difference is in a neighbour's bytes
            elif piece.origin not in (NOBODY, origin.number):
                self.differing.add(self._origins.all[piece.origin])
