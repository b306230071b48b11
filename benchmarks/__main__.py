"""``make bench``: starts nginx on loopback, makes its files from a seed, prints a table. ``QUICK=1``: a short run."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import Contestant, Row, compare, installed
from grym_fetch.testing import SeededContent
from tests.nginx import BINARY, Nginx

MIB = 1024 * 1024
QUICK = bool(os.environ.get("QUICK"))
ROUNDS = 3 if QUICK else 5


def main() -> int:
    """Run every scenario whose tools are there."""
    if BINARY is None:
        print("nginx is not installed (Debian: apt-get install nginx-light)", file=sys.stderr)
        return 1
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        bench = Bench(Path(folder))
        with bench.nginx:
            rows = [*bench.big_file(), *bench.small_files(), *bench.nothing_to_do(), *bench.start_up()]
    print_table(rows)
    return 0


class Bench:
    """The scenarios, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nginx = Nginx(folder)

    def project(self, name: str, contents: dict[str, SeededContent]) -> tuple[Path, dict[str, str]]:
        """Serve files and list them in a manifest; return the project's folder and each file's digest."""
        root = self.folder / name
        root.mkdir()
        entries, digests = [], {}
        for path, content in contents.items():
            target = self.nginx.root / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            # Block by block: a child's peak memory is never less than its parent's when it was made.
            with target.open("wb") as file:
                for start in range(0, content.size, MIB):
                    file.write(content.read(start, min(start + MIB, content.size)))
            digests[path] = content.sha256()
            entries.append(
                {
                    "id": path,
                    "url": self.nginx.url(f"/{name}/{path}"),
                    "localPath": path,
                    "checksum": digests[path],
                    "size": content.size,
                    "required": True,
                }
            )
        (root / "assets.json").write_text(json.dumps({"assets": entries}))
        return root, digests

    def ours(self, root: Path, *arguments: str, fresh: bool = True) -> Contestant:
        """Our own command."""

        def prepare() -> None:
            if fresh:
                shutil.rmtree(root / "assets", ignore_errors=True)

        return Contestant("grym-fetch", [sys.executable, "-m", "grym_fetch", *arguments], root, prepare, "verified")

    def big_file(self) -> list[Row]:
        """One file of 1 GiB."""
        size = 256 * MIB if QUICK else 1024 * MIB
        root, digests = self.project("big", {"big.bin": SeededContent(size, 1)})
        url, digest = self.nginx.url("/big/big.bin"), digests["big.bin"]
        out = root / "theirs.bin"

        def prepare() -> None:
            out.unlink(missing_ok=True)

        others = []
        if curl := installed("curl"):
            others.append(Contestant("curl", [curl, "-sS", "-o", str(out), url], root, prepare, "verifies nothing"))
        if aria2 := installed("aria2c"):
            command = [aria2, "-q", "-x4", "-s4", f"--checksum=sha-256={digest}", "-d", str(root), "-o", out.name, url]
            others.append(Contestant("aria2c -x4", command, root, prepare, "verified"))
        if openssl := installed("openssl"):
            served = str(self.nginx.root / "big" / "big.bin")
            command = [openssl, "dgst", "-sha256", served]
            others.append(Contestant("openssl dgst", command, root, lambda: None, "the hash alone: the floor"))
        return compare(f"one file, {size // MIB} MiB", self.ours(root, "sync", "-q"), others, ROUNDS)

    def small_files(self) -> list[Row]:
        """Many files of 16 KiB."""
        count = 500 if QUICK else 2000
        root, _ = self.project("small", {f"f{n}": SeededContent(16 * 1024, n) for n in range(count)})
        others = []
        if aria2 := installed("aria2c"):
            listing = root / "urls"
            listing.write_text("\n".join(self.nginx.url(f"/small/f{number}") for number in range(count)))
            target = root / "theirs"

            def prepare() -> None:
                shutil.rmtree(target, ignore_errors=True)

            command = [aria2, "-q", "-j16", "-i", str(listing), "-d", str(target)]
            others.append(Contestant("aria2c -j16", command, root, prepare, "verifies nothing"))
        return compare(f"{count} files of 16 KiB", self.ours(root, "sync", "-q"), others, ROUNDS)

    def nothing_to_do(self) -> list[Row]:
        """A second sync."""
        ours = self.ours(self.folder / "small", "sync", "-q", fresh=False)
        return compare("the same again: nothing to do", ours, [], ROUNDS)

    def start_up(self) -> list[Row]:
        """Commands that only look."""
        root = self.folder / "big"
        return [
            *compare("--help", self.ours(root, "--help", fresh=False), [], ROUNDS),
            *compare("path of a present asset", self.ours(root, "path", "big.bin", fresh=False), [], ROUNDS),
        ]


def print_table(rows: list[Row]) -> None:
    """Markdown for people, JSON for programs."""
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {ROUNDS} pairs, medians\n"
    )
    print("| scenario | who | wall s | CPU s | peak MiB | ours / theirs | |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        peak = round(row.peak_memory / MIB)
        print(f"| {row.scenario} | {row.name} | {row.wall:.2f} | {row.cpu:.2f} | {peak} | {ratio} | {row.note} |")
    print()
    print(json.dumps([vars(row) for row in rows]))


if __name__ == "__main__":
    sys.exit(main())
