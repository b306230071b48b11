"""The parts assembled for one event loop, and the coordinator that uses them."""
