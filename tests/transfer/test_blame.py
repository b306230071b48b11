"""Who is to blame for wrong bytes: only who alone gave them, and whoever is the last has one more try."""

from __future__ import annotations

from dataclasses import replace

import pytest

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import DigestMismatch
from grym_fetch.core.journal import NOBODY, Piece, piece_digest
from grym_fetch.core.manifest import Asset
from grym_fetch.core.origins import Origin, Origins
from grym_fetch.core.segments import SegmentSizes
from grym_fetch.testing import seeded_bytes
from grym_fetch.transfer.blame import Blame
from grym_fetch.transfer.outcome import CompareWith, DoubtOrigin, TrustOrigin
from grym_fetch.transfer.state import DownloadState
from tests.support.fakes import InlineThreads, MemoryFolder, MemoryStage

DATA = seeded_bytes(3000, seed=97)
WRONG = Checksum.of(b"something else")


class Scene:
    """An asset with so many mirrors, of which each has given the next thousand bytes."""

    def __init__(self, mirrors: int) -> None:
        urls = [f"https://{number}.example/a" for number in range(mirrors)]
        asset = Asset("a", urls[0], "a", checksum=Checksum.of(DATA), size=len(DATA))
        asset = replace(asset, fallback_urls=tuple(urls[1:]))
        self.origins = Origins(asset.urls)
        self.state = DownloadState(
            asset, self.origins, MemoryStage(MemoryFolder(str(asset.checksum))), InlineThreads(), lambda: None,
            SegmentSizes(),
        )  # fmt: skip
        self.blame = Blame(asset, self.state, self.origins)

    def __getitem__(self, number: int) -> Origin:
        return self.origins.all[number]

    def gave(self, *origins: int) -> None:
        """Each of these gave the next thousand bytes."""
        for number, origin in enumerate(origins):
            start = number * 1000
            data = DATA[start : start + 1000]
            self.state.pieces.add(Piece(start, start + 1000, piece_digest(data), origin))


@pytest.mark.parametrize(
    ("givers", "number", "names"),
    [
        ({0}, 0, "0.example"),
        ({1}, 1, "1.example"),
        ({0, 1}, None, " and "),
        ({NOBODY}, None, ""),
        ({NOBODY, 1}, None, ""),
    ],
    ids=str,
)
@pytest.mark.shows("C16")
def test_only_who_gave_all_of_a_piece_is_to_blame(givers: set[int], number: int | None, names: str) -> None:
    """What an earlier run left, or several gave, is nobody's; but those who gave it are named."""
    scene = Scene(2)
    assert scene.blame.giver(givers) is (None if number is None else scene[number])
    assert names in scene.blame.names(givers)
    assert bool(names) == bool(scene.blame.names(givers))


@pytest.mark.shows("C16")
def test_a_liar_is_out_and_the_last_one_has_one_more_try() -> None:
    """A piece may be damaged on its way once; that it comes wrong twice from the only origin is no accident."""
    scene = Scene(2)
    assert scene.blame.strike(scene[0], 0, "piece 1 is wrong")
    assert not scene.blame.strike(scene[0], 0, "piece 1 is wrong"), "it is out already"
    assert not scene.blame.strike(scene[1], 0, "piece 1 is wrong")
    assert not scene.blame.strike(scene[1], 1, "piece 2 is wrong"), "another piece"
    assert scene.blame.strike(scene[1], 1, "piece 2 is wrong")
    assert scene.blame.wrong_origins() == (scene[0], scene[1])


@pytest.mark.shows("C16")
def test_a_piece_of_several_is_asked_for_so_often() -> None:
    """From each of them alone, and once more."""
    scene = Scene(2)
    assert [scene.blame.was_mixed(5) for _ in range(4)] == [True, True, True, False]
    assert scene.blame.was_mixed(6)
    assert not scene.origins.together


def test_addresses_that_agree_against_the_manifest() -> None:
    """If several give the same piece wrong, the advice is another than if one does."""
    scene = Scene(2)
    scene.blame.strike(scene[0], 0, "piece 1 is wrong")
    assert "Another mirror may have it" in str(scene.blame.wrong_for_good("piece 1 is wrong"))
    scene.blame.strike(scene[1], 0, "piece 1 is wrong")
    assert "2 addresses have other content" in str(scene.blame.wrong_for_good("piece 1 is wrong"))


@pytest.mark.shows("C3")
def test_whoever_has_least_left_to_send_is_trusted_first() -> None:
    """One after the other, and each before any is asked again; in the end the mismatch is the answer."""
    scene = Scene(3)
    scene.gave(2, 2, 1)
    for kind, number in [(kind, number) for kind in (CompareWith, TrustOrigin) for number in (2, 1, 0)]:
        restart = scene.blame.find_the_liar(WRONG)
        assert isinstance(restart, kind)
        assert restart.origin.number == number
    with pytest.raises(DigestMismatch, match="update the checksum"):
        scene.blame.find_the_liar(WRONG)


@pytest.mark.shows("C3")
def test_whoever_sent_everything_is_doubted_once() -> None:
    """Ranges lie and caches are old: it is asked for the whole, and if that is wrong too, the first error is raised."""
    scene = Scene(1)
    scene.gave(0, 0, 0)
    restart = scene.blame.find_the_liar(WRONG)
    assert isinstance(restart, DoubtOrigin)
    assert scene.blame.mismatch is not None
    with pytest.raises(DigestMismatch) as caught:
        scene.blame.find_the_liar(WRONG)
    assert caught.value is scene.blame.mismatch
