"""What changes a project or judges it: editing its manifest, setting it up, diagnosing it."""
