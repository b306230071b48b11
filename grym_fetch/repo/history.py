"""Finds large blobs anywhere in git's history, without checking anything out.

Passes, each one stream::

    rev-list --objects --all | cat-file --batch-check      which blobs are over the limit, and their packed size
    rev-list --all --timestamp --parents                   when each commit was made, and its parents
    rev-list --all | diff-tree --stdin --raw               the blobs' paths, and the commits that touched them
    cat-file --batch-check                                 which parents of a merge had what it left out
    rev-list --objects --no-walk --all                     which of them a branch or tag still has
    cat-file --batch, once for each level of folders       and which tips those are, by the folders on the way

The newest commit that has a blob is the newest of: the tips that have it, the commits that added it, and the parents of
the commits that removed it.

A partial clone lacks some blobs, and nothing is fetched: the result then says that it is not complete.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from grym_fetch.core.command_lines import command_line
from grym_fetch.repo.complaints import DAMAGED, git_in
from grym_fetch.repo.git import Git, GitUnusable, split

_AS_STORED = "--no-replace-objects"


@dataclass(frozen=True, kw_only=True, slots=True)
class LargeBlob:
    """A file's content in history. ``packed`` is the bytes it takes up in the repository, which a clean-up would save.

    ``is_current``: a branch or tag still has it. ``commit`` is the newest one that has it; None if only an index or a
    tree without a commit does.
    """

    blob: str
    size: int
    packed: int
    paths: tuple[str, ...]
    commit: str | None
    committed: datetime | None
    is_current: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """The large blobs, largest first. ``missing`` objects of unknown size are left out, as ``advice`` explains."""

    blobs: tuple[LargeBlob, ...]
    missing: int = 0
    advice: str = ""


@dataclass(slots=True)
class _Traces:
    """The findings of the passes about one blob."""

    size: int
    packed: int
    paths: dict[str, None] = field(default_factory=dict)
    commits: set[str] = field(default_factory=set)
    is_current: bool = False


def find_large_blobs(git: Git, limit: int) -> History:
    """Return the blobs of more than ``limit`` bytes that can be reached from any ref.

    Raises `GitUnusable`, also for a damaged repository, and a partial clone that lacks folders as well as files.
    """
    git.ask("rev-parse", "--git-dir")  # so that git itself complains about a folder without a repository
    blobs, missing = _over(limit, git)
    advice = _missing(git, missing) if missing else ""
    try:
        times = _follow(git, blobs) if blobs or missing else {}
        _ask_tips(git, blobs, times)
    except GitUnusable as error:
        raise GitUnusable(advice or str(error)) from error
    found = []
    for name, traces in blobs.items():
        newest = max(traces.commits, key=lambda commit: (times.get(commit, 0), commit), default=None)
        found.append(
            LargeBlob(
                blob=name,
                size=traces.size,
                packed=traces.packed,
                paths=tuple(traces.paths),
                commit=newest,
                committed=_moment(times.get(newest)) if newest is not None else None,
                is_current=traces.is_current,
            )
        )
    largest_first = sorted(found, key=lambda blob: (-blob.size, blob.blob))
    return History(blobs=tuple(largest_first), missing=missing, advice=advice)


def _over(limit: int, git: Git) -> tuple[dict[str, _Traces], int]:
    """The blobs over the limit, and how many objects are not here."""
    form = "--batch-check=%(objectname) %(objecttype) %(objectsize) %(objectsize:disk)"
    listing = ["rev-list", "--objects", "--no-object-names", "--missing=print", "--all"]
    found: dict[str, _Traces] = {}
    missing = 0
    for line in split(git.pipe([_AS_STORED, *listing], [_AS_STORED, "cat-file", form]), b"\n"):
        name, kind, *figures = line.decode("ascii").split(" ")
        if kind == "missing":
            missing += 1
        elif kind == "blob" and int(figures[0]) > limit:
            found[name] = _Traces(size=int(figures[0]), packed=int(figures[1]))
    return found, missing


def _missing(git: Git, count: int) -> str:
    """Explain the objects that a partial clone lacks. Raises `GitUnusable` if this is not a partial clone."""
    settings = git.ask("config", "--list", "--name-only", "-z").lower().split(b"\0")
    promisors = [name[7:-9] for name in settings if name.startswith(b"remote.") and name.endswith(b".promisor")]
    objects = f"{count:,} object{'s' if count != 1 else ''} of its history"
    if not promisors:
        remedy = DAMAGED.replace("{git}", git_in(git.folder))
        raise GitUnusable(f"the repository is damaged: it lacks {objects}; {remedy}")
    fetch = command_line("git", "fetch", "--refetch", "--no-filter", names=(os.fsdecode(promisors[0]),))
    return (
        f"this is a partial clone, which lacks {objects}, of any size, and nothing is fetched. Get all of it with "
        f"`{fetch}`, or look through the history of a whole clone"
    )


def _moment(seconds: int | None) -> datetime | None:
    """A time from git, which may be any number; None if no date can have it."""
    try:
        return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None
    except (OverflowError, OSError, ValueError):
        return None


def _follow(git: Git, blobs: dict[str, _Traces]) -> dict[str, int]:
    """Note paths and commits of the blobs; return the time of every commit, in Unix seconds."""
    times: dict[str, int] = {}
    parents: dict[str, list[str]] = {}
    for line in split(git.pipe([_AS_STORED, "rev-list", "--all", "--timestamp", "--parents"]), b"\n"):
        time, commit, *above = line.decode("ascii").split(" ")
        times[commit] = int(time)
        parents[commit] = above
    changes = ["diff-tree", "--stdin", "-r", "-m", "--root", "--raw", "-z", "--no-abbrev", "--no-renames"]
    commit = ""
    left_out: list[tuple[_Traces, str, bytes]] = []
    fields = split(git.pipe([_AS_STORED, "rev-list", "--all"], [_AS_STORED, *changes]), b"\0")
    for raw in fields:
        text = raw.decode("ascii")
        if not text.startswith(":"):
            commit = text
            continue
        path = next(fields, b"")
        _, _, before, after, *_ = text.split(" ")
        if (traces := blobs.get(after)) is not None:
            traces.commits.add(commit)
            traces.paths[os.fsdecode(path)] = None
        if (traces := blobs.get(before)) is not None:
            traces.paths[os.fsdecode(path)] = None
            above = parents.get(commit, [])
            if len(above) == 1:
                traces.commits.add(above[0])
            elif b"\n" not in path:  # for a merge, git does not say which parent it was compared with
                left_out += [(traces, parent, path) for parent in above]
    _ask_parents(git, blobs, left_out)
    return times


def _ask_parents(git: Git, blobs: Mapping[str, _Traces], left_out: Collection[tuple[_Traces, str, bytes]]) -> None:
    """Note which of these commits have the blob at this path."""
    names = (parent.encode("ascii") + b":" + path + b"\n" for _, parent, path in left_out)
    answers = git.pipe([_AS_STORED, "cat-file", "--batch-check=%(objectname)"], given=names) if left_out else ()
    for (traces, parent, _), line in zip(left_out, split(answers, b"\n"), strict=True):
        if blobs.get(os.fsdecode(line)) is traces:
            traces.commits.add(parent)


def _ask_tips(git: Git, blobs: dict[str, _Traces], times: Mapping[str, int]) -> None:
    """Note which blobs a branch or tag still has, and the newest of the tips that have it."""
    reached = ["rev-list", "--objects", "--no-object-names", "--missing=allow-any", "--no-walk", "--all"]
    for line in split(git.pipe([_AS_STORED, *reached]), b"\n"):
        if (traces := blobs.get(line.decode("ascii"))) is not None:
            traces.is_current = True
    current = {name: traces for name, traces in blobs.items() if traces.is_current}
    if not current:
        return
    top = _Sought()
    for traces in current.values():
        for path in traces.paths:
            top.note(os.fsencode(path).split(b"/"))
    tips = git.ask(_AS_STORED, "rev-list", "--no-walk", "--all").decode("ascii").split()
    # The newest first: a tip that asks for a tree after another tip adds nothing.
    tips.sort(key=lambda tip: (times.get(tip, 0), tip), reverse=True)
    asked = {(f"{tip}^{{tree}}", id(top)): (top, tip) for tip in tips}
    seen: set[tuple[str, int]] = set()
    while asked:
        following: dict[tuple[str, int], tuple[_Sought, str]] = {}
        for (folder, tip), (name, tree) in zip(asked.values(), _trees(git, [name for name, _ in asked]), strict=True):
            if (name, id(folder)) in seen:
                continue
            seen.add((name, id(folder)))
            for part, entry in _entries(tree, len(name) // 2, folder.names):
                if entry in current and part in folder.files:
                    current[entry].commits.add(tip)
                if (inner := folder.folders.get(part)) is not None:
                    following.setdefault((entry, id(inner)), (inner, tip))
        asked = following


class _Sought:
    """A folder on the way to large files: which names to look for in it."""

    def __init__(self) -> None:
        self.files: set[bytes] = set()
        self.folders: dict[bytes, _Sought] = {}

    @property
    def names(self) -> set[bytes]:
        return self.files | self.folders.keys()

    def note(self, path: list[bytes]) -> None:
        """Note a path below this folder."""
        folder = self
        for part in path[:-1]:
            folder = folder.folders.setdefault(part, _Sought())
        folder.files.add(path[-1])


def _trees(git: Git, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of each tree; the content is empty if it is not a tree, or not here."""
    chunks = git.pipe([_AS_STORED, "cat-file", "--batch"], given=(f"{name}\n".encode() for name in names))
    rest = b""
    for _ in names:
        while b"\n" not in rest:
            rest += next(chunks)
        head, _, rest = rest.partition(b"\n")
        name, kind, *size = head.decode("ascii", "replace").split(" ")
        if not size:  # it is missing, or does not lead to a tree
            yield "", b""
            continue
        end = int(size[0]) + 1
        parts, length = [rest], len(rest)
        while length < end:
            parts.append(next(chunks))
            length += len(parts[-1])
        whole = b"".join(parts)
        rest = whole[end:]
        yield name, whole[: end - 1] if kind == "tree" else b""
    for _ in chunks:  # read to the end, so that a failure of git is reported
        pass


def _entries(tree: bytes, length: int, names: Collection[bytes]) -> Iterator[tuple[bytes, str]]:
    """Yield the entries of a tree with one of ``names``: the name and the object, whose id has ``length`` bytes."""
    at = 0
    while at < len(tree):
        end = tree.index(b"\0", at)
        name = tree[tree.index(b" ", at) + 1 : end]
        at = end + 1 + length
        if name in names:
            yield name, tree[end + 1 : at].hex()
