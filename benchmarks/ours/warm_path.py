"""``await manager.get_asset_path``, again and again; prints the seconds of one call."""

import asyncio
import sys
import time

from grym_fetch import AssetManager

CALLS = 1000


async def main() -> None:
    """Ask for a present asset."""
    async with AssetManager() as manager:
        await manager.get_asset_path(sys.argv[1])
        began = time.perf_counter()
        for _ in range(CALLS):
            await manager.get_asset_path(sys.argv[1])
        print((time.perf_counter() - began) / CALLS)


asyncio.run(main())
