"""``grym-fetch setup``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from grym_fetch.cli import streams
from grym_fetch.cli.findings import tell_finding
from grym_fetch.cli.help import Command
from grym_fetch.cli.options import Common, common_options, minimal_option, option, transfer_options

if TYPE_CHECKING:
    from grym_fetch.manager import AssetManager
    from grym_fetch.project.setup import Step


@click.command("setup", cls=Command)
@minimal_option("Then fetch those tagged essential, if any is, as stand-ins where they have one.")
@option("--skip-assets", is_flag=True, help="Fetch nothing afterwards.")
@transfer_options
@common_options
def setup_command(common: Common, minimal: bool | None, skip_assets: bool, **transfer: Any) -> int:
    """Make a project ready: check the system, create the manifest, folders and .gitignore lines, then sync.

    Each step says what it did, or that there was nothing to do. Run it again at any time: it adds
    what is missing.
    """
    from grym_fetch.cli import exit_codes
    from grym_fetch.cli.runner import print_error, run
    from grym_fetch.cli.settings import settings_from
    from grym_fetch.cli.sync import say_default
    from grym_fetch.core.errors import GrymFetchError

    failed: list[Step] = []
    try:
        for step in _steps(common):
            print_step(step, common)
            if step.state == "fail":
                failed.append(step)
    except GrymFetchError as error:
        print_error(error)
        return exit_codes.exit_code(error)
    if failed:
        streams.complain("the project is not ready; see above for what to do")
        return exit_codes.STORAGE if any(step.is_storage for step in failed) else exit_codes.NOT_FETCHED

    async def body(manager: AssetManager) -> int:
        assets = manager.choose()
        print_step(await _space(manager, assets), common)
        if skip_assets:
            return exit_codes.DONE
        say_default(manager, common)
        await manager.sync_assets(assets)
        return exit_codes.DONE

    return run(common, body, settings=settings_from(transfer), minimal=minimal)


def _steps(common: Common) -> Iterator[Step]:
    from grym_fetch.project.setup import folder_steps, git_steps, manifest_step, moved_steps, system_steps

    now = datetime.now(UTC)
    yield from system_steps(os.environ)
    places = {"assets_dir": common.assets_dir, "external_assets_dir": common.external_assets_dir}
    step, project = manifest_step(Path.cwd(), os.environ, now, config=common.config, places=places)
    yield step
    yield from folder_steps(project, now)
    yield from git_steps(project)
    yield from moved_steps(project)


async def _space(manager: AssetManager, assets: Any) -> Step:
    from grym_fetch.project.diagnosis import space_finding
    from grym_fetch.project.setup import Step

    plan = await manager.plan(assets)
    finding = space_finding(plan.space_needed, plan.space_free, plan.unknown_sizes)
    # Not a failure of its own: the sync refuses what does not fit, and with --skip-assets nothing is fetched.
    return Step("warn" if finding.level == "fail" else "ok", finding.check, finding.what, finding.advice)


def print_step(step: Step, common: Common) -> None:
    """Write one step to stdout."""
    if common.json:
        click.echo(json.dumps(step.as_json()))
    elif not common.quiet or step.state in ("warn", "fail"):
        tell_finding(step.state, f"{step.step}: {step.what}", step.advice)
