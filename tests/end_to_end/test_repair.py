"""When a large file is damaged, the command fetches only the damaged parts, whatever interrupts it."""

from __future__ import annotations

import hashlib
import json
import signal
from pathlib import Path

import pytest

from grym_fetch.core.piece_digests import MIB
from grym_fetch.testing import AssetServer, Gate, Hold, SeededContent
from tests.end_to_end.command import Running, run
from tests.support.nginx import Nginx
from tests.support.project import Project

SIZE = 64 * MIB
CONTENT = SeededContent(SIZE, seed=96)


@pytest.fixture
def place(project: Project, server: AssetServer) -> Path:
    """The right asset, verified once: nothing else tells its pieces."""
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
    """The digest of the whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def overwrite(path: Path, at: int, data: bytes) -> None:
    """Damage the file in its place."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def test_one_byte_costs_at_most_two_pieces(project: Project, server: AssetServer, place: Path) -> None:
    """In 64 MiB, one flipped byte costs 1 MiB, as announced before."""
    right = digest(place)
    overwrite(place, 40 * MIB + 5, bytes([CONTENT.read(40 * MIB + 5, 40 * MIB + 6)[0] ^ 1]))
    dry = run(project.root, "repair", "-n")
    assert dry.code == 0
    assert "1 of 64 pieces bad  a repair would fetch 1.0 MiB" in dry.out
    assert run(project.root, "repair").code == 0
    assert digest(place) == right
    assert server.stats.body_bytes_sent <= 2 * MIB


def test_a_zeroed_third_costs_a_third(project: Project, server: AssetServer, place: Path) -> None:
    """A sync repairs as well, and says how much it saved."""
    right = digest(place)
    overwrite(place, 21 * MIB, bytes(21 * MIB))
    done = run(project.root, "sync", "--json")
    assert done.code == 0
    assert digest(place) == right
    assert 21 * MIB <= server.stats.body_bytes_sent < 24 * MIB
    assert [event["saved_bytes"] for event in done.of("asset_repaired")] == [43 * MIB]


@pytest.mark.sweep
def test_killed_in_the_middle(project: Project, server: AssetServer, place: Path) -> None:
    """The damaged file stays as it was, and the next run fetches only what the first had not."""
    right = digest(place)
    overwrite(place, 21 * MIB, bytes(21 * MIB))
    damaged = digest(place)
    gate = Gate()
    server.add("/a", CONTENT, faults=[Hold(gate, at=42 * MIB - 1)])
    with Running(project.root, "sync", "--json") as running:
        running.until_stored(project, 58 * MIB)
        running.send(signal.SIGKILL)
        running.finish()
    gate.open()
    assert digest(place) == damaged
    server.stats.reset()
    done = run(project.root, "sync", "--json")
    assert done.code == 0, done.err
    assert digest(place) == right
    assert server.stats.body_bytes_sent < 10 * MIB


@pytest.mark.nginx
@pytest.mark.sweep
@pytest.mark.parametrize("knows", [True, False], ids=["pieces", "no pieces"])
@pytest.mark.shows("C16")
def test_a_mirror_that_flips_a_byte_in_each_segment(project: Project, nginx: Nginx, knows: bool) -> None:
    """Beside a good one, it is named and costs at most a fifth more bytes.

    With pieces in the manifest, whether or not it is the first; without, if it is asked together with the first.
    """
    size = 4 * SIZE  # what is under way when it is found out is a small part
    content = SeededContent(size, seed=97).read(0, size)
    wrong = bytearray(content)
    for at in range(MIB // 2, size, MIB):
        wrong[at] ^= 1
    urls = [nginx.add("/liar.bin", bytes(wrong)), nginx.add("/good.bin", content)]
    digests = [hashlib.sha256(content[at : at + MIB]).hexdigest() for at in range(0, size, MIB)]
    if knows:
        place = project.add("a", urls, content, pieces={"size": MIB, "sha256": digests})
    else:
        place = project.add("a", urls[::-1], content)
    done = run(project.root, "sync", "--json", *([] if knows else ["--mirrors", "together"]))
    assert done.code == 0
    assert place.read_bytes() == content
    [verified] = [each for each in map(json.loads, done.out.splitlines()) if each["type"] == "asset_verified"]
    assert verified["wrong_origins"] == urls[:1]
    assert verified["downloaded_bytes"] <= 1.2 * size
