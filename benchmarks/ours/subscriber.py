"""``AssetManager.sync`` with a listener: ``none``, or one that ``sleeps`` a tenth of a second at each event.

Prints the seconds until ``sync`` returns: closing the manager gives listeners another second to catch up.
"""

import asyncio
import sys
import time

from grym_fetch import AssetManager


async def main() -> None:
    """Fetch what is required."""
    async with AssetManager() as manager:
        if sys.argv[1] == "sleeps":
            manager.on_event(lambda _: time.sleep(0.1))
        began = time.perf_counter()
        await manager.sync()
        print(time.perf_counter() - began)


asyncio.run(main())
