"""Where the contestants meet: nginx on loopback, files in memory made from a seed, and a project for each scenario."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import trustme

from benchmarks.measure import MIB, Contestant, installed
from grym_fetch.testing import SeededContent
from tests.support.nginx import Location, Nginx

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / ".venv" / "peers" / "bin" / "python"
LIMITED = 20_000_000
"""Bytes per second and connection if the server limits them."""


@dataclass(frozen=True)
class Served:
    """A file served by nginx. ``path`` is below its root."""

    path: str
    size: int
    sha256: str


class Place:
    """One folder in memory. nginx runs during the ``open`` block, plain and with TLS."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority = trustme.CA()
        self.authority = folder / "authority.pem"
        authority.cert_pem.write_to_path(str(self.authority))
        certificate = folder / "server.pem"
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
        limited = Location("/limited/", limit_rate=LIMITED)
        hub = Location("/owner/", fields=('X-Repo-Commit "0123456789abcdef0123456789abcdef01234567"',))
        self.nginx = Nginx(folder, [limited, hub])
        self.other = Nginx(folder / "other", [limited])
        self.secure = Nginx(folder / "secure", certificate=certificate)
        self._made: dict[int, Served] = {}

    @contextmanager
    def open(self) -> Iterator[None]:
        """Serve."""
        with self.nginx, self.other, self.secure:
            yield

    def file(self, size: int) -> Served:
        """Return a file of this size, made once."""
        if size not in self._made:
            path = f"/files/{size}"
            target = self.nginx.root / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            content, digest = SeededContent(min(size, 1024 * MIB), 1), hashlib.sha256()
            with target.open("wb") as file:
                for start in range(0, size, MIB):
                    at = start % content.size
                    block = content.read(at, min(at + MIB, content.size, at + size - start))
                    digest.update(block)
                    file.write(block)
            self._made[size] = Served(path, size, digest.hexdigest())
        return self._made[size]

    def at(self, served: Served, server: Nginx, place: str) -> str:
        """Return the address of a file at another path of a server."""
        target = server.root / place.lstrip("/")
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(self.nginx.root / served.path.lstrip("/"))
        return server.url(place)

    def small(
        self,
        count: int,
        size: int,
        *,
        name: str = "small",
        server: Nginx | None = None,
        through: Callable[[str], str] = str,
    ) -> Project:
        """Return a project with many files of one size. ``through``: how an address of the server is reached."""
        server = server or self.nginx
        entries, urls = [], []
        folder = server.root / name
        folder.mkdir()
        for number in range(count):
            data = SeededContent(size, number).read(0, size)
            (folder / f"f{number}").write_bytes(data)
            urls.append(through(server.url(f"/{name}/f{number}")))
            entries.append(_entry(f"f{number}", [urls[-1]], hashlib.sha256(data).hexdigest(), size))
        project = Project.make(self.folder / f"{name}-project", entries)
        (project.root / "urls").write_text("\n".join(urls))
        parts = [f'url = "{url}"\noutput = "{project.root}/theirs/f{number}"\n' for number, url in enumerate(urls)]
        (project.root / "curl").write_text("".join(parts))
        return project

    def repeated(self, name: str, served: Served, count: int) -> Project:
        """Return a project with many assets that are all this file."""
        url = self.nginx.url(served.path)
        entries = [_entry(f"{name}-{number}", [url], served.sha256, served.size) for number in range(count)]
        return Project.make(self.folder / name, entries)

    def project(self, name: str, served: Served, *urls: str, pieces: int | None = None) -> Project:
        """Return a project with one asset: this file, from these addresses.

        ``pieces``: how long the pieces are whose digests the manifest has; None for no pieces.
        """
        more = {} if pieces is None else {"pieces": {"size": pieces, "sha256": self._digests(served, pieces)}}
        return Project.make(self.folder / name, [_entry("big", urls, served.sha256, served.size) | more])

    def _digests(self, served: Served, length: int) -> list[str]:
        with (self.nginx.root / served.path.lstrip("/")).open("rb") as file:
            return [hashlib.sha256(piece).hexdigest() for piece in iter(lambda: file.read(length), b"")]

    def damaged(self, served: Served, path: str) -> str:
        """Put the file there as well, with one wrong byte in each MiB; return its address."""
        target = self.nginx.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.nginx.root / served.path.lstrip("/"), target)
        with target.open("r+b") as file:
            for at in range(MIB // 2, served.size, MIB):
                flip(file, at)
        return self.nginx.url(path)

    def tensors(self, size: int) -> Served:
        """Return a file of this size that begins with the header of safetensors."""
        served, path = self.file(size), f"/tensors/{size}"
        target = self.nginx.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        described = {"weights": {"dtype": "U8", "shape": [size - 256], "data_offsets": [0, size - 256]}}
        text = json.dumps(described).encode().ljust(248)
        shutil.copyfile(self.nginx.root / served.path.lstrip("/"), target)
        with target.open("r+b") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.seek(0)
            return Served(path, size, hashlib.file_digest(file, "sha256").hexdigest())

    def tidy(self) -> None:
        """Remove what a scenario has fetched, because memory is finite."""
        for assets in (*self.folder.glob("*/assets"), *self.folder.glob("*/theirs")):
            shutil.rmtree(assets)

    @contextmanager
    def link(self, *options: object, server: Nginx | None = None) -> Iterator[Callable[[str], str]]:
        """Open a link to a server; yield the function that routes an address of it through the link."""
        near = (server or self.nginx).port
        command = [sys.executable, "-m", "benchmarks.link", str(near), *map(str, options)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            try:
                yield lambda url: url.replace(f":{near}/", f":{port}/")
            finally:
                process.kill()


def flip(file: BinaryIO, at: int) -> None:
    """Change one byte."""
    file.seek(at)
    byte = file.read(1)[0]
    file.seek(at)
    file.write(bytes([byte ^ 1]))


def _entry(name: str, urls: Sequence[str], digest: str, size: int) -> dict[str, object]:
    entry: dict[str, object] = {"id": name, "url": urls[0], "fallbackUrls": list(urls[1:]), "localPath": name}
    return entry | {"checksum": digest, "size": size, "required": True}


@dataclass(frozen=True)
class Project:
    """A folder with a manifest, and the contestants that fetch into it."""

    root: Path
    bytes: int

    @classmethod
    def make(cls, root: Path, entries: list[dict[str, object]]) -> Project:
        """Write the manifest."""
        root.mkdir(parents=True)
        (root / "assets.json").write_text(json.dumps({"assets": entries}))
        return cls(root, sum(int(str(entry["size"])) for entry in entries))

    def ours(self, *arguments: str, name: str = "grym-fetch", fresh: bool = True, **more: str) -> Contestant:
        """Return our own command."""
        command = [sys.executable, "-m", "grym_fetch", *arguments]
        return Contestant(
            name, command, self.root, self._clear if fresh else _nothing, "verified", self._memory(fresh), more
        )

    def script(self, module: str, *arguments: str, name: str = "grym-fetch", fresh: bool = True) -> Contestant:
        """Return a script from `benchmarks.ours`. Some print their own figure."""
        command = [sys.executable, str(ROOT / "benchmarks" / "ours" / f"{module}.py"), *arguments]
        tells = module in ("header", "last_byte", "subscriber", "warm_path")
        clear = self._clear if fresh else _nothing
        return Contestant(name, command, self.root, clear, memory=self._memory(fresh), tells=tells)

    def theirs(self, tool: str, *arguments: str, name: str = "", note: str = "") -> list[Contestant]:
        """Return another tool, if it is installed. ``{out}`` in an argument stands for its output file."""
        program = installed(tool)
        if program is None:
            print(f"{tool} is not installed", file=sys.stderr)
            return []
        out = str(self.root / "theirs" / "file")
        command = [program, *(argument.replace("{out}", out) for argument in arguments)]
        return [Contestant(name or tool, command, self.root, self._clear, note, self._memory(True))]

    def peer(self, library: str, url: str, digest: str, note: str) -> list[Contestant]:
        """Return a Python library, if it is in the peers' own environment."""
        script = ROOT / "benchmarks" / "peers" / f"with_{library}.py"
        has = (
            PEERS.exists()
            and not subprocess.run([PEERS, "-c", f"import {library}"], capture_output=True, check=False).returncode
        )
        if not has:
            print(f"{library} is not installed in .venv/peers", file=sys.stderr)
            return []
        command = [str(PEERS), str(script), url, str(self.root / "theirs" / "file"), digest]
        return [Contestant(library, command, self.root, self._clear, note, self._memory(True))]

    def _memory(self, fresh: bool) -> int:
        # Small files cost more than their bytes.
        return min(2 * self.bytes, self.bytes + 1024 * MIB) if fresh else 0

    def _clear(self) -> None:
        for folder in ("assets", "theirs"):
            shutil.rmtree(self.root / folder, ignore_errors=True)
        (self.root / "theirs").mkdir()


def _nothing() -> None:
    """Do nothing."""
