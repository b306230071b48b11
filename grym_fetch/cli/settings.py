"""From options to `Settings`."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from grym_fetch.cli.options import is_given
from grym_fetch.settings import Settings


def settings_from(options: dict[str, Any]) -> Settings:
    """Return the settings that `transfer_options` has read, also from the environment.

    Settings that were not given are not named, so that files decide them: see `AssetManager`.
    """
    context = click.get_current_context()
    given = {name: value for name, value in options.items() if is_given(context, name)}
    if context.get_parameter_source("store") is ParameterSource.ENVIRONMENT:
        given.pop("store", None)  # `AssetManager` reads it: a relative one is below the project's root
    if "mirrors" in given:
        words = given.pop("mirrors")
        said = {"mirrors": words.mode, "mirror_rules": words.rules}
        given |= {name: value for name, value in said.items() if value is not None}
    for negated, name in (("no_private_addresses", "allow_private_addresses"), ("no_pipelining", "pipelining")):
        if negated in given:
            given[name] = not given.pop(negated)
    try:
        return Settings(**given)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
