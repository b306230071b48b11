"""What a stage does: one suite for the disk and for the in-memory stage that other tests use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest

from grym_fetch.core.errors import DiskFull
from grym_fetch.core.http import Validator
from grym_fetch.core.journal import Piece, address_hash, piece_digest
from grym_fetch.core.world import Stage
from grym_fetch.disk import folders
from grym_fetch.disk.assets_folder import AssetsFolder
from grym_fetch.disk.stage import StageKey
from grym_fetch.testing import seeded_bytes
from tests.support.fakes import MemoryFolder, MemoryStage, Taken, read_proved

CONTENT = seeded_bytes(300_001, seed=21)
KEY = StageKey("models/a.bin", "sha256:21")


class Place(Protocol):
    """Where the stages of one asset are, one after the other."""

    async def open(self) -> Stage:
        """Open a stage: the one left behind, or a new one."""

    def published(self) -> bytes | None:
        """The published file."""

    def overwrite(self, start: int, data: bytes) -> None:
        """Change bytes of the part without the stage's knowledge."""

    def cut_part(self, size: int) -> None:
        """Cut off the part."""

    def append_to_journal(self, data: bytes) -> None:
        """Write garbage after the last record."""

    def leave_free(self, size: int) -> None:
        """Leave room for only this many bytes."""


class OnDisk:
    def __init__(self, assets_folder: AssetsFolder, patch: pytest.MonkeyPatch) -> None:
        self._assets_folder = assets_folder
        self._patch = patch

    async def open(self) -> Stage:
        await self._assets_folder.prepare()
        return await self._assets_folder.open_stage(KEY, exclusive=True)

    def published(self) -> bytes | None:
        path = self._assets_folder.path_of(KEY.local_path)
        return path.read_bytes() if path.exists() else None

    def _file(self, name: str) -> Path:
        (folder,) = (self._assets_folder.state.own / "stage").iterdir()
        return folder / name

    def overwrite(self, start: int, data: bytes) -> None:
        with self._file("part").open("r+b") as file:
            file.seek(start)
            file.write(data)

    def cut_part(self, size: int) -> None:
        with self._file("part").open("r+b") as file:
            file.truncate(size)

    def append_to_journal(self, data: bytes) -> None:
        with self._file("journal").open("ab") as file:
            file.write(data)

    def leave_free(self, size: int) -> None:
        self._patch.setattr(folders, "free_bytes", lambda _: size + folders.RESERVE_BYTES)


class InMemory:
    def __init__(self) -> None:
        self._folder = MemoryFolder(KEY.content)

    async def open(self) -> Stage:
        return MemoryStage(self._folder)

    def published(self) -> bytes | None:
        return self._folder.published

    def overwrite(self, start: int, data: bytes) -> None:
        self._folder.part[start : start + len(data)] = data

    def cut_part(self, size: int) -> None:
        del self._folder.part[size:]

    def append_to_journal(self, data: bytes) -> None:
        self._folder.journal += data

    def leave_free(self, size: int) -> None:
        self._folder.free = size


@pytest.fixture(params=["disk", "memory"])
async def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Place]:
    if request.param == "memory":
        yield InMemory()
        return
    assets_folder = AssetsFolder(tmp_path / "assets")
    yield OnDisk(assets_folder, monkeypatch)
    assets_folder.close()


async def put(stage: Stage, start: int, stop: int, origin: int = 0) -> Piece:
    """Write the bytes of the content that belong there."""
    return await stage.write(start, CONTENT[start:stop], origin)


async def test_a_new_stage_claims_nothing(place: Place) -> None:
    """Without an earlier run, only the asset's own name is recovered."""
    stage = await place.open()
    await stage.close()
    assert len(stage.recovered.pieces) == 0
    assert stage.recovered.size is None
    assert stage.recovered.origins == {}


async def test_a_piece_is_described_and_read_back(place: Place) -> None:
    """Writing returns the piece with its digest and origin, and its bytes are in place at once."""
    stage = await place.open()
    piece = await put(stage, 100_000, 200_000, origin=3)
    assert piece == Piece(100_000, 200_000, piece_digest(CONTENT[100_000:200_000]), 3)
    assert await stage.read(100_000, 200_000) == CONTENT[100_000:200_000]
    assert await stage.read(150_001, 150_007) == CONTENT[150_001:150_007]
    await stage.close()


async def test_reading_ends_where_the_part_ends(place: Place) -> None:
    """Reading past the end gives what is there; reading after it gives nothing."""
    stage = await place.open()
    await put(stage, 0, 1000)
    assert await stage.read(900, 5000) == CONTENT[900:1000]
    assert await stage.read(2000, 3000) == b""
    taken = Taken()
    assert await stage.feed(900, 5000, taken.use) == 100
    assert await stage.feed(2000, 3000, taken.use) == 0
    assert taken.data == CONTENT[900:1000]
    await stage.close()


async def test_pieces_are_used_up_to_the_first_that_is_wrong(place: Place) -> None:
    """Of several pieces at once, each right one is used, in order; those after a wrong one are not."""
    stage = await place.open()
    pieces = [await put(stage, start, start + 1000) for start in range(0, 5000, 1000)]
    place.overwrite(3500, bytes([CONTENT[3500] ^ 1]))
    taken = Taken()
    assert await stage.prove(pieces, taken.use) == 3
    assert taken.data == CONTENT[:3000]
    await stage.close()


