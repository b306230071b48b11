"""The power fails at any moment: what is left is never wrong, nothing reported is lost, and the next run goes on.

See `tests.support.power_cut` for what a disk may do to unflushed data. Recovery here uses the real reader,
then the real manager against an origin in memory.
"""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grym_fetch import SyncFailed
from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import ConnectionLost
from grym_fetch.disk import stage as stages
from grym_fetch.disk.assets_folder import AssetsFolder
from grym_fetch.disk.stage import StageKey
from grym_fetch.testing import seeded_bytes
from tests.support.fakes import read_proved
from tests.support.power_cut import (
    NOTHING_LOST,
    WORST,
    Chance,
    Fate,
    Recording,
    Tree,
    no_flushing,
    recording,
    write_tree,
)
from tests.support.project import Project
from tests.support.properties import examples
from tests.support.small_world import SmallWorld
from tests.support.sweeps import typical

SIZE = 40_001
NEW = seeded_bytes(SIZE, seed=91)
OLD = seeded_bytes(9_000, seed=92)
SECOND = seeded_bytes(12_345, seed=93)
PIECES = {"size": 16_384, "sha256": [Checksum.of(NEW[at : at + 16_384]).hexdigest for at in range(0, SIZE, 16_384)]}
URL, MIRROR, OTHER = (f"https://{host}.example/a.bin" for host in ("origin", "mirror", "other"))


@dataclass(frozen=True)
class Story:
    """What happens before and while the power fails. ``wanted``: what each file must be in the end."""

    run: Callable[[Project, SmallWorld], Awaitable[object]]
    contents: Mapping[str, bytes]
    wanted: Mapping[str, bytes] = field(default_factory=lambda: {"assets/models/a.bin": NEW})
    old: bytes | None = None
    pinned: bool = True
    pieces: bool = False
    there: Tree = field(default_factory=dict)
    """What else is there before."""
    store: bool = False
    """Whether the project has a store, beside its assets folder."""

    def settings(self, project: Project) -> dict[str, Any]:
        """The settings of each run."""
        return {"store": str(project.root / "store")} if self.store else {}

    def project(self, root: Path) -> Project:
        """A project that wants these files."""
        project = Project(root)
        urls = [url for url in self.contents if url != OTHER]
        more = {"pieces": PIECES} if self.pieces else {}
        project.add("a", urls, NEW, pinned=self.pinned, size=self.pinned, **more)
        if OTHER in self.contents:
            project.add("b", [OTHER], SECOND)
        return project

    def before(self, root: Path) -> Project:
        """The project before anything happens."""
        project = self.project(root)
        if self.old is not None:
            write_tree(root, {"assets": None, "assets/models": None, "assets/models/a.bin": self.old})
        write_tree(root, self.there)
        return project


async def once(project: Project, world: SmallWorld) -> None:
    """One run."""
    await world.sync(project)


async def shared(project: Project, world: SmallWorld) -> None:
    """One run with a store."""
    await world.sync(project, store=str(project.root / "store"))


async def copied(project: Project, world: SmallWorld) -> None:
    """One run with a store whose files are only copied."""
    await world.sync(project, store=str(project.root / "store"), link_mode="copy")


async def forced(project: Project, world: SmallWorld) -> None:
    """One run that fetches what is there."""
    await world.sync(project, force=True)


async def unpinned(project: Project, world: SmallWorld) -> None:
    """One run of an asset without a checksum."""
    await world.sync(project, allow_unpinned=True)


