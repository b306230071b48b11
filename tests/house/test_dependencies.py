"""Dependencies are bounded, with reasons, and pinned exactly."""

from __future__ import annotations

import importlib.metadata
import re

import pytest

from tests.house.dependencies import ROOT, canonical, dependencies, pinned

pytestmark = pytest.mark.shows("S15")


def as_numbers(version: str) -> list[int]:
    """A version in a form that can be compared."""
    return [int(number) for number in re.findall(r"\d+", version)]


def test_each_dependency_has_a_minimum_and_a_reason() -> None:
    """A change of a bound should not miss why it is there."""
    assert [each.name for each in dependencies() if not each.has_reason] == []


def test_what_it_is_developed_with_is_listed_exactly() -> None:
    """Every package that an install brings is pinned, so that two machines on two days get the same."""
    needed, left = set(), {"grym-fetch"}
    extras = {"grym-fetch": {"dev", "speed"}}
    while left:
        name = left.pop()
        needed.add(name)
        for requirement in importlib.metadata.requires(name) or []:
            words, _, marker = requirement.partition(";")
            other = canonical(re.match(r"[\w.-]+", words)[0])  # type: ignore[index]  # it begins with a name
            extra = re.search(r"extra == ['\"](\w+)['\"]", marker)
            wanted = extra is None or extra[1] in extras.get(name, set())
            if wanted and other not in needed and _is_installed(other):
                left.add(other)
    assert needed - {"grym-fetch", "pip"} <= pinned().keys()
    assert len(needed) > 30


def test_the_list_holds_versions_and_nothing_else() -> None:
    """It has no address of an index or a file: it must work wherever packages come from."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    exact = re.compile(r"[\w.-]+==[\w.]+(; [a-z_]+ [!=<>]+ \"[\w.]+\")?")
    assert [line for line in lines if not (line.startswith("#") or exact.fullmatch(line))] == []


def test_what_is_listed_is_allowed() -> None:
    """No pin is older than the bound."""
    versions = pinned()
    assert [each.name for each in dependencies() if as_numbers(versions[each.name]) < as_numbers(each.oldest)] == []


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