async def test_a_long_stretch_is_used_block_by_block(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a range is, its bytes are used in order, once, and never more than a block at a time."""
    monkeypatch.setattr("grym_fetch.disk.stage.READ_BLOCK_BYTES", 7000)
    stage = await place.open()
    for start in range(0, len(CONTENT), 50_000):
        await put(stage, start, min(start + 50_000, len(CONTENT)))
    taken = Taken()
    assert await stage.feed(11, 250_000, taken.use) == 250_000 - 11
    assert taken.data == CONTENT[11:250_000]
    await stage.close()


async def test_the_next_process_recovers_what_was_recorded(place: Place) -> None:
    """Pieces, length and origins are as an earlier process recorded them, and no address is among them."""
    first = await place.open()
    late = await put(first, 200_000, 300_001, origin=1)
    early = await put(first, 0, 100_000)
    await first.note_size(len(CONTENT))
    validator = Validator('"v1"', "Thu, 01 Jan 2026 00:00:00 GMT")
    await first.note_origin(1, "https://mirror.example/a?sig=secret", validator)
    await first.close()
    again = await place.open()
    assert list(again.recovered.pieces) == [early, late]
    assert again.recovered.size == len(CONTENT)
    assert again.recovered.origins[1].validator == validator
    assert again.recovered.origins[1].address == address_hash("https://mirror.example/a?sig=secret")
    assert await read_proved(again, late) == CONTENT[200_000:]
    await again.close()


async def test_void_claims_are_not_recovered(place: Place) -> None:
    """A range recorded as void removes every claim that touches it, and no other."""
    first = await place.open()
    kept = await put(first, 0, 1000)
    await put(first, 1000, 2000)
    await put(first, 2000, 3000)
    await first.note_void(1999, 2001)
    await first.close()
    again = await place.open()
    assert list(again.recovered.pieces) == [kept]
    await again.close()


async def test_a_rewritten_piece_replaces_the_older_one(place: Place) -> None:
    """Of two pieces for the same bytes the later one counts, even for the next process."""
    first = await place.open()
    await first.write(0, bytes(1000), 0)
    right = await put(first, 0, 1000, origin=1)
    await first.close()
    again = await place.open()
    assert list(again.recovered.pieces) == [right]
    assert await read_proved(again, right) == CONTENT[:1000]
    await again.close()


@pytest.mark.shows("B47")
async def test_a_changed_piece_is_not_proved(place: Place) -> None:
    """After one byte was changed from outside, the piece is not what the journal claims; its neighbour is."""
    stage = await place.open()
    damaged, sound = await put(stage, 0, 1000), await put(stage, 1000, 2000)
    place.overwrite(999, bytes([CONTENT[999] ^ 1]))
    assert await read_proved(stage, damaged) is None
    assert await read_proved(stage, sound) == CONTENT[1000:2000]
    await stage.close()


@pytest.mark.shows("P6")
async def test_a_cut_piece_is_not_proved(place: Place) -> None:
    """The beginning of a piece does not prove it if its end is missing."""
    stage = await place.open()
    piece = await put(stage, 0, 1000)
    place.cut_part(999)
    assert await read_proved(stage, piece) is None
    await stage.close()


@pytest.mark.shows("P6")
async def test_claims_beyond_the_part_are_dropped(place: Place) -> None:
    """A journal that is ahead of its data claims no byte that is not there."""
    first = await place.open()
    kept = await put(first, 0, 1000)
    await put(first, 1000, 2000)
    await first.close()
    place.cut_part(1500)
    again = await place.open()
    assert list(again.recovered.pieces) == [kept]
    await again.close()


@pytest.mark.parametrize("rubbish", [b"\0" * 4096, b"12345678 {}\n", b'{"piece"', b"\n\n"], ids=repr)
@pytest.mark.shows("P4")
async def test_a_torn_journal_goes_on_after_its_sound_part(place: Place, rubbish: bytes) -> None:
    """Garbage after the last record hides nothing recorded before or after it."""
    first = await place.open()
    early = await put(first, 0, 1000)
    await first.close()
    place.append_to_journal(rubbish)
    second = await place.open()
    assert list(second.recovered.pieces) == [early]
    late = await put(second, 1000, 2000)
    await second.close()
    third = await place.open()
    assert list(third.recovered.pieces) == [early, late]
    await third.close()


async def test_publish_puts_the_content_in_place(place: Place) -> None:
    """The file in place has every byte, and the stage is gone: the next one starts empty."""
    stage = await place.open()
    await put(stage, 150_000, 300_001)
    await put(stage, 0, 150_000)
    assert place.published() is None
    await stage.publish(len(CONTENT))
    await stage.close()
    assert place.published() == CONTENT
    again = await place.open()
    assert len(again.recovered.pieces) == 0
    await again.close()


async def test_publish_cuts_at_the_size(place: Place) -> None:
    """Bytes after the content's end are not part of the file."""
    stage = await place.open()
    await put(stage, 0, 2000)
    await stage.publish(1234)
    await stage.close()
    assert place.published() == CONTENT[:1234]


async def test_publish_of_nothing(place: Place) -> None:
    """An empty file can be published."""
    stage = await place.open()
    await stage.publish(0)
    await stage.close()
    assert place.published() == b""


async def test_discard_leaves_nothing(place: Place) -> None:
    """A discarded stage is never recovered, and the file in place stays."""
    stage = await place.open()
    await put(stage, 0, 1000)
    await stage.discard()
    await stage.close()
    again = await place.open()
    assert len(again.recovered.pieces) == 0
    assert place.published() is None
    await again.close()


async def test_a_length_that_does_not_fit_is_refused(place: Place) -> None:
    """The length is checked against the space before more is fetched; bytes already written need none."""
    stage = await place.open()
    await put(stage, 0, 200_000)
    place.leave_free(150_000)
    await stage.note_size(len(CONTENT))
    place.leave_free(50_000)
    with pytest.raises(DiskFull, match="not enough space"):
        await stage.note_size(len(CONTENT))
    await stage.close()
