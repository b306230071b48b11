"""What ``pyproject.toml`` and ``constraints.txt`` say about other packages.

``python -m tests.house.dependencies`` prints constraints that allow only the oldest version of each dependency.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_NEEDED = re.compile(r"(?P<name>[\w.-]+)>=(?P<oldest>[\d.]+)(?:; .*)?")


@dataclass(frozen=True)
class Dependency:
    """One package, the oldest version allowed, and whether a comment stands before it."""

    name: str
    oldest: str
    has_reason: bool


def canonical(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def dependencies() -> list[Dependency]:
    """What the package needs at run time, with its extra ``speed``."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    found = []
    for line in [*project["dependencies"], *project["optional-dependencies"]["speed"]]:
        match = _NEEDED.fullmatch(line)
        assert match is not None, f"{line!r} has no lower bound alone"
        before = text[: text.index(f'"{line}')].splitlines()
        reason = before[-2] if before[-1].endswith("[") else before[-1] if before[-1].strip() else before[-2]
        found.append(Dependency(canonical(match["name"]), match["oldest"], reason.strip().startswith("#")))
    return found


def pinned() -> dict[str, str]:
    """The exact version of each package in ``constraints.txt``."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.partition(";")[0].strip() for line in lines if line and not line.startswith("#")]
    return {canonical(name): version for name, _, version in (pin.partition("==") for pin in pins)}


if __name__ == "__main__":
    for each in dependencies():
        print(f"{each.name}=={each.oldest}")  # noqa: T201 - its output