async def interrupted(project: Project, world: SmallWorld) -> None:
    """The connection breaks half-way, twice, without recovery; the third run finishes."""
    gate = world.gate
    for limit in (SIZE // 3, 2 * SIZE // 3):

        async def fail(name: str, limit: int = limit) -> None:
            if name in ("get", "read") and world.sent >= limit:
                raise ConnectionLost(URL, "it broke off")
            await gate(name)

        world.gate = fail
        with suppress(SyncFailed):
            await world.sync(project, retries=0)
    world.gate = gate
    await world.sync(project)


async def far_away(project: Project, world: SmallWorld) -> None:
    """One run in which the file's folder is on a file system of its own."""
    rename = os.rename

    def refuse(
        source: str | Path, target: str | Path, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
    ) -> None:
        if str(source).endswith("part") and src_dir_fd != dst_dir_fd:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    with mock.patch("os.rename", refuse):
        await world.sync(project)


FLIPPED = NEW[:30_000] + bytes([NEW[30_000] ^ 1]) + NEW[30_001:]
OBJECT = f"store/objects/sha256/{Checksum.of(NEW).hexdigest[:2]}/{Checksum.of(NEW).hexdigest}"
BOTH = {"assets/models/a.bin": NEW, OBJECT: NEW}
STORED: Tree = {
    **dict.fromkeys(("store", *(OBJECT.rsplit("/", count)[0] for count in (3, 2, 1)))), OBJECT: NEW,
}  # fmt: skip
STORIES = {
    "fresh": Story(once, {URL: NEW}),
    "replaced": Story(once, {URL: NEW}, old=OLD),
    "fetched anew": Story(forced, {URL: NEW}, old=NEW),
    "interrupted": Story(interrupted, {URL: NEW}, old=OLD),
    "one origin lies": Story(once, {URL: FLIPPED, MIRROR: NEW}),
    "without a checksum": Story(unpinned, {URL: NEW}, pinned=False),
    "repaired": Story(once, {URL: NEW}, old=FLIPPED[:-1], pieces=True),  # not read as a whole: its length is wrong
    "one origin lies in a piece": Story(once, {URL: FLIPPED, MIRROR: NEW}, pieces=True),
    "another file system": Story(far_away, {URL: NEW}, old=OLD),
    "kept in the store": Story(shared, {URL: NEW}, BOTH, old=OLD, store=True),
    "copied into the store": Story(copied, {URL: NEW}, BOTH, store=True),
    "taken from the store": Story(shared, {URL: NEW}, BOTH, old=OLD, there=STORED, store=True),
    "copied from the store": Story(copied, {URL: NEW}, BOTH, there=STORED, store=True),
    "two files": Story(once, {URL: NEW, OTHER: SECOND}, {"assets/models/a.bin": NEW, "assets/models/b.bin": SECOND}),
}


@contextmanager
def folder() -> Iterator[Path]:
    """A new folder; not from a fixture, since a test may need hundreds."""
    with tempfile.TemporaryDirectory(prefix="grym-fetch-") as name:
        yield Path(name)


def record(story: Story, project: Project) -> Recording:
    """Run a story and record what it asked of the disk."""
    world = SmallWorld(story.contents)
    with recording(project.root) as recorder:
        asyncio.run(story.run(project, world))  # type: ignore[arg-type]  # a coroutine, each of them
    for path, content in story.wanted.items():
        assert (project.root / path).read_bytes() == content
    return Recording(recorder.before, recorder.calls)


@pytest.fixture(scope="module")
def recordings() -> dict[str, Recording]:
    """Every story, as it runs when nothing fails."""
    made = {}
    # Often enough that flushes in the background are recorded, too.
    with mock.patch.object(stages, "FLUSH_EVERY_BYTES", 16_384):
        for name, story in STORIES.items():
            with folder() as root:
                made[name] = record(story, story.before(root / "project"))
    return made


def check_finals(story: Story, tree: Tree, told: set[str], old: Tree) -> None:
    """Each final file is absent, old or new; the old one never vanishes, nor does the new one once reported."""
    for path, content in story.wanted.items():
        there = tree.get(path)
        assert there in (content, old.get(path)), "neither the old nor the new file"
        assert there == content or path not in told, "somebody was told of it, and it is gone"


async def prove(project: Project, story: Story, world: SmallWorld) -> int:
    """How many bytes the real reader finds on the stages and can prove; each of them came from an origin."""
    proved = 0
    assets_folder = AssetsFolder(project.assets, make_threads=world.threads)
    await assets_folder.prepare()
    for entry in project.entries:
        path, checksum = str(entry["localPath"]), str(entry.get("checksum", ""))
        given = [content for url, content in story.contents.items() if url in (entry["url"], *entry["fallbackUrls"])]  # type: ignore[misc]
        stage = await assets_folder.open_stage(StageKey(path, checksum), exclusive=True)
        for piece in stage.recovered.pieces:
            if (data := await read_proved(stage, piece)) is not None:
                assert data in [content[piece.start : piece.stop] for content in given]
                proved += len(data)
        await stage.close()
    assets_folder.close()
    return proved


async def recover(project: Project, story: Story, tree: Tree) -> None:
    """Start again from what is left."""
    world = SmallWorld(story.contents)
    to_fetch = {path: content for path, content in story.wanted.items() if tree.get(path) != content}
    proved = await prove(project, story, world) if story.pinned else 0
    await world.sync(project, allow_unpinned=True, **story.settings(project))
    for path, content in story.wanted.items():
        assert (project.root / path).read_bytes() == content
    if len(to_fetch) == len(story.wanted) == len(story.contents):
        missing = sum(map(len, to_fetch.values())) - proved
        assert world.sent == missing or (world.sent < missing and (story.pieces or not story.pinned)), (
            "fetched again, or not at all"
        )
        # A cut while a stage is being removed may leave it empty.
        assert not [stage for stage in project.staged() if (stage / "part").exists()]


def left_in(root: Path, story: Story, tree: Tree) -> Project:
    """A project with what a power cut left."""
    project = story.project(root / "project")
    write_tree(project.root, {path: content for path, content in tree.items() if path != project.manifest.name})
    return project


def check(name: str, recording: Recording, after: int, fate: Fate) -> None:
    """Pull the plug, check what is left, and start again."""
    story = STORIES[name]
    tree = recording.cut(after, fate)
    check_finals(story, tree, recording.told(after), recording.before)
    start_again(story, tree)


def start_again(story: Story, tree: Tree) -> None:
    """The next run puts right what a power cut left."""
    with folder() as root, no_flushing():
        asyncio.run(recover(left_in(root, story, tree), story, tree))


@pytest.mark.posix
@pytest.mark.shows("P1", "P2", "P4", "P6", "P15", "B48")
@pytest.mark.parametrize("number", range(len(STORIES)), ids=list(STORIES))
def test_power_cut_at_any_call(recordings: dict[str, Recording], number: int) -> None:
    """Whichever call was the last, and whatever kind of data is lost entirely, the next run puts it right.

    A seventh of the calls, another one for each story; the kinds of loss take turns.
    """
    name, kinds = list(STORIES)[number], list(WORST.values())
    calls = len(recordings[name].calls)
    for turn, after in enumerate(sorted({*range(number % len(kinds), calls, len(kinds)), calls}), number):
        check(name, recordings[name], after, kinds[turn % len(kinds)])


@pytest.mark.sweep
@pytest.mark.parametrize("name", STORIES)
def test_power_cut_after_every_call(recordings: dict[str, Recording], name: str) -> None:
    """The same after each call, for each kind of loss. What several of them leave alike is put right once."""
    story, recording = STORIES[name], recordings[name]
    left: set[frozenset[tuple[str, bytes | None]]] = set()
    for after in range(len(recording.calls) + 1):
        for fate in WORST.values():
            tree = recording.cut(after, fate)
            check_finals(story, tree, recording.told(after), recording.before)
            if (found := frozenset(tree.items())) not in left:
                left.add(found)
                start_again(story, tree)


@pytest.mark.posix
@pytest.mark.shows("P3", "P15", "S2")
@pytest.mark.parametrize("name", typical(STORIES, *list(STORIES)[::3]))
def test_nothing_told_is_ever_lost(recordings: dict[str, Recording], name: str) -> None:
    """Whatever became of unflushed bytes and names, the files are right after every single call."""
    story, recording = STORIES[name], recordings[name]
    dice = Random(name)
    for after in range(len(recording.calls) + 1):
        fates: list[Fate] = [*WORST.values(), *(Chance(dice) for _ in range(10))]
        for fate in fates:
            check_finals(story, recording.cut(after, fate), recording.told(after), recording.before)
    assert recording.told(len(recording.calls)) == story.wanted.keys(), "nobody was told, so nothing was shown"


@pytest.mark.shows("P1", "P3")
@pytest.mark.parametrize("name", ["fresh", "interrupted", "another file system"])
@pytest.mark.sweep
def test_killed_and_then_a_power_cut(recordings: dict[str, Recording], name: str) -> None:
    """The run that finishes a killed process's work flushes what that one had not: nothing reported is lost."""
    story, first = STORIES[name], recordings[name]
    for after in range(0, len(first.calls), 2):
        tree = first.cut(after, NOTHING_LOST)
        with folder() as root:
            second = record(story, left_in(root, story, tree))
        both = first.killed(after, second)
        assert both.cut(len(both.calls), NOTHING_LOST) == second.cut(len(second.calls), NOTHING_LOST)
        for fate in (*WORST.values(), Chance(Random(after))):
            check_finals(story, both.cut(len(both.calls), fate), both.told(len(both.calls)), both.before)


def pull_the_plug_twice(data: st.DataObject, recordings: dict[str, Recording]) -> None:
    """Power fails at any moment with any luck; the next run is cut off, too; the third one puts it right."""
    name = data.draw(st.sampled_from(sorted(STORIES)), label="story")
    story, first = STORIES[name], recordings[name]
    # Not `st.randoms`: hundreds of rolls, each one drawn by Hypothesis, take far longer than what is tested.
    dice = Random(data.draw(st.integers(0, 2**32 - 1), label="luck"))
    after = data.draw(st.integers(0, len(first.calls)), label="first cut after")
    tree = first.cut(after, Chance(dice))
    check_finals(story, tree, first.told(after), first.before)
    with folder() as root:
        second = record(story, left_in(root, story, tree))
    after = data.draw(st.integers(0, len(second.calls)), label="second cut after")
    check(name, second, after, Chance(dice))


@pytest.mark.posix
@pytest.mark.shows("P2", "P3", "D8")
@given(st.data())
@settings(examples(60), derandomize=True)
def test_power_cut_with_any_luck(recordings: dict[str, Recording], data: st.DataObject) -> None:
    """Two power cuts in a row, each keeping, losing and tearing what it likes, cost bandwidth and nothing else."""
    pull_the_plug_twice(data, recordings)


@pytest.mark.sweep
@pytest.mark.timeout(600)  # about half a minute on an idle machine
@given(st.data())
@settings(max_examples=400)
def test_power_cut_with_all_kinds_of_luck(recordings: dict[str, Recording], data: st.DataObject) -> None:
    """The same many times over."""
    pull_the_plug_twice(data, recordings)
