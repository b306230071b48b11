"""Work is cut into tasks of about a minute: each asset once, big ones alone and first, small tasks at the end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.cluster.cutting import (
    FIRST_BYTES,
    FIRST_COUNT,
    LEAST_S,
    MAX_COUNT,
    TASK_S,
    TaskPace,
    TaskSize,
    cut,
    weight,
)
from grym_fetch.core.manifest import Asset

SIZES = st.one_of(st.none(), st.integers(0, 50), st.integers(0, 10**9))


def assets_of(sizes: list[int | None]) -> list[Asset]:
    """An asset for each size."""
    return [Asset(f"a{n}", f"https://h.example/{n}", f"a{n}.bin", size=size) for n, size in enumerate(sizes)]


@given(st.lists(st.lists(SIZES, max_size=20), max_size=5), st.integers(1, 200), st.integers(1, 9))
def test_each_asset_is_in_one_task_within_its_bounds(batches: list[list[int | None]], size: int, count: int) -> None:
    """However the assets come, each is in exactly one task; a task is only too big if it has a single asset."""
    assets = assets_of([each for batch in batches for each in batch])
    rest = iter(assets)
    parts = [[next(rest) for _ in batch] for batch in batches]
    tasks = list(cut(parts, lambda: TaskSize(size, count)))
    assert sorted(asset.id for task in tasks for asset in task) == sorted(asset.id for asset in assets)
    for task in tasks:
        assert 1 <= len(task) <= count
        assert len(task) == 1 or sum(map(weight, task)) <= size
    firsts = [weight(task[0]) for task in tasks]
    assert firsts == sorted(firsts, reverse=True)


def test_a_big_asset_is_alone_and_first() -> None:
    """What fills a task by itself does not wait behind small ones, nor they behind it."""
    tasks = list(cut([assets_of([1, 2, 500, 3])], lambda: TaskSize(100, 10)))
    assert [[asset.size for asset in task] for task in tasks] == [[500], [3, 2, 1]]


def test_each_task_is_as_big_as_is_known_when_it_is_cut() -> None:
    """The size is asked for again for each task, and no task is cut before somebody wants it."""
    sizes = iter([TaskSize(100, 1), TaskSize(100, 2), TaskSize(100, 9)])
    tasks = cut([assets_of([1] * 6)], lambda: next(sizes))
    assert [len(task) for task in tasks] == [1, 2, 3]


def test_a_task_is_about_a_minute_of_what_a_node_does() -> None:
    """What has been measured decides, whether bytes or requests are what takes the time."""
    pace = TaskPace()
    assert pace.next_size(10**15, 10**9, 4) == TaskSize(FIRST_BYTES, FIRST_COUNT)
    pace.learn(5 * 10**9, 10, 50.0)
    assert pace.next_size(10**15, 10**9, 4) == TaskSize(round(2 * 10**8 * TASK_S), round(0.4 * TASK_S))
    pace.learn(1000 * 5000, 5000, 1.0)
    assert pace.next_size(10**15, 10**9, 4).count == MAX_COUNT
    pace.learn(0, 0, 1.0)
    pace.learn(10, 10, 0.0)
    assert pace.next_size(10**15, 10**9, 4).count == MAX_COUNT, "what was there already says nothing"


def test_the_last_tasks_are_small() -> None:
    """What is left is divided among the nodes, so that they end together; but not into what is not worth a task."""
    pace = TaskPace()
    pace.learn(1000, 10, 1.0)
    assert pace.next_size(80_000, 800, 4) == TaskSize(10_000, 100)
    assert pace.next_size(800, 8, 4) == TaskSize(round(1000 * LEAST_S), round(10 * LEAST_S))
