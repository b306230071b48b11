"""Finds large blobs anywhere in git's history, without checking anything out.

Three passes, each one stream::

    rev-list --objects --all | cat-file --batch-check      which blobs are over the limit, and their packed size
    log --all --raw                                        under which paths they lived, which commits touched them
    cat-file --batch-check < "tip:path"                    which of them a branch or tag still has

The newest commit that has a blob is the newest of: the tips that have it, the commits that brought it, and the parents
of the commits that took it away.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from grym_fetch.repo.git import Git, split


@dataclass(frozen=True, kw_only=True, slots=True)
class LargeBlob:
    """A file's content in history. ``packed`` are the bytes it takes in the repository, and a clean-up would save.

    ``is_current``: a branch or tag still has it. ``commit`` is the newest one that has it, None if only an index or a
    tree without a commit does.
    """

    blob: str
    size: int
    packed: int
    paths: tuple[str, ...]
    commit: str | None
    committed: datetime | None
    is_current: bool


@dataclass(slots=True)
class _Traces:
    """What the passes find out about one blob."""

    size: int
    packed: int
    paths: dict[str, None] = field(default_factory=dict)
    commits: set[str] = field(default_factory=set)
    is_current: bool = False


def find_large_blobs(git: Git, limit: int) -> list[LargeBlob]:
    """Return the blobs of more than ``limit`` bytes that any ref reaches, the largest first. Raises `GitUnusable`."""
    git.ask("rev-parse", "--git-dir")  # so that a folder without git is told in git's own words
    blobs = dict(_over(limit, _sizes(git)))
    if not blobs:
        return []
    times = _follow(git, blobs)
    _ask_tips(git, blobs)
    found = []
    for name, traces in blobs.items():
        newest = max(traces.commits, key=lambda commit: (times.get(commit, 0), commit), default=None)
        at = times.get(newest) if newest is not None else None
        found.append(
            LargeBlob(
                blob=name,
                size=traces.size,
                packed=traces.packed,
                paths=tuple(traces.paths),
                commit=newest,
                committed=datetime.fromtimestamp(at, UTC) if at is not None else None,
                is_current=traces.is_current,
            )
        )
    return sorted(found, key=lambda blob: (-blob.size, blob.blob))


def _sizes(git: Git) -> Iterator[bytes]:
    form = "--batch-check=%(objectname) %(objecttype) %(objectsize) %(objectsize:disk) %(rest)"
    return split(git.pipe(["rev-list", "--objects", "--all"], ["cat-file", form]), b"\n")


def _over(limit: int, lines: Iterable[bytes]) -> Iterator[tuple[str, _Traces]]:
    for line in lines:
        name, kind, *rest = line.split(b" ", 4)
        if kind != b"blob" or int(rest[0]) <= limit:
            continue
        traces = _Traces(size=int(rest[0]), packed=int(rest[1]))
        if len(rest) > 2 and rest[2]:
            traces.paths[os.fsdecode(rest[2])] = None
        yield name.decode("ascii"), traces


def _follow(git: Git, blobs: dict[str, _Traces]) -> dict[str, int]:
    """Note paths and commits of the blobs; return the time of every commit, in Unix seconds."""
    log = ["log", "--all", "--raw", "-z", "-m", "--no-abbrev", "--no-renames", "--format=%x01%H %ct %P"]
    times: dict[str, int] = {}
    commit, parents = "", [""]
    fields = split(git.pipe(log), b"\0")
    for raw in fields:
        text = raw.lstrip(b"\n")
        if text.startswith(b"\x01"):
            commit, time, *parents = text[1:].decode("ascii").split()
            times[commit] = int(time)
        elif text.startswith(b":"):
            path = next(fields, b"")
            _, _, before, after, *_ = text.decode("ascii").split(" ")
            if (traces := blobs.get(after)) is not None:
                traces.commits.add(commit)
                traces.paths[os.fsdecode(path)] = None
            # Of a merge it is not said against which parent it was compared.
            if (traces := blobs.get(before)) is not None and len(parents) == 1:
                traces.commits.add(parents[0])
                traces.paths[os.fsdecode(path)] = None
    return times


def _ask_tips(git: Git, blobs: dict[str, _Traces]) -> None:
    """Note which tips still have the blobs."""
    tips = git.ask("rev-list", "--no-walk", "--all").decode("ascii").split()
    places = [(name, path) for name, traces in blobs.items() for path in traces.paths if "\n" not in path]
    asked = [(tip, name, path) for tip in tips for name, path in places]
    queries = (os.fsencode(f"{tip}:{path}\n") for tip, _, path in asked)
    answers = split(git.pipe(["cat-file", "--batch-check=%(objectname)"], given=queries), b"\n")
    for (tip, name, _), answer in zip(asked, answers, strict=True):
        if answer == name.encode("ascii"):
            blobs[name].commits.add(tip)
            blobs[name].is_current = True
