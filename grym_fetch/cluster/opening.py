"""From what a user names to a cluster: ``dask://HOST:PORT``, ``ray``, a Dask `Client`, or anything of the Protocol.

Rule: a user's own Dask client is only asked where its scheduler is; all else goes over a connection of our own, which
belongs to our event loop and ends with the run. A process has one
connection to Ray: the user's is used, and stays open.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import ModuleType

from grym_fetch.cluster.protocol import Cluster
from grym_fetch.core.errors import ClusterError
from grym_fetch.core.text import safe_text

WORDS = "dask, dask://HOST:PORT, ray, ray://HOST:PORT"
"""What may be named on the command line."""
_PLACE = re.compile(r"(?P<engine>dask|ray)://(?P<address>(?:\[[0-9A-Fa-f:.]+\]|[^/?#@\s:\[\]]+):[0-9]{1,5})/?")


def problem_of(place: str) -> str | None:
    """Say what is allowed instead of a place; None if it is allowed."""
    if place in ("dask", "ray") or _PLACE.fullmatch(place):
        return None
    return f"must be one of {WORDS}, not {safe_text(place, limit=80)}"


@asynccontextmanager
async def opened_cluster(place: object) -> AsyncIterator[Cluster]:
    """Open what a user names, and close it in the end; a `Cluster` stays open. Raises `ClusterError`."""
    if isinstance(place, Cluster):
        yield place
        return
    cluster = await _open(place)
    try:
        yield cluster
    finally:
        await cluster.aclose()


async def _open(place: object) -> Cluster:
    if isinstance(place, str):
        if (problem := problem_of(place)) is not None:
            raise ClusterError(f"a cluster {problem}")
        match = _PLACE.fullmatch(place)
        address = match["address"] if match else None
        if place.startswith("dask"):
            from grym_fetch.cluster.dask import open_dask

            return await open_dask(address)
        from grym_fetch.cluster.ray import open_ray

        return await open_ray(address)
    package = (place.__name__ if isinstance(place, ModuleType) else type(place).__module__).partition(".")[0]
    if package == "ray":
        from grym_fetch.cluster.ray import connected_ray

        return await connected_ray()
    if package == "distributed":
        from grym_fetch.cluster.dask import connect

        scheduler = getattr(place, "scheduler", None)
        address = getattr(scheduler, "address", None) or getattr(place, "scheduler_address", None)
        if not isinstance(address, str):
            raise ClusterError("the Dask client is not connected to a scheduler")
        return await connect(address, getattr(place, "security", None))
    raise ClusterError(
        f"{safe_text(type(place).__name__, limit=80)} is not a cluster: give {WORDS}, a Dask client or ray"
    )
