"""Arbitrary faults, from a seed: whatever servers do, a run ends soon, with the right file or with a clean error.

The oracle is simple: one good address is enough, and the file in place is one complete version.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from grym_fetch import MirrorsExhausted
from grym_fetch.errors import DigestMismatch
from grym_fetch.testing import (
    BigHeaders,
    ChangeContent,
    Chunked,
    ChunkedCut,
    CloseDelimited,
    ContentLength,
    ContentRange,
    Endless,
    ETag,
    Fault,
    FlipByte,
    FlippingETag,
    Gzip,
    HtmlPage,
    IgnoreIfRange,
    LongPartial,
    LyingTotal,
    MultipartRanges,
    NoRanges,
    NoValidator,
    RangeNotSatisfiable,
    RefuseRanges,
    Reset,
    RetryAfter,
    ServedFile,
    ServerGone,
    ShiftRange,
    ShortPartial,
    SliceAs200,
    Status,
    Truncate,
    WeakETag,
    WrongFile,
    seeded_bytes,
)
from tests.regressions.world import CONTENT, HALF, SIZE, World
from tests.support.project import KIB
from tests.support.sweeps import typical

OLD = seeded_bytes(SIZE, seed=31)
SHORTER = seeded_bytes(HALF, seed=32)


def any_fault(dice: random.Random, *, lies: bool) -> Fault:
    """One fault, with limits that let others have a turn. ``lies``: including those that only a checksum can detect."""
    at = dice.choice([0, 1, 10 * KIB, 70 * KIB, HALF, SIZE - 1])
    limits: dict[str, Any] = {"times": dice.choice([1, 1, 2, 4, None]), "skip": dice.choice([0, 0, 1, 2, 5])}
    kinds: list[Callable[[], Fault]] = [
        lambda: Reset(after=at, **limits),
        lambda: Truncate(after=at, **limits),
        lambda: Truncate(after=0, covering=at, **limits),
        lambda: ServerGone(**limits),
        lambda: ChunkedCut(after=at, **limits),
        lambda: Chunked(**limits),
        lambda: CloseDelimited(http10=dice.random() < 0.5, **limits),
        lambda: Endless(chunked=dice.random() < 0.5, **limits),
        lambda: BigHeaders(**limits),
        lambda: ContentLength(
            value=dice.choice(["5a", "-1", *([str(HALF), str(2 * SIZE), "0"] if lies else [])]), **limits
        ),
        lambda: NoRanges(**limits),
        lambda: IgnoreIfRange(**limits),
        lambda: ContentRange(
            value=dice.choice([None, "bytes */9", "bytes 0-9/10", "x", f"bytes 0-{SIZE - 1}/{SIZE}"]), **limits
        ),
        lambda: LyingTotal(total=dice.choice((SIZE - 1, SIZE + 1, 1)) if lies else "*", **limits),
        lambda: ShiftRange(by=dice.choice([-512, 512]), truthful=not lies or dice.random() < 0.5, **limits),
        lambda: ShortPartial(by=1000, times=dice.choice([1, 4])),
        lambda: LongPartial(by=1000, **limits),
        lambda: SliceAs200(content_range=dice.random() < 0.5, **limits),
        lambda: MultipartRanges(**limits),
        lambda: RangeNotSatisfiable(
            content_range=dice.choice([None, f"bytes */{SIZE}", f"bytes */{HALF}", "*/1"]), **limits
        ),
        lambda: RefuseRanges(status=dice.choice([400, 403, 501]), **limits),
        lambda: ChangeContent(
            dice.choice([OLD, SHORTER, CONTENT]), keep_validators=lies and dice.random() < 0.3, **limits
        ),
        lambda: ETag(value=dice.choice([None, 'W/"weak"', "bad", *(['"same"'] if lies else [])]), **limits),
        lambda: WeakETag(**limits),
        lambda: FlippingETag(**limits),
        lambda: NoValidator(**limits),
        lambda: Gzip(ranges=dice.random() < 0.5, **limits),
        lambda: Status(dice.choice([401, 403, 404, 408, 410, 429, 500, 503, 302, 204, 304]), **limits),
        lambda: RetryAfter(value=dice.choice(["1", "soon", None]), **limits),
    ]
    if lies:
        kinds += [lambda: WrongFile(**limits), lambda: FlipByte(at=at, **limits), lambda: HtmlPage(**limits)]
    return dice.choice(kinds)()


async def one_story(world: World, seed: int, *, pinned: bool) -> None:
    """Up to three bad addresses and perhaps a good one; up to three runs with them, until one succeeds."""
    dice = random.Random(seed)
    bad = [
        world.serve(*(any_fault(dice, lies=pinned) for _ in range(dice.randint(1, 4))), path=f"/{number}.bin")
        for number in range(dice.randint(1, 3))
    ]
    origins: list[ServedFile] = list(bad)
    has_good = pinned and dice.random() < 0.6
    if has_good:
        origins.insert(dice.randint(0, len(origins)), world.serve(path="/good.bin"))
    world.list(*origins, pinned=pinned, size=dice.random() < 0.5)
    if not pinned:
        world.also_allowed = [OLD, SHORTER]
    for _ in range(dice.randint(1, 3)):
        world.forget()
        failure = await world.sync(
            parallel=dice.randint(1, 4),
            retries=dice.randint(0, 3),
            mirrors=dice.choice(["fallback", "together"]),
            stall_timeout=0.2,
            allow_unpinned=True,
            may_lose=None,
        )
        assert world.asked <= 60 * len(origins)
        assert failure is None or isinstance(failure, MirrorsExhausted | DigestMismatch)
        assert not has_good or failure is None, str(failure)
        if failure is None:
            assert world.project.staged() == []
            break


SEEDS = typical(range(600), *range(12))


@pytest.mark.shows("C3", "C8", "A19", "R28")
@pytest.mark.parametrize("seed", SEEDS)
async def test_any_faults_with_a_checksum(world: World, seed: int) -> None:
    """Faults and lies, three addresses and three runs: the right file or an error; with a good address, the file."""
    await one_story(world, seed, pinned=True)


@pytest.mark.shows("R9", "R12", "B40")
@pytest.mark.parametrize("seed", SEEDS)
async def test_any_faults_without_a_checksum(world: World, seed: int) -> None:
    """Without a checksum a lie cannot be detected; everything else ends as one complete version, or as an error."""
    await one_story(world, seed, pinned=False)
