"""Ways to use grym-fetch that are no single command: each a script."""
