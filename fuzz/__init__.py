"""Fuzzing of all parsers of untrusted data. The suite runs the targets briefly, `make fuzz` for a long time."""
