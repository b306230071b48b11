"""What every room above needs of asyncio: the event bus, threads, the clock, waiting."""
