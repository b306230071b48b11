"""What damage, lies and sharing cost: scenarios whose limits are bytes, counted by the server and the disk."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.measure import MIB, Limit, Row, Scale, compare, measure
from benchmarks.place import LIMITED, PEERS, Place, Served, flip
from grym_fetch.core.piece_digests import piece_length


def damaged(place: Place, scale: Scale) -> list[Row]:
    """16. A damaged file is repaired by fetching what is wrong of it."""
    once, third = place.file(scale.kept), place.file(2 * scale.kept)

    def flip_one(file: Path) -> None:
        with file.open("r+b") as out:
            flip(out, once.size * 5 // 8 + 5)

    def zero_the_middle(file: Path) -> None:
        with file.open("r+b") as out:
            out.seek(third.size // 3)
            for _ in range(third.size // 3 // MIB):
                out.write(bytes(MIB))

    pieces = 2 * piece_length(once.size)
    return [
        *_repaired(place, scale, once, f"{once.size // MIB} MiB, one byte flipped", flip_one, pieces),
        *_repaired(
            place,
            scale,
            third,
            f"{third.size // MIB} MiB, the middle third zeroed",
            zero_the_middle,
            third.size // 3 + 2 * piece_length(third.size),
        ),
    ]


def _repaired(
    place: Place, scale: Scale, served: Served, name: str, damage: Callable[[Path], None], most: int
) -> list[Row]:
    """Repair the damaged file, and fetch it anew, in turn. ``most``: the bytes that a repair may fetch."""
    project = place.project(f"damaged-{served.size}", served, place.nginx.url(served.path))
    anew = place.project(f"anew-{served.size}", served, place.at(served, place.nginx, f"/anew/{served.size}"))
    measure(project.ours("sync", "-q"))
    before = place.nginx.bytes_sent(served.path)
    rows = compare(
        name,
        replace(
            project.ours("repair", "-q", name="repaired", fresh=False),
            prepare=lambda: damage(project.root / "assets" / "big"),
            memory=served.size,
        ),
        [anew.ours("sync", "-q", name="fetched anew")],
        rounds=scale.slow_rounds,
    )
    fetched = (place.nginx.bytes_sent(served.path) - before) / (scale.slow_rounds + 1)
    place.tidy()
    return [_bytes_of(rows[0], fetched, most), *rows[1:]]


def _bytes_of(row: Row, count: float, most: float, what: str = "sent") -> Row:
    return replace(row, limit=f"≤ {most / MIB:.1f} MiB", is_met=count <= most, note=f"{count / MIB:.1f} MiB {what}")


def liars(place: Place, scale: Scale) -> list[Row]:
    """17. A mirror with one wrong byte in each MiB, beside a good one, costs a fifth more at the most."""
    served, liar, length = place.file(scale.big), f"/liar/{scale.big}", MIB
    good, wrong = place.at(served, place.nginx, f"/good/{scale.big}"), place.damaged(served, liar)
    rows: list[Row] = []
    for name, project, mirrors in (
        ("the liar first, pieces in the manifest", place.project("l1", served, wrong, good, pieces=length), "fallback"),
        ("no pieces, both asked together", place.project("l2", served, good, wrong), "together"),
    ):
        before = sum(map(place.nginx.bytes_sent, (f"/good/{scale.big}", liar)))
        found = compare(
            f"{scale.big // MIB} MiB, one of two mirrors lies: {name}",
            project.ours("sync", "-q", "--mirrors", mirrors),
            rounds=scale.slow_rounds,
        )
        sent = sum(map(place.nginx.bytes_sent, (f"/good/{scale.big}", liar))) - before
        rows.append(_bytes_of(found[0], sent / (scale.slow_rounds + 1), 1.2 * served.size))
        place.tidy()
    (place.nginx.root / liar.lstrip("/")).unlink()
    return rows


def shared(place: Place, scale: Scale) -> list[Row]:
    """18. Two projects share one download and one copy, as `du` sees both and the store."""
    served, store = place.file(scale.kept), place.folder / "store"
    url = place.at(served, place.nginx, "/stored/file")
    first, second = (place.project(f"stored-{name}", served, url) for name in ("first", "second"))
    anew = place.project("unshared", served, place.nginx.url(served.path))
    options = ("sync", "-q", f"--store={store}")
    measure(first.ours(*options))
    rows = compare(
        f"{scale.kept // MIB} MiB that another project has",
        replace(second.ours(*options, name="from the store"), memory=0),
        [anew.ours("sync", "-q", name="fetched anew")],
        rounds=scale.slow_rounds,
    )
    sent = place.nginx.bytes_sent("/stored/file")
    folders = [str(each) for each in (first.root, second.root, store)]
    said = subprocess.run(["du", "-scB1", *folders], capture_output=True, text=True, check=True).stdout
    on_disk = int(said.splitlines()[-1].split()[0])
    row = _bytes_of(rows[0], on_disk, 1.02 * served.size, "on the disk for both and the store")
    row = replace(row, is_met=row.is_met and sent == served.size, note=f"{row.note}, {sent / MIB:.0f} MiB sent")
    place.tidy()
    shutil.rmtree(store)
    return [row, *rows[1:]]


def adopted(place: Place, scale: Scale) -> list[Row]:
    """19. What the Hugging Face library has in its cache is adopted without a request."""
    served, cache = place.file(scale.kept), place.folder / "hub"
    project = place.project("adopted", served, place.at(served, place.nginx, "/adopted/file"))
    anew = place.project("unadopted", served, place.at(served, place.nginx, "/anew/adopted"))
    if not project.peer("huggingface_hub", "", "", ""):
        return []
    script = Path(__file__).with_name("peers") / "with_huggingface_hub.py"
    address = place.at(served, place.nginx, "/owner/model/resolve/main/file")
    subprocess.run([str(PEERS), str(script), address, "", served.sha256, str(cache)], stdout=sys.stderr, check=True)
    rows = compare(
        f"{scale.kept // MIB} MiB in the cache of huggingface_hub",
        project.ours("adopt", "-q", name="adopted", HF_HUB_CACHE=str(cache)),
        [anew.ours("sync", "-q", name="fetched anew")],
        rounds=scale.slow_rounds,
    )
    requests = sum(each.path == "/adopted/file" for each in place.nginx.sent())
    is_there = (project.root / "assets" / "big").exists()
    place.tidy()
    shutil.rmtree(cache)
    row = replace(rows[0], limit="no request", is_met=is_there and not requests, note=f"{requests} requests")
    return [row, *rows[1:]]


def header(place: Place, scale: Scale) -> list[Row]:
    """20. The header of a large file behind a slow link is read while the rest still comes."""
    served = place.tensors(scale.kept)
    with place.link("--rate", LIMITED, "--shared") as slow:
        project = place.project("header", served, slow(place.nginx.url(served.path)), pieces=piece_length(served.size))
        rows = compare(
            f"the header of {scale.kept // MIB} MiB behind {LIMITED // 1_000_000} MB/s",
            project.script("header", "big"),
            rounds=scale.slow_rounds,
            limits={"grym-fetch": Limit(1.0, "told")},
        )
    place.tidy()
    (place.nginx.root / served.path.lstrip("/")).unlink()
    return rows
