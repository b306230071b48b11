"""Ways to use grym-fetch that are not a single command, each as a script."""
