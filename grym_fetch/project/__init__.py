"""Changing and checking a project: editing its manifest, setting it up, diagnosing it."""
