"""What `clean` and `restore` tell while they work."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from grym_fetch.core import events
from grym_fetch.core.digest import Checksum
from grym_fetch.core.events import Event
from grym_fetch.repo import moving
from grym_fetch.repo.clean import Cleaner, plan_clean
from grym_fetch.repo.restore import Restorer
from grym_fetch.repo.telling import Told
from grym_fetch.testing import seeded_bytes
from tests.repo.story import LIMIT, clean, write

SIZE = 50_000
CONTENT = seeded_bytes(SIZE, seed=1)


class Clock:
    """A second passes with each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def kinds(heard: list[Event]) -> list[str]:
    """The types of events, each run of one type once."""
    return [each.type for number, each in enumerate(heard) if not number or heard[number - 1].type != each.type]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file that takes several reads."""
    monkeypatch.setattr(moving, "STRIDE_BYTES", 10_000)
    write(tmp_path / "root", "models/a.bin", CONTENT)
    return tmp_path / "root"


def test_a_copy_that_is_read_back() -> None:
    """Bytes copied are progress with a speed, bytes read back are verified, and the end says how long it took."""
    heard: list[Event] = []
    told = Told(heard.append, "a.bin", Clock())
    copied, read = told.copying(1000), told.reading(1000)
    for count in (500, 1000):
        copied(count)
    read(700)
    told.done("/x/a.bin", Checksum.of(CONTENT))
    assert heard == [
        events.ProgressMade(asset="a.bin", bytes=500, total=1000, rate=500.0, eta=1.0),
        events.ProgressMade(asset="a.bin", bytes=1000, total=1000, rate=500.0, eta=0.0),
        events.AssetVerifying(asset="a.bin", bytes=700, total=1000),
        events.AssetVerified(
            asset="a.bin",
            path="/x/a.bin",
            checksum=str(Checksum.of(CONTENT)),
            size=1000,
            seconds=4.0,
            downloaded_bytes=0,
        ),
    ]


def test_a_clean_tells_what_it_moves(root: Path, tmp_path: Path) -> None:
    """A run with its bytes, then the life of each file; one that stays has failed."""
    write(root, "b.bin", CONTENT)
    write(tmp_path / "out", "b.bin", b"other".ljust(SIZE))
    heard: list[Event] = []
    plan = plan_clean(root, root, tmp_path / "out", LIMIT)
    with Cleaner(plan, lambda: datetime.now(UTC), emit=heard.append) as cleaner:
        assert len(list(cleaner.moves())) == 2
    assert heard[0] == events.RunStarted(assets=2, bytes=2 * SIZE)
    first, second = ([each for each in heard if each.asset == path] for path in ("models/a.bin", "b.bin"))
    assert kinds(first)[0] == "progress"
    assert isinstance(first[-1], events.AssetVerified)
    assert first[-1].path == str(tmp_path / "out/models/a.bin")
    assert isinstance(second[-1], events.AssetFailed)
    assert second[-1].error == "NameTaken"


async def test_a_restore_tells_what_it_brings_back(root: Path, tmp_path: Path) -> None:
    """A file that comes back is copied and verified; one that is there already is read and reused."""
    clean(root, tmp_path / "out")
    heard: list[Event] = []
    restorer = Restorer(root, [tmp_path / "out"], emit=heard.append)
    for _ in range(2):
        await restorer.restore(restorer.find_one("models/a.bin", root))
    ends = [each.type for each in heard if each.type in ("asset_verified", "asset_reused", "asset_failed")]
    assert ends == ["asset_verified", "asset_reused"]
    assert max(each.bytes for each in heard if isinstance(each, events.ProgressMade)) == SIZE
    assert {each.asset for each in heard} == {"models/a.bin"}


async def test_a_restore_that_fails_tells_it(root: Path, tmp_path: Path) -> None:
    """Its error is the last word."""
    clean(root, tmp_path / "out")
    (tmp_path / "out/models/a.bin").write_bytes(b"rot")
    heard: list[Event] = []
    restorer = Restorer(root, [tmp_path / "out"], emit=heard.append)
    with pytest.raises(Exception, match="checksum"):
        await restorer.restore(restorer.find_one("models/a.bin", root))
    assert isinstance(heard[-1], events.AssetFailed)
    assert heard[-1].error == "DigestMismatch"
