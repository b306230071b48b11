"""Settings files: what they may contain, and what a project may not choose for its user."""

from __future__ import annotations

import pytest

from grym_fetch.core.configuration import (
    FETCHING,
    KEYS,
    MAX_CONFIGURATION_BYTES,
    RULES,
    Configuration,
    parse_configuration,
)
from grym_fetch.core.errors import ConfigurationError
from grym_fetch.core.mirror_rules import MirrorRule

HEAD = "[project]\nname = 'x'\n[tool.grym-fetch]\n"
EVERY = """
assets-dir = "data/assets"
minimal = true
parallel = 8
max-per-host = 2
mirrors = "together"
limit-rate = "1.5M"
offline = true
no-private-addresses = true
no-pipelining = true
retries = 0
stall-timeout = 0.5
connect-timeout = 3
patience = 0
lock-timeout = 60
link-mode = "hardlink"
"""
ALLOWING = 'allow-stale = true\nallow-unpinned = true\nexternal-assets-dir = "~/x"\nstore = true\nadopt = true\n'


def of_project(text: str) -> Configuration:
    return parse_configuration((HEAD + text).encode(), "pyproject.toml", "project")


def of_user(text: str) -> Configuration:
    return parse_configuration(text.encode(), "config.toml", "user")


def test_every_key_is_read() -> None:
    """A key has the name and meaning of an option; one that begins with no- turns its setting off."""
    found = of_user(EVERY + ALLOWING)
    assert found.choices.keys() == {key.setting for key in KEYS} - {RULES.setting}
    assert found.fetching == {
        "parallel": 8, "max_per_host": 2, "mirrors": "together", "limit_rate": 1.5 * 1024**2, "offline": True,
        "allow_private_addresses": False, "pipelining": False, "retries": 0, "stall_timeout": 0.5, "patience": 0,
        "connect_timeout": 3, "lock_timeout": 60, "allow_stale": True, "allow_unpinned": True,
        "store": True, "link_mode": "hardlink", "adopt": True,
    }  # fmt: skip
    assert found.fetching.keys() == FETCHING.keys() - {RULES.setting}


MIRRORS = '[{}mirrors]\n"https://a.example.org/" = "https://{}.example.org/"\nonly = {}\n'


def test_rules_for_mirrors_are_a_table() -> None:
    """The table has the rules, and may say how mirrors are used; another word for that is refused."""
    found = of_user('[mirrors]\nuse = "together"\n"https://a.example.org/" = "https://b.example.org/"\n')
    rule = MirrorRule("https://a.example.org/", "https://b.example.org/")
    assert found.fetching == {"mirrors": "together", "mirror_rules": (rule,)}
    with pytest.raises(ConfigurationError, match="use must be one of"):
        of_user('[mirrors]\nuse = "both"\n')


def test_a_project_does_not_replace_the_mirrors_of_its_user() -> None:
    """Rules of both hold, so that no project reopens what its user has closed with `only`."""
    project = parse_configuration(MIRRORS.format("tool.grym-fetch.", "p", "false").encode(), "p", "project")
    both = project.over(of_user(MIRRORS.format("", "u", "true")))
    assert both.fetching["mirror_rules"] == (
        MirrorRule("https://a.example.org/", "https://p.example.org/"),
        MirrorRule("https://a.example.org/", "https://u.example.org/", only=True),
    )


def test_a_project_chooses_what_is_harmless() -> None:
    """A project chooses how fast, how long, where below its own folder, and what is forbidden."""
    found = of_project(EVERY)
    assert found.choices.keys() == of_user(EVERY).choices.keys()
    assert {choice.origin for choice in found.choices.values()} == {"project"}
    assert found.sources == ("pyproject.toml",)


