"""A long, narrow or uneven link: relays connections on loopback to a server there, in its own process.

Usage: ``python -m benchmarks.link PORT [--delay S] [--rate B] [--shared] [--fall-after B] [--fall-to B]``; prints its
own port. ``--delay``: seconds each way. ``--rate``: bytes per second, downstream, of each connection, or with
``--shared`` of all together. Once ``--fall-after`` bytes have come over all connections, the one that brings the next
bytes drops to ``--fall-to`` bytes per second permanently. When the last connection has ended, everything is reset.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from dataclasses import dataclass

CHUNK = 256 * 1024


@dataclass
class Link:
    """The state shared by all connections."""

    port: int
    delay: float
    rate: float
    fall_after: float
    fall_to: float
    shared: bool = False
    free_at: float = 0.0
    relayed: int = 0
    has_fallen: bool = False
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection until either side ends it."""
        self.connections += 1
        upstream, downstream = await asyncio.open_connection("127.0.0.1", self.port, limit=CHUNK)
        ways = [
            asyncio.create_task(self._relay(reader, downstream, float("inf"))),
            asyncio.create_task(self._relay(upstream, writer, self.rate)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.wait(ways)
        for end in (writer, downstream):
            end.close()
            with contextlib.suppress(OSError):
                await end.wait_closed()
        self.connections -= 1
        if not self.connections:
            self.relayed, self.has_fallen = 0, False

    async def _relay(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, rate: float) -> None:
        """Forward bytes, late and slowly. Bytes in transit are bounded by rate and delay, and by 64 MiB."""
        loop = asyncio.get_running_loop()
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=256)

        async def take() -> None:
            nonlocal rate
            free_at = 0.0
            while data := await source.read(CHUNK if rate > 1e9 else max(1024, min(CHUNK, int(rate / 50)))):
                now = loop.time()
                if rate != float("inf"):
                    self.relayed += len(data)
                    if self.relayed >= self.fall_after and not self.has_fallen:
                        self.has_fallen = True
                        rate = self.fall_to
                    free_at = max(self.free_at if self.shared else free_at, now) + len(data) / rate
                    if self.shared:
                        self.free_at = free_at
                    await asyncio.sleep(free_at - now)
                await under_way.put((loop.time() + self.delay, data))
            await under_way.put((loop.time() + self.delay, b""))

        taking = asyncio.create_task(take())
        try:
            while True:
                at, data = await under_way.get()
                if (left := at - loop.time()) > 0:
                    await asyncio.sleep(left)
                if not data:
                    return
                target.write(data)
                await target.drain()
        except OSError:
            return
        finally:
            taking.cancel()


async def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--rate", type=float, default=1e12)
    parser.add_argument("--shared", action="store_true")
    parser.add_argument("--fall-after", type=float, default=float("inf"))
    parser.add_argument("--fall-to", type=float, default=float("inf"))
    link = Link(**vars(parser.parse_args()))
    server = await asyncio.start_server(link.serve, "127.0.0.1", 0, limit=CHUNK)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
