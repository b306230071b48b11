"""Settings: invalid values are refused where they are given, by name, and in the same words on the command line."""

from __future__ import annotations

import dataclasses
import math
import os
from typing import Any

import pytest
from click.testing import CliRunner

from grym_fetch import AssetManager, Settings
from grym_fetch.cli.main import cli
from grym_fetch.settings import RULES, SegmentSizes

NONSENSE: dict[str, list[object]] = {
    "parallel": [0, -3, True, 2.0, "4", None],
    "max_per_host": [0, -1, False, 1.5, "all"],
    "mirrors": ["togehter", "", None, 1],
    "mirror_rules": [None, "https://a/=https://b/", [], ("https://a/",)],
    "limit_rate": [0, -1, 0.0, math.nan, math.inf, True, "10M"],
    "retries": [-1, True, 1.0, None],
    "stall_timeout": [0, -1.0, math.nan, math.inf, "30", None, True],
    "connect_timeout": [0, -1.0, math.nan, math.inf, None],
    "patience": [-1, math.nan, math.inf, "120", None, True],
    "lock_timeout": [-1, math.nan, math.inf, -math.inf, None, False],
    "offline": [1, 0, None, "yes"],
    "allow_unpinned": [1, "no"],
    "allow_stale": [1, "no"],
    "allow_private_addresses": [0, None],
    "pipelining": [1, None],
    "store": [None, "", 1, "a\0b"],
    "link_mode": ["clone", None, True],
    "adopt": [1, None],
    "sizes": [None, 1024, {"piece": 1}],
}
SENSE: list[dict[str, Any]] = [
    {},
    {"parallel": 1, "max_per_host": 1, "retries": 0, "lock_timeout": 0, "patience": 0},
    {"mirrors": "together", "limit_rate": 1, "stall_timeout": 0.001, "connect_timeout": 1},
    {
        "limit_rate": 10**30,
        "offline": True,
        "allow_private_addresses": False,
        "pipelining": False,
        "store": "/srv/store",
        "link_mode": "copy",
        "adopt": True,
        "sizes": SegmentSizes(piece=1),
    },
]
CASES = [(name, value) for name, values in NONSENSE.items() for value in values]
OPTIONS = {
    "parallel": ["0", "-3"],
    "max_per_host": ["0"],
    "limit_rate": ["0"],
    "retries": ["-1"],
    "stall_timeout": ["0", "nan", "inf"],
    "connect_timeout": ["-1", "nan"],
    "patience": ["-1", "nan"],
    "lock_timeout": ["-1", "inf"],
}


def test_every_field_has_its_rule() -> None:
    """No field of the settings is left unchecked, here or in this test."""
    fields = [field.name for field in dataclasses.fields(Settings)]
    assert list(RULES) == list(NONSENSE) == fields


@pytest.mark.parametrize(("name", "value"), CASES)
def test_nonsense_is_refused_by_name(name: str, value: object) -> None:
    """A value that makes no sense is a ValueError that names the field, what is allowed, and the value."""
    nonsense: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"^{name} must be ") as caught:
        Settings(**nonsense)
    assert RULES[name].words in str(caught.value)
    assert str(caught.value).endswith(f", not {value!r}")
    with pytest.raises(ValueError, match=f"^{name} must be "):
        dataclasses.replace(Settings(), **nonsense)


@pytest.mark.parametrize("chosen", SENSE)
def test_sense_is_taken(chosen: dict[str, Any]) -> None:
    """The bounds themselves are allowed, and so are whole numbers for seconds or bytes."""
    settings = Settings(**chosen)
    assert {name: getattr(settings, name) for name in chosen} == chosen


def test_a_manager_refuses_nonsense() -> None:
    """A value given directly to a manager follows the same rules."""
    with pytest.raises(ValueError, match="parallel must be a whole number of at least 1, not -3"):
        AssetManager(parallel=-3, environ={})


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(SegmentSizes)])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, None])
def test_sizes_are_whole_and_positive(name: str, value: object) -> None:
    """Content is divided into whole bytes, at least one at a time."""
    nonsense: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"^{name} must be a whole number of at least 1, not "):
        SegmentSizes(**nonsense)


@pytest.mark.parametrize(
    "sizes", [{"smallest": 9, "first": 8, "largest": 9}, {"first": 8, "largest": 7, "smallest": 1}]
)
def test_sizes_are_in_order(sizes: dict[str, int]) -> None:
    """The first segment is neither smaller than the smallest nor larger than the largest."""
    with pytest.raises(ValueError, match=r"^first must be between smallest \(\d\) and largest \(\d\), not 8$"):
        SegmentSizes(**sizes)


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in OPTIONS.items() for text in texts])
@pytest.mark.parametrize("way", ["option", "environment"])
def test_the_command_line_says_the_same(name: str, text: str, way: str) -> None:
    """An invalid option or environment variable is wrong usage, in the words of the settings."""
    option = "--" + name.replace("_", "-")
    arguments = ["sync", option, text] if way == "option" else ["sync"]
    environ = {} if way == "option" else {f"GRYM_FETCH_{name.upper()}": text}
    done = CliRunner().invoke(cli, arguments, env={**os.environ, **environ})
    assert done.exit_code == 2
    assert option in done.stderr
    assert f"must be {RULES[name].words}, not " in " ".join(done.stderr.split())


def test_no_other_mirrors_on_the_command_line() -> None:
    """A misspelt choice is wrong usage, and the right ones are listed."""
    done = CliRunner().invoke(cli, ["sync", "--mirrors", "togehter"])
    assert done.exit_code == 2
    assert "'fallback', 'together'" in done.stderr
