"""The cache of docs/how-to/mirrors.md, as a real nginx runs it."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from grym_fetch.settings import MirrorRule
from grym_fetch.testing import AssetServer, Redirect
from tests.support.nginx import Location, Nginx, free_port
from tests.support.project import Project

pytestmark = [pytest.mark.nginx, pytest.mark.sweep]

PAGE = Path(__file__).parents[2] / "docs/how-to/mirrors.md"
CLIENTS = 20
CONTENT = b"".join(number.to_bytes(4, "big") for number in range(1 << 17))


def directives(text: str, folder: Path, hub: str, inner: int) -> tuple[str, str, str]:
    """What the page tells to write, with the places of this test: beside the servers, and the content of each."""
    (recipe,) = re.findall(r"```nginx\n(.*?)```", text, re.DOTALL)
    for said, here in (
        ("/var/cache/nginx/models", str(folder)),
        ("max_size=500g", "max_size=1g"),
        ("slice 8m;", "slice 64k;"),  # a file of 512 KiB stands for one of 64 MiB
        ("127.0.0.1:8081", f"127.0.0.1:{inner}"),
        ("resolver 127.0.0.53;", ""),  # addresses here are numbers
        ("https://huggingface.co", hub),
        ("listen 8080;", ""),
    ):
        assert said in recipe, f"the page no longer says {said!r}"
        recipe = recipe.replace(said, here)
    beside, outer, second = re.split(r"^server \{\n", recipe, flags=re.MULTILINE)
    return beside, outer.rstrip().removesuffix("}"), f"server {{\n{second}"


async def test_twenty_clients_cost_the_origin_one_copy(tmp_path: Path, server: AssetServer) -> None:
    """Twenty clients at once, each at an address of its own; the hub redirects, and pays for at most 1.1 copies."""
    file = server.add("/cdn/weights.bin", CONTENT)
    server.add("/org/m/resolve/main/weights.bin", faults=[Redirect("/cdn/weights.bin")])
    hub = server.url("/").rstrip("/")
    (tmp_path / "cache").mkdir()
    beside, locations, second = directives(PAGE.read_text(), tmp_path / "cache", hub, free_port())
    outer = Location("/unused/", status=404)
    nginx = Nginx(tmp_path, [outer], more=f"{beside}\n{second}", address="0.0.0.0", inside=locations)
    with nginx:

        async def fetch(number: int) -> None:
            project = Project(tmp_path / f"client-{number}")
            project.add("weights", [f"{hub}/org/m/resolve/main/weights.bin"], CONTENT)
            mirror = f"http://127.0.0.{number + 2}:{nginx.port}/hf/"
            settings = {"mirror_rules": (MirrorRule(f"{hub}/", mirror, only=True),)}
            async with project.manager(**settings) as manager:  # type: ignore[arg-type]
                await manager.get_asset_path("weights")
            assert project.finals()["weights"].read_bytes() == CONTENT

        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(fetch(number))
    assert server.stats.of("/cdn/weights.bin").body_bytes_sent <= 1.1 * file.size
    assert all(not each.headers.get("Authorization") for each in server.stats.requests)
