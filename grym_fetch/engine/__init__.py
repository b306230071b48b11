"""The parts put together for one event loop, and who asks them for what."""
