"""What the packages above need from asyncio: the event bus, threads, the clock, waiting."""
