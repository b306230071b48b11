"""The command line. This module imports next to nothing, so that `--help` is quick; commands import what they need."""

from __future__ import annotations

from grym_fetch.cli.main import main

__all__ = ["main"]
