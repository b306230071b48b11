"""The Dockerfile: each instruction is understood, what it copies is there. `make test-dockerfile` does the steps."""

from __future__ import annotations

import json
import tomllib

import pytest

from tools.debian_root import CHECKOUT
from tools.dockerfile import FILE, context, read

STAGES = read(FILE.read_text(encoding="utf-8"))


def test_stages_copy_from_earlier_ones() -> None:
    """A stage is named before it is copied from, and the images have a Python that is supported."""
    made: set[str] = set()
    for stage in STAGES:
        named = {argument.split()[0] for name, argument in stage.steps if name == "COPY" and "--from" in argument}
        assert {each.partition("=")[2] for each in named} <= made
        assert stage.image.startswith("python:3.")
        made.add(stage.name)


def test_what_the_wheel_needs_is_given_to_the_build() -> None:
    """All of the package and its man pages, what pyproject.toml names, and neither tests nor what git ignores."""
    given = set(context((CHECKOUT / ".dockerignore").read_text(encoding="utf-8")))
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {"pyproject.toml", project["readme"], *project["license-files"], "man/grym-fetch.1"} <= given
    assert {f"grym_fetch/{path.name}" for path in (CHECKOUT / "grym_fetch").glob("*.py")} <= given
    assert {name.split("/")[0] for name in given if "/" in name} == {"grym_fetch", "man"}


def test_the_entry_point_is_the_command() -> None:
    """It is a script of the package."""
    [words] = [argument for stage in STAGES for name, argument in stage.steps if name == "ENTRYPOINT"]
    scripts = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert json.loads(words)[0] in scripts


def test_what_is_not_understood_is_named() -> None:
    """An instruction that the steps would skip is an error."""
    with pytest.raises(ValueError, match="ADD"):
        read("FROM a\nADD b c\n")
