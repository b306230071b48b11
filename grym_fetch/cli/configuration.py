"""``grym-fetch config``: what is set, and where."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from grym_fetch.cli import streams
from grym_fetch.cli.help import Command
from grym_fetch.cli.options import Common, common_options

if TYPE_CHECKING:
    from grym_fetch.core.configuration import Configuration, SettingKey
    from grym_fetch.manifest_files.project import Project


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    value: str | float | bool | None
    source: str
    """``option``, ``environment``, ``project``, ``user``, ``found`` or ``default``."""
    where: str
    """The option, the variable or the file."""


@click.command("config", cls=Command)
@common_options
def config_command(common: Common) -> int:
    """Show each setting with its value and where it is from: option, environment, project, user, default; or found.

    A project's settings are in [tool.grym-fetch] of its pyproject.toml, yours in grym-fetch/config.toml of ~/.config,
    or of XDG_CONFIG_HOME.
    """
    from grym_fetch.cli.runner import print_data, run_plain
    from grym_fetch.core.cells import cells, padded
    from grym_fetch.core.text import safe_text

    manifest_from = click.get_current_context().get_parameter_source("config")

    def work() -> int:
        rows = list(_rows(common, manifest_from))
        if common.json:
            print_data(
                json.dumps({"name": row.name, "value": row.value, "source": row.source, "where": row.where or None})
                for row in rows
            )
            return 0
        values = [safe_text(_text(row.value), limit=4000) for row in rows]
        name_width, value_width = max(len(row.name) for row in rows), max(map(cells, values))
        sources = [f"{row.source} ({safe_text(row.where, limit=4000)})" if row.where else row.source for row in rows]
        sheet = streams.sheet(sys.stdout)
        if sheet.width is not None and name_width + value_width + max(map(cells, sources)) + 4 > sheet.width:
            value_width = 0  # nothing is shortened: where the columns do not fit, each row is broken between words
        for row, value, source in zip(rows, values, sources, strict=True):
            click.echo(sheet.item(padded(row.name, name_width), f"{padded(value, value_width)}  {source}"))
        return 0

    return run_plain(common, work)


def _text(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.15g}"
        case _:
            return str(value)


def _rows(common: Common, manifest_from: ParameterSource | None) -> Iterator[_Row]:
    from grym_fetch.core.configuration import ASSETS_DIR, EXTERNAL_DIR, KEYS, RULES
    from grym_fetch.core.errors import ForeignManifest, ManifestMissing
    from grym_fetch.core.mirror_rules import shown_rules
    from grym_fetch.core.variables import MINIMAL, read_flag, said_in
    from grym_fetch.disk.configuration import read_configuration
    from grym_fetch.manifest_files.project import find_project
    from grym_fetch.settings import Settings

    project: Project | None = None
    try:
        project = find_project(
            config=common.config,
            assets_dir=common.assets_dir,
            external_assets_dir=common.external_assets_dir,
            environ=os.environ,
            cwd=Path.cwd(),
        )
    except (ForeignManifest, ManifestMissing):
        if common.config is not None:
            raise
    configuration = read_configuration(
        project.root if project is not None else None, os.environ, is_named=project is not None and project.is_named
    )
    settings = Settings().with_environment(
        os.environ, configured=configuration.fetching, root=None if project is None else project.root
    )
    yield _manifest_row(project, manifest_from)
    folders = {
        ASSETS_DIR: (common.assets_dir, project and project.assets_dir),
        EXTERNAL_DIR: (common.external_assets_dir, project and project.external_dir),
    }
    for key in KEYS:
        if key in folders:
            argument, folder = folders[key]
            source = ("option", f"--{key.name}") if argument else _source(key, configuration)
            choice = configuration.choices.get(key.setting)
            named = argument or said_in(os.environ, key.variable) or (None if choice is None else str(choice.value))
            yield _Row(key.name, named if folder is None else str(folder), *source)
        elif key.variable == MINIMAL:
            choice = configuration.choices.get(key.setting)
            is_set = bool(os.environ.get(MINIMAL, "").strip())
            value = read_flag(os.environ, MINIMAL) if is_set or choice is None else choice.value is True
            yield _Row(key.name, value, *_source(key, configuration))
        else:
            chosen = shown_rules(settings.mirror_rules) or None if key is RULES else getattr(settings, key.setting)
            yield _Row(key.name, not chosen if key.is_negated else chosen, *_source(key, configuration))


def _manifest_row(project: Project | None, source: ParameterSource | None) -> _Row:
    if project is None:
        return _Row("config", None, "default", "no manifest here or above")
    path = str(project.manifest_path)
    match source:
        case ParameterSource.COMMANDLINE:
            return _Row("config", path, "option", "--config")
        case ParameterSource.ENVIRONMENT:
            return _Row("config", path, "environment", "GRYM_FETCH_CONFIG")
        case _:
            return _Row("config", path, "found", "")


def _source(key: SettingKey, configuration: Configuration) -> tuple[str, str]:
    from grym_fetch.core.variables import gives

    if gives(os.environ, key.variable, key.setting):
        return "environment", key.variable
    if (choice := configuration.choices.get(key.setting)) is not None:
        return choice.origin, choice.source
    return "default", ""
