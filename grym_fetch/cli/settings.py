"""From options to `Settings`."""

from __future__ import annotations

from typing import Any

import click

from grym_fetch.settings import Settings


def settings_from(options: dict[str, Any]) -> Settings:
    """Return the settings that `transfer_options` has read, also from the environment."""
    allow_private = not options.pop("no_private_addresses")
    pipelining = not options.pop("no_pipelining")
    try:
        return Settings(allow_private_addresses=allow_private, pipelining=pipelining, **options)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
