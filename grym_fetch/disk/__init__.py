"""The disk: stages, locks, state files, and how a file gets its final name."""
