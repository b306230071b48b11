"""The scenarios, each a function that returns its rows. Every target is a limit: a ratio to a peer, or to ourselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

from benchmarks.damage import adopted, damaged, header, liars, shared
from benchmarks.measure import MIB, Contestant, Limit, Row, Scale, compare
from benchmarks.place import LIMITED, Place


def big_file(place: Place, scale: Scale) -> list[Row]:
    """1. One file, plain HTTP."""
    served = place.file(scale.big)
    url = place.nginx.url(served.path)
    project = place.project("big", served, url)
    hub = place.at(served, place.nginx, "/owner/model/resolve/main/file")
    digest = served.sha256
    ranges = ("-q", "-x4", "-s4", "-d", "{out}.d", "-o", "file")
    floor = project.theirs(
        "openssl", "dgst", "-sha256", str(place.nginx.root / served.path.lstrip("/")), note="the hash alone: the floor"
    )
    name = f"one file of {scale.big // MIB} MiB"
    rows = compare(
        name,
        project.ours("sync", "-q", "--parallel", "4"),
        [
            *project.theirs("aria2c", *ranges, f"--checksum=sha-256={digest}", url, note="verified"),
            *project.theirs("curl", "-sS", "-o", "{out}", url, note="verifies nothing"),
            *project.theirs("wget2", "-q", "-O", "{out}", url, note="verifies nothing"),
            *[replace(each, memory=0) for each in floor],
        ],
        rounds=scale.rounds,
        limits={"aria2c": Limit(0.45), "curl": Limit(1.0), "openssl": Limit(1.4)},
    )
    cpu = compare(
        f"{name}: CPU seconds",
        project.ours("sync", "-q", "--parallel", "4"),
        project.theirs("aria2c", *ranges, f"--checksum=sha-256={digest}", url, note="verified"),
        rounds=scale.rounds,
        limits={"aria2c": Limit(1.3, "cpu ratio")},
    )
    slow = compare(
        f"{name}: libraries",
        project.ours("sync", "-q", "--parallel", "4"),
        [
            *project.peer("huggingface_hub", hub, digest, "verifies nothing"),
            *project.peer("pooch", url, digest, "verified"),
            *project.peer("parfive", url, digest, "verifies nothing"),
            *project.peer("pypdl", url, digest, "verifies nothing"),
            *project.peer("bytehaul", url, digest, "verified"),
        ],
        rounds=scale.slow_rounds,
        limits={"huggingface_hub": Limit(0.5), "pooch": Limit(0.15)},
    )
    return [*rows, *cpu, *slow]


def tls(place: Place, scale: Scale) -> list[Row]:
    """1. The same over TLS 1.3."""
    served = place.file(scale.big)
    url = place.at(served, place.secure, served.path)
    project = place.project("tls", served, url)
    trust = str(place.authority)
    ranges = ("-q", "-x4", "-s4", "-d", "{out}.d", "-o", "file", f"--ca-certificate={trust}")
    return compare(
        f"one file of {scale.big // MIB} MiB, TLS 1.3",
        project.ours("sync", "-q", "--parallel", "4", SSL_CERT_FILE=trust),
        [
            *project.theirs("aria2c", *ranges, f"--checksum=sha-256={served.sha256}", url, note="verified"),
            *project.theirs("curl", "-sS", "--cacert", trust, "-o", "{out}", url, note="verifies nothing"),
        ],
        rounds=scale.rounds,
        limits={"aria2c": Limit(0.62), "curl": Limit(1.2)},
    )


def limited(place: Place, scale: Scale) -> list[Row]:
    """2. The server limits each connection: four bring four times as much."""
    served = place.file(scale.limited)
    project = place.project("limited", served, place.at(served, place.nginx, "/limited/file"))
    return compare(
        f"{LIMITED // 1_000_000} MB/s a connection: four against one",
        project.ours("sync", "-q", "--parallel", "4", name="four connections"),
        [project.ours("sync", "-q", "--parallel", "1", name="one connection")],
        rounds=scale.slow_rounds,
        limits={"one connection": Limit(round(1 / 3.8, 3))},
    )


def mirrors(place: Place, scale: Scale) -> list[Row]:
    """3. Two mirrors, one limited connection each: their speeds add up."""
    served = place.file(scale.limited)
    urls = [place.at(served, server, "/limited/file") for server in (place.nginx, place.other)]
    both = place.project("mirrors", served, *urls)
    options = ("sync", "-q", "--parallel", "2", "--max-per-host", "1")
    return compare(
        f"two mirrors, one connection of {LIMITED // 1_000_000} MB/s each: together against one",
        both.ours(*options, "--mirrors", "together", name="together"),
        [both.ours(*options, "--mirrors", "fallback", name="one mirror")],
        rounds=scale.slow_rounds,
        limits={"one mirror": Limit(round(1 / 1.9, 3))},
    )


def small_files(place: Place, scale: Scale) -> list[Row]:
    """4. Many small files; and 7, the same again with nothing to do."""
    project = place.small(scale.small_files, 16 * 1024)
    name = f"{scale.small_files} files of 16 KiB"
    rows = compare(
        name,
        project.ours("sync", "-q", "--parallel", "4"),
        project.theirs(
            "aria2c", "-q", "-j16", "-i", "urls", "-d", "{out}.d", name="aria2c -j16", note="verifies nothing"
        ),
        rounds=scale.rounds,
        limits={"aria2c -j16": Limit(1.0)},
    )
    again = compare(
        f"{name}: nothing to do",
        project.ours("sync", "-q", fresh=False),
        rounds=scale.rounds,
        limits={"grym-fetch": Limit(1.0, "wall")},
    )
    return [*rows, *again]


def straggler(place: Place, scale: Scale) -> list[Row]:
    """5. One connection of four drops to 1/50 of its speed halfway."""
    served = place.file(scale.limited)
    url = place.nginx.url(served.path)
    uneven = ("--rate", LIMITED, "--fall-after", served.size // 2, "--fall-to", LIMITED // 50)
    with place.link("--rate", LIMITED) as steady, place.link(*uneven) as falling:
        calm = place.project("calm", served, steady(url)).ours("sync", "-q", "--parallel", "4", name="undisturbed")
        disturbed = place.project("uneven", served, falling(url)).ours("sync", "-q", "--parallel", "4")
        return compare(
            "one connection of four falls to 1/50 half-way",
            replace(disturbed, name="disturbed"),
            [calm],
            rounds=scale.slow_rounds,
            limits={"undisturbed": Limit(1.25)},
        )


def killed(place: Place, scale: Scale) -> list[Row]:
    """6. Killed halfway and run again: both runs together against one undisturbed run, and the bytes sent twice."""
    served = place.file(2 * scale.big)
    project = place.project("killed", served, place.nginx.url(served.path))
    rows = compare(
        f"{served.size // MIB} MiB, killed at half and run again",
        replace(project.script("killed"), name="killed and run again"),
        [project.ours("sync", "-q", name="undisturbed")],
        rounds=scale.slow_rounds,
        limits={"undisturbed": Limit(1.15)},
    )
    runs = 2 * (scale.slow_rounds + 1)
    twice = place.nginx.bytes_sent(served.path) / runs * 2 - 2 * served.size
    return [replace(rows[0], note=f"{twice / MIB:.1f} MiB sent twice"), *rows[1:]]


def memory(place: Place, scale: Scale) -> list[Row]:
    """8. Peak memory must not grow with the file."""
    rows: list[Row] = []
    for size in (scale.big // 4, scale.big, scale.huge):
        served = place.file(size)
        project = place.project(f"memory-{size}", served, place.nginx.url(served.path))
        rows += compare(
            f"peak memory, {size // MIB} MiB",
            project.ours("sync", "-q", "--parallel", "4"),
            rounds=1,
            limits={"grym-fetch": Limit(120, "peak")},
        )
    least, most = (pick(row.peak_memory for row in rows) / MIB for pick in (min, max))
    return [*rows[:-1], replace(rows[-1], note=f"grown by {most - least:.0f} MiB at the most")]


def last_byte(place: Place, scale: Scale) -> list[Row]:
    """9. From the last byte to ``asset_verified``."""
    served = place.file(scale.big)
    project = place.project("last-byte", served, place.nginx.url(served.path))
    full = compare(
        "last byte to verified, saturated",
        project.script("last_byte"),
        rounds=scale.rounds,
        limits={"grym-fetch": Limit(0.3, "told")},
    )
    slower = compare(
        "last byte to verified, 200 MB/s",
        project.script("last_byte", "--limit-rate", "200M"),
        rounds=scale.slow_rounds,
        limits={"grym-fetch": Limit(0.05, "told")},
    )
    return [*full, *slower]


def listeners(place: Place, scale: Scale) -> list[Row]:
    """10. A subscriber that sleeps and a display that redraws: neither slows a run."""
    served = place.file(scale.big)
    project = place.project("listeners", served, place.nginx.url(served.path))
    rows = compare(
        "a subscriber that sleeps",
        project.script("subscriber", "sleeps", name="one that sleeps"),
        [project.script("subscriber", "none", name="none")],
        rounds=2 * scale.rounds,
        limits={"none": Limit(1.03, "told ratio")},
    )
    shown = compare(
        "the live display",
        project.script("terminal", "shown", name="shown"),
        [project.script("terminal", "quiet", name="quiet")],
        rounds=2 * scale.rounds,
        limits={"quiet": Limit(1.03)},
    )
    return [*rows, *shown]


def start_up(place: Place, scale: Scale) -> list[Row]:
    """11. Commands that only look."""
    served = place.file(MIB)
    project = place.project("start", served, place.nginx.url(served.path))

    def look(name: str, limit: Limit, contestant: Contestant) -> list[Row]:
        return compare(name, contestant, rounds=3 * scale.rounds, limits={"grym-fetch": limit})

    fetch = project.ours("sync", "-q", fresh=False)
    return [
        *compare("one file of 1 MiB", fetch, rounds=1),
        *look("--help", Limit(0.15, "wall"), project.ours("--help", fresh=False)),
        *look("path of a present asset", Limit(0.3, "wall"), project.ours("path", "big", fresh=False)),
        *look("get_asset_path, warm", Limit(0.001, "told"), project.script("warm_path", "big", fresh=False)),
    ]


def long_link(place: Place, scale: Scale) -> list[Row]:
    """12. A round trip of 80 ms: segments must not wait for it."""
    served = place.file(scale.big // 2)
    with place.link("--delay", 0.04) as far:
        url = far(place.nginx.url(served.path))
        project = place.project("far", served, url)
        ranges, check = ("-q", "-x4", "-s4", "-d", "{out}.d", "-o", "file"), f"--checksum=sha-256={served.sha256}"
        return compare(
            f"{served.size // MIB} MiB over a round trip of 80 ms",
            project.ours("sync", "-q", "--parallel", "4"),
            [
                *project.theirs("aria2c", *ranges, url, name="aria2c -x4", note="verifies nothing"),
                *project.theirs("aria2c", *ranges, check, url, name="aria2c -x4 --checksum", note="verified"),
            ],
            rounds=scale.slow_rounds,
            limits={"aria2c -x4": Limit(1.0), "aria2c -x4 --checksum": Limit(0.75)},
        )


def far_files(place: Place, scale: Scale) -> list[Row]:
    """13. Many small files over a round trip of 40 ms: none of them may wait for it."""
    with place.link("--delay", 0.02) as far:
        project = place.small(scale.far_files, 16 * 1024, name="far-files", through=far)
        return compare(
            f"{scale.far_files} files of 16 KiB over a round trip of 40 ms",
            project.ours("sync", "-q", "--parallel", "4"),
            project.theirs(
                "aria2c", "-q", "-j4", "-i", "urls", "-d", "{out}.d", name="aria2c -j4", note="verifies nothing"
            ),
            rounds=scale.slow_rounds,
            limits={"aria2c -j4": Limit(0.15)},
        )


def far_assets(place: Place, scale: Scale) -> list[Row]:
    """14. Many assets of a medium size over TLS and a round trip of 40 ms, eight connections each."""
    trust = str(place.authority)
    with place.link("--delay", 0.02, server=place.secure) as far:
        project = place.small(scale.far_assets, MIB, name="far-assets", server=place.secure, through=far)
        return compare(
            f"{scale.far_assets} files of 1 MiB over TLS 1.3 and a round trip of 40 ms",
            project.ours("sync", "-q", "--parallel", "8", SSL_CERT_FILE=trust),
            project.theirs(
                "curl",
                *("-sS", "--cacert", trust, "-Z", "--parallel-max", "8", "-K", "curl"),
                name="curl -Z",
                note="verifies nothing",
            ),
            rounds=scale.slow_rounds,
            limits={"curl -Z": Limit(1.0)},
        )


def many_assets(place: Place, scale: Scale) -> list[Row]:
    """15. Memory follows from the connections, and a run with nothing to do does little for each asset."""
    rows: list[Row] = []
    count = scale.small_files // 2
    project = place.repeated("many", place.file(MIB), count)
    for connections, most in ((4, 100), (64, 260)):
        rows += compare(
            f"peak memory, {count} files of 1 MiB, {connections} connections",
            project.ours("sync", "-q", "--parallel", str(connections)),
            rounds=1,
            limits={"grym-fetch": Limit(most, "peak")},
        )
    place.tidy()
    count = 6 * scale.small_files
    project = place.repeated("idle", place.file(64), count)
    rows += compare(
        f"{count} assets, none of them there: list --json",
        project.ours("list", "--json", fresh=False),
        rounds=scale.rounds,
        limits={"grym-fetch": Limit(2.0, "wall")},
    )
    rows += compare(f"{count} files of 64 bytes", project.ours("sync", "-q"), rounds=1)
    for arguments, limit in (
        (("sync", "-q"), 1.5),
        (("sync", "-n"), 1.5),
        (("list", "--json"), 2.0),
    ):
        rows += compare(
            f"{count} assets, nothing to do: {' '.join(arguments)}",
            project.ours(*arguments, fresh=False),
            rounds=scale.rounds,
            limits={"grym-fetch": Limit(limit, "wall")},
        )
    return rows


Scenario = Callable[[Place, Scale], list[Row]]
ALL: dict[str, Scenario] = {
    each.__name__: each
    for each in (
        big_file,
        tls,
        limited,
        mirrors,
        small_files,
        straggler,
        killed,
        memory,
        last_byte,
        listeners,
        start_up,
        long_link,
        far_files,
        far_assets,
        many_assets,
        damaged,
        liars,
        shared,
        adopted,
        header,
    )
}


def as_json(rows: list[Row]) -> str:
    """Return one object per line, for programs."""
    return "\n".join(json.dumps(vars(row)) for row in rows)
