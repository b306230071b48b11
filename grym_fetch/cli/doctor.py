"""``grym-fetch doctor``."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Collection
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from grym_fetch.cli.findings import tell_finding
from grym_fetch.cli.help import Command
from grym_fetch.cli.options import Common, common_options, ids_argument

if TYPE_CHECKING:
    from grym_fetch.core.manifest import Asset
    from grym_fetch.manager import AssetManager
    from grym_fetch.project.diagnosis import Finding

log = logging.getLogger(__name__)


@click.command("doctor", cls=Command)
@ids_argument
@common_options
def doctor_command(common: Common, ids: tuple[str, ...], exclude: tuple[str, ...]) -> int:
    """Find out why assets cannot be fetched: manifest, every address, tokens, space, permissions, clock, proxy, TLS.

    Asks each address of the assets named (or else of all) for one byte, unless the settings say offline. Exit code 0 if
    no check fails, 1 if one does, 2 for a manifest that is missing or invalid.
    """
    from grym_fetch.cli import exit_codes
    from grym_fetch.cli.logs import set_up_logging
    from grym_fetch.cli.runner import ending_in_order, print_error
    from grym_fetch.core.errors import GrymFetchError
    from grym_fetch.core.variables import BadVariable
    from grym_fetch.manager import AssetManager

    setup = set_up_logging(common)
    try:
        manager = AssetManager(
            common.config,
            assets_dir=common.assets_dir,
            external_assets_dir=common.external_assets_dir,
            minimal=False,
            allow_stale=True,
        )
        with suppress(GrymFetchError):
            setup.add_file(lambda: manager.project.root)
        if not _show_manifest(manager, common):
            return exit_codes.WRONG_USAGE
        assets = list(manager.manifest.pick(ids or None, exclude=exclude))
        levels = {"fail"} if _is_stale(manager, common) else set()
        with ending_in_order():
            levels |= asyncio.run(
                _examine(manager, assets, common, planned=assets if ids else manager.choose(exclude=exclude))
            )
    except BadVariable as error:
        raise click.UsageError(str(error)) from error
    except GrymFetchError as error:
        setup.note(str(error))
        print_error(error)
        return exit_codes.exit_code(error)
    finally:
        setup.close()
    return exit_codes.NOT_FETCHED if "fail" in levels else exit_codes.DONE


def _show_manifest(manager: AssetManager, common: Common) -> bool:
    """Show everything that is wrong with the manifest; False if it cannot be used."""
    from grym_fetch.core.errors import ForeignManifest, ManifestError, ManifestMissing
    from grym_fetch.project.diagnosis import Finding

    try:
        count = len(manager.manifest.assets)
    except ManifestMissing as error:
        what = str(error).partition(". ")[0]
        print_finding(
            Finding("fail", "manifest", what, "name one with --config; `grym-fetch setup` creates one"), common
        )
        return False
    except ForeignManifest as error:
        what, _, advice = str(error).partition(". ")
        print_finding(Finding("fail", "manifest", what, advice), common)
        return False
    except ManifestError as error:
        for problem in error.problems:
            what = f"{error.source}: {problem}"
            print_finding(
                Finding("fail", "manifest", what, "correct it; `grym-fetch schema` prints the format"), common
            )
        return False
    place = manager.project.manifest_path
    print_finding(Finding("ok", "manifest", f"{place}: {count} asset{'s' if count != 1 else ''}"), common)
    for warning in manager.warnings:
        print_finding(Finding("warn", "manifest", warning, "correct or remove them"), common)
    return True


def _is_stale(manager: AssetManager, common: Common) -> bool:
    """Return whether the manifest may no longer be used, and say so."""
    from grym_fetch.project.diagnosis import Finding

    if (why := manager.why_stale()) is None:
        return False
    advice = "get a newer one, or pass --allow-stale to use it as it is"
    print_finding(Finding("fail", "manifest", why, advice), common)
    return True


async def _examine(
    manager: AssetManager, assets: list[Asset], common: Common, *, planned: Collection[Asset]
) -> set[str]:
    """Show all other findings as they come; return their levels."""
    from grym_fetch._version import __version__
    from grym_fetch.core.mirrors import with_mirrors
    from grym_fetch.project import diagnosis
    from grym_fetch.runtime.clock import SystemClock

    findings = [*diagnosis.environment_findings(os.environ), *diagnosis.permission_findings(manager.project)]
    async with manager:
        # What a sync would fetch: without a choice, not every asset, although all addresses are asked.
        plan = await manager.plan(planned)
    findings.append(diagnosis.space_finding(plan.space_needed, plan.space_free, plan.unknown_sizes))
    findings += diagnosis.liar_findings(manager.project, assets)
    for finding in findings:
        print_finding(finding, common)
    rules = manager.settings.mirror_rules
    kinds = [with_mirrors(kind, rules) for asset in assets for kind in dict.fromkeys((asset, asset.stand_in()))]
    if manager.settings.offline:
        advice = "`grym-fetch config` shows what says so"
        of_origins = [diagnosis.Finding("warn", "origin", "the settings say offline, so no address was asked", advice)]
    else:
        of_origins = await diagnosis.origin_findings(
            kinds,
            environ=os.environ,
            clock=SystemClock(),
            version=__version__,
            allow_private=manager.settings.allow_private_addresses,
        )
    for finding in of_origins:
        print_finding(finding, common)
    return {finding.level for finding in (*findings, *of_origins)}


def print_finding(finding: Finding, common: Common) -> None:
    """Write one finding to stdout."""
    from grym_fetch.core.text import safe_text

    about = f"{finding.asset}: " if finding.asset is not None else ""
    log.info("%s %s: %s%s", finding.level, finding.check, about, finding.what)
    if common.json:
        click.echo(json.dumps(finding.as_json()))
    elif finding.level != "ok" or not common.quiet:
        named = f"{safe_text(finding.asset)}: " if finding.asset is not None else ""
        tell_finding(finding.level, f"{finding.check}: {named}{finding.what}", finding.advice)
