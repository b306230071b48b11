"""Fuzzing of whatever reads what others wrote. The suite runs the same targets for a moment, `make fuzz` for long."""
