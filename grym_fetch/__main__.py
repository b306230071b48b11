"""``python -m grym_fetch``."""

from grym_fetch.cli import main

main()
