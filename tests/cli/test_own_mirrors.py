"""What commands say about mirrors of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from grym_fetch.cli.main import cli
from tests.support.project import Project

RULES = "https://models.example.org/ = https://cache.example.org/m/"


def invoke(*arguments: str) -> str:
    """The output of a command that succeeds."""
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest in the working folder, and a rule that is about its asset."""
    Project(tmp_path).add("a", ["https://models.example.org/a.bin"], b"content")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRYM_FETCH_MIRRORS", RULES)


def test_info_lists_them_in_the_order_they_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also an address that is not asked at all."""
    lines = [line.split(maxsplit=1) for line in invoke("info", "a").splitlines()]
    at = lines.index(["own", "mirror   https://cache.example.org/m/a.bin"])
    assert lines[at + 1] == ["url", "https://models.example.org/a.bin"]
    assert json.loads(invoke("info", "a", "--json"))["asked"] == [
        "https://cache.example.org/m/a.bin",
        "https://models.example.org/a.bin",
    ]
    monkeypatch.setenv("GRYM_FETCH_MIRRORS", f"{RULES} only")
    assert "a.bin  (not asked: your mirrors take its place)" in invoke("info", "a")


def test_the_plan_says_where_a_file_would_come_from() -> None:
    """In words, and for programs."""
    assert "(at your mirror first: https://cache.example.org/m/a.bin)" in invoke("sync", "-n")
    plan = json.loads(invoke("sync", "-n", "--json"))
    assert plan["fetch"][0]["from"] == "https://cache.example.org/m/a.bin"


def test_config_shows_the_rules_and_their_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable gives the rules and not the mode; without it, a project's file gives both."""
    rows = {row["name"]: row for row in map(json.loads, invoke("config", "--json").splitlines())}
    assert rows["mirrors (rules)"]["value"] == RULES
    assert rows["mirrors (rules)"]["source"] == "environment"
    assert (rows["mirrors"]["value"], rows["mirrors"]["source"]) == ("fallback", "default")
    monkeypatch.delenv("GRYM_FETCH_MIRRORS")
    table = '[tool.grym-fetch.mirrors]\nuse = "together"\nonly = true\n"https://a.example.org/" = "https://b.example.org/"\n'
    (tmp_path / "pyproject.toml").write_text(table)
    rows = {row["name"]: row for row in map(json.loads, invoke("config", "--json").splitlines())}
    assert rows["mirrors (rules)"]["value"] == "https://a.example.org/ = https://b.example.org/ (only)"
    assert {rows[name]["source"] for name in ("mirrors", "mirrors (rules)")} == {"project"}
