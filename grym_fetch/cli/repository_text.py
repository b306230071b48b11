"""The output of ``identify`` and ``clean``: lines for people and records for ``--json``. Does no work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter

from grym_fetch.core.command_lines import command_line
from grym_fetch.core.figures import format_size
from grym_fetch.core.text import safe_text
from grym_fetch.repo.clean import Kept, Plan
from grym_fetch.repo.history import History
from grym_fetch.repo.identify import Survey, Total, ignore_line, totals
from grym_fetch.repo.placeholder import SUFFIX

_FEW = 5


def shown(text: str) -> str:
    """A path or name, safe to print."""
    return safe_text(text, limit=4000)


def counted(number: int, one: str, many: str) -> str:
    """``3 files``."""
    return f"{number:,} {one if number == 1 else many}"


def survey_lines(found: Survey, prefix: str, limit: int) -> Iterator[str]:
    """What `identify` has found. ``prefix`` leads from the root to the folder; ``limit`` in bytes."""
    if not found.files:
        yield f"no file is larger than {format_size(limit)}"
    for file in found.files:
        yield f"{format_size(file.size):>9}  {shown(file.path)}"
    if found.files:
        count = counted(len(found.files), "file", "files")
        yield f"{format_size(found.bytes):>9}  in {count} over {format_size(limit)}"
        yield from _total_lines("By type", totals(found.files, attrgetter("type")))
        yield from _total_lines("By folder", totals(found.files, attrgetter("folder")))
    yield from _aside_lines(found.symlinks, found.repositories, found.unreadable)
    if found.ignored:
        yield f"not listed because git ignores them: {counted(found.ignored, 'large file', 'large files')}"
    yield from _pointer_lines(found.pointers, "listed")
    if found.files:
        yield ""
        yield "Lines for .gitignore (git goes on tracking what it tracks until `git rm --cached`):"
        for file in found.files:
            yield f"  {shown(ignore_line(prefix + file.path))}"


def _pointer_lines(pointers: int, done: str) -> Iterator[str]:
    if pointers:
        files = counted(pointers, "large file", "large files")
        yield f"not {done} because git stores a pointer only (Git LFS, git-annex): {files}"


def _total_lines(title: str, sums: Sequence[Total]) -> Iterator[str]:
    yield ""
    yield f"{title}:"
    for total in sums:
        yield f"{format_size(total.bytes):>9}  {shown(total.name)}  ({counted(total.files, 'file', 'files')})"


def _aside_lines(symlinks: Sequence[str], repositories: Sequence[str], unreadable: Sequence[str]) -> Iterator[str]:
    for what, paths in (
        ("not followed, a symlink", symlinks),
        ("not looked into, a repository of its own", repositories),
        ("cannot be read", unreadable),
    ):
        for path in paths[:_FEW]:
            yield f"{what}: {shown(path)}"
        if len(paths) > _FEW:
            yield f"{what}: {len(paths) - _FEW:,} more"


def survey_record(found: Survey, prefix: str, history: History | None) -> dict[str, object]:
    """The same as a record."""

    def summed(sums: Iterable[Total]) -> list[dict[str, object]]:
        return [{"name": total.name, "files": total.files, "bytes": total.bytes} for total in sums]

    record: dict[str, object] = {
        "v": 1,
        "type": "identify",
        "files": [{"path": file.path, "size": file.size} for file in found.files],
        "bytes": found.bytes,
        "by_type": summed(totals(found.files, attrgetter("type"))),
        "by_folder": summed(totals(found.files, attrgetter("folder"))),
        "gitignore": [ignore_line(prefix + file.path) for file in found.files],
        "ignored": found.ignored,
        "pointers": found.pointers,
        "symlinks": list(found.symlinks),
        "repositories": list(found.repositories),
        "unreadable": list(found.unreadable),
    }
    if history is not None:
        record["history"] = [
            {
                "blob": blob.blob,
                "size": blob.size,
                "packed": blob.packed,
                "paths": list(blob.paths),
                "commit": blob.commit,
                "committed": blob.committed.isoformat() if blob.committed is not None else None,
                "current": blob.is_current,
            }
            for blob in history.blobs
        ]
        record["history_packed"] = sum(blob.packed for blob in history.blobs)
        record["history_missing"] = history.missing
    return record


def history_lines(history: History, limit: int) -> Iterator[str]:
    """What is large in the part of the history that is here."""
    blobs = history.blobs
    yield ""
    if not blobs:
        which = "of its files that are here, none was ever" if history.missing else "no file in it was ever"
        yield f"History: {which} larger than {format_size(limit)}"
        return
    yield "History (size, packed size, newest commit that has it, path):"
    for blob in blobs:
        commit = (blob.commit or "no commit")[:12]
        day = f"{blob.committed:%Y-%m-%d}" if blob.committed is not None else "          "
        where = ", ".join(map(shown, blob.paths)) or blob.blob
        gone = "" if blob.is_current else "  (no branch or tag ends with it)"
        yield f"{format_size(blob.size):>9}  {format_size(blob.packed):>9}  {commit}  {day}  {where}{gone}"
    saved = format_size(sum(blob.packed for blob in blobs))
    yield f"without {counted(len(blobs), 'version', 'versions')} of large files the repository is {saved} smaller"
    yield from purge_lines("--strip-blobs-bigger-than", str(limit))


def weight_of(found: Survey, past: History | None, prefix: str, limit: int) -> str:
    """A page about what is large: a map of the files, and one of the history as it is stored."""
    from grym_fetch.display.treemap import Weight, weight_page

    size = format_size(limit)
    maps = [(f"Files over {size}", [Weight(prefix + file.path, file.size) for file in found.files])]
    if past is not None:
        blobs = [
            Weight(
                blob.paths[0] if blob.paths else blob.blob,
                blob.packed,
                f"{format_size(blob.size)} unpacked{'' if blob.is_current else ', no branch or tag ends with it'}",
            )
            for blob in past.blobs
        ]
        maps.append((f"Versions of files over {size} in the history, as packed", blobs))
    return weight_page("grym-fetch identify", maps)


def purge_lines(*arguments: str) -> Iterator[str]:
    """How to remove it from there by hand."""
    yield "To take them out of the history, which gives commits new ids, in a fresh clone:"
    yield f"  {command_line('git', 'filter-repo', *arguments)}"
    yield "Keep a backup; everybody must clone anew afterwards. Nothing here does that for you."


def plan_lines(plan: Plan, limit: int) -> Iterator[str]:
    """What `clean` would move."""
    for move in plan.moves:
        yield f"{format_size(move.size):>9}  {shown(move.path)}"
    if plan.moves:
        count = counted(len(plan.moves), "file", "files")
        yield f"{format_size(plan.bytes):>9}  in {count} over {format_size(limit)}, to {shown(str(plan.target))}"
    elif plan.kept:
        yield "nothing to move"
    else:
        yield f"nothing to move: no further file is larger than {format_size(limit)}"
    for kept in plan.kept:
        yield f"not moved: {shown(kept.path)}: {kept.reason}"
    yield from _pointer_lines(plan.pointers, "moved")
    yield from _aside_lines(plan.symlinks, plan.repositories, plan.unreadable)


def plan_records(plan: Plan) -> Iterator[dict[str, object]]:
    """The same as records."""
    for move in plan.moves:
        yield {"v": 1, "type": "would_move", "path": move.path, "size": move.size, "storage_path": move.storage_path}
    for kept in plan.kept:
        yield kept_record(kept)


def clean_record(plan: Plan, gitignore: Sequence[str], added: Sequence[str]) -> dict[str, object]:
    """The last record: how `clean` ended."""
    return {
        "v": 1, "type": "clean", "target": str(plan.target), "gitignore": list(gitignore),
        "added_to_manifest": list(added),
    }  # fmt: skip


def restored_lines(missed: Sequence[str], seen: Sequence[str]) -> Iterator[str]:
    """The warnings about restored files: git misses some placeholders, and does not ignore some of the files."""
    if missed:
        yield "git shows the placeholders as deleted; do not commit that: `git restore -- '*.asset-ref'` puts them back"
    if seen:
        files = counted(len(seen), "restored file", "restored files")
        yield f"git does not ignore {files}, and `git add -A` would commit them; lines for .gitignore:"
        for path in seen:
            yield f"  {shown(ignore_line(path))}"


def damaged_text(path: str, why: str) -> tuple[str, str]:
    """The error about a placeholder that cannot be read, and what to do."""
    back = command_line("git", "restore", names=(path,))
    named = command_line("grym-fetch", "restore", names=(path.removesuffix(SUFFIX),))
    return f"{shown(path)} is damaged: it {shown(why)}", f"`{back}` puts it back, or try `{named}`"


def kept_record(kept: Kept) -> dict[str, object]:
    """A file that is not moved."""
    return {"v": 1, "type": "not_moved", "path": kept.path, "why": kept.why.name.lower(), "reason": kept.reason}
