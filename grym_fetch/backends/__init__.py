"""The only code that touches the world: the network, the disk and the clock."""