@pytest.mark.shows("S23")
@pytest.mark.parametrize(
    "text",
    [
        "allow-unpinned = true", "allow-unpinned = false", "allow-stale = true", "no-private-addresses = false",
        "offline = false", 'external-assets-dir = "x"', 'external-assets-dir = "../assets"', 'assets-dir = "/etc"',
        'assets-dir = "../x"', 'assets-dir = "a/../../x"', 'assets-dir = "~/x"', 'assets-dir = "."',
        'assets-dir = ".git/hooks"', 'assets-dir = "a/.GIT"', 'assets-dir = "C:/x"', 'assets-dir = "a\\\\..\\\\b"',
        "parallel = 65", "max-per-host = 1000",
    ],
)  # fmt: skip
def test_a_project_loosens_nothing(text: str) -> None:
    """The file may come from a stranger: a key that allows more than the default is refused, with where to put it."""
    with pytest.raises(ConfigurationError, match=r"pyproject\.toml: .*(project|file|git)"):
        of_project(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("paralel = 8", "paralel: is not a setting; did you mean parallel?"),
        ("NO_PIPELINING = true", "NO_PIPELINING: is not a setting; did you mean no-pipelining?"),
        ("max_per_host = 8", "did you mean max-per-host?"),
        ("zzz = 8", "zzz: is not a setting; the settings are assets-dir, "),
        ("token = 'x'", "token: is not a setting"),
        ("proxy = 'x'", "proxy: is not a setting"),
        ("parallel = '8'", "parallel: must be a whole number of at least 1, "),
        ("parallel = true", "must be a whole number"),
        ("offline = 1", "offline: must be true or false, not 1"),
        ("offline = 'no'", "must be true or false"),
        ("mirrors = 'both'", "must be one of 'fallback', 'together'"),
        ("limit-rate = 'fast'", "limit-rate: 'fast' is not a speed"),
        ("limit-rate = '0K'", "must be a finite number above 0"),
        ("stall-timeout = 0", "stall-timeout: must be a finite number above 0"),
        ("patience = nan", "must be a finite number"),
        ("assets-dir = 3", "assets-dir: must be the path of a folder"),
        ("parallel = [", "not TOML"),
        ("a = " + "[" * 100_000, "not TOML"),
    ],
)
def test_what_is_wrong_is_told_with_its_key(text: str, told: str) -> None:
    """A file with a mistake is refused, because a typo must not allow what was meant to be forbidden."""
    for read in (of_user, of_project):
        with pytest.raises(ConfigurationError) as caught:
            read(text)
        assert told in str(caught.value)
        assert len(str(caught.value)) < 500


def test_all_problems_are_told() -> None:
    """All problems are reported, not only the first."""
    with pytest.raises(ConfigurationError) as caught:
        of_user("paralel = 8\nretries = -1\npatience = 3")
    assert [problem.where for problem in caught.value.problems] == ["paralel", "retries"]
    assert str(caught.value).startswith("config.toml: 2 problems\n  paralel: ")


@pytest.mark.parametrize(
    "text", ["", "[project]\nname = 'grym-fetch'\n", "tool = 3 # grym-fetch", "[tool.other]\nx = [["]
)
def test_what_has_no_table_of_ours_says_nothing(text: str) -> None:
    """A pyproject.toml belongs to other tools, too: without our table, nothing in it matters."""
    assert parse_configuration(text.encode(), "pyproject.toml", "project") == Configuration()


def test_what_is_no_table_or_no_text_is_refused() -> None:
    """A value in place of our table, bytes that are not UTF-8, and a file larger than anyone writes are refused."""
    for data in (
        b"[tool]\ngrym-fetch = 3",
        b"[tool.grym-fetch]\nx = '\xff'",
        b"# grym-fetch" + b" " * MAX_CONFIGURATION_BYTES,
    ):
        with pytest.raises(ConfigurationError):
            parse_configuration(data, "pyproject.toml", "project")


def test_the_stronger_file_wins_key_by_key() -> None:
    """Keys that the stronger file leaves out come from the weaker one."""
    both = of_project("parallel = 8").over(of_user("parallel = 2\nretries = 1"))
    assert both.fetching == {"parallel": 8, "retries": 1}
    assert both.choices["retries"].source == "config.toml"
    assert both.sources == ("pyproject.toml", "config.toml")
