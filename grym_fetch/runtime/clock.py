"""The system's clock and random numbers."""

from __future__ import annotations

import asyncio
import random
import time


class SystemClock:
    """Implements `grym_fetch.core.world.Clock`."""

    def monotonic(self) -> float:
        """Seconds, from `time.monotonic`."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since the epoch, from `time.time`."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait for this many seconds."""
        await asyncio.sleep(seconds)

    def jitter(self) -> float:
        """A random number in [0, 1)."""
        return random.random()  # noqa: S311 - spreads clients out in time; guards no secret
