"""The site: its pages are there, its links lead somewhere, its picture is of today. Building it is `make docs`."""

from __future__ import annotations

import re

import pytest

from grym_fetch.cli.main import COMMANDS
from tests.house.test_documentation import ROOT
from tools.picture import FILE, picture
from tools.site import generated, linked

NAV = re.findall(r"^ +- .*: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)


def test_every_page_is_in_the_navigation_once() -> None:
    """Those of docs/ and those that are made, and no other."""
    written = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert len(NAV) == len(set(NAV))
    assert set(NAV) == written | set(generated())


def test_the_picture_is_drawn_by_the_display_of_today() -> None:
    """After a change of the display: `make picture`, and a look at it. It loads nothing from elsewhere."""
    assert FILE.read_text(encoding="utf-8") == picture()
    assert not re.search(r"url\((?!#)|href=|@import|@font-face|<script", picture())
    assert re.findall(r"font-family: (.*);", picture()) == ["ui-monospace, monospace", "system-ui, sans-serif"]


def test_the_help_of_each_command_is_a_page() -> None:
    """As the command prints it."""
    text = generated()["reference/commands.md"]
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == list(COMMANDS)
    assert "--report FILE" in text


@pytest.mark.parametrize(
    ("place", "link", "shown"),
    [
        ("index.md", "[a](docs/guide.md)", "[a](guide.md)"),
        ("index.md", "[a](docs/guide.md#b)", "[a](guide.md#b)"),
        ("index.md", "[a](LICENSE)", "a"),
        ("guide.md", "[a](../README.md)", "[a](index.md)"),
        ("guide.md", "[a](../tests/x.py)", "a"),
        ("how-to/ci.md", "[a](../guide.md)", "[a](../guide.md)"),
        ("how-to/ci.md", "[a](../../CHANGELOG.md)", "[a](../CHANGELOG.md)"),
        ("guide.md", "[a](https://example.org/)", "[a](https://example.org/)"),
        ("guide.md", "[a](#b)", "[a](#b)"),
        ("guide.md", "```\n[a](../x)\n```", "```\n[a](../x)\n```"),
    ],
)
def test_a_link_works_in_the_site_too(place: str, link: str, shown: str) -> None:
    """A page keeps its links; a file without a page keeps its words."""
    assert linked(link, place, set(NAV)) == shown
