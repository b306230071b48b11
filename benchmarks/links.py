"""Workers with a link of their own each: ``python -m benchmarks.links``, as root.

Every node is a network namespace with an address of its own, whose link carries so many bytes a second (a token bucket,
``tc-tbf``). The server, Dask's scheduler and the command run in one more namespace, which no other network reaches.
All share one folder, in memory. Prints the seconds of ``sync --on dask://…``, without the start of the workers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from grym_fetch.testing import SeededContent
from tests.support.nginx import Nginx

MIB = 1024 * 1024
NETWORK = "10.77.0"
HUB = f"{NETWORK}.1"
PORT = 8080
ASSET_MIB = 8


def ip(*arguments: str) -> None:
    """Run ``ip``."""
    subprocess.run(["ip", *arguments], check=True)


@contextmanager
def namespaces(count: int, rate: float) -> Iterator[tuple[str, list[str]]]:
    """A namespace with a bridge, and so many behind a link of ``rate`` bytes a second: their names."""
    prefix = f"bench{os.getpid()}"
    hub, nodes = f"{prefix}-hub", [f"{prefix}-{n}" for n in range(count)]
    with ExitStack() as stack:
        for name in (hub, *nodes):
            ip("netns", "add", name)
            stack.callback(ip, "netns", "delete", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", hub, "link", "add", "bridge", "type", "bridge")
        ip("-n", hub, "address", "add", f"{HUB}/24", "dev", "bridge")
        ip("-n", hub, "link", "set", "bridge", "up")
        for number, name in enumerate(nodes):
            port = f"port{number}"
            ip("-n", hub, "link", "add", port, "type", "veth", "peer", "name", "uplink", "netns", name)
            ip("-n", hub, "link", "set", port, "master", "bridge", "up")
            ip("-n", name, "address", "add", f"{NETWORK}.{10 + number}/24", "dev", "uplink")
            ip("-n", name, "link", "set", "uplink", "up")
            bucket = ["rate", f"{round(rate * 8)}bit", "burst", "256kb", "latency", "50ms"]
            subprocess.run(["tc", "-n", hub, "qdisc", "add", "dev", port, "root", "tbf", *bucket], check=True)
        yield hub, nodes


@contextmanager
def running(*command: str, says: str) -> Iterator[None]:
    """A process for the length of the block, which has said that it is ready."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if says in line:
                    break
            else:
                raise RuntimeError(f"{command[0]} has ended")
            yield
        finally:
            process.kill()


def write_manifest(place: Path, nginx: Nginx, mib: int) -> None:
    """Serve so many MiB, and list them; and one small asset for each node to warm up with."""
    entries: list[dict[str, object]] = []
    sizes = [ASSET_MIB * MIB] * (mib // ASSET_MIB)
    for number, size in enumerate(sizes):
        content = SeededContent(size, seed=number)
        data = content.read(0, size)
        nginx.add(f"/{number}", data)
        entries.append(
            {"id": f"a{number}", "url": f"http://{HUB}:{PORT}/{number}", "localPath": str(number)}
            | {"checksum": hashlib.sha256(data).hexdigest(), "size": size, "tags": ["all"]}
        )
    data = b"warm"
    nginx.add("/warm", data)
    warm: dict[str, object] = {
        "url": f"http://{HUB}:{PORT}/warm",
        "checksum": hashlib.sha256(data).hexdigest(),
        "tags": ["warm"],
    }
    entries += [warm | {"id": f"w{number}", "localPath": f"warm/{number}"} for number in range(200)]
    (place / "assets.json").write_text(json.dumps({"assets": entries}))


def seconds(place: Path, nodes: list[str]) -> float:
    """Start a worker in each of these namespaces; return the seconds of one run."""
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", HUB, "--port", "8786", "--no-dashboard"]
    with ExitStack() as stack:
        stack.enter_context(running(*dask, says="Scheduler at"))
        for name in nodes:
            command = [sys.executable, "-m", "distributed.cli.dask_worker", f"{HUB}:8786", "--nthreads", "1"]
            command += ["--no-nanny", "--no-dashboard", "--local-directory", str(place / name)]
            stack.enter_context(running("ip", "netns", "exec", name, *command, says="Registered to"))
        sync = [sys.executable, "-m", "grym_fetch", "sync", "-q", "--on", f"dask://{HUB}:8786"]
        sync += ["--parallel", "16"]
        subprocess.run([*sync, "--tag", "warm"], cwd=place, check=True)
        began = time.monotonic()
        subprocess.run([*sync, "--tag", "all"], cwd=place, check=True)
        took = time.monotonic() - began
    shutil.rmtree(place / "assets")
    return took


def inside(counts: list[int], nodes: list[str], rate: float, mib: int) -> None:
    """In the namespace of the server: measure and print."""
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as name,
        Nginx(Path(name), inside=f"listen {HUB}:{PORT};") as nginx,
    ):
        place = Path(name, "project")
        place.mkdir()
        write_manifest(place, nginx, mib)
        print(f"{mib} MiB over links of {rate / 1e6:g} MB/s")
        for count in counts:
            took = seconds(place, nodes[:count])
            print(f"{count} nodes: {took:.1f} s, {mib * MIB / took / 1e6:.1f} MB/s", flush=True)


def main() -> None:
    """Make the namespaces, and run this again in the middle one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rate", type=float, default=20e6, help="bytes a second that a node's link carries")
    parser.add_argument("--mib", type=int, default=960, help="how much to fetch")
    parser.add_argument("--inside", nargs="+", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.inside:
        inside(chosen.nodes, chosen.inside, chosen.rate, chosen.mib)
        return
    with namespaces(max(chosen.nodes), chosen.rate) as (hub, nodes):
        again = ["ip", "netns", "exec", hub, sys.executable, "-m", "benchmarks.links", *sys.argv[1:]]
        sys.exit(subprocess.run([*again, "--inside", *nodes], check=False).returncode)


if __name__ == "__main__":
    main()
