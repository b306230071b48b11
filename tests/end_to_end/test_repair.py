"""A large file is damaged, and the command fetches only that of it, whatever interrupts it."""

from __future__ import annotations

import hashlib
import signal
from pathlib import Path

import pytest

from grym_fetch.core.piece_digests import MIB
from grym_fetch.testing import AssetServer, Gate, Hold, SeededContent
from tests.end_to_end.command import Running, run
from tests.support.project import Project

SIZE = 64 * MIB
CONTENT = SeededContent(SIZE, seed=96)


@pytest.fixture
def place(project: Project, server: AssetServer) -> Path:
    """The asset as it ought to be, verified once: nothing else says what its pieces are."""
    file = server.add("/a", CONTENT)
    made = project.add("a", [file.url], None, size=SIZE, checksum=file.sha256)
    made.parent.mkdir(parents=True)
    with made.open("wb") as out:
        for at in range(0, SIZE, MIB):
            out.write(CONTENT.read(at, at + MIB))
    assert run(project.root, "check").code == 0
    server.stats.reset()
    return made


def digest(path: Path) -> str:
    """Of the whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def overwrite(path: Path, at: int, data: bytes) -> None:
    """Damage the file in its place."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def test_one_byte_costs_at_most_two_pieces(project: Project, server: AssetServer, place: Path) -> None:
    """Of 64 MiB, one flipped byte costs 1 MiB, as was said before."""
    right = digest(place)
    overwrite(place, 40 * MIB + 5, bytes([CONTENT.read(40 * MIB + 5, 40 * MIB + 6)[0] ^ 1]))
    dry = run(project.root, "repair", "-n")
    assert dry.code == 0
    assert "1 of 64 pieces bad  a repair would fetch 1.0 MiB" in dry.out
    assert run(project.root, "repair").code == 0
    assert digest(place) == right
    assert server.stats.body_bytes_sent <= 2 * MIB


def test_a_zeroed_third_costs_a_third(project: Project, server: AssetServer, place: Path) -> None:
    """A sync does it as well, and says how much it has saved."""
    right = digest(place)
    overwrite(place, 21 * MIB, bytes(21 * MIB))
    done = run(project.root, "sync", "--json")
    assert done.code == 0
    assert digest(place) == right
    assert 21 * MIB <= server.stats.body_bytes_sent < 24 * MIB
    assert [event["saved_bytes"] for event in done.of("asset_repaired")] == [43 * MIB]


def test_killed_in_the_middle(project: Project, server: AssetServer, place: Path) -> None:
    """The damaged file stays as it was, and the next run fetches only what the first had not."""
    right = digest(place)
    overwrite(place, 21 * MIB, bytes(21 * MIB))
    damaged = digest(place)
    gate = Gate()
    server.add("/a", CONTENT, faults=[Hold(gate, at=42 * MIB - 1)])
    with Running(project.root, "sync", "--json") as running:
        running.until_bytes(60 * MIB)
        running.send(signal.SIGKILL)
        running.finish()
    gate.open()
    assert digest(place) == damaged
    server.stats.reset()
    done = run(project.root, "sync", "--json")
    assert done.code == 0, done.err
    assert digest(place) == right
    assert server.stats.body_bytes_sent < 10 * MIB
