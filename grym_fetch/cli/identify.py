"""The command ``identify``: which files are large."""

from __future__ import annotations

import json
from pathlib import Path

import click

from grym_fetch.cli import streams
from grym_fetch.cli.exit_codes import DONE, NOT_FETCHED
from grym_fetch.cli.help import Command
from grym_fetch.cli.options import PAGES, Common, common_options, file_option, option
from grym_fetch.cli.repository_places import existing_folder
from grym_fetch.cli.sizes import chosen_size, exact_size, size_option


@click.command("identify", cls=Command)
@click.argument("limit", required=False, metavar="[SIZE_MB]")
@click.argument("folder", required=False, metavar="[DIR]")
@size_option
@option("--ignored", is_flag=True, help="Also list files that git ignores, but for node_modules.")
@option("--history", is_flag=True, help="Also find large files in git's history, whether still there or not.")
@option("--staged", is_flag=True, help="Look only at what the next commit would add or change.")
@option("--fail", is_flag=True, help="End with exit code 1 if any file is listed.")
@file_option("--html", endings=PAGES, help="Also write a page to FILE.html with a treemap of what is large.")
@common_options
def identify_command(
    common: Common,
    limit: str | None,
    folder: str | None,
    size: int | None,
    ignored: bool,
    history: bool,
    staged: bool,
    fail: bool,
    html: Path | None,
) -> int:
    """List large files in DIR [.], those of more than SIZE_MB [10], the largest first.

    Then: how they add up by type and by folder, and lines for .gitignore. Changes nothing.
    """
    from grym_fetch.cli.reporting import write_whole
    from grym_fetch.cli.repository_text import history_lines, survey_lines, survey_record, weight_of
    from grym_fetch.cli.runner import print_error, run_plain
    from grym_fetch.core.command_lines import command_line
    from grym_fetch.repo.git import Git, GitUnusable
    from grym_fetch.repo.history import find_large_blobs
    from grym_fetch.repo.identify import survey, survey_staged
    from grym_fetch.repo.tree import below, find_root

    if staged and (ignored or history):
        raise click.UsageError("--staged goes with neither --ignored nor --history")
    least, [named, *_] = chosen_size(size, limit, folder)

    def work() -> int:
        place = existing_folder(Path(named or "."))
        root = find_root(place, Path.cwd())
        found = survey_staged(place, least, root) if staged else survey(place, least, root, with_ignored=ignored)
        past = find_large_blobs(Git(root), least) if history else None
        if html is not None:
            write_whole(html, weight_of(found, past, below(root, place), least).encode())
        if common.json:
            click.echo(json.dumps(survey_record(found, below(root, place), past)))
        else:
            for line in survey_lines(found, below(root, place), least):
                streams.say_result(line)
            for line in history_lines(past, least) if past is not None else ():
                streams.say_result(line)
            if found.files and not staged and not common.quiet:
                words = command_line("grym-fetch", "clean", f"--size={exact_size(least)}", names=(named or ".",))
                streams.say(f"to move them out of the repository: {words}")
        is_listed = found.files or (past is not None and past.blobs)
        code = NOT_FETCHED if fail and is_listed else DONE
        if past is not None and past.missing:
            error = GitUnusable(f"not all of the history was searched: {past.advice}")
            if code == DONE:
                raise error
            print_error(error)
        return code

    return run_plain(common, work)
