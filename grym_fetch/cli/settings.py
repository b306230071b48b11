"""From options to `Settings`."""

from __future__ import annotations

from typing import Any

from grym_fetch.settings import Settings


def settings_from(options: dict[str, Any]) -> Settings:
    """Return the settings for what `transfer_options` has read."""
    return Settings(allow_private_addresses=not options.pop("no_private_addresses"), **options)
